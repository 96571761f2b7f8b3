"""How the build behaves, in copies of what it reads, and its commands."""

import csv
import http.server
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading

import matplotlib.pyplot as plt
import pytest
from bs4 import BeautifulSoup

import check_inventories
from gallery.run import figures
from helpers import PAGE, ROOT, check_html, listed, run_script

# The build


BLOCK = "# /// script\n# requires-python = '>=3'\n# dependencies = ['jax']\n# ///\n"
DRAW = "import matplotlib.pyplot as plt\n\nplt.plot([1, 2])\nplt.show()\n"


def build(folder, *arguments, **env):
    """Build the site in ``folder``, a copy of what the build reads, on small data."""
    command = ["-m", "sphinx", "-W", "-n", "--keep-going", "-c", ".", "docs", "html"]
    return run_script(*command, *arguments, cwd=folder, env=os.environ | env)


def make(*arguments, cwd):
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=cwd, text=True, capture_output=True)


@pytest.fixture
def copy(tmp_path):
    """Copy what the build reads, without the pages."""
    shutil.copy(ROOT / "conf.py", tmp_path)
    left_out = "_build", "auto_examples", "__pycache__", "plot_*.py"
    for folder in ("docs", "examples"):
        ignore = shutil.ignore_patterns(*left_out)
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignore)
    return tmp_path


@pytest.fixture
def write_page(copy):
    """Write a short page, in the place of the flagship; return where it is built."""

    def write(code=DRAW, block=BLOCK, text="", name=PAGE.stem):
        page = copy / f"examples/deep_learning/{name}.py"
        page.write_text(f'{block}"""\nTitle\n=====\n{text}\n"""\n{code}\n')
        return copy / f"html/auto_examples/deep_learning/{name}.html"

    return write


def test_a_second_build_runs_nothing_again(copy, write_page):
    write_page(), write_page(name="plot_twin")
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
    write_page(), write_page(name="plot_a_page_without_a_place")
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
            soup = BeautifulSoup(html.read_text(), "html.parser")
            images = soup.select(".sphx-glr-thumbcontainer img")
            files = [html.parent / image["src"] for image in images]
            assert {file.name: file.read_bytes() for file in files} == expected


def test_a_build_without_plots_does_not_hide_a_later_one(copy, write_page):
    html = write_page('print("it ran")\n' + DRAW)
    for arguments, ran in ((["-Dplot_gallery=0", "-tnoplot"], False), ([], True)):
        run = build(copy, *arguments)
        assert run.returncode == 0, run.stderr
        for part in ("sphx-glr-script-out", "page-foot", "sphx-glr-single-img"):
            assert (part in html.read_text()) == ran
        assert "page-box" in html.read_text()
        home = BeautifulSoup((copy / "html/index.html").read_text(), "html.parser")
        for mode in ("light", "dark"):
            images = home.select(f"article img.only-{mode}")
            assert len(images) == (2 if ran else 0)  # the figure and the thumbnail

    # A page that shows the figure of another follows it.
    write_page(
        "import matplotlib.pyplot as plt\n_ = plt.figure(figsize=(3, 2))\n" + DRAW
    )
    run = build(copy)
    assert run.returncode == 0, run.stderr
    home = BeautifulSoup((copy / "html/index.html").read_text(), "html.parser")
    assert [x["width"] for x in home.select(".sphx-glr-single-img")] == ["300", "300"]


# What runs again

RUNS = """
import os
from pathlib import Path

with open("ran", "a") as file:
    _ = file.write("{} ")
if Path("interrupt").exists():
    os.kill(os.getpid(), 9)
"""


