"""The built site: what is on its pages, and the files around them."""

import csv
import importlib
import json
import os
import platform
import re
import runpy
import subprocess
import sys
from functools import cache
from importlib import metadata
from itertools import combinations, groupby
from operator import itemgetter, le
from pathlib import PurePosixPath
from urllib.parse import urlsplit
from xml.etree import ElementTree

import numpy as np
import pytest
from bs4 import BeautifulSoup
from packaging.requirements import Requirement
from PIL import Image

from gallery.pages import read_block
from gallery.run.reading import FEW
from gallery.show import findings
from helpers import (
    DATA,
    HTML,
    PAGE,
    PAGES,
    ROOT,
    SHA256,
    SITE,
    SOLVERS,
    TUNED,
    built,
    check_html,
    check_log,
    flagship,
    listed,
)


@pytest.fixture(scope="module")
def html(soup):
    return soup.article


@cache
def read(file):
    return BeautifulSoup(file.read_text(), "html.parser")


def file_of(script, link):
    """Return the file that a link on a page leads to."""
    return (built(script).parent / link).resolve()


def rows(fields):
    """Return a field list as a dict of texts."""
    names = [name.get_text().rstrip(":") for name in fields.find_all("dt")]
    texts = [text.get_text().strip() for text in fields.find_all("dd")]
    return dict(zip(names, texts, strict=True))


# Every page


def check_order(html, parts):
    """Check that ``html`` has all ``parts``, in their order."""
    assert None not in parts
    order = list(html.descendants)
    places = [next(i for i, tag in enumerate(order) if tag is part) for part in parts]
    assert places == sorted(places)


def test_parts_in_order(html):
    """Note, title, line, introduction, code, what it printed, discussion, foot.

    The first figure is in the introduction, or where it was made.
    """
    codes = html.select(".highlight-Python")
    start = [
        html.select_one(".sphx-glr-download-link-note a"),
        html.h1,
        html.select_one(".page-run"),
        html.select_one(".page-run ~ p"),
    ]
    captions = html.select(".page-caption")
    code = codes[:1]
    figure = [
        html.select_one("img.sphx-glr-single-img"),
        *captions,
        html.select_one(".figure-description"),
    ]
    log = html.select(".sphx-glr-script-out")
    end = [
        html.select_one("#discussion"),
        html.find("p", class_="rubric", string="References"),
        html.select_one(".sphx-glr-timing"),
        html.select_one(".page-foot"),
        html.select_one(".sphx-glr-download-jupyter"),
        html.select_one(".sphx-glr-download-python"),
        html.select_one(".sphx-glr-signature"),
    ]
    answer_first = [*figure, *code] if captions else [*code, *figure]
    for made in (codes[-1:], answer_first, code + log):
        check_order(html, start + made + end)
    assert html.select_one(start[0]["href"])
    assert "zip" not in html.select_one(".sphx-glr-footer").get_text()


def test_how_to_run_a_page(script, html):
    """One line with downloads and time; in a fold, requirements from the script."""
    line, fold = (
        html.select_one(".page-run > p"),
        html.select_one(".page-run > details"),
    )
    names = [script.name, f"{script.stem}.ipynb"]
    assert [file_of(script, link["href"]).name for link in line.select("a")] == names
    block = read_block(script)
    minutes, seconds = re.search(
        r"(\d+) minutes ([\d.]+) seconds",
        html.select_one(".sphx-glr-timing").get_text(),
    ).groups()
    time = 60 * int(minutes) + float(seconds)
    assert line.get_text().split(" · ") == [
        f"Run it yourself: uv run {script.name}",
        "script",
        "notebook",
        f"{time:.0f} s on {os.cpu_count()} cores",
        "",
    ]
    assert fold.summary.get_text() == "without uv"
    needs = f"The page needs Python {block['requires-python']}, and "
    text = fold.select("p")[-1].get_text()
    assert text.startswith(needs)
    memory = re.fullmatch(
        r"(\d\.\d) GB of memory at most in its own process, "
        r"with what earlier pages left\.",
        text.removeprefix(needs),
    )
    # A page that imports no TensorFlow needs less, if none came before it.
    least = 0.3 if "tensorflow-datasets" in block["dependencies"] else 0.1
    assert least < float(memory[1]) < 5
    install, run = fold.pre.get_text().strip().splitlines()
    assert run == f"python {script.name}"
    # As a shell splits it.
    code = "import json, sys; print(json.dumps(sys.argv[1:]))"
    command = install.replace("pip install", f'"{sys.executable}" -c "{code}"')
    shell = subprocess.run(command, shell=True, capture_output=True, text=True)  # noqa: S602
    assert json.loads(shell.stdout) == block["dependencies"]


