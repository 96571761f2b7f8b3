"""What GitHub runs, and what `make lint` and a commit refuse."""

import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml

from builds import git, make
from helpers import ROOT

FOLDER = ROOT / ".github/workflows"
WORKFLOWS = {file.stem: yaml.safe_load(file.read_text()) for file in FOLDER.iterdir()}
STEPS = [
    step
    for workflow in WORKFLOWS.values()
    for job in workflow["jobs"].values()
    for step in job["steps"]
]


def test_workflows_run_targets_that_exist():
    listed = re.findall(r"^  make (\S+)", make("help", cwd=ROOT).stdout, re.MULTILINE)
    code = "\n".join(step.get("run", "") for step in STEPS)
    called = set(re.findall(r"\bmake (\S+)", code.replace(":", " ")))
    assert {"html", "lint", "linkcheck", "test", "test-latest"} <= called <= set(listed)


def test_one_python_publishes_the_site():
    """One file names it, and pull requests are tested on it."""
    steps = [step for step in STEPS if "/setup-python@" in step.get("uses", "")]
    options = [step["with"] for step in steps]
    other = [x for x in options if "python-version" in x]
    assert [x["python-version"] for x in other] == ["${{ matrix.python }}"]
    named = {x["python-version-file"] for x in options if x not in other}
    assert named == {".github/python-version"}
    version = (ROOT / ".github/python-version").read_text().strip()
    assert version in WORKFLOWS["ci"]["jobs"]["tests"]["strategy"]["matrix"]["python"]


def test_pull_requests_are_tested_on_the_pythons_that_readme_names():
    pythons = WORKFLOWS["ci"]["jobs"]["tests"]["strategy"]["matrix"]["python"]
    named = re.search(r"You need Python (.*?) \(", (ROOT / "README.md").read_text())
    assert pythons == re.findall(r"[\d.]+", named[1])


def test_caches_have_downloads_and_what_was_compiled_alone():
    """No environment, which hides what it lacks, and no page, which would be old."""
    caches = [step["with"] for step in STEPS if "cache" in str(step.get("uses"))]
    paths = {"~/.cache/uv", "~/tensorflow_datasets", ".jax_cache"}
    assert {options["path"] for options in caches} == paths
    assert all("hashFiles(" in options["key"] for options in caches)
    assert not [step for step in STEPS if "cache" in step.get("with", {})]
    assert "cache" not in str(WORKFLOWS["pages"])


def test_notebooks_get_a_branch(tmp_path):
    """The steps of the workflow, on what a build leaves, with a local repository."""
    workflow = WORKFLOWS["pages"]
    runs = {
        name: [step["run"] for step in job["steps"] if "run" in step]
        for name, job in workflow["jobs"].items()
    }
    notebook = "docs/auto_examples/deep_learning/plot_x.ipynb"
    old = tmp_path / notebook.replace("plot_x", "plot_old")
    old.parent.mkdir(parents=True)
    git("init", "--bare", "remote", cwd=tmp_path)
    env = os.environ | workflow["env"] | {"GITHUB_SHA": "0123"}
    env |= {"REMOTE": str(tmp_path / "remote")}
    branch = env["NOTEBOOK_BRANCH"]
    for file in (old, tmp_path / notebook):
        file.write_text(file.name)
        for code in (runs["build"][-1], runs["notebooks"][-1]):
            subprocess.run(["bash", "-ec", code], cwd=tmp_path, env=env, check=True)
        shutil.rmtree(tmp_path / "built")
        file.unlink()
    # Of the second run alone, at the place that the link of a page names.
    shown = git("ls-tree", "-r", "--name-only", branch, cwd=tmp_path / "remote").stdout
    assert shown.splitlines() == [notebook]
    log = git("log", "--format=%s", branch, cwd=tmp_path / "remote").stdout
    assert log == "Notebooks of 0123\n"
    # Each right is of the one job that needs it.
    rights = {name: job["permissions"] for name, job in workflow["jobs"].items()}
    assert [x for x in rights if rights[x].get("contents") == "write"] == ["notebooks"]
    assert rights["notebooks"] == {"actions": "read", "contents": "write"}


def test_updates_wait_until_others_have_tried_them():
    updates = yaml.safe_load((ROOT / ".github/dependabot.yml").read_text())["updates"]
    assert updates
    assert all(update["cooldown"]["default-days"] >= 7 for update in updates)


# What is refused


@pytest.fixture
def copy(tmp_path):
    """Copy what `make lint` reads."""
    ignore = shutil.ignore_patterns("_build", "auto_examples", "__pycache__")
    for folder in (".github", "benchmarks", "docs", "examples", "tests", "tools"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignore)
    for name in ("Makefile", "conf.py", "pyproject.toml", ".pre-commit-config.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    return tmp_path


CODE = '"""A fault."""\n\n'
UNPINNED = """
on: push
permissions: {}
jobs:
  build:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/cache@v6
"""


@pytest.mark.parametrize(
    "place, content, name",
    [
        ("docs/fault.py", f"{CODE}import os\n", "F401"),
        ("docs/fault.py", f"{CODE}x = 'a'\n", "1 file would be reformatted"),
        ("docs/fault.py", f"{CODE}import pickle\n\npickle.loads(b'')\n", "S301"),
        (
            "docs/fault.py",
            f'{CODE}import subprocess\n\nsubprocess.run("a", shell=True)\n',
            "S602",
        ),
        ("docs/fault.rst", "Teh steps\n", "Teh ==> The"),  # codespell:ignore
        ("docs/fault.rst", "A ``step``s\n", "missing-space-after-literal"),
        (".github/workflows/fault.yml", UNPINNED, "unpinned-uses"),
    ],
    ids=["unused", "format", "pickle", "shell", "spelling", "markup", "action"],
)
def test_make_lint_refuses(copy, place, content, name):
    (copy / place).write_text(content)
    run = make("--assume-old=.venv/installed", "lint", cwd=copy)
    assert run.returncode != 0
    assert name in run.stdout + run.stderr


def test_make_lint_refuses_nothing_else(copy):
    run = make("--assume-old=.venv/installed", "lint", cwd=copy)
    assert run.returncode == 0, run.stdout + run.stderr


def test_a_commit_refuses_a_notebook(copy):
    """And takes all else that is there."""
    command = [copy / ".venv/bin/pre-commit", "run", "--all-files"]
    env = os.environ | {"PRE_COMMIT_HOME": str(copy / ".git/pre-commit")}
    git("init", cwd=copy)
    git("add", ".", ":!.venv", cwd=copy)
    run = subprocess.run(command, cwd=copy, env=env, text=True, capture_output=True)
    assert run.returncode == 0, run.stdout + run.stderr
    (copy / "docs/fault.ipynb").write_text("{}\n")
    git("add", "docs/fault.ipynb", cwd=copy)
    run = subprocess.run(command, cwd=copy, env=env, text=True, capture_output=True)
    assert run.returncode != 0
    assert "docs/fault.ipynb" in run.stdout