@pytest.fixture
def run_again(copy, write_page):
    """Build two pages, one of which reads the data.

    Return a function that builds again and tells the pages that ran, and the number of
    documents that were read, of the seven that there are.
    """
    (copy / "requirements-docs.txt").write_text("one==1")
    write_data(copy)
    write_page(RUNS.format("plain"), name="plot_plain")
    block = BLOCK.replace("jax", "tensorflow-datasets")
    write_page(RUNS.format("data"), block, name="plot_data")
    write_page()  # which the home page shows
    ran = copy / "examples/deep_learning/ran"

    def again(*arguments):
        ran.write_text("")
        run = build(copy, *arguments)
        assert run.returncode == 0, run.stderr
        read = re.search(r"(\d+) added, (\d+) changed, 0 removed", run.stdout)
        return sorted(ran.read_text().split()), max(map(int, read.groups()))

    assert again() == (["data", "plain"], 7)
    return again


def write_data(copy, name="fashion_mnist 3.0.1", sha256="01", files="02"):
    """Write what ``make data`` does."""
    (copy / "docs/_build").mkdir(exist_ok=True)
    facts = {"name": name, "sha256": sha256, "files": files}
    (copy / "docs/_build/data.json").write_text(json.dumps(facts))


def change(path, text="# changed"):
    path.write_text(f"{path.read_text().rstrip()}\n{text}\n")


def test_a_page_runs_again_when_what_makes_it_changed(copy, run_again):
    for name in (
        "conf.py",
        "docs/_ext/gallery/run/figures.py",
        "requirements-docs.txt",
    ):
        change(copy / name)
        assert run_again() == (["data", "plain"], 7), name
    change(copy / "examples/deep_learning/plot_plain.py")
    assert run_again() == (["plain"], 1)
    write_data(copy, sha256="03")
    assert run_again() == (["data"], 7)
    assert run_again() == ([], 0)


def test_no_page_runs_again_for_anything_else(copy, run_again):
    for path in copy.rglob("*"):
        if "html" not in path.parts and "auto_examples" not in path.parts:
            os.utime(path)
    assert run_again()[0] == []
    for name in ("README.md", "tests/test_build.py", "benchmarks/bench.py"):
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_text("print()")
    write_data(copy, files="03")
    assert run_again() == ([], 0)
    change(copy / "docs/index.rst", "\n.. changed")
    assert run_again() == ([], 1)
    change(copy / "docs/_static/gallery.css")
    assert run_again() == ([], 7)
    change(copy / "docs/_templates/sidebar-nav.html")
    assert run_again() == ([], 7)
    change(copy / "docs/inventories/jax.txt", "jax.other function other.html")
    assert run_again() == ([], 7)


def test_a_build_that_was_cut_short_hides_nothing(copy, run_again):
    change(copy / "conf.py")
    (copy / "examples/deep_learning/interrupt").touch()
    assert build(copy).returncode == -9
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


# What fails the build

HANG = """
while True:
    try:
        while True:
            pass
    except Exception:
        pass
"""


@pytest.mark.parametrize(
    "code, reason",
    [
        ("import warnings\nwarnings.warn('take care')", "take care"),
        ("import numpy\nnumpy.log(0)", "divide by zero"),
        ("1 / 0", "division by zero"),
        ("import sys\nsys.exit('good bye')", "called sys.exit('good bye')"),
        ("import sys\nsys.exit(0)", "called sys.exit(0)"),
        (HANG, "took more than 5 s (page_budget)"),
    ],
)
def test_a_page_that_warns_or_fails_fails_the_build(copy, write_page, code, reason):
    """Under its name, while other pages run."""
    write_page(f"{code}\n{DRAW}")
    other = write_page("print('it ran')", name="plot_twin")
    run = build(copy, "-Dpage_budget=5")
    assert run.returncode != 0
    (failed,) = set(re.findall(r"\w+\.py(?=\S* unexpectedly failed)", run.stderr))
    assert failed == "plot_sgd_solvers.py"
    assert reason in run.stderr
    assert "it ran" in other.read_text()


