"""How a page is laid out: answer, tables and folds, and the notebook beside it."""

import nbformat
import pytest
from bs4 import BeautifulSoup

from builds import DRAW, build, copy_sources, write_script
from gallery.show import notebooks, tables
from helpers import PAGE, check_html

LOG = "[SGD] (   0), loss=2.303\n[SGD] ( 100), loss=1.000"
TABLE = """\
Test accuracy of two seeds:
               median   evaluations      ms
solver       accuracy        a step  a step
----------   --------  ------------  ------
Polyak SGD      0.700          1.00    3.40
SGD             0.650             -      4"""
INTRODUCTION = """
A question.

.. admonition:: In short

   - **One** is best.

The scope.

**Figure:** A line.
"""
CODE = f'''
# %%
# Imports
# -------
# What is imported, as in :doc:`the first page <plot_sgd_solvers>`.
import matplotlib.pyplot as plt

# %%
# Solvers
# -------
# The subject.
subject = 1

# %%
# Settings
# --------
# Each is a flag.
#
# This is hidden.
needle = 2

# %%
# These are more.
more = 3

# %%
# Running
# -------
# It prints.
print("""{LOG}

{TABLE}
""")
_ = plt.figure().suptitle("first"), plt.plot([1, 2], label="a")
plt.show()
_ = plt.figure().suptitle("second"), plt.plot([2, 1], label="b")
plt.show()

# %%
# Discussion
# ----------
# A point.
'''


# Tables in text


def test_a_table_is_found_in_a_log():
    rest, (table,) = tables.split(f"{LOG}\n\n{TABLE}\n\nThe end.\n")
    assert rest == f"{LOG}\n\nThe end."
    assert table.caption == "Test accuracy of two seeds"
    assert table.headers == [
        *("solver", "median accuracy", "evaluations a step", "ms a step")
    ]
    assert table.rows == [
        ["Polyak SGD", "0.700", "1.00", "3.40"],
        ["SGD", "0.650", "-", "4"],
    ]
    assert [table.is_number(column) for column in range(4)] == [False, *3 * [True]]


def test_several_tables_and_nothing_else():
    plain = TABLE.partition("\n")[2]
    rest, found = tables.split(f"{plain}\n   \n\n{TABLE}")
    assert rest == ""
    assert [table.caption for table in found] == ["", "Test accuracy of two seeds"]
    assert found[0].rows == found[1].rows


@pytest.mark.parametrize(
    "log", [LOG, "Title\n-----\nText.", "--- ---\n1   2", "a   b\n--- ---", ""]
)
def test_what_is_no_table_stays(log):
    assert tables.split(log) == (log, [])


def test_times_that_are_hidden_are_numbers():
    text = "a    ms\n--   ------\nx    -.--\ny    -.--"
    (table,) = tables.split(text)[1]
    assert table.is_number(1) and not table.is_number(0)


def test_a_cell_that_leaves_its_column_is_told():
    with pytest.raises(ValueError, match="wider than its dashes: a name"):
        tables.split("name   x\n----   -\na name 1")


def test_the_build_tells_it(copy, write_page):
    write_page('print("name   x\\n----   -\\na name 1")\n' + DRAW)
    run = build(copy)
    assert run.returncode != 0
    assert "a cell of a table is wider than its dashes: a name 1" in run.stderr


# A page


@pytest.fixture(scope="module")
def answer(tmp_path_factory):
    """Build a page whose introduction ends in a caption; return its place."""
    folder = tmp_path_factory.mktemp("answer")
    copy_sources(folder)
    html = write_script(folder, CODE, text=INTRODUCTION)
    run = build(folder)
    assert run.returncode == 0, run.stderr
    return html


@pytest.fixture(scope="module")
def html(answer):
    return BeautifulSoup(answer.read_text(), "html.parser").article


def test_the_answer_comes_first(html):
    """The first figure with its description, and the table; each once."""
    (caption,) = html.select(".page-caption")
    assert caption.get_text() == "Figure: A line."
    images = html.select("img.sphx-glr-single-img.only-light")
    assert [image["alt"] for image in images] == ["first: One is best.", "second"]
    first, second = html.select(".figure-description")
    assert images[0]["aria-details"] == first["id"]
    (table,) = html.select("table")
    order = [
        html.find("p", string="The scope."),
        images[0],
        html.select_one("img.only-dark"),
        caption,
        first,
        table,
        html.select_one(".highlight-Python"),
        images[1],
        second,
        html.select_one(".sphx-glr-script-out"),
        html.select_one("#discussion"),
    ]
    tags = list(html.descendants)
    places = [next(i for i, tag in enumerate(tags) if tag is part) for part in order]
    assert places == sorted(places)


def test_a_printed_table_is_one_of_the_page(html, answer):
    check_html(answer)
    (table,) = html.select("table")
    table.select_one(".headerlink").decompose()
    assert table.caption.get_text().strip() == "Test accuracy of two seeds"
    cells = [
        [cell.get_text() for cell in row.select("th")] for row in table.select("tr")
    ]
    assert cells[0] == ["solver", "median accuracy", "evaluations a step", "ms a step"]
    assert not any(cells[1:])
    _, *rows = table.select("tr")
    assert [[cell.get_text() for cell in row.select("td")] for row in rows] == [
        ["Polyak SGD", "0.700", "1.00", "3.40"],
        ["SGD", "0.650", "-", "4"],
    ]
    for row in table.select("tr"):
        numbers = ["number" in cell.get("class", ()) for cell in row.select("th, td")]
        assert numbers == [False, True, True, True]
    (log,) = html.select(".sphx-glr-script-out pre")
    assert log.get_text().strip() == LOG


