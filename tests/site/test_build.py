"""What a build makes of the pages, in small sites."""

import csv
import io
import re

import matplotlib.pyplot as plt
import nbformat
from bs4 import BeautifulSoup

from builds import DRAW, build, git, write_script
from gallery.run import figures
from helpers import PAGE, check_html, listed


def read(html):
    """Return an HTML file."""
    return BeautifulSoup(html.read_text(), "html.parser")


def test_a_second_build_runs_nothing_again(copy, write_page):
    write_page(name="plot_twin")
    run = build(copy)
    assert run.returncode == 0, run.stderr
    images = sorted((copy / "docs/auto_examples").rglob("*_001*.png"))
    made = [image.stat().st_mtime_ns for image in images]
    assert len(made) == 8
    run = build(copy)
    assert run.returncode == 0, run.stderr
    assert [image.stat().st_mtime_ns for image in images] == made
    assert "0 added, 0 changed, 0 removed" in run.stdout


def test_a_new_page_is_listed_in_its_place(copy, write_page):
    """On documents that were built before it, too."""
    flagship, new = PAGE.stem, "plot_interpolation"
    write_page(name="plot_a_page_without_a_place")
    for names in ([flagship], [flagship, new]):
        html = write_page(name=names[-1])
        run = build(copy)
        assert run.returncode == 0, run.stderr
        names.append("plot_a_page_without_a_place")
        for home in ("index.html", "auto_examples/index.html"):
            assert listed(copy / "html" / home) == [names, names]
        # On a page, its own entry has no address.
        assert listed(html.with_name(f"{names[-1]}.html")) == [[], names[:-1]]


LINE = """
import matplotlib.pyplot as plt

fig, ax = plt.subplots(layout="constrained")
_ = ax.plot({0}, label="a line")
_ = fig.suptitle("{0}"), fig.legend(loc="outside right")
plt.show()
"""


SHOWN = """
import matplotlib.pyplot as plt

for title in ("first", "second"):
    _ = plt.figure().suptitle(title), plt.plot([1, 2])
plt.show()
print(f"open: {plt.get_fignums()}")
_ = plt.figure().suptitle("third"), plt.plot([1, 2])
"""


def test_a_page_finds_a_display(copy, write_page):
    """Figures that it shows get closed, and are seen with those that are open."""
    page = write_page(SHOWN)
    run = build(copy)
    assert run.returncode == 0, run.stderr
    html = BeautifulSoup(page.read_text(), "html.parser")
    assert "open: []" in html.select_one(".sphx-glr-script-out").get_text()
    images = html.select("img.only-light")
    assert [x["alt"] for x in images] == ["first", "second", "third"]


def card(code, mode):
    """Return the card of what ``code`` draws, as a file."""
    exec(code, drawn := {})
    if mode == "_dark":
        figures.darken(drawn["fig"])
    file = io.BytesIO()
    figures.stripped(drawn["fig"]).savefig(file, dpi=figures.CARD_DPI)
    plt.close("all")
    return file.getvalue()


def test_cards_are_of_what_their_pages_draw(copy, write_page):
    """To the byte, in both modes, and when a page draws something else."""
    for values in ([1, 2], [3, 1]):
        codes = {PAGE.stem: LINE.format(values), "plot_other": LINE.format([2, 1, 3])}
        for name, code in codes.items():
            write_page(code, name=name)
        run = build(copy)
        assert run.returncode == 0, run.stderr
        expected = {
            f"sphx_glr_{name}_card{mode}.png": card(code, mode)
            for name, code in codes.items()
            for mode in ("", "_dark")
        }
        for html in (copy / "html/index.html", copy / "html/auto_examples/index.html"):
            soup = read(html)
            images = soup.select(".page-entry img, .sphx-glr-thumbcontainer img")
            files = [html.parent / image["src"] for image in images]
            assert {file.name: file.read_bytes() for file in files} == expected


def test_a_build_without_plots_does_not_hide_a_later_one(fresh):
    html = write_script(fresh, 'print("it ran")\n' + DRAW)
    for arguments, ran in ((["-Dplot_gallery=0"], False), ([], True)):
        run = build(fresh, *arguments)
        assert run.returncode == 0, run.stderr
        text = html.read_text()
        for part in ("sphx-glr-script-out", "page-foot", "sphx-glr-single-img"):
            assert (part in text) == ran
        assert "page-run" in text
        assert ("of memory at most" in text) == ran
        assert "memory usage" not in text
        for mode in ("light", "dark"):
            images = read(fresh / "html/index.html").select(f"article img.only-{mode}")
            assert len(images) == (1 if ran else 0)