@pytest.mark.parametrize(
    "link, reason",
    [
        (":doc:`nowhere`", "unknown document: 'nowhere'"),
        (":ref:`nowhere`", "undefined label: 'nowhere'"),
        (":func:`nothing.such`", "py:func reference target not found: nothing.such"),
        ("`here <nowhere.html>`__", "dead link: nowhere.html"),
        ("`here <#nowhere>`__", "dead link: #nowhere"),
        ("`here <../../index.html#at>`__", "dead link: ../../index.html#at"),
        ("`here </nowhere.html>`__", "dead link: /nowhere.html"),
    ],
)
def test_a_dead_link_fails_the_build(copy, write_page, link, reason):
    """Under the name of its page, and no other link does."""
    write_page(text=f"{link} `a <#title>`__ `b <../../index.html#the-pages>`__")
    run = build(copy)
    assert run.returncode != 0
    (line,) = (x for x in run.stderr.splitlines() if "WARNING" in x)
    assert "plot_sgd_solvers" in line
    assert reason in line


@pytest.mark.parametrize(
    "block, reason",
    [
        ("", "expected 1"),
        (BLOCK.replace("['jax']", "jax"), "Invalid value"),
        (BLOCK.replace("requires-python", "python"), "requires-python"),
    ],
)
def test_a_page_without_requirements_fails_the_build(copy, write_page, block, reason):
    write_page(block=block)
    run = build(copy)
    assert run.returncode != 0
    (line,) = run.stderr.splitlines()
    assert line.startswith("plot_sgd_solvers.py needs one block '# /// script'")
    assert reason in line


def test_two_pages_of_one_name_fail_the_build(copy, write_page):
    write_page()
    folder = copy / "examples/deep_learning"
    shutil.copytree(folder, folder.with_name("convex"))
    run = build(copy)
    assert run.returncode != 0
    reason = f"Two pages have the name {PAGE.name}, in convex and deep_learning"
    assert run.stderr.splitlines() == [reason]
    assert not (copy / "docs/auto_examples").exists()


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
    page = BeautifulSoup(html.read_text(), "html.parser")
    assert [x["alt"] for x in page.select(".sphx-glr-single-img")] == [title, title]
    text = " ".join(page.select_one(".figure-description ul").get_text().split())
    assert f"{label} goes from 1 to 2" in text.replace("“", '"').replace("”", '"')
    (numbers,) = (copy / "docs/auto_examples").rglob("*.csv")
    with numbers.open(newline="") as file:
        assert list(csv.reader(file))[:2] == [
            ["panel", "line", label, "value", "lowest", "highest"],
            [title, label, "0.0", "1.0", "1.0", "1.0"],
        ]


def git(*arguments, cwd):
    who = ["-c", "user.name=a", "-c", "user.email=a"]
    command = ["git", *who, *arguments]
    return subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True)


def test_a_build_that_knows_where_it_will_be(copy, write_page):
    """Repository, branch and address give the links that are absent without them."""
    html = write_page()
    git("init", cwd=copy)
    git("add", "conf.py", "docs", "examples", cwd=copy)
    git("commit", "-m", "all", cwd=copy)
    head = git("rev-parse", "HEAD", cwd=copy).stdout[:12]
    run = build(
        copy,
        GITHUB_REPOSITORY="owner/name",
        NOTEBOOK_BRANCH="built",
        SITE_URL="https://owner.example/name/",
    )
    assert run.returncode == 0, run.stderr
    page = BeautifulSoup(html.read_text(), "html.parser")
    *_, colab = page.select(".page-box a")
    place = "docs/auto_examples/deep_learning/plot_sgd_solvers.ipynb"
    start = "https://colab.research.google.com/github/owner/name/blob/built/"
    assert colab["href"] == start + place
    assert (copy / place).exists()
    (commit,) = page.select(".page-foot + dl a")
    assert commit["href"] == f"https://github.com/owner/name/commit/{head}"
    (graph,) = page.select("meta[property='og:image']")
    assert graph["content"].startswith("https://owner.example/name/_images/")
    sitemap = (copy / "html/sitemap.xml").read_text()
    assert "<loc>https://owner.example/name/index.html</loc>" in sitemap
    assert '"/name/_static/' in (copy / "html/404.html").read_text()

    # A change that is not committed is told.
    (copy / "conf.py").write_text((copy / "conf.py").read_text() + "\n")
    write_page(DRAW.replace("2", "3"))
    run = build(copy, GITHUB_REPOSITORY="owner/name")
    assert run.returncode == 0, run.stderr
    page = BeautifulSoup(html.read_text(), "html.parser")
    assert not page.select(".page-box a[href*=colab]")
    foot = page.select_one(".page-foot + dl")
    assert f"at commit {head}-dirty" in foot.get_text()
    assert not foot.select("a")


