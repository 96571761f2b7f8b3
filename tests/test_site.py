"""The built site: the page's parts, its downloads, and how the build behaves."""

import re
import shutil
import subprocess
import sys
import zipfile

import nbformat
import pytest
from bs4 import BeautifulSoup
from conftest import PAGE, REAL_DATA, ROOT, check_log, run_script
from nbclient import NotebookClient
from PIL import Image
from sphinx_gallery.py_source_parser import split_code_and_text_blocks

SITE = ROOT / "docs/_build/html"
FLAGSHIP = SITE / "auto_examples/deep_learning/plot_sgd_solvers.html"


def without_times(log):
    """Return the lines of log and table without times, which end their lines."""
    return re.sub(r" +\d+\.\d\ds?$", "", log.strip(), flags=re.MULTILINE).splitlines()


@pytest.fixture(scope="module")
def html():
    assert FLAGSHIP.exists(), "the site is not built: make html"
    return BeautifulSoup(FLAGSHIP.read_text(), "html.parser").article


@pytest.fixture(scope="module")
def log(html):
    (output,) = html.select(".sphx-glr-script-out pre")
    return output.get_text()


@pytest.fixture(scope="module")
def downloads(html):
    """The files behind the page's download links, by ending."""
    links = html.select(".sphx-glr-download a.download")
    files = [(FLAGSHIP.parent / link["href"]).resolve() for link in links]
    return {file.suffix: file for file in files}


# The page


def test_parts_in_order(html):
    """Note, title, introduction, code, figure, log, discussion, time, downloads."""
    parts = [
        html.select_one(".sphx-glr-download-link-note a"),
        html.h1,
        html.find("p", string=re.compile("What do step sizes")),
        html.select_one("li a[href*=PolyakSGD]"),
        html.select_one("#settings"),
        html.select_one(".highlight-Python"),
        *map(html.select_one, ("#data", "#model", "#solvers", "#training")),
        *map(html.select_one, ("#results", "#figure")),
        html.select_one("img.sphx-glr-single-img"),
        html.select_one(".sphx-glr-script-out"),
        html.select_one("#discussion"),
        html.find("p", class_="rubric", string="References"),
        html.select_one(".sphx-glr-timing"),
        html.select_one(".sphx-glr-download-jupyter"),
        html.select_one(".sphx-glr-download-python"),
        html.select_one(".sphx-glr-signature"),
    ]
    assert None not in parts
    order = list(html.descendants)
    places = [next(i for i, tag in enumerate(order) if tag is part) for part in parts]
    assert places == sorted(places)
    assert html.h1.get_text().startswith("Comparison of different SGD algorithms")
    assert html.select_one(parts[0]["href"]).find_parent() is not None
    assert html.select(".highlight-Python")[-1].get_text().endswith("main(ARGV)\n")


def test_figure(html):
    (figure,) = html.select("img.sphx-glr-single-img")
    assert figure["alt"] == "Classification on fashion_mnist"
    once, twice = (part.split()[0] for part in figure["srcset"].split(","))
    with Image.open(FLAGSHIP.parent / once) as small:
        width, height = small.size
    with Image.open(FLAGSHIP.parent / twice) as large:
        assert large.size == (2 * width, 2 * height)
    assert width <= 720


def test_only_the_log_is_on_the_page(log):
    """No progress bar, no warning, no repr, no path."""
    check_log(log)


# The downloads