def test_foot(script, html):
    """What the page was made with: versions, device, data, date and commit."""
    fields = rows(html.select_one("details.page-foot dl"))
    versions = dict(line.rsplit(" ", 1) for line in fields["Versions"].split(", "))
    assert versions.pop("Python") == platform.python_version()
    needs = map(Requirement, read_block(script)["dependencies"])
    used = {x.name for x in needs if not x.marker or x.marker.evaluate()}
    assert used == set(versions)
    assert versions == {name: metadata.version(name) for name in versions}
    assert fields["Device"] == f"cpu, {os.cpu_count()} cores"
    assert ("Data set" in fields) == ("tensorflow-datasets" in used)
    if "Data set" in fields:
        assert fields["Data set"].startswith(f"{' '.join(DATA)}, ")
        assert fields["Data set"].endswith(f" {SHA256}")
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d, at commit [0-9a-f]{12}(-dirty)?", fields["Run on"]
    )


def test_figures(script, html):
    """Light and dark, as large as the page says, twice as dense, and described."""
    figures = html.select("img.sphx-glr-single-img")
    assert figures
    for light, dark in zip(figures[::2], figures[1::2], strict=True):
        assert "only-light" in light["class"] and "only-dark" in dark["class"]
        assert light["src"] != dark["src"]
        assert light["alt"] == dark["alt"] != ""
        for figure in (light, dark):
            once, twice = figure["srcset"].removesuffix(" 2x").split(", ")
            assert figure["srcset"].endswith(" 2x")
            assert figure["src"] == once
            size = int(figure["width"]), int(figure["height"])
            with Image.open(file_of(script, once)) as image:
                assert image.size == size
            with Image.open(file_of(script, twice)) as image:
                assert image.size == (2 * size[0], 2 * size[1])
            for link in (once, twice):
                with Image.open(file_of(script, link)) as image:
                    corner = image.convert("L").getpixel((0, 0))
                assert corner == 255 if figure is light else corner < 60
            assert size[0] <= 720
            description = html.find(id=figure["aria-details"])
            assert description.summary.get_text() == "What the figure shows"


def series(file):
    """Return the lines of a figure, (panel, {line: points}) each, and what x is.

    Points are (x, y), and where lines have bands (x, y, lowest, highest).
    """
    with file.open(newline="") as lines:
        header, *table = csv.reader(lines)
    *first, x, _ = header[:5]
    assert first == ["panel", "kind", "label"]
    assert header[5:] in ([], ["lowest", "highest"])
    panels = []
    for panel, rows in groupby(table, key=itemgetter(0)):
        panels.append((panel, {}))
        for _, kind, line, *numbers in rows:
            if kind != "line":
                continue
            points = panels[-1][1].setdefault(line, [])
            points.append([float(number or "nan") for number in numbers])
    return panels, x


def values_of_bars(file):
    """Return the values of the horizontal bars of each panel of a figure."""
    panels = {}
    with file.open(newline="") as lines:
        for panel, kind, _, value, *_ in csv.reader(lines):
            if kind == "horizontal bars":
                panels.setdefault(panel, []).append(float(value))
    return list(panels.values())


def test_numbers_of_the_figures(script, html):
    """Each description is of the numbers that it offers."""
    descriptions = html.select(".figure-description")
    assert len(descriptions) == len(html.select("img.sphx-glr-single-img.only-light"))
    for description in descriptions:
        (link,) = description.select("a.download")
        panels, _ = series(file_of(script, link["href"]))
        items = [" ".join(x.get_text().split()) for x in description.select("li")]
        for values in values_of_bars(file_of(script, link["href"])):
            for value in values if len(values) <= FEW else (min(values), max(values)):
                assert f"{value:.3g}" in " ".join(items)
        for item, (_, lines) in zip(items, panels, strict=True):
            for line, points in lines.items():
                _, values, *band = zip(*points, strict=True)
                text = f"{line} goes from {values[0]:.3g} to {values[-1]:.3g}, "
                text += f"always between {min(values):.3g} and {max(values):.3g}"
                lows, highs = band or (values, values)
                assert all(map(le, lows, values)) and all(map(le, values, highs))
                if lows != highs:
                    text += f" (its band between {min(lows):.3g} and {max(highs):.3g})"
                assert text in item