# Twice the same

TIMES = """
import time

print(f"took {time.time()}s, or {time.time_ns()} ms")
print("row                      ms", f"a  {time.time_ns():>24}", sep="\\n")
"""
FLAGS = """
import sys

from absl import flags

FLAGS = flags.FlagValues()
_ = flags.DEFINE_integer("number", 3, "A number.", flag_values=FLAGS)
_ = FLAGS(sys.argv)
print(FLAGS.number)
"""


def files(folder):
    """Return the content of all files in ``folder`` by their places."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_a_site_is_the_same_to_the_byte_when_it_is_built_twice(
    copy, write_page, tmp_path_factory
):
    """Elsewhere and later, without times; with times, it is not."""
    name = "auto_examples/deep_learning/plot_sgd_solvers"
    html = write_page(TIMES + LINE.format([1, 2]), text=":func:`jax.jit`")
    write_page(FLAGS + DRAW, name="plot_flags")
    write_data(copy)
    other = tmp_path_factory.mktemp("other") / "folder"
    shutil.copytree(copy, other)
    for env in ({"SOURCE_DATE_EPOCH": "1700000000"}, {}):
        sites = []
        for folder, seed in ((copy, "1"), (other, "2")):
            run = build(folder, "-ddoctrees", PYTHONHASHSEED=seed, **env)
            assert run.returncode == 0, run.stderr
            sites.append(files(folder / "html"))
        one, two = sites
        assert set(one) == set(two)
        differences = {place for place in one if one[place] != two[place]}
        page = BeautifulSoup(html.read_text(), "html.parser")
        took = page.select_one(".sphx-glr-script-out").get_text()
        foot = page.select_one(".page-foot + dl").get_text()
        if env:
            assert differences == set()
            assert "took -.--s, or -.-- ms" in took
            assert "Source of:\n2023-11-14" in foot
            assert "Running time" not in page.get_text()
            notebook = next(copy.rglob("plot_sgd_solvers.ipynb")).read_text()
            assert "took -.--s, or -.-- ms" in notebook
        else:
            assert {f"{name}.html", f"_sources/{name}.rst"} < differences
            assert any(place.endswith(".ipynb") for place in differences)
            assert "Run on" in foot


# What gets in


@pytest.fixture
def serve(tmp_path):
    """Return the address and the requests of a server of ``tmp_path`` on loopback."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, _, line, *others):
            asked.append(line)

        def __init__(self, *arguments):
            super().__init__(*arguments, directory=tmp_path)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", asked
        server.shutdown()


# Python runs this first. It writes down which programs a process starts, and whether it
# listens, for which Python has no event.
AUDIT = """
import os, socket, sys

def write(line):
    with open(os.environ["AUDITED"], "a") as file:
        print(line, file=file)

def watch(event, arguments):
    if event == "subprocess.Popen":
        write(os.path.basename(arguments[0]))
    elif event in ("os.system", "os.exec", "os.posix_spawn", "pty.spawn"):
        write(event)

def listen(self, *arguments, listen=socket.socket.listen):
    write("listen")
    listen(self, *arguments)

sys.addaudithook(watch)
socket.socket.listen = listen
"""
OFFERS = """
import os, socket, subprocess

_ = os.system("true"), subprocess.run("true", shell=True)
with socket.create_server(("127.0.0.1", 0)):
    pass
"""


