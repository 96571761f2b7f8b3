"""Small sites: a copy of what a build reads, pages in it, and builds of it.

A build takes a second, and three more to import what it needs. So these builds are
children of a process that has imported it; see ``sphinx_warm``.
"""

import json
import multiprocessing
import os
import re
import shutil
import subprocess
from multiprocessing import forkserver
from pathlib import Path

import pytest

import sphinx_child
from helpers import PAGE, ROOT, run_script

BLOCK = "# /// script\n# requires-python = '>=3'\n# dependencies = ['jax']\n# ///\n"
DRAW = "import matplotlib.pyplot as plt\n\nplt.plot([1, 2])\nplt.show()\n"
OPTIONS = ["-W", "-n", "--keep-going", "-c", ".", "docs", "html"]

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["sphinx_warm"])


def build(folder, *arguments, **env):
    """Build the site in ``folder``, a copy of what the build reads, on small data."""
    with pytest.MonkeyPatch.context() as patch:
        # Where the server finds what it preloads; Python 3.11 does not tell it.
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        forkserver.ensure_running()
    child = processes.Process(
        target=sphinx_child.run, args=(folder, [*OPTIONS, *arguments], os.environ | env)
    )
    child.start()
    child.join()
    outputs = [(folder / name).read_text() for name in ("stdout", "stderr")]
    return subprocess.CompletedProcess(arguments, child.exitcode, *outputs)


def build_alone(folder, *arguments, **env):
    """Do the same in a process of its own, which reads all of its environment."""
    command = ["-m", "sphinx", *OPTIONS, *arguments]
    return run_script(*command, cwd=folder, env=os.environ | env)


def git(*arguments, cwd):
    """Run git in ``cwd``."""
    who = ["-c", "user.name=a", "-c", "user.email=a"]
    command = ["git", *who, *arguments]
    return subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True)


def make(*arguments, cwd):
    """Run make in ``cwd``."""
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=cwd, text=True, capture_output=True)


def copy_sources(folder):
    """Copy what a build reads, without the pages, into ``folder``."""
    shutil.copy(ROOT / "conf.py", folder)
    left_out = "_build", "auto_examples", "__pycache__", "plot_*.py"
    ignore = shutil.ignore_patterns(*left_out)
    for name in ("docs", "examples", "tools"):
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    # The home page leads to pages that are not there.
    home = folder / "docs/index.rst"
    home.write_text(re.sub(":doc:`auto_examples/.*?`", "a page", home.read_text()))


def restore(folder, kept):
    """Make ``folder`` what the folder ``kept`` is, times included; return it."""
    shutil.rmtree(folder)
    shutil.copytree(kept, folder, symlinks=True)
    return folder


def write_script(folder, code=DRAW, block=BLOCK, text="", name=PAGE.stem):
    """Write a short page into ``folder``; return where it is built."""
    page = folder / f"examples/deep_learning/{name}.py"
    page.write_text(f'{block}r"""\nTitle\n=====\n{text}\n"""\n{code}\n')
    return folder / f"html/auto_examples/deep_learning/{name}.html"


def write_data(folder, name="fashion_mnist 3.0.1", sha256="01", files="02"):
    """Write what ``make data`` does."""
    (folder / "docs/_build").mkdir(exist_ok=True)
    facts = {"name": name, "sha256": sha256, "files": files}
    (folder / "docs/_build/data.json").write_text(json.dumps(facts))


def number_read(run):
    """Return how many documents a build read."""
    read = re.search(r"(\d+) added, (\d+) changed, \d+ removed", run.stdout)
    return max(map(int, read.groups()))


def files(folder):
    """Return the content of all files in ``folder`` by their places."""
    paths = [path for path in Path(folder).rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}
