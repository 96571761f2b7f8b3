"""The built site and small ones: pages, an address, a browser, and downloads."""

import os
import shutil
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest
from bs4 import BeautifulSoup
from playwright.sync_api import sync_playwright

from builds import build, copy_sources, restore, write_script
from helpers import SITE, built, download, lack, printed


@pytest.fixture(scope="module")
def soup(script):
    """Return the HTML of a page."""
    assert built(script).exists(), "the site is not built: make html"
    return BeautifulSoup(built(script).read_text(), "html.parser")


@pytest.fixture(scope="module")
def log(script):
    """Return all that a page printed."""
    return printed(script)


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
        lack("no chromium or google-chrome on the PATH (Debian: apt install chromium)")
    return browser_or_none


@pytest.fixture(scope="module")
def downloads(script, soup, browser_or_none, site_url, tmp_path_factory):
    """Return the files that a reader gets from a page, by their ending.

    Without a browser, they are the files to which the links point.
    """
    selector = ".page-run a.download, .sphx-glr-download a.download"
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


# Small sites


@pytest.fixture(scope="session")
def small_site(tmp_path_factory):
    """Build a small site once; return its folder and a copy to restore it from.

    It has the flagship's name alone, for a short page. A copy could not be built at
    another place: Sphinx would read all of its documents again.
    """
    folder = tmp_path_factory.mktemp("small") / "site"
    folder.mkdir()
    copy_sources(folder)
    write_script(folder)
    run = build(folder)
    assert run.returncode == 0, run.stderr
    kept = folder.with_name("kept")
    shutil.copytree(folder, kept, symlinks=True)
    return folder, kept


@pytest.fixture
def copy(small_site):
    """Return the folder of a small site that is built, as it was at first."""
    return restore(*small_site)


@pytest.fixture
def fresh(tmp_path):
    """Return a folder with all that a build reads, but no page, and nothing built."""
    copy_sources(tmp_path)
    return tmp_path


@pytest.fixture
def write_page(copy):
    """Return a function that writes a short page, by default as the flagship."""
    return partial(write_script, copy)


@pytest.fixture
def serve(tmp_path):
    """Return the address and the requests of a server of ``tmp_path`` on loopback."""
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, _, line, *others):
            asked.append(line)

        def __init__(self, *arguments):
            super().__init__(*arguments, directory=tmp_path)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", asked
        server.shutdown()