def test_downloads_are_the_sources(downloads):
    assert set(downloads) == {".py", ".ipynb", ".zip"}
    assert downloads[".py"].read_bytes() == PAGE.read_bytes()
    with zipfile.ZipFile(downloads[".zip"]) as archive:
        for suffix in (".py", ".ipynb"):
            name = downloads[suffix].name
            assert archive.read(name) == downloads[suffix].read_bytes()
    notebook = nbformat.read(downloads[".ipynb"], nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    _, blocks = split_code_and_text_blocks(PAGE)
    sources = [block.content.strip() for block in blocks if block.type == "code"]
    assert [cell.strip() for cell in cells] == sources


def test_the_script_runs_from_an_empty_folder(downloads, log, tmp_path):
    shutil.copy(downloads[".py"], tmp_path)
    run = run_script(downloads[".py"].name, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert without_times(run.stdout) == without_times(log)


def test_the_notebook_runs_and_runs_again(downloads, log, tmp_path):
    """Unmodified in a fresh kernel; then every cell once more in the same one."""
    notebook = nbformat.read(downloads[".ipynb"], nbformat.NO_CONVERT)
    client = NotebookClient(notebook, resources={"metadata": {"path": str(tmp_path)}})
    # A kernel chooses its own way to draw.
    with client.setup_kernel(env={**REAL_DATA, "MPLBACKEND": ""}):
        for _ in range(2):
            for index, cell in enumerate(notebook.cells):
                client.execute_cell(cell, index)
            outputs = [o for cell in notebook.cells for o in cell.get("outputs", ())]
            printed = [o for o in outputs if o.get("name") == "stdout"]
            drawn = [o for o in outputs if "image/png" in o.get("data", ())]
            assert without_times("".join(o.text for o in printed)) == without_times(log)
            assert len(drawn) == 1
            assert not [o for o in outputs if o.output_type == "execute_result"]


# The build


def build(folder, *arguments):
    """Build the site in ``folder``, a copy of what the build reads, on small data."""
    command = ["-m", "sphinx", "-W", "-n", "--keep-going", "-c", ".", "docs", "html"]
    return run_script(*command, *arguments, cwd=folder, env=None)


def make(*arguments, cwd):
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=cwd, text=True, capture_output=True)


@pytest.fixture
def copy(tmp_path):
    shutil.copy(ROOT / "conf.py", tmp_path)
    unbuilt = shutil.ignore_patterns("_build", "auto_examples", "__pycache__")
    for folder in ("docs", "examples"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=unbuilt)
    return tmp_path


def test_two_pages_with_the_same_flags(copy):
    """They build in one process, and a second build runs neither again."""
    page = copy / "examples/deep_learning/plot_sgd_solvers.py"
    shutil.copy(page, page.with_name("plot_twin.py"))
    run = build(copy)
    assert run.returncode == 0, run.stderr
    built = (copy / "docs/auto_examples/deep_learning").glob("plot_*.rst")
    lines = [re.findall(r"^    \[", page.read_text(), re.MULTILINE) for page in built]
    assert [len(log) for log in lines] == [24, 24]
    images = sorted((copy / "docs/auto_examples").rglob("*_001*.png"))
    made = [image.stat().st_mtime_ns for image in images]
    assert len(made) == 4
    run = build(copy)
    assert run.returncode == 0, run.stderr
    assert [image.stat().st_mtime_ns for image in images] == made


def test_a_build_without_plots_does_not_hide_a_later_one(copy):
    page = copy / "examples/deep_learning/plot_sgd_solvers.py"
    page.write_text('"""\nTitle\n=====\n"""\nprint("it ran")\n')
    html = copy / "html/auto_examples/deep_learning/plot_sgd_solvers.html"
    for arguments, ran in ((["-Dplot_gallery=0"], False), ([], True)):
        run = build(copy, *arguments)
        assert run.returncode == 0, run.stderr
        assert ("sphx-glr-script-out" in html.read_text()) == ran


@pytest.mark.parametrize(
    "code, reason",
    [
        ("import warnings\nwarnings.warn('take care')", "take care"),
        ("import numpy\nnumpy.log(0)", "divide by zero"),
        ("1 / 0", "division by zero"),
    ],
)
def test_a_page_that_warns_or_fails_fails_the_build(copy, code, reason):
    page = copy / "examples/deep_learning/plot_sgd_solvers.py"
    page.write_text(f'"""\nTitle\n=====\n"""\n{code}\n')
    run = build(copy)
    assert run.returncode != 0
    assert "plot_sgd_solvers.py" in run.stderr
    assert reason in run.stderr


# The commands


def test_a_failed_build_fails_again(copy):
    """Sphinx alone would not warn twice of a page that it does not read again."""
    page = copy / "examples/deep_learning/plot_sgd_solvers.py"
    page.write_text('"""\nTitle\n=====\n:func:`nothing.such`\n"""\n')
    shutil.copy(ROOT / "Makefile", copy)
    (copy / ".venv").symlink_to(sys.prefix)
    for _ in range(2):
        run = make("--assume-old=.venv/installed", "html", cwd=copy)
        assert run.returncode != 0
        assert "nothing.such" in run.stderr


def test_make_help_lists_what_readme_names():
    run = make("help", cwd=ROOT)
    listed = re.findall(r"^  make (\S+)", run.stdout, re.MULTILINE)
    named = re.findall(r"make ([a-z-]+)", (ROOT / "README.md").read_text())
    assert {"html", "test", "help"} <= set(named) <= set(listed)


def test_make_refuses_another_python(tmp_path):
    """One line that says which Python is wanted, and nothing made."""
    python = tmp_path / "python3.9"
    script = f'exec "{sys.executable}" -c "import sys; sys.version_info = (3, 9); $2"'
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copy(ROOT / "requirements-docs.txt", tmp_path)
    run = make(f"PYTHON={python}", "html", cwd=tmp_path)
    assert run.returncode != 0
    assert "Python 3.11, 3.12 or 3.13 is needed" in run.stderr
    assert not (tmp_path / ".venv").exists()