def test_plumbing_is_folded(html):
    """Code and further prose; not what the code makes, and no other section."""
    folds = html.select("details.plumbing")
    titles = [fold.summary.h2.find(string=True) for fold in folds]
    assert titles == ["Imports", "Settings", "Running"]
    for fold in folds:
        assert fold.parent.name == "section" and fold.parent["id"]
        assert fold.has_attr("open"), "closed where there are no scripts"
        assert "currentScript.parentElement.open = false" in fold.script.string
    leads = [lead.get_text() for lead in html.select(".plumbing-lead")]
    assert leads == [
        "What is imported, as in the first page.",
        "Each is a flag.",
        "It prints.",
    ]
    hidden = folds[1].get_text()
    for text in ("This is hidden.", "needle", "These are more.", "more"):
        assert text in hidden
    for made in html.select(".sphx-glr-script-out, img, table, .page-foot"):
        assert not made.find_parent("details", class_="plumbing")


def test_the_notebook_keeps_the_order_of_the_script(answer):
    """It begins with the introduction; cells of plumbing, and the first, are folded."""
    place = answer.parents[3] / "docs/auto_examples/deep_learning"
    notebook = nbformat.read(place / f"{PAGE.stem}.ipynb", nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    first, advice, install, *others = notebook.cells
    assert first.cell_type == "markdown"
    assert first.source.startswith("# Title\n")
    for text in ("A question.", "**In short**", "**One** is best.", "**Figure:**"):
        assert text in first.source
    assert advice.source == notebooks.advice(place / f"{PAGE.stem}.py")
    codes = [cell for cell in (install, *others) if cell.cell_type == "code"]
    assert codes[0] is install and "requirements" in install.source
    folded = {"jupyter": {"source_hidden": True}, "cellView": "form"}
    unfolded = ["subject = 1"]
    for code in codes:
        assert code.metadata == ({} if code.source in unfolded else folded)
    text, *figures = codes[-1].outputs[::-1]
    outputs = {output.output_type: output for output in (text, *figures)}
    assert len(codes[-1].outputs) == 3
    assert outputs["stream"].text.strip() == f"{LOG}\n\n{TABLE}"


def test_a_page_without_a_caption(copy, write_page):
    """Its figure stays where it is made, and its table stands below the log."""
    page = write_page(CODE, text="A question.")
    run = build(copy)
    assert run.returncode == 0, run.stderr
    html = BeautifulSoup(page.read_text(), "html.parser").article
    assert not html.select(".page-caption")
    for part in ("img", "table", ".sphx-glr-script-out"):
        assert html.select_one(part).find_parent("section")["id"] == "running"
    assert html.select_one(".sphx-glr-script-out + div > table")


@pytest.mark.parametrize("text", [INTRODUCTION, "A question."])
def test_a_page_that_prints_a_table_alone(copy, write_page, text):
    """No empty log is left; two tables have ids of their own."""
    code = f'print("""{TABLE}\n\n{TABLE}""")\n{DRAW}'
    page = write_page(code, text=text)
    run = build(copy)
    assert run.returncode == 0, run.stderr
    check_html(page)
    html = BeautifulSoup(page.read_text(), "html.parser").article
    assert [table["id"] for table in html.select("table")] == ["table-1", "table-2"]
    assert not html.select(".sphx-glr-script-out")


# In a browser


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_the_first_figure_waits_for_nothing(browser, answer, mode):
    """And the image of the other mode is not fetched."""
    with browser.new_context(color_scheme=mode) as context:
        tab, names = context.new_page(), []
        tab.on("request", lambda request: names.append(request.url))
        tab.goto(answer.as_uri())
        tab.wait_for_load_state("networkidle")
        loading = tab.locator(f"article img.only-{mode}").evaluate_all(
            "images => images.map(image => image.loading)"
        )
        assert loading == ["eager", "lazy"]
        images = [name for name in names if "/_images/" in name]
        assert images and {"_dark" in name for name in images} == {mode == "dark"}


def test_a_table_scrolls_in_its_own_box(browser, answer):
    """In a narrow window, by keyboard, too; numbers end below each other."""
    viewport = {"width": 260, "height": 800}
    with browser.new_context(viewport=viewport) as context:
        tab = context.new_page()
        tab.goto(answer.as_uri())
        tab.wait_for_load_state("networkidle")
        assert tab.evaluate("document.documentElement.scrollWidth") == 260
        box = tab.locator(".pst-scrollable-table-container")
        wide, seen, index = box.evaluate(
            "box => [box.scrollWidth, box.clientWidth, box.tabIndex]"
        )
        assert wide > seen and index == 0
        numbers = tab.locator("table.printed .number").evaluate_all(
            "all => all.map(cell => getComputedStyle(cell).textAlign)"
        )
        assert set(numbers) == {"right"}
