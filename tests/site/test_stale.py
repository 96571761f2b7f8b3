"""What runs again, and what is only read again, in small sites."""

import os

import pytest

from builds import BLOCK, build, number_read, write_data

RUNS = """
from pathlib import Path

with open("ran", "a") as file:
    _ = file.write("{} ")
if Path("interrupt").exists():
    import os

    os.kill(os.getpid(), 9)
"""
DISTRIBUTION = "Metadata-Version: 2.1\nName: {}\nVersion: {}\nRequires-Dist: {}\n"


def install(folder, name, version, requires="pip"):
    """Write what Python knows an installed package by."""
    about = folder / f"packages/{name}.dist-info/METADATA"
    about.parent.mkdir(parents=True, exist_ok=True)
    about.write_text(DISTRIBUTION.format(name, version, requires))


@pytest.fixture
def run_again(copy, write_page):
    """Build three pages, one of which reads the data.

    Return a function that builds again and tells the pages that ran, and the number of
    documents that were read, of the seven that there are.
    """
    (copy / "requirements-docs.txt").write_text("one==1")
    write_data(copy)
    install(copy, "tiny", "1", requires="under")
    install(copy, "under", "1")
    block = BLOCK.replace("jax", "tiny")
    write_page(RUNS.format("plain"), block, name="plot_plain")
    block = BLOCK.replace("jax", "tensorflow-datasets")
    write_page(RUNS.format("data"), block, name="plot_data")
    ran = copy / "examples/deep_learning/ran"

    def again(*arguments):
        ran.write_text("")
        run = build(copy, *arguments, PYTHONPATH=str(copy / "packages"))
        assert run.returncode == 0, run.stderr
        return sorted(ran.read_text().split()), number_read(run)

    # The third is the one that was built before, and that the home page shows.
    assert again() == (["data", "plain"], 7)
    return again


def change(path, text="# changed"):
    path.write_text(f"{path.read_text().rstrip()}\n{text}\n")


def test_a_page_runs_again_when_what_runs_it_changed(copy, run_again):
    """And no other page does."""
    change(copy / "examples/deep_learning/plot_plain.py")
    assert run_again() == (["plain"], 1)
    write_data(copy, sha256="03")
    assert run_again() == (["data"], 7)
    for name in ("tiny", "under"):
        install(copy, name, "2", requires="under")
        assert run_again()[0] == ["plain"], name
    assert run_again() == ([], 0)


def test_each_file_that_runs_pages_counts(copy, run_again):
    files = sorted((copy / "docs/_ext/gallery/run").glob("*.py"))
    assert len(files) > 3
    for path in files:
        change(path)
        assert run_again() == (["data", "plain"], 7), path


def test_documents_are_read_again_when_what_is_around_them_changed(copy, run_again):
    """No page runs, for none of these runs pages."""
    changes = {
        "conf.py": "# changed",
        "requirements-docs.txt": "codespell==2",
        "docs/_ext/gallery/__init__.py": "# changed",
        "docs/_ext/gallery/pages.py": "# changed",
        "docs/_ext/gallery/stale.py": "# changed",
        "docs/_ext/gallery/show/frame.py": "# changed",
        "docs/_ext/gallery/show/sitemap.py": "# changed",
        "docs/_static/gallery.css": "",
        "docs/_templates/sidebar-nav.html": "",
        "docs/inventories/jax.txt": "jax.other function other.html",
    }
    for name, text in changes.items():
        change(copy / name, text)
        assert run_again() == ([], 7), name
    conf = copy / "conf.py"
    order = '"plot_sgd_solvers",'
    conf.write_text(conf.read_text().replace(order, f'"plot_plain",{order}'))
    assert run_again() == ([], 7)
    change(copy / "docs/index.rst", "\n.. changed")
    assert run_again() == ([], 1)


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
    assert run_again() == (["new"], 8)


def test_a_build_that_was_cut_short_hides_nothing(copy, run_again):
    change(copy / "docs/_ext/gallery/run/times.py")
    (copy / "examples/deep_learning/interrupt").touch()
    assert build(copy, PYTHONPATH=str(copy / "packages")).returncode == -9
    (copy / "examples/deep_learning/interrupt").unlink()
    assert run_again() == (["data", "plain"], 7)


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
