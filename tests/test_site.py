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
from importlib import metadata
from urllib.parse import urlsplit
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import numpy as np
import pytest
from bs4 import BeautifulSoup
from conftest import (
    FLAGSHIP,
    PAGE,
    ROOT,
    SITE,
    check_html,
    check_log,
    listed,
    run_script,
)
from packaging.requirements import Requirement
from page_frame import read_block
from PIL import Image

PAGES = sorted(SITE.rglob("plot_*.html"))


@pytest.fixture(scope="module")
def soup():
    assert FLAGSHIP.exists(), "the site is not built: make html"
    return BeautifulSoup(FLAGSHIP.read_text(), "html.parser")


@pytest.fixture(scope="module")
def html(soup):
    return soup.article


def file_of(link):
    """Return the file that a link on the flagship leads to."""
    return (FLAGSHIP.parent / link).resolve()


def rows(fields):
    """Return a field list as a dict of texts."""
    names = [name.get_text().rstrip(":") for name in fields.find_all("dt")]
    texts = [text.get_text().strip() for text in fields.find_all("dd")]
    return dict(zip(names, texts, strict=True))


# The page


def test_parts_in_order(html):
    """Note, title, box, introduction, code, figure, log, discussion, time, foot."""
    parts = [
        html.select_one(".sphx-glr-download-link-note a"),
        html.h1,
        html.select_one(".page-box"),
        html.find("p", string=re.compile("What do step sizes")),
        html.select_one("li a[href*=PolyakSGD]"),
        html.select_one("#settings"),
        html.select_one(".highlight-Python"),
        *map(html.select_one, ("#data", "#model", "#solvers", "#training")),
        *map(html.select_one, ("#results", "#figure")),
        html.select_one("img.sphx-glr-single-img"),
        html.select_one(".figure-description"),
        html.select_one(".sphx-glr-script-out"),
        html.select_one("#discussion"),
        html.find("p", class_="rubric", string="References"),
        html.select_one(".sphx-glr-timing"),
        html.select_one(".page-foot"),
        html.select_one(".sphx-glr-download-jupyter"),
        html.select_one(".sphx-glr-download-python"),
        html.select_one(".sphx-glr-signature"),
    ]
    assert None not in parts
    order = list(html.descendants)
    places = [next(i for i, tag in enumerate(order) if tag is part) for part in parts]
    assert places == sorted(places)
    assert html.h1.get_text().startswith("Comparison of different SGD algorithms")
    assert html.select_one(parts[0]["href"])
    assert html.select(".highlight-Python")[-1].get_text().endswith("main(ARGV)\n")
    assert "zip" not in html.select_one(".sphx-glr-footer").get_text()


def test_box(html):
    """Downloads, requirements from the script's own block, and time; nothing else."""
    box = html.select_one(".page-box")
    assert [file_of(link["href"]).name for link in box.select("a")] == [
        "plot_sgd_solvers.py",
        "plot_sgd_solvers.ipynb",
    ]
    fields, block = rows(box.dl), read_block(PAGE)
    assert list(fields) == ["Download", "Run", "Requirements", "Running time"]
    assert fields["Download"] == "plot_sgd_solvers.py, plot_sgd_solvers.ipynb"
    assert fields["Run"].startswith("uv run plot_sgd_solvers.py")
    assert fields["Requirements"] == f"Python {block['requires-python']}"
    minutes, seconds = re.search(
        r"(\d+) minutes ([\d.]+) seconds",
        html.select_one(".sphx-glr-timing").get_text(),
    ).groups()
    time = 60 * int(minutes) + float(seconds)
    assert fields["Running time"] == f"{time:.0f} s on {os.cpu_count()} CPU cores"
    install, run = box.pre.get_text().strip().splitlines()
    assert run == "python plot_sgd_solvers.py"
    # As a shell splits it.
    code = "import json, sys; print(json.dumps(sys.argv[1:]))"
    command = install.replace("pip install", f'"{sys.executable}" -c "{code}"')
    shell = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert json.loads(shell.stdout) == block["dependencies"]


# The labels and pixels of all examples, one after the other.
FINGERPRINT = """
import hashlib, tensorflow_datasets as tfds
digest = hashlib.sha256()
for split in ["train", "test"]:
    data, info = tfds.load("fashion_mnist:3.*.*", split=split, with_info=True)
    (data,) = tfds.as_numpy(data.batch(100_000))
    digest.update(data["image"])
    digest.update(data["label"])
print(info.name, info.version, digest.hexdigest())
"""


def test_foot(html):
    """What the page was made with: versions, device, data, date and commit."""
    fields = rows(html.select_one(".page-foot + dl"))
    versions = dict(line.rsplit(" ", 1) for line in fields["Versions"].split(", "))
    assert versions.pop("Python") == platform.python_version()
    needs = map(Requirement, read_block(PAGE)["dependencies"])
    used = {x.name for x in needs if not x.marker or x.marker.evaluate()}
    assert used == set(versions)
    assert versions == {name: metadata.version(name) for name in versions}
    assert fields["Device"] == f"cpu, {os.cpu_count()} cores"
    name, version, digest = run_script("-c", FINGERPRINT).stdout.split()
    assert fields["Data set"].startswith(f"{name} {version}, ")
    assert fields["Data set"].endswith(f" {digest}")
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d, at commit [0-9a-f]{12}(-dirty)?", fields["Run on"]
    )


