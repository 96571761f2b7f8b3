"""What fails a build, in small sites: by the name of its page, and it alone."""

import re
import shutil

import pytest

from builds import BLOCK, DRAW, build
from helpers import PAGE

REFUSED = """
import matplotlib.pyplot as plt

_ = plt.plot([1, 2]), plt.plot([2, 3]), plt.fill_between([0, 1], [1, 2], [2, 3])
"""
HANG = """
while True:
    try:
        while True:
            pass
    except Exception:
        pass
"""
THREAD = """
import threading
import warnings

thread = threading.Thread(target=warnings.warn, args=["take care"])
thread.start()
thread.join()
"""
# What is deleted with the page warns when the page has run.
LATE = """
import warnings


class Late:
    def __del__(self, warn=warnings.warn):
        warn("take care")


late = Late()
late.itself = late
"""
ANIMATION = """
import matplotlib.pyplot as plt
from matplotlib.animation import FuncAnimation

_ = FuncAnimation(plt.figure(), print, frames=1)
_ = plt.close("all")
"""


@pytest.mark.parametrize(
    "code, reason",
    [
        ("import warnings\nwarnings.warn('take care')", "take care"),
        (THREAD, "had an exception in a thread, UserWarning: take care"),
        (f"{THREAD}\n# %%\n# Text\n", "had an exception in a thread"),
        (LATE, "had an exception that Python ignores, UserWarning: take care"),
        (f"{LATE}del late", "had an exception that Python ignores, UserWarning: take"),
        (ANIMATION, "that Python ignores, UserWarning: Animation was deleted"),
        ("import logging\nlogging.error('a %s', 1)", "logged an error, root: a 1"),
        (
            "import logging\nlogging.getLogger('x').critical('help')",
            "logged an error, x: help",
        ),
        ("import numpy\nnumpy.log(0)", "divide by zero"),
        ("1 / 0", "division by zero"),
        ("import sys\nsys.exit('good bye')", "called sys.exit('good bye')"),
        ("import sys\nsys.exit(0)", "called sys.exit(0)"),
        (REFUSED, "3 lines and 1 bands: call fill_between"),
        (HANG, "took more than 2 s (gallery_page_budget)"),
    ],
)
def test_a_page_that_warns_or_fails_fails_the_build(copy, write_page, code, reason):
    """Under its name, while other pages run."""
    write_page(f"{code}\n{DRAW}")
    other = write_page("print('it ran')", name="plot_twin")
    run = build(copy, "-Dgallery_page_budget=2")
    assert run.returncode != 0
    (failed,) = set(re.findall(r"\w+\.py(?=\S* unexpectedly failed)", run.stderr))
    assert failed == "plot_sgd_solvers.py"
    assert reason in run.stderr
    assert "it ran" in other.read_text()
    # It is not taken for a page that passed.
    assert failed in build(copy, "-Dgallery_page_budget=2").stderr


def test_ctrl_c_ends_the_build(copy, write_page):
    """Also in a page that turns it into an exit, as pages do in a terminal."""
    ends = "try:\n    {}\nexcept {}:\n    raise SystemExit('Interrupted')\n"
    write_page(ends.format("raise KeyboardInterrupt", "KeyboardInterrupt"))
    other = write_page("print('it ran')", name="plot_twin")
    run = build(copy)
    assert run.returncode == 2
    assert "Interrupted!" in run.stderr and "unexpectedly failed" not in run.stderr
    assert not other.exists()
    write_page(ends.format("1 / 0", "ZeroDivisionError"))
    assert "called sys.exit('Interrupted')" in build(copy).stderr


def test_a_page_may_log_what_is_no_error(copy, write_page):
    code = "import logging\nlogging.getLogger('x').warning('by the way')"
    page = write_page(f"{code}\n{DRAW}")
    run = build(copy)
    assert run.returncode == 0, run.stderr
    assert "by the way" in page.read_text()


@pytest.mark.parametrize(
    "formula, reason",
    [
        (":math:`\\frac{1}`", "Source incomplete?"),
        (
            ".. math::\n\n   \\nosuchcommand x",
            'Unknown LaTeX command "\\nosuchcommand"',
        ),
    ],
    ids=["inline", "block"],
)
def test_a_mistake_in_a_formula_fails_the_build(copy, write_page, formula, reason):
    """With the place of the formula, while other pages are shown."""
    write_page(text=f"Some text.\n\n{formula}")
    other = write_page(text="As :math:`x^2`.", name="plot_twin")
    run = build(copy)
    assert run.returncode == 1
    (line,) = (x for x in run.stderr.splitlines() if "WARNING" in x)
    assert re.search(r"plot_sgd_solvers\.rst:\d+: WARNING: ", line)
    assert reason in run.stderr
    assert "Traceback" not in run.stderr
    assert other.exists()


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
        (
            '.. raw:: html\n\n   <img src="../../_static/favicon.svg" alt="" '
            'srcset="../../_static/favicon.svg 1x, no.png 2x">\n\n',
            "dead link: no.png",
        ),
    ],
)
def test_a_dead_link_fails_the_build(copy, write_page, link, reason):
    """Under the name of its page, and no other link does."""
    write_page(text=f"`a <#title>`__ `b <../../index.html#the-pages>`__\n\n{link}")
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


def test_two_pages_of_one_name_fail_the_build(copy):
    folder = copy / "examples/deep_learning"
    shutil.copytree(folder, folder.with_name("convex"))
    run = build(copy)
    assert run.returncode != 0
    reason = f"Two pages have the name {PAGE.name}, in convex and deep_learning"
    assert run.stderr.splitlines() == [reason]
    assert not (copy / "docs/auto_examples/convex").exists()
