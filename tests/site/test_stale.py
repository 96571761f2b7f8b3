"""What runs again, and what is only read again, in small sites."""

import os
import shutil
from functools import partial
from types import SimpleNamespace

import pytest

from builds import BLOCK, build, number_read, restore, write_data, write_script
from gallery import pages, stale
from helpers import ROOT

RUNS = """
from pathlib import Path

with open("ran", "a") as file:
    _ = file.write("{} ")
if Path("interrupt").exists():
    import os

    os.kill(os.getpid(), 9)
"""
# The documents that are no pages, the two indexes of the gallery, and three pages.
DOCUMENTS = len(list((ROOT / "docs").glob("*.rst"))) + 2 + 3
DISTRIBUTION = "Metadata-Version: 2.1\nName: {}\nVersion: {}\nRequires-Dist: {}\n"


def install(folder, name, version, requires="pip"):
    """Write what Python knows an installed package by."""
    about = folder / f"packages/{name}.dist-info/METADATA"
    about.parent.mkdir(parents=True, exist_ok=True)
    about.write_text(DISTRIBUTION.format(name, version, requires))


@pytest.fixture(scope="module")
def three_pages(small_site, tmp_path_factory):
    """Build three pages, one of which reads the data; return a copy of the folder.

    The third is the page of the small site, which the home page shows.
    """
    folder = restore(*small_site)
    (folder / "requirements-docs.txt").write_text("one==1")
    write_data(folder)
    install(folder, "tiny", "1", requires="under")
    install(folder, "under", "1")
    block = BLOCK.replace("jax", "tiny")
    write_script(folder, RUNS.format("plain"), block, name="plot_plain")
    block = BLOCK.replace("jax", "tensorflow-datasets")
    write_script(folder, RUNS.format("data"), block, name="plot_data")
    assert build_again(folder) == (["data", "plain"], DOCUMENTS)
    kept = tmp_path_factory.mktemp("three") / "kept"
    shutil.copytree(folder, kept, symlinks=True)
    return kept


def build_again(folder, *arguments):
    """Build; return the pages that ran, and how many documents were read."""
    ran = folder / "examples/deep_learning/ran"
    ran.write_text("")
    run = build(folder, *arguments, PYTHONPATH=str(folder / "packages"))
    assert run.returncode == 0, run.stderr
    return sorted(ran.read_text().split()), number_read(run)


@pytest.fixture
def run_again(copy, three_pages):
    """Return a function that builds the three pages again; they are built once."""
    restore(copy, three_pages)
    return partial(build_again, copy)


def change(path, text="# changed"):
    path.write_text(f"{path.read_text().rstrip()}\n{text}\n")


def test_a_page_runs_again_when_what_runs_it_changed(copy, run_again):
    """And no other page does. The home page is read again, since it lists pages."""
    change(copy / "examples/deep_learning/plot_plain.py")
    assert run_again() == (["plain"], 2)
    write_data(copy, sha256="03")
    assert run_again() == (["data"], DOCUMENTS)
    for name in ("tiny", "under"):
        install(copy, name, "2", requires="under")
        assert run_again()[0] == ["plain"], name
    change(copy / "docs/_ext/gallery/run/figures.py")
    assert run_again() == (["data", "plain"], DOCUMENTS)
    assert run_again() == ([], 0)


def test_documents_are_read_again_when_what_is_around_them_changed(copy, run_again):
    """No page runs, for none of these runs pages."""
    change(copy / "docs/_ext/gallery/show/frame.py")
    assert run_again() == ([], DOCUMENTS)
    order, conf = '"plot_sgd_solvers",', copy / "conf.py"
    conf.write_text(conf.read_text().replace(order, f'"plot_plain",{order}'))
    assert run_again() == ([], DOCUMENTS)
    change(copy / "docs/index.rst", "\n.. changed")
    assert run_again() == ([], 1)


# What the two keys know, file by file. They are those that the builds above use.


@pytest.fixture
def keys(copy, monkeypatch):
    """Return a function that returns the keys of all documents and of one page."""
    monkeypatch.setattr(pages, "ROOT", copy)
    monkeypatch.setattr(stale, "HERE", copy / "docs/_ext/gallery")
    config = SimpleNamespace(gallery_source_date="", html_baseurl="")
    app = SimpleNamespace(srcdir=copy / "docs", config=config)
    script = copy / "examples/deep_learning/plot_sgd_solvers.py"
    return lambda: (stale.documents_key(app), stale.page_key(script, app))


def test_every_file_that_runs_pages_counts_for_them(copy, keys):
    files = sorted((copy / "docs/_ext/gallery/run").glob("*.py"))
    assert len(files) > 4
    before = keys()
    for path in files:
        change(path)
        after = keys()
        assert before[0] != after[0] and before[1] != after[1], path
        before = after


def test_every_other_file_counts_for_the_documents_alone(copy, keys):
    """Also when a package is locked that pages do not require, such as codespell."""
    (copy / "requirements-docs.txt").write_text("one==1")
    files = [copy / "conf.py", copy / "requirements-docs.txt"]
    ext = copy / "docs/_ext/gallery"
    files += [*ext.glob("*.py"), *ext.glob("show/*.py")]
    for folder in ("_static", "_templates", "inventories"):
        files += (copy / "docs" / folder).iterdir()
    assert len(files) > 20
    before = keys()
    for path in files:
        change(path)
        after = keys()
        assert before[0] != after[0] and before[1] == after[1], path
        before = after


def test_nothing_is_read_again_for_anything_else(copy, run_again):
    for path in copy.rglob("*"):
        if "html" not in path.parts and "auto_examples" not in path.parts:
            os.utime(path)
    assert run_again()[0] == []
    for name in ("README.md", "tests/test_build.py", "tools/prepare_data.py"):
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_text("print()")
    write_data(copy, files="03")
    assert run_again() == ([], 0)


def test_a_new_page_runs_alone(copy, run_again, write_page):
    write_page(RUNS.format("new"), name="plot_new")
    assert run_again() == (["new"], DOCUMENTS + 1)


def test_a_build_that_was_cut_short_hides_nothing(copy, run_again):
    change(copy / "docs/_ext/gallery/run/times.py")
    (copy / "examples/deep_learning/interrupt").touch()
    assert build(copy, PYTHONPATH=str(copy / "packages")).returncode == -9
    (copy / "examples/deep_learning/interrupt").unlink()
    assert run_again() == (["data", "plain"], DOCUMENTS)


def test_a_page_that_failed_runs_again_as_it_was_before(copy, run_again, write_page):
    html = write_page("1 / 0", name="plot_plain")
    assert build(copy).returncode != 0
    assert "division by zero" in html.read_text()
    write_page(RUNS.format("plain"), name="plot_plain")
    assert run_again()[0] == ["plain"]
    assert "division by zero" not in html.read_text()


def test_a_page_that_is_gone_is_told(copy, write_page):
    write_page()
    write_page(name="plot_old")
    assert build(copy).returncode == 0
    (copy / "examples/deep_learning/plot_old.py").unlink()
    run = build(copy)
    assert run.returncode != 0
    line = "plot_old.py is built but not in examples: make clean"
    assert run.stderr.splitlines() == [line]
