"""Small data, and the pages that tests are of."""

from environment import SMALL_DATA_DIR

# isort: split
import contextlib
import io
import shlex
import socket
import subprocess
import sys
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import tensorflow_datasets as tfds

from helpers import PAGE, PAGES, ROOT, Linear, lack, load


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
    """Return the flagship as a module."""
    return load(PAGE)


@pytest.fixture(scope="session")
def run_page(page):
    """Return a function that runs ``main`` and tells all that came of it.

    The network is a linear one.
    """

    def run(*flags):
        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(io.StringIO()) as log,
        ):
            patch.setattr(page, "CNN", Linear)
            results, accuracies = page.main(["plot_sgd_solvers.py", *flags])
        figure = plt.gcf()
        plt.close(figure)
        return SimpleNamespace(
            log=log.getvalue(), figure=figure, results=results, accuracies=accuracies
        )

    return run


@pytest.fixture(scope="session")
def loopback_python(tmp_path_factory):
    """Return a Python whose host has a loopback address, so processes may listen."""
    page = load(ROOT / "examples/deep_learning/plot_devices_and_hosts.py")
    if page.is_loopback(socket.gethostname()):
        return sys.executable
    rename = ["unshare", "--uts", "sh", "-c", 'hostname localhost && exec "$@"', "-"]
    try:
        subprocess.run([*rename, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        lack(f"others can reach this host, and it cannot be renamed: {error}")
    python = tmp_path_factory.mktemp("renamed") / "python"
    before = shlex.join([*rename, sys.executable])
    python.write_text(f'#!/bin/sh\nexec {before} "$@"\n')
    python.chmod(0o755)
    return str(python)


# Every page


@pytest.fixture(scope="module", params=PAGES, ids=lambda page: page.stem)
def script(request):
    """Return each page, so that a test which takes this, or what follows, is of all."""
    return request.param