def test_a_build_asks_no_other_site_and_offers_nothing(copy, write_page, serve):
    """Links to other documentation come from inventories of the project's own."""
    html = write_page(text=":func:`jax.jit`")
    (copy / "sitecustomize.py").write_text(AUDIT)
    proxy, asked = serve
    env = {"AUDITED": str(copy / "audited"), "PYTHONPATH": str(copy)}
    env |= {"http_proxy": proxy, "https_proxy": proxy, "no_proxy": ""}
    run = build(copy, **env)
    assert run.returncode == 0, run.stderr
    assert "https://docs.jax.dev/en/latest/_autosummary/jax.jit" in html.read_text()
    assert asked == []
    audited = (copy / "audited").read_text().splitlines()
    assert set(audited) == {"git"}

    # A page that does would be seen.
    write_page(OFFERS + DRAW)
    run = build(copy, **env)
    assert run.returncode == 0, run.stderr
    audited = (copy / "audited").read_text().splitlines()
    assert {"listen", "os.system", "sh"} < set(audited)


def test_names_of_what_a_page_was_made_with_do_no_harm(copy, write_page):
    evil = (
        "*a* `b <c>`__ |d| <b> :func:`e` ``f`` g_ [1]_ \\ \n\n.. raw:: html\n\n   <h1>"
    )
    text = " ".join(evil.split())
    html = write_page(block=BLOCK.replace("jax", "tensorflow-datasets"))
    write_data(copy, name=evil)
    run = build(copy)
    assert run.returncode == 0, run.stderr
    made = copy / "docs/auto_examples/deep_learning/plot_sgd_solvers.json"
    facts = json.loads(made.read_text())
    facts |= {"versions": {"jax": evil}, "device": evil}
    made.write_text(json.dumps(facts))
    run = build(copy, "-E")
    assert run.returncode == 0, run.stderr
    check_html(html)
    foot = BeautifulSoup(html.read_text(), "html.parser").select_one(".page-foot + dl")
    assert foot.get_text().count(text) == 3
    assert not foot.select("a, em, h1, b")


def test_inventories_are_compared_with_what_a_site_has(tmp_path, serve):
    (tmp_path / "conf.py").touch()
    function = ".. py:module:: jax\n\n.. py:function:: jit\n\n.. py:function:: vmap\n"
    (tmp_path / "index.rst").write_text(function)
    run = run_script("-m", "sphinx", "-q", ".", "out", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    address = serve[0] + "out/"
    start = "# Sphinx inventory version 1\n# Project: JAX\n# Version:\n"
    lines = "jax.jit function index.html\njax.vmap function other.html\n"
    lines += "jax.pmap function index.html\n"
    moved, gone = check_inventories.differences((start + lines).encode(), address)
    assert moved.startswith("py:function jax.vmap is not at ")
    assert moved.endswith(f": {address}index.html#jax.vmap")
    assert gone.startswith("py:function jax.pmap") and gone.endswith(": gone")
    (silent,) = check_inventories.differences(b"", address + "nowhere/")
    assert "has no inventory to compare with (HTTPError)" in silent


# The commands


def test_a_failed_build_fails_again(copy, write_page):
    """Sphinx alone would not warn twice of a page that it does not read again."""
    write_page(text=":func:`nothing.such`")
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


@pytest.mark.parametrize("version", [(3, 9), (3, 14)])
def test_make_refuses_another_python(tmp_path, version):
    """One line that says which Python is wanted, and nothing made."""
    python = tmp_path / "python"
    code = f"import sys; sys.version_info = {version}; $2"
    script = f'exec "{sys.executable}" -c "{code}"'
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copy(ROOT / "requirements-docs.txt", tmp_path)
    run = make(f"PYTHON={python}", "html", cwd=tmp_path)
    assert run.returncode != 0
    assert "Python 3.11, 3.12 or 3.13 is needed" in run.stderr
    assert not (tmp_path / ".venv").exists()