def test_one_page_alone(copy, write_page):
    """It is run and shown; the others stay as they are, and run when all are built."""
    one, other = (
        write_page("print(1)\n" + DRAW, name=x) for x in (PAGE.stem, "plot_other")
    )

    def built_with(*arguments):
        """Build; return how many outputs each page shows."""
        run = build(copy, *arguments)
        assert run.returncode == 0, run.stderr
        outputs = ".sphx-glr-script-out, .sphx-glr-single-img.only-light"
        return [len(read(html).select(outputs)) for html in (one, other)]

    only = "-Dgallery_page=plot_other"
    assert built_with(only) == [0, 2]
    assert built_with(only) == [0, 2]
    assert built_with() == [2, 2]
    # What runs pages changed: one of them runs, the other keeps what it shows.
    figures = copy / "docs/_ext/gallery/run/figures.py"
    figures.write_text(figures.read_text() + "\n")
    assert built_with(only) == [2, 2]


def test_one_page_that_is_not_there(copy):
    run = build(copy, "-Dgallery_page=plot_sgd")
    assert run.returncode == 1
    line = "There is no page plot_sgd; the pages are plot_sgd_solvers"
    assert run.stderr.splitlines() == [line]


def test_documents_written_by_two_processes_have_all_images(copy, write_page):
    """Sphinx writes no document in parallel until there are more than five."""
    names = [f"plot_page_{number}" for number in range(6)]
    for name in names:
        write_page(text="As :math:`x`.", name=name)
    run = build(copy, "-j2", "-v")
    assert run.returncode == 0, run.stderr
    # A process writes several documents: from the first .. to the last.
    assert re.search(r"writing output.* \.\. ", run.stdout)
    for name in names:
        page = copy / f"html/auto_examples/deep_learning/{name}.html"
        images = read(page).select("img.sphx-glr-single-img")
        assert len(images) == 2
        for image in images:
            for part in image["srcset"].split(", "):
                assert (page.parent / part.split()[0]).exists(), part


# What is on a page


TITLE = """=====
Title
=====
Text.
"""


def test_line_and_foot_have_their_places_under_any_title(copy, write_page):
    """With lines below and above it, and with sections below it."""
    page = write_page(f"print(1)\n{DRAW}\n# %%\n# A section\n# ---------\n# Text.\n")
    script = copy / "examples/deep_learning/plot_sgd_solvers.py"
    script.write_text(script.read_text().replace("Title\n=====\n", TITLE))
    run = build(copy)
    assert run.returncode == 0, run.stderr
    html = read(page).article
    parts = [
        html.h1,
        html.select_one(".page-run"),
        html.find("p", string="Text."),
        html.select_one(".highlight-Python"),
        html.h2,
        html.select_one(".page-foot"),
        html.select_one(".page-foot + .sphx-glr-footer"),
    ]
    order = list(html.descendants)
    places = [next(i for i, tag in enumerate(order) if tag is part) for part in parts]
    assert places == sorted(places)
    assert "zip" not in html.get_text()


TAKE = """
import time

import numpy as np

_ = np.ones(40_000_000)
time.sleep(1.6)
del _
"""


def test_a_page_tells_what_it_took(copy, write_page):
    """Each page its own time and memory, once."""
    pages = write_page(TAKE + DRAW), write_page(name="plot_small")
    run = build(copy)
    assert run.returncode == 0, run.stderr
    took = []
    for page in pages:
        text = read(page).article.get_text()
        seconds = re.search(r"· (\d+) s on \d+ cores ·", text)[1]
        memory = re.search(r"([\d.]+) GB of memory at most", text)[1]
        took.append((int(seconds), float(memory)))
        assert text.lower().count("memory") == 1
    (large_time, large), (small_time, small) = took
    assert large_time >= small_time + 1
    assert 0.25 < large - small < 0.45
    assert 0.05 < small < 0.5


def test_mathematics(copy, write_page):
    r"""Bars stretch after \left and \right alone, as in TeX."""
    formulas = r"\|f\|^2", r"\left\|f\right\|^2"
    page = write_page(text=" ".join(f":math:`{formula}`" for formula in formulas))
    run = build(copy)
    assert run.returncode == 0, run.stderr
    check_html(page)
    plain, stretched = read(page).select("article math")
    assert [x.get("stretchy") for x in plain.select("mo")] == ["false", "false"]
    assert [x.get("stretchy") for x in stretched.select("mo")] == [None, None]
    assert [x.name for x in stretched.msup.find_all(recursive=False)] == ["mrow", "mn"]