def test_only_the_log_is_on_the_page(log):
    """No progress bar, no warning, no repr, no path."""
    check_log(log)


# Its figure


def test_figure(html):
    light, dark = html.select("img.sphx-glr-single-img")
    assert "only-light" in light["class"] and "only-dark" in dark["class"]
    for figure in (light, dark):
        assert figure["alt"] == "Classification on fashion_mnist"
        once, twice = figure["srcset"].removesuffix(" 2x").split(", ")
        assert figure["srcset"].endswith(" 2x")
        assert figure["src"] == once
        size = int(figure["width"]), int(figure["height"])
        with Image.open(file_of(once)) as image:
            assert image.size == size
        with Image.open(file_of(twice)) as image:
            assert image.size == (2 * size[0], 2 * size[1])
        for file in map(file_of, (once, twice)):
            with Image.open(file) as image:
                corner = image.convert("L").getpixel((0, 0))
            assert corner == 255 if figure is light else corner < 60
        assert size[0] <= 720
        description = html.find(id=figure["aria-details"])
        assert description.summary.get_text() == "What the figure shows"
    assert light["src"] != dark["src"]


def test_numbers_of_the_figure(html, log):
    """The CSV has what is drawn, and the description is of the same numbers."""
    (link,) = html.select(".figure-description a.download")
    with file_of(link["href"]).open(newline="") as file:
        header, *table = csv.reader(file)
    assert header == ["panel", "line", "iteration", "value", "lowest", "highest"]
    series = {}
    for panel, line, *numbers in table:
        series.setdefault((panel, line), []).append([float(x) for x in numbers])
    labels = ["Polyak max_stepsize=1.0", "Armijo aggressiveness=0.9"]
    others = ["RMSProp stepsize=0.001", "SGD stepsize=0.100"]
    assert list(series) == [
        *(("step size", label) for label in labels),
        *(("training loss", label) for label in labels + others),
    ]
    items = [x.get_text() for x in html.select(".figure-description li")]
    texts = {text.partition(",")[0].lower(): text for text in items}
    for (panel, line), points in series.items():
        assert [x for x, *_ in points] == list(range(101))
        assert all(low <= value <= high for _, value, low, high in points)
        values = [value for _, value, _, _ in points]
        ends = f"{line} goes from {values[0]:.3g} to {values[-1]:.3g}, "
        ends += f"always between {min(values):.3g} and {max(values):.3g}"
        _, _, lows, highs = zip(*points, strict=True)
        ends += f" (its band between {min(lows):.3g} and {max(highs):.3g})"
        assert ends in texts[panel]
    # The log is that of one of the seeds.
    for match in re.finditer(r"\[(\S+).*\( *(\d+)\).*stepsize=(\S+)", log):
        (points,) = (p for (_, line), p in list(series.items())[:2] if match[1] in line)
        _, _, low, high = points[int(match[2])]
        assert low - 1e-6 <= float(match[3]) <= high + 1e-6


def test_pages_are_listed_in_the_order_of_the_configuration():
    order = runpy.run_path(ROOT / "conf.py")["reading_order"]
    names = {page.stem for page in PAGES}
    expected = [name for name in order if name in names]
    expected += sorted(names - set(order))
    for file in ("index.html", "auto_examples/index.html"):
        assert listed(SITE / file) == [expected, expected]


def test_cards_have_a_dark_twin():
    for page in ("index.html", "auto_examples/index.html"):
        soup = BeautifulSoup((SITE / page).read_text(), "html.parser")
        images = soup.select(".sphx-glr-thumbcontainer img")
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


def shape(image):
    """Return where ``image`` has colours, cut to these, as a vector of 40 x 30."""
    colourful = np.ptp(np.array(image.convert("RGB"), int), axis=2) > 20
    image = Image.fromarray(colourful)
    image = image.crop(image.getbbox()).convert("F")
    return np.array(image.resize((40, 30), Image.Resampling.BOX)).ravel()


def drawings(page):
    """Draw the numbers of the first figure on ``page``, panels stacked or in a row."""
    soup = BeautifulSoup(page.read_text(), "html.parser")
    link = soup.select_one(".figure-description a.download")
    with (page.parent / link["href"]).open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    panels = {panel: {} for panel, *_ in rows}
    for panel, line, *numbers in rows:
        panels[panel].setdefault(line, []).append([float(x) for x in numbers])
    texts = soup.select_one(".figure-description").select("li")
    for grid in ((len(panels), 1), (1, len(panels))):
        fig, axes = plt.subplots(*grid, squeeze=False, layout="constrained")
        for ax, text, lines in zip(axes.flat, texts, panels.values(), strict=True):
            axes_names = text.get_text().partition(":")[0].split(", against ")
            y, x = ("log" if "logarithmic" in x else "linear" for x in axes_names)
            ax.set(xscale=x, yscale=y)
            ax.set_axis_off()
            for points in lines.values():
                x, y, lowest, highest = np.transpose(points)
                ax.plot(x, y, "red", linewidth=4)
                ax.fill_between(x, lowest, highest, color="red", alpha=0.2)
        fig.canvas.draw()
        yield Image.fromarray(np.array(fig.canvas.buffer_rgba()))
        plt.close(fig)