def test_references_have_links(html):
    references = html.select("aside.footnote")
    assert references
    for reference in references:
        assert reference.select_one("a.external[href^='https://']"), reference


def test_open_graph(script, soup):
    """Other sites show the title, the finding and a card of the size they ask for."""
    tags = soup.select("meta[property^='og:']")
    graph = {tag["property"].removeprefix("og:"): tag["content"] for tag in tags}
    assert len(graph) == len(tags)
    title = soup.h1.find(string=True)
    assert graph["title"] == title
    expected = findings.plain(findings.read(script).finding)
    (description,) = soup.select("meta[name=description]")
    assert graph["description"] == description["content"] == expected != ""
    path = built(script).relative_to(SITE).as_posix()
    assert urlsplit(graph["url"]).path == f"/{path}"
    assert graph["image:alt"].startswith(title)
    check_card(graph)


def check_card(graph):
    """Check the image that ``graph`` names: its size, and that it shows something."""
    with Image.open(SITE / urlsplit(graph["image"]).path.lstrip("/")) as card:
        assert card.format == "PNG"
        assert card.size == (1200, 630)
        assert card.size == (int(graph["image:width"]), int(graph["image:height"]))
        assert card.getpixel((0, 0)) == (255, 255, 255)
        for side in ((0, 0, 450, 630), (500, 0, 1200, 630)):  # title, figure
            assert card.crop(side).convert("L").getextrema()[0] < 60


def test_every_document_has_a_preview():
    """In whole sentences, with a card of its own."""
    cards = []
    for page in HTML:
        tags = read(page).select("meta[property^='og:']")
        graph = {tag["property"].removeprefix("og:"): tag["content"] for tag in tags}
        if page.name not in ("search.html", "genindex.html"):
            check_card(graph)
            cards.append(graph["image"])
            assert graph["description"][-1] in ".?!"
    assert len(set(cards)) == len(cards) > len(PAGES)


# The flagship


@flagship
def test_parts_of_the_flagship(html):
    parts = [
        html.find("p", string=re.compile("What do you gain")),
        html.select_one("li a[href*=PolyakSGD]"),
        html.select_one(".admonition-in-short"),
        html.select_one("img.sphx-glr-single-img"),
        html.select_one("table.printed"),
        *map(html.select_one, ("#imports", "#solvers", "#training", "#model-and-loss")),
        *map(html.select_one, ("#data", "#settings", "#tables-and-figure")),
        html.select_one(".sphx-glr-script-out"),
        html.select_one("#discussion"),
    ]
    check_order(html, parts)
    assert html.h1.get_text().startswith("Comparison of different SGD algorithms")
    code = html.select(".highlight-Python")[-1].get_text()
    assert code.endswith("run_main(main, ARGV)\n")
    figures = html.select("img.sphx-glr-single-img")
    finding = findings.plain(findings.read(PAGE).finding)
    expected = f"Classification on fashion_mnist: {finding}"
    assert [x["alt"] for x in figures] == 2 * [expected]


@flagship
def test_only_the_log_is_on_the_page(log):
    """No progress bar, no warning, no repr, no path."""
    check_log(log)


@flagship
def test_numbers_of_the_flagship(script, html, log):
    """They are of all iterations, and the log begins as all seeds do."""
    (link,) = html.select(".figure-description a.download")
    panels, x = series(file_of(script, link["href"]))
    assert x == "x"  # panels differ in theirs
    labels = ["Polyak max_stepsize=1.0", "Armijo aggressiveness=0.9"]
    others = ["RMSProp stepsize=0.001", "SGD stepsize=0.100", *TUNED]
    (above, steps), (below, losses) = panels
    assert (above, list(steps)) == ("step size", labels)
    assert (below, list(losses)) == ("training loss", labels + others)
    for first, lines in enumerate((steps, losses)):
        for points in lines.values():
            assert [x for x, *_ in points] == list(range(first, first + 101))
    for name, points in zip(SOLVERS, steps.values(), strict=False):
        (stepsize,) = re.findall(rf"\[{name}\] \(   0\).*stepsize=(\S+)", log)
        assert points[0] == [0, *[float(stepsize)] * 3] == [0, 1, 1, 1]


@flagship
def test_references_of_the_flagship(html):
    links = [link["href"] for link in html.select("aside.footnote a.external")]
    assert links == [f"https://arxiv.org/abs/{x}" for x in ("2002.10542", "1905.09997")]


# The lists of pages


