"""What SECURITY.md and CONTRIBUTING.md promise of builds, in small sites."""

import json
import shutil

from bs4 import BeautifulSoup

from builds import BLOCK, DRAW, build, build_alone, files, write_data, write_script
from helpers import check_html
from test_build import LINE

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


def test_a_site_is_the_same_to_the_byte_when_it_is_built_twice(fresh, tmp_path_factory):
    """Elsewhere and later, without times; with times, it is not."""
    name = "auto_examples/deep_learning/plot_sgd_solvers"
    html = write_script(fresh, TIMES + LINE.format([1, 2]), text=":func:`jax.jit`")
    write_script(fresh, FLAGS + DRAW, name="plot_flags")
    write_data(fresh)
    other = tmp_path_factory.mktemp("other") / "folder"
    shutil.copytree(fresh, other)
    for env in ({"SOURCE_DATE_EPOCH": "1700000000"}, {}):
        sites = []
        for folder, seed in ((fresh, "1"), (other, "2")):
            run = build_alone(folder, "-ddoctrees", PYTHONHASHSEED=seed, **env)
            assert run.returncode == 0, run.stderr
            sites.append(files(folder / "html"))
        one, two = sites
        assert set(one) == set(two)
        differences = {place for place in one if one[place] != two[place]}
        page = BeautifulSoup(html.read_text(), "html.parser")
        took = page.select_one(".sphx-glr-script-out").get_text()
        foot = page.select_one(".page-foot").get_text()
        if env:
            assert differences == set()
            assert "took -.--s, or -.-- ms" in took
            assert "Source of:\n2023-11-14" in foot
            assert "Running time" not in page.get_text()
            assert "memory" not in page.get_text().lower()
            notebook = next(fresh.rglob("plot_sgd_solvers.ipynb")).read_text()
            assert "took -.--s, or -.-- ms" in notebook
        else:
            assert {f"{name}.html", f"_sources/{name}.rst"} < differences
            assert any(place.endswith(".ipynb") for place in differences)
            assert "Run on" in foot


# What gets in


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
    html = write_page("print(2)\n" + DRAW, text=":func:`jax.jit`")
    (copy / "sitecustomize.py").write_text(AUDIT)
    proxy, asked = serve
    env = {"AUDITED": str(copy / "audited"), "PYTHONPATH": str(copy)}
    env |= {"http_proxy": proxy, "https_proxy": proxy, "no_proxy": ""}
    run = build_alone(copy, **env)
    assert run.returncode == 0, run.stderr
    assert "https://docs.jax.dev/en/latest/_autosummary/jax.jit" in html.read_text()
    assert asked == []
    audited = (copy / "audited").read_text().splitlines()
    assert set(audited) == {"git"}

    # A page that does would be seen.
    write_page(OFFERS + DRAW)
    run = build_alone(copy, **env)
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
    foot = BeautifulSoup(html.read_text(), "html.parser").select_one(".page-foot")
    assert " ".join(foot.get_text().split()).count(text) == 3
    assert not foot.select("a, em, h1, b")