def test_cards_are_of_the_numbers_of_their_pages():
    """As far as 40 x 30 pixels show; and so they tell pages apart."""
    soup = BeautifulSoup((SITE / "index.html").read_text(), "html.parser")
    cards, drawn = {}, {}
    for card in soup.select(".sphx-glr-thumbcontainer"):
        page = SITE / card.a["href"].partition("#")[0]
        with Image.open(SITE / card.img["src"]) as image:
            cards[page] = shape(image)
        drawn[page] = [shape(drawing) for drawing in drawings(page)]
    assert len(cards) == len(PAGES)
    for page, card in cards.items():
        match = {
            other: max(np.corrcoef(card, drawing)[0, 1] for drawing in others)
            for other, others in drawn.items()
        }
        assert match.pop(page) > 0.7, page
        assert all(value < 0.5 for value in match.values()), (page, match)


# Its links


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


def test_every_link_inside_the_site_leads_somewhere():
    for page in SITE.rglob("*.html"):
        if "_static" in page.parts:
            continue
        soup = BeautifulSoup(page.read_text(), "html.parser")
        for tag in soup.select("[href], [src]"):
            url = urlsplit(tag.get("href", tag.get("src")))
            if url.scheme or url.netloc:
                continue
            base = SITE if url.path.startswith("/") else page.parent
            target = (base / url.path.lstrip("/")).resolve() if url.path else page
            assert target.exists() and target.is_relative_to(SITE), (page, tag)
            if url.fragment and target.suffix == ".html":
                there = BeautifulSoup(target.read_text(), "html.parser")
                assert there.find(id=url.fragment), (page, tag)


def test_references_link_to_arxiv(html):
    links = [link["href"] for link in html.select("aside.footnote a.external")]
    assert links == [f"https://arxiv.org/abs/{x}" for x in ("2002.10542", "1905.09997")]


# The files around the pages


def test_every_page_is_valid_html(tmp_path):
    pages = [page for page in SITE.rglob("*.html") if "_static" not in page.parts]
    assert len(pages) > 5
    check_html(*pages)
    broken = tmp_path / "broken.html"
    broken.write_text(FLAGSHIP.read_text().replace("<main", "<main tooltip='a'"))
    with pytest.raises(AssertionError, match="tooltip"):
        check_html(broken)


def test_sitemap_names_the_pages():
    sitemap = ElementTree.parse(SITE / "sitemap.xml").getroot()
    assert sitemap.tag == "{http://www.sitemaps.org/schemas/sitemap/0.9}urlset"
    places = [urlsplit(url[0].text) for url in sitemap]
    assert len({place[:2] for place in places}) == 1
    found = [place.path.lstrip("/") for place in places]
    pages = {page.relative_to(SITE).as_posix() for page in SITE.rglob("*.html")}
    pages = {page for page in pages if not page.startswith("_static")}
    assert set(found) == pages - {"404.html", "genindex.html", "search.html"}
    assert len(set(found)) == len(found)


def test_open_graph(soup):
    tags = soup.select("meta[property^='og:']")
    graph = {tag["property"].removeprefix("og:"): tag["content"] for tag in tags}
    assert graph["title"] == "Comparison of different SGD algorithms"
    assert graph["description"].startswith("What do step sizes that adapt")
    assert graph["url"].endswith("/auto_examples/deep_learning/plot_sgd_solvers.html")
    with Image.open(SITE / urlsplit(graph["image"]).path.lstrip("/")) as image:
        assert image.format == "PNG"
    assert graph["image:alt"].startswith("The figure of the page")


def test_llms_txt():
    """A title, a summary, and links to the source of every page."""
    title, _, summary, *lines = (SITE / "llms.txt").read_text().splitlines()
    assert title == "# Stochastic solver gallery"
    assert summary.startswith("> Executable documentation")
    links = dict(re.findall(r"\[(.+)\]\((.+)\)", "\n".join(lines)))
    assert "Comparison of different SGD algorithms" in links
    found = {urlsplit(link).path.lstrip("/") for link in links.values()}
    sources = {x.relative_to(SITE).as_posix() for x in SITE.rglob("_sources/**/*.rst")}
    assert found == sources - {"_sources/404.rst"}


def test_a_missing_page_can_be_anywhere():
    """What 404.html needs is named from the root, for it is shown at any address."""
    soup = BeautifulSoup((SITE / "404.html").read_text(), "html.parser")
    places = [tag["href"] for tag in soup.select("link[rel=stylesheet]")]
    places += [tag["src"] for tag in soup.select("script[src]")]
    assert len(places) > 10
    assert all(place[0] == "/" != place[1] for place in places)