def ordered_names():
    """Return the names of the pages in reading order."""
    order = runpy.run_path(ROOT / "conf.py")["gallery_reading_order"]
    names = {page.stem for page in PAGES}
    assert set(order) <= names
    return [*order, *sorted(names - set(order))]


def test_pages_are_listed_in_the_order_of_the_configuration():
    expected = ordered_names()
    for file in ("index.html", "auto_examples/index.html"):
        assert listed(SITE / file) == [expected, expected]


def test_the_home_page_has_what_each_page_asks_and_finds():
    entries = read(SITE / "index.html").select(".page-entry")
    for name, entry in zip(ordered_names(), entries, strict=True):
        (script,) = (page for page in PAGES if page.stem == name)
        page = findings.read(script)
        assert page.question.endswith("?") and page.finding.startswith("**")
        texts = [" ".join(x.get_text().split()) for x in entry.select("p")]
        texts = [text.replace("\u2019", "'") for text in texts]
        expected = page.title, page.question, page.finding
        assert texts == [findings.plain(text) for text in expected]


def test_the_home_page_says_which_rule_to_use():
    """Each line leads to the page that has the evidence."""
    (table,) = read(SITE / "index.html").select("table.rules")
    heads, *lines = [row.select("th, td") for row in table.select("tr")]
    names = ["situation", "rule", "what it costs", "evidence"]
    assert [head.get_text() for head in heads] == names
    assert len(lines) >= 4
    for line in lines:
        assert all(cell.get_text().strip() for cell in line)
        assert PurePosixPath(line[-1].a["href"]).stem in ordered_names()


CARDS = {
    "index.html": ".page-entry img",
    "auto_examples/index.html": ".sphx-glr-thumbcontainer img",
}


