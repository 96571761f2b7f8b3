"""A build in unusual places, and with settings that make no sense."""

import os
import shutil
import subprocess
import sys

import pytest
from bs4 import BeautifulSoup

from builds import build, copy_sources, git, make, write_script
from helpers import ROOT

LONG = "/".join(["long" * 12] * 6)


@pytest.mark.parametrize("place", ["""a b's "é" #1 50% $HOME [x]""", LONG])
def test_a_folder_of_any_name(tmp_path, place):
    """By make, with what the environment of another may have."""
    folder = tmp_path / place
    folder.mkdir(parents=True)
    copy_sources(folder)
    page = write_script(folder)
    shutil.copy(ROOT / "Makefile", folder)
    for name in ("requirements-docs.txt", "requirements-uv.txt"):
        shutil.copy(ROOT / name, folder)
    (folder / ".venv").symlink_to(sys.prefix)
    hostile = {"PYTHONWARNINGS": "error", "LC_ALL": "C", "PYTHONUTF8": "0"}
    hostile |= {"TERM": "dumb", "PYTHONCOERCECLOCALE": "0"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in hostile.items():
            patch.setenv(name, value)
        tools = [f"--assume-old={name}" for name in (".venv/installed", "data")]
        run = make(*tools, "html", cwd=folder)
    assert run.returncode == 0, run.stdout + run.stderr
    html = folder / "docs/_build" / page.relative_to(folder)
    assert BeautifulSoup(html.read_text(), "html.parser").select(".sphx-glr-single-img")


def test_a_page_whose_name_has_a_space_is_refused(copy, write_page):
    write_page(name="plot_a b")
    run = build(copy)
    assert run.returncode == 1
    (line,) = run.stderr.splitlines()
    assert line.startswith("plot_a b.py needs a name of letters")


# The commit


def make_git(folder, code):
    """Write a program named git, and nothing else, into ``folder``; return a PATH."""
    (folder / "bin").mkdir()
    if code:
        (folder / "bin/git").write_text(f"#!{sys.executable}\n{code}")
        (folder / "bin/git").chmod(0o755)
    return str(folder / "bin")


@pytest.mark.parametrize(
    "kind", ["absent", "of another owner", "no repository", "another's repository"]
)
def test_a_build_without_a_commit_says_why_once(tmp_path, kind, monkeypatch):
    fresh = tmp_path / "clone"
    fresh.mkdir()
    copy_sources(fresh)
    if kind == "another's repository":
        git("init", cwd=tmp_path)
        git("commit", "--allow-empty", "-m", "not of this project", cwd=tmp_path)
    pages = [write_script(fresh, name=name) for name in ("plot_one", "plot_two")]
    env, why = {"PATH": os.environ["PATH"]}, "not a git repository"
    if kind == "absent":
        env["PATH"], why = make_git(fresh, ""), "git: No such file or directory"
    elif kind == "of another owner":
        if os.geteuid() != 0:
            pytest.skip("only root gives files to another owner")
        git("init", cwd=fresh)
        subprocess.run(["chown", "-R", "65534", fresh], check=True)
        monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
        why = "dubious ownership"
    run = build(fresh, "-Dgallery_reading_order=plot_sgd_solvers", **env)
    assert "unexpectedly failed" not in run.stderr
    (line,) = [x for x in run.stdout.splitlines() if "Pages tell no commit" in x]
    assert why in line
    for page in pages:
        foot = BeautifulSoup(page.read_text(), "html.parser").select_one(".page-foot")
        assert "Run on" in foot.get_text() and "commit" not in foot.get_text()


# Settings


def test_an_address_gets_its_last_slash(fresh):
    write_script(fresh)
    run = build(fresh, SITE_URL="https://owner.example/name")
    assert run.returncode == 0, run.stderr
    sitemap = (fresh / "html/sitemap.xml").read_text()
    assert "<loc>https://owner.example/name/index.html</loc>" in sitemap


def test_settings_that_are_empty_are_not_set(fresh):
    write_script(fresh)
    names = "SITE_URL", "GITHUB_REPOSITORY", "NOTEBOOK_BRANCH", "SOURCE_DATE_EPOCH"
    run = build(fresh, **dict.fromkeys(names, ""), CI="true")
    assert run.returncode == 0, run.stderr
    # What may be published by mistake is told.
    line = "SITE_URL is not set: sitemap and previews name http://localhost:8000/"
    assert line in run.stdout
    assert (
        "http://localhost:8000/index.html" in (fresh / "html/sitemap.xml").read_text()
    )


@pytest.mark.parametrize(
    "name, value",
    [
        ("SITE_URL", "nonsense"),
        ("SITE_URL", "https:"),
        ("SITE_URL", "ftp://owner.example/"),
        ("SITE_URL", "https://owner.example/a b/"),
        ("SITE_URL", "https://owner.example/?a=b"),
        ("GITHUB_REPOSITORY", "owner"),
        ("GITHUB_REPOSITORY", "owner/a name"),
        ("GITHUB_REPOSITORY", "https://github.com/owner/name"),
        ("NOTEBOOK_BRANCH", "a b"),
        ("NOTEBOOK_BRANCH", "/a"),
        ("SOURCE_DATE_EPOCH", "abc"),
        ("SOURCE_DATE_EPOCH", "-5"),
        ("SOURCE_DATE_EPOCH", "1700000000.5"),
        ("SOURCE_DATE_EPOCH", "1e99"),
        ("SOURCE_DATE_EPOCH", "99999999999999"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(copy, write_page, name, value):
    """In one line, before a page runs."""
    write_page("open('it ran', 'w')")
    run = build(copy, **{name: value})
    assert run.returncode != 0
    (line,) = run.stderr.splitlines()
    assert line.startswith(f"{name} is '{value}")
    assert line.endswith(": change or unset it")
    assert not [*copy.rglob("it ran")]
