"""Tests of docs/prepare_data.py, against stand-ins for its sources on loopback.

The stand-ins need the true archives: they come from whichever real source answers.
"""

import contextlib
import hashlib
import http.server
import importlib
import os
import re
import shutil
import ssl
import subprocess
import sys
import threading
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import pytest
import tensorflow_datasets as tfds
import trustme

SCRIPT = Path(__file__).parents[1] / "docs" / "prepare_data.py"
sys.path.insert(0, str(SCRIPT.parent))
prepare_data = importlib.import_module(SCRIPT.stem)

OWN = "fashion-mnist.s3-website.eu-central-1.amazonaws.com"
MIRROR = "raw.githubusercontent.com"
DEB = "dataset-fashion-mnist_1_all.deb"

needs_apt = pytest.mark.skipif(
    not (shutil.which("apt-get") and shutil.which("dpkg-deb")),
    reason="this system has no apt-get and dpkg-deb",
)


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves files by name, as a proxy and in the manner of their host."""

    host = None

    def manner(self):
        source = {OWN: "own", MIRROR: "mirror"}.get(self.host, "other")
        return self.server.manners.get(source, "refuse")

    def do_CONNECT(self):
        self.host = self.path.partition(":")[0]
        self.server.asked.append((self.host, None))
        if self.manner() == "stall":
            self.server.over.wait()
        elif self.manner() != "refuse":
            self.send_response(200)
            self.end_headers()
            self.request = self.server.tls.wrap_socket(self.request, server_side=True)
            self.setup()
            self.close_connection = False

    def do_GET(self):
        url = urlsplit(self.path)
        name = PurePosixPath(url.path).name
        self.host = self.host or url.hostname
        self.server.asked.append((self.host, name))
        file = self.server.files.get(name)
        match self.manner():
            case "stall":
                self.server.over.wait()
            case "503":
                self.send_error(503)
            case "serve" if file is None:
                self.send_error(404)
            case "serve":
                self.answer(len(file), file)
            case "serve too much":
                self.answer(len(file) + 1, file + b"\0")
            case "cut short":
                self.answer(len(file), file[: len(file) // 2])
            case "drip":
                self.answer(len(file), b"")
                for _ in range(100):
                    self.server.over.wait(0.2)
                    self.wfile.write(b"\0")

    def answer(self, size, content):
        self.send_response(200)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        self.wfile.write(content)

    def handle(self):
        # A client may leave early.
        with contextlib.suppress(OSError):
            super().handle()

    def finish(self):
        super().finish()
        self.request.close()

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


def apt_config(folder):
    """Write settings with which apt knows one repository and nothing of this machine's.

    Return their path.
    """
    for name in ("none", "lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    (folder / "sources.list").write_text("deb [trusted=yes] http://debian.invalid ./\n")
    settings = {
        "Dir::Etc::Main": "/dev/null",
        "Dir::Etc::Parts": folder / "none",
        "Dir::Etc::SourceList": folder / "sources.list",
        "Dir::Etc::SourceParts": folder / "none",
        "Dir::State::Lists": folder / "lists",
        "Dir::Cache": folder / "cache",
        # apt's own user could not enter the temporary folder.
        "APT::Sandbox::User": "root",
    }
    lines = (f'{name} "{value}";\n' for name, value in settings.items())
    (folder / "apt.conf").write_text("".join(lines))
    return folder / "apt.conf"


@pytest.fixture
def network(authority, tmp_path, monkeypatch):
    """Nothing can be reached, until this function is given files and who serves them.

    It returns the server, a proxy, where ``asked`` has all requests.
    """
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "authority.pem"))
    monkeypatch.setenv("APT_CONFIG", str(apt_config(tmp_path / "apt")))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    for name in ("no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)

    def use(proxy):
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
            monkeypatch.setenv(name, proxy)

    use("http://127.0.0.1:1")  # a port that nobody listens at
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = False  # so that server_close waits for them
    server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(MIRROR).configure_cert(server.tls)
    server.asked, server.over = [], threading.Event()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()

    def serve(files, **manners):
        server.files, server.manners = files, manners
        use(f"http://127.0.0.1:{server.server_port}")
        return server

    yield serve
    server.over.set()
    server.shutdown()
    server.server_close()
    thread.join()


def run(*options, timeout):
    command = [sys.executable, *options, SCRIPT]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout)


@pytest.fixture(scope="module")
def registered(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("no_data")
    return tfds.builder("fashion_mnist:3.*.*", data_dir=data_dir).url_infos


@pytest.fixture(scope="module")
def archives(registered, tmp_path_factory):
    """The contents of the true archives, by name."""
    reasons = []
    for name, fetch in prepare_data.SOURCES.items():
        folder = tmp_path_factory.mktemp("archives")
        try:
            fetch(registered, folder)
            prepare_data.check(registered, folder)
        except prepare_data.SourceError as error:
            # Otherwise a mistake in the script could pass for a missing network.
            assert "sha256" not in str(error)
            reasons.append(f"{name}: {error}")
            continue
        names = [archive.filename for archive in registered.values()]
        return {name: (folder / name).read_bytes() for name in names}
    missing = f"no source has the true archives ({'; '.join(reasons)})"
    # A person without a network can test the rest; CI has to test this, too.
    pytest.fail(missing) if "CI" in os.environ else pytest.skip(missing)


def assert_prepared(child, data, source):
    assert child.returncode == 0, child.stderr
    (info,) = data.glob("fashion_mnist/3.*/dataset_info.json")
    assert f"Getting Fashion-MNIST from {source}\n" in child.stdout
    assert child.stdout.endswith(f"Fashion-MNIST is in {info.parent}\n")
    splits = tfds.builder_from_directory(info.parent).info.splits
    sizes = {name: split.num_examples for name, split in splits.items()}
    assert sizes == {"train": 60_000, "test": 10_000}


def assert_refused(child, data):
    assert child.returncode == 1
    assert child.stderr.startswith("Fashion-MNIST could not be had:\n")
    assert "Traceback" not in child.stderr
    for source in prepare_data.SOURCES:
        assert re.search(f"^  {source}: .", child.stderr, re.MULTILINE)
    remedy = f"Run this again with a network, or copy {data}/fashion_mnist/3."
    assert remedy in child.stderr
    assert not data.exists() or not list(data.iterdir())


def test_own_source_once(network, archives, tmp_path):
    proxy = network(archives, own="serve")
    first = run(timeout=300)
    assert_prepared(first, tmp_path / "data", "its own source")
    assert {host for host, _ in proxy.asked} == {OWN}

    proxy.asked.clear()
    second = run("-X", "importtime", timeout=60)
    assert second.returncode == 0
    assert second.stdout == first.stdout.splitlines(keepends=True)[-1]
    assert proxy.asked == []
    imported = re.findall(r"^import time:.*\| +(\S+)$", second.stderr, re.MULTILINE)
    assert "tensorflow_datasets" in imported
    assert "tensorflow" not in imported


def test_mirror_instead(network, archives, tmp_path):
    proxy = network(archives, own="503", mirror="serve")
    assert_prepared(run(timeout=300), tmp_path / "data", "the GitHub mirror")
    assert {host for host, _ in proxy.asked} == {OWN, MIRROR}


@pytest.mark.parametrize(
    ("source", "manner", "reason"),
    [
        ("own", "503", "status 503"),
        ("own", "serve", "wrong sha256"),
        ("own", "serve too much", "larger than registered"),
        ("own", "cut short", "cut short"),
        ("own", "drip", "too slowly"),
        ("mirror", "refuse", "no connection"),
        ("mirror", "cut short", "cut short"),
    ],
)
def test_bad_source(source, manner, reason, network, registered, tmp_path):
    wrong = {archive.filename: bytes(archive.size) for archive in registered.values()}
    network(wrong, **{source: manner})
    names = {"own": "its own source", "mirror": "the GitHub mirror"}
    with pytest.raises(prepare_data.SourceError, match=reason):
        prepare_data.SOURCES[names[source]](registered, tmp_path)
        prepare_data.check(registered, tmp_path)


def repository(folder, archives):
    """Return the files of a repository that has a package of ``archives``."""
    tree = folder / "package"
    packaged = tree / "usr/share/datasets/fashion-mnist"
    packaged.mkdir(parents=True)
    for name, content in archives.items():
        # Debian's header has another time, and no name before the deflated bytes.
        _, _, deflated = content[10:].partition(b"\0")
        header = bytes.fromhex("1f8b0800 ed0ada5e 0003")
        (packaged / name).write_bytes(header + deflated)
    control = (
        "Package: dataset-fashion-mnist\nVersion: 1\nArchitecture: all\n"
        "Maintainer: Nobody <nobody@example.org>\nDescription: A stand-in\n"
    )
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN").chmod(0o755)  # dpkg-deb refuses less
    (tree / "DEBIAN/control").write_text(control)
    build = ["dpkg-deb", "-Znone", "--build", tree, folder / DEB]
    subprocess.run(build, check=True, capture_output=True)
    deb = (folder / DEB).read_bytes()
    sha256 = hashlib.sha256(deb).hexdigest()
    entry = f"{control}Filename: {DEB}\nSize: {len(deb)}\nSHA256: {sha256}\n"
    return {"Packages": entry.encode(), DEB: deb}


@needs_apt
@pytest.mark.parametrize("listed", [False, True])
def test_package(listed, network, registered, archives, tmp_path):
    if not listed and os.geteuid() != 0:
        pytest.skip("only root refreshes apt's lists")
    proxy = network(repository(tmp_path, archives), other="serve")
    if listed:
        subprocess.run(["apt-get", "update"], check=True, capture_output=True)
        proxy.asked.clear()
    folder = tmp_path / "unpacked"
    folder.mkdir()
    prepare_data.from_debian(registered, folder)
    prepare_data.check(registered, folder)
    names = [name for _, name in proxy.asked]
    assert names == [DEB] if listed else {"Packages", DEB} <= set(names)


@needs_apt
def test_package_without_archives(network, tmp_path):
    network(repository(tmp_path, {}), other="serve")
    subprocess.run(["apt-get", "update"], check=True, capture_output=True)
    child = run(timeout=60)
    assert_refused(child, tmp_path / "data")
    assert "dataset-fashion-mnist: [Errno 2] No such file" in child.stderr


@pytest.mark.usefixtures("network")
@pytest.mark.parametrize("variable", ["TFDS_DATA_DIR", "HOME"])
def test_all_refused(variable, monkeypatch, tmp_path):
    data = tmp_path / "data"
    if variable == "HOME":
        monkeypatch.delenv("TFDS_DATA_DIR")
        monkeypatch.setenv("HOME", str(tmp_path))
        data = tmp_path / "tensorflow_datasets"
    assert_refused(run(timeout=60), data)


def test_all_stall(network, tmp_path):
    network({}, own="stall", mirror="stall", other="stall")
    # A minute is what a person is asked to wait at most.
    child = run(timeout=60)
    assert_refused(child, tmp_path / "data")
    assert child.stderr.count("no answer") == 2
