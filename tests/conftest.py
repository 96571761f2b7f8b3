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

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "examples/deep_learning/plot_sgd_solvers.py"
SOLVERS = ["Polyak SGD", "Armijo SGD", "RMSProp", "SGD"]

# Children that work on the real data get the environment as it came; this process, and
# children that ask for it, a folder with small data. tensorflow-datasets reads the
# variable on import, so it is set before anything imports that.
REAL_DATA = os.environ | {"JAX_PLATFORMS": "cpu", "MPLBACKEND": "agg"}
SMALL_DATA_DIR = tempfile.TemporaryDirectory()
os.environ |= {
    "TFDS_DATA_DIR": SMALL_DATA_DIR.name,
    "JAX_PLATFORMS": "cpu",
    "MPLBACKEND": "agg",
}

import matplotlib.pyplot as plt  # noqa: E402  (reads MPLBACKEND on import)
import tensorflow_datasets as tfds  # noqa: E402  (reads TFDS_DATA_DIR on import)


@pytest.fixture(scope="session", autouse=True)
def small_data():
    """Prepare 1,600 images of ten noisy patterns as Fashion-MNIST, with its builder."""
    # Its module registers the real data sets, so it is imported before none register.
    builder = tfds.image_classification.FashionMNIST
    with tfds.core.registered.skip_registration():

        class FashionMNIST(builder):
            def _split_generators(self, dl_manager):
                return {"train": self._generate_examples()}

            def _generate_examples(self):
                random = np.random.default_rng(0)
                patterns = random.integers(0, 256, (10, 7, 7, 1))
                patterns = patterns.repeat(4, axis=1).repeat(4, axis=2)
                for key in range(1_600):
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
    """Return a function that runs ``main`` and tells what it printed and drew."""

    def run(*flags):
        with contextlib.redirect_stdout(io.StringIO()) as log:
            curves = page.main(["plot_sgd_solvers.py", *flags])
        figure = plt.gcf()
        plt.close(figure)
        return SimpleNamespace(log=log.getvalue(), figure=figure, curves=curves)

    return run


def run_script(*arguments, env=REAL_DATA, cwd=None):
    """Run Python on ``arguments`` and return what came of it."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, env=env, cwd=cwd, text=True, capture_output=True)


def check_log(log):
    """Check a log at the defaults: 24 lines, 4 closing lines, one first loss."""
    *blocks, rest = log.split("\n\n")
    assert (len(blocks), rest.strip()) == (4, "")
    first = set()
    for name, block in zip(SOLVERS, blocks, strict=True):
        compiling, *lines, closing = block.splitlines()
        number = r"\d+\.\d{3}"
        line = rf"\[{name}\] \(([ \d]{{4}})\), (error={number}, loss=({number}))"
        line += r", stepsize=[01]\.\d{6}" if name in SOLVERS[:2] else ""
        matches = [re.fullmatch(line, text) for text in lines]
        assert all(matches), lines
        assert [int(match[1]) for match in matches] == [0, 20, 40, 60, 80, 100]
        assert re.fullmatch(rf"Compiling {name} took \d+\.\d\ds", compiling)
        assert re.fullmatch(rf"101 iterations of {name} took \d+\.\d\ds", closing)
        assert float(matches[-1][3]) < float(matches[0][3])
        first.add(matches[0][2])
    assert len(first) == 1