def test_cards_have_a_dark_twin():
    for page, selector in CARDS.items():
        images = read(SITE / page).select(selector)
        assert len(images) == 2 * len(PAGES)
        for light, dark in zip(images[::2], images[1::2], strict=True):
            assert "only-light" in light["class"] and "only-dark" in dark["class"]
            shades = []
            for source in (light["src"], dark["src"]):
                with Image.open((SITE / page).parent / source) as image:
                    data = image.convert("LA").tobytes()
                pixels = zip(data[::2], data[1::2], strict=True)
                opaque = [lightness for lightness, alpha in pixels if alpha > 250]
                assert max(opaque) - min(opaque) > 100
                shades.append(sorted(opaque)[len(opaque) // 2])
            assert shades[0] > 200 and shades[1] < 60


def test_no_image_is_on_the_home_page_twice():
    """None is fetched before it is seen; a script tells the first that it is."""
    images = read(SITE / "index.html").select("article img")
    assert {image.get("loading") for image in images} == {"lazy"}
    assert len({image["src"] for image in images}) == len(images)


def test_cards_tell_pages_apart():
    """A fifth of any two is different, as far as 40 x 28 pixels show."""
    cards = {}
    for card in read(SITE / "index.html").select(".page-entry"):
        name = PurePosixPath(card.a["href"]).stem
        for image in card.select("img"):
            assert PurePosixPath(image["src"]).name.startswith(f"sphx_glr_{name}_card")
            with Image.open(SITE / image["src"]) as picture:
                small = picture.convert("RGB").resize((40, 28), Image.Resampling.BOX)
            cards[image["src"]] = np.array(small, int)
    assert len(cards) == 2 * len(PAGES)
    for (one, pixels), (other, others) in combinations(cards.items(), 2):
        differences = np.abs(pixels - others).max(axis=2)
        assert (differences > 40).mean() > 0.2, (one, other)


# Its links


@flagship
def test_code_links_to_documentation(html):
    links = {}
    for link in html.select(".highlight a"):
        links.setdefault(link.get_text(), set()).add(link["href"])
    for name, address in {
        "jax.jit": "https://docs.jax.dev/en/latest/_autosummary/jax.jit.html#jax.jit",
        "jaxopt.PolyakSGD": "https://jaxopt.github.io/stable/_autosummary/"
        "jaxopt.PolyakSGD.html#jaxopt.PolyakSGD",
        "optax.rmsprop": "https://optax.readthedocs.io/en/latest/api/generated/"
        "optax.rmsprop.html#optax.rmsprop",
        "nn.Dense": "https://flax-linen.readthedocs.io/en/latest/api_reference/"
        "flax.linen/layers.html#flax.linen.Dense",
        "np.quantile": "https://numpy.org/doc/stable/reference/generated/"
        "numpy.quantile.html#numpy.quantile",
        "plt.subplots": "https://matplotlib.org/stable/api/_as_gen/"
        "matplotlib.pyplot.subplots.html#matplotlib.pyplot.subplots",
        "uniform_filter1d": "https://docs.scipy.org/doc/scipy/reference/generated/"
        "scipy.ndimage.uniform_filter1d.html#scipy.ndimage.uniform_filter1d",
        "partial": "https://docs.python.org/3/library/functools.html#functools.partial",
    }.items():
        assert links[name] == {address}


def test_inventories_name_what_there_is():
    """Every entry can be imported, in the versions that the pages run with."""
    for inventory in (ROOT / "docs/inventories").iterdir():
        lines = [x for x in inventory.read_text().splitlines() if x[0] != "#"]
        assert lines
        for name in (line.split()[0] for line in lines):
            module, _, attribute = name.rpartition(".")
            assert hasattr(importlib.import_module(module), attribute), name


# The files around the pages


def test_every_page_is_valid_html(tmp_path):
    assert len(HTML) > 5
    check_html(*HTML)
    broken = tmp_path / "broken.html"
    broken.write_text(HTML[0].read_text().replace("<main", "<main tooltip='a'"))
    with pytest.raises(AssertionError, match="tooltip"):
        check_html(broken)


def test_titles_tell_pages_apart():
    """Each is that of the page, then of the site; the home page has that alone."""
    titles = [read(page).title.get_text() for page in HTML]
    assert len(set(titles)) == len(titles)
    assert "Stochastic solver gallery" in titles
    assert all(title.count("Stochastic solver gallery") == 1 for title in titles)


def test_every_page_tells_its_licence():
    for page in HTML:
        (footer,) = read(page).select("footer.bd-footer-content")
        text = " ".join(footer.get_text().split())
        assert "Apache License 2.0" in text and "To cite a page" in text


def test_icons_come_once():
    """As a font, and not as a script, too."""
    for page in HTML:
        assert not read(page).select("script[src*=fontawesome]")


def test_sitemap_names_the_pages():
    sitemap = ElementTree.parse(SITE / "sitemap.xml").getroot()
    assert sitemap.tag == "{http://www.sitemaps.org/schemas/sitemap/0.9}urlset"
    places = [urlsplit(url[0].text) for url in sitemap]
    assert len({place[:2] for place in places}) == 1
    found = [place.path.lstrip("/") for place in places]
    pages = {page.relative_to(SITE).as_posix() for page in HTML}
    assert set(found) == pages - {"404.html", "genindex.html", "search.html"}
    assert len(set(found)) == len(found)


def test_llms_txt():
    """A title, a summary, and all documents as Markdown, each with what it is about."""
    title, _, summary, _, *lines = (SITE / "llms.txt").read_text().splitlines()
    assert title == "# Stochastic solver gallery"
    assert summary.startswith("> Executable documentation")
    found = [re.fullmatch(r"- \[.+\]\((.+)\): .+[.?!]", line)[1] for line in lines]
    files = [urlsplit(link).path.lstrip("/") for link in found]
    pages = {page.relative_to(SITE).with_suffix(".md").as_posix() for page in HTML}
    assert set(files) == pages - {"404.md", "genindex.md", "search.md"}
    assert [PurePosixPath(x).stem for x in files[: len(PAGES)]] == ordered_names()


def test_pages_as_markdown(script):
    """All of the text and the code, and no markup but Markdown's."""
    text = built(script).with_suffix(".md").read_text()
    page = findings.read(script)
    start = text[text.index("# ") :]
    assert start.startswith(f"# {page.title}\n")
    assert "**In short**" in text
    assert "**{1}**".format(*page.finding.split("**")) in text
    for code in read(built(script)).select(".highlight-Python pre"):
        assert f"```python\n{code.get_text().strip()}" in text
    outside = re.sub("```.*?```|`.*?`", "", text, flags=re.DOTALL)
    assert not re.search(r"^\.\. |::$|:\w+:`|<(div|img|p|details|script)\b", outside)


def test_a_missing_page_can_be_anywhere():
    """What 404.html needs is named from the root, for it is shown at any address."""
    soup = read(SITE / "404.html")
    places = [tag["href"] for tag in soup.select("link[rel=stylesheet]")]
    places += [tag["src"] for tag in soup.select("script[src]")]
    assert len(places) > 10
    assert all(place[0] == "/" != place[1] for place in places)