def test_quotes_in_titles_do_no_harm(copy, write_page):
    title, label = """Is "a" < 'b' & `c` |d|?""", """*one* `"two"` |three| <b>"""
    html = write_page(
        "import matplotlib.pyplot as plt\n\nfig, ax = plt.subplots()\n"
        f"_ = ax.plot([1, 2], label={label!r}), fig.suptitle({title!r})\n"
        f"_ = ax.set(title={title!r}, xlabel={label!r})\nplt.show()\n",
        text="A question. " * 20,  # as long as the description of the page may be
    )
    run = build(copy)
    assert run.returncode == 0, run.stderr
    check_html(html)
    page = read(html)
    assert [x["alt"] for x in page.select(".sphx-glr-single-img")] == [title, title]
    text = " ".join(page.select_one(".figure-description ul").get_text().split())
    assert f"{label} goes from 1 to 2" in text.replace("“", '"').replace("”", '"')
    (numbers,) = (copy / "docs/auto_examples").rglob("*.csv")
    with numbers.open(newline="") as file:
        assert list(csv.reader(file))[:2] == [
            ["panel", "kind", "label", label, "y"],
            [title, "line", label, "0.0", "1.0"],
        ]


TABLE = """
class Table:
    def _repr_html_(self):
        return "<table><tr><td>a &amp; b</td></tr></table>"


Table()
"""


def test_html_is_on_the_page_and_in_the_notebook(copy, write_page):
    """Of an object in which code ends, and in the text."""
    page = write_page(f"{DRAW}\n# %%\n# .. raw:: html\n#\n#    <b>bold</b>\n{TABLE}")
    run = build(copy)
    assert run.returncode == 0, run.stderr
    assert [x.get_text() for x in read(page).select("article td, article b")] == [
        *("bold", "a & b")
    ]
    (file,) = (copy / "docs/auto_examples").rglob("*.ipynb")
    *_, text, code = nbformat.read(file, nbformat.NO_CONVERT).cells
    assert "<b>bold</b>" in text.source
    (output,) = code.outputs
    assert output.data["text/html"].strip().startswith("<table><tr><td>a &amp; b</td>")
    assert output.data["text/plain"].strip() == "a & b"


def test_a_build_that_knows_where_it_will_be(fresh):
    """Repository, branch and address give the links that are absent without them."""
    html = write_script(fresh)
    git("init", cwd=fresh)
    git("add", "conf.py", "docs", "examples", cwd=fresh)
    git("commit", "-m", "all", cwd=fresh)
    head = git("rev-parse", "HEAD", cwd=fresh).stdout[:12]
    run = build(
        fresh,
        GITHUB_REPOSITORY="owner/name",
        NOTEBOOK_BRANCH="built",
        SITE_URL="https://owner.example/name/",
    )
    assert run.returncode == 0, run.stderr
    page = read(html)
    *_, colab = page.select(".page-run a")
    place = "docs/auto_examples/deep_learning/plot_sgd_solvers.ipynb"
    start = "https://colab.research.google.com/github/owner/name/blob/built/"
    assert colab["href"] == start + place
    assert (fresh / place).exists()
    (commit,) = page.select(".page-foot a")
    assert commit["href"] == f"https://github.com/owner/name/commit/{head}"
    links = [x["href"] for x in page.select("footer.bd-footer-content a")]
    source = "https://github.com/owner/name"
    script = f"{source}/blob/HEAD/examples/deep_learning/plot_sgd_solvers.py"
    assert links[-3:] == [source, script, f"{source}/issues"]
    home = read(fresh / "html/index.html").select("footer.bd-footer-content a")
    assert [x["href"] for x in home][-2:] == [source, f"{source}/issues"]
    (graph,) = page.select("meta[property='og:image']")
    assert graph["content"].startswith("https://owner.example/name/_images/")
    sitemap = (fresh / "html/sitemap.xml").read_text()
    assert "<loc>https://owner.example/name/index.html</loc>" in sitemap
    assert '"/name/_static/' in (fresh / "html/404.html").read_text()

    # A change that is not committed is told.
    (fresh / "conf.py").write_text((fresh / "conf.py").read_text() + "\n")
    write_script(fresh, DRAW.replace("2", "3"))
    run = build(fresh, GITHUB_REPOSITORY="owner/name")
    assert run.returncode == 0, run.stderr
    page = read(html)
    assert not page.select(".page-run a[href*=colab]")
    foot = page.select_one(".page-foot")
    assert f"at commit {head}-dirty" in foot.get_text()
    assert not foot.select("a")
