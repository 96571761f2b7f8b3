"""Data, prepared by the build or by a page, when sources, disks and processes fail.

The sources are stand-ins on loopback, with small archives: what fails with these fails
with the true ones, which another file tests.
"""

import http.server
import json
import os
import re
import runpy
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import tensorflow_datasets as tfds
import trustme
from tensorflow_datasets.image_classification.mnist import FashionMNIST

import prepare_data
from helpers import PAGE, PAGES
from small_archives import ARCHIVES, SHA256, register
from stand_ins import DEB, MIRROR, OWN, Handler, apt_config, disk, mounted, repository

SCRIPT = Path(prepare_data.__file__)
FOLDER = "fashion_mnist/3.0.1"
RECORDS = "fashion_mnist-train.tfrecord-00000-of-00001"
needs_apt = pytest.mark.skipif(
    not (shutil.which("apt-get") and shutil.which("dpkg-deb")),
    reason="this system has no apt-get and dpkg-deb",
)


@pytest.fixture(scope="module", autouse=True)
def small_archives():
    """Register the small archives, in this process and in its children."""
    with pytest.MonkeyPatch.context() as patch:
        register(patch.setattr)
        # Where sitecustomize.py is.
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        yield


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


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


def start(folder, *options):
    """Start the script, as if ``folder`` were the repository."""
    script = folder / "tools" / SCRIPT.name
    script.parent.mkdir(exist_ok=True)
    (folder / "docs").mkdir(exist_ok=True)
    shutil.copy(SCRIPT, script)
    command = [sys.executable, *options, script]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)


def finish(child, timeout):
    """Wait for ``child``, and return what came of it."""
    with child:
        try:
            output = child.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            child.kill()
            raise
    return subprocess.CompletedProcess(child.args, child.returncode, *output)


def run(folder, *options, timeout=60):
    # A minute is what a person is asked to wait at most.
    return finish(start(folder, *options), timeout)


def assert_nothing_else(data, *others):
    """Check that ``data`` has nothing but the data set, and the lock of the build."""
    names = {path.name for path in data.glob("*")}
    assert names <= {"fashion_mnist", "fashion_mnist.lock"}
    assert set(data.glob("fashion_mnist/*")) <= {data / FOLDER, *others}


def assert_prepared(child, data, source, *others):
    assert child.returncode == 0, child.stderr
    (info,) = data.glob("fashion_mnist/3.*/dataset_info.json")
    assert f"Getting Fashion-MNIST from {source}\n" in child.stdout
    assert child.stdout.endswith(f"Fashion-MNIST is in {info.parent}\n")
    assert ".preparing" not in child.stdout  # where it was for a while
    assert_nothing_else(data, *others)
    splits = tfds.builder_from_directory(info.parent).info.splits
    sizes = {name: split.num_examples for name, split in splits.items()}
    assert sizes == {"train": 1_200, "test": 100}


def assert_refused(child, data):
    assert child.returncode == 1
    assert child.stderr.startswith("Fashion-MNIST could not be had:\n")
    assert "Traceback" not in child.stderr
    for source in prepare_data.SOURCES:
        assert re.search(f"^  {source}: .", child.stderr, re.MULTILINE)
    assert (
        f"Run this again with a network and room for it, or copy {data / FOLDER}"
        in child.stderr
    )
    assert_nothing_else(data)
    assert not (data / FOLDER).exists()


@pytest.mark.parametrize(
    ("source", "manner", "reason"),
    [
        ("own", "503", "status 503"),
        ("own", "serve", "wrong sha256"),
        ("own", "serve too much", "larger than registered"),
        ("own", "cut short", "cut short"),
        ("own", "stall half way", "cut short"),
        ("own", "drip", "too slowly"),
        ("mirror", "refuse", "no connection"),
        ("mirror", "cut short", "cut short"),
    ],
)
def test_bad_source(source, manner, reason, network, tmp_path):
    wrong = {name: bytes(len(archive)) for name, archive in ARCHIVES.items()}
    network(wrong, **{source: manner})
    names = {"own": "its own source", "mirror": "the GitHub mirror"}
    start = time.monotonic()
    with pytest.raises(prepare_data.SourceError, match=reason):
        prepare_data.SOURCES[names[source]](FashionMNIST.url_infos, tmp_path)
        prepare_data.check(FashionMNIST.url_infos, tmp_path)
    assert time.monotonic() - start < 2 * prepare_data.PATIENCE


@needs_apt
@pytest.mark.parametrize("listed", [False, True])
def test_package(listed, network, tmp_path):
    if not listed and os.geteuid() != 0:
        pytest.skip("only root refreshes apt's lists")
    proxy = network(repository(tmp_path, ARCHIVES), other="serve")
    if listed:
        subprocess.run(["apt-get", "update"], check=True, capture_output=True)
        proxy.asked.clear()
    folder = tmp_path / "unpacked"
    folder.mkdir()
    prepare_data.from_debian(FashionMNIST.url_infos, folder)
    prepare_data.check(FashionMNIST.url_infos, folder)
    names = [name for _, name in proxy.asked]
    assert names == [DEB] if listed else {"Packages", DEB} <= set(names)


@needs_apt
def test_package_without_archives(network, tmp_path):
    network(repository(tmp_path, {}), other="serve")
    subprocess.run(["apt-get", "update"], check=True, capture_output=True)
    child = run(tmp_path)
    assert_refused(child, tmp_path / "data")
    assert f"dataset-fashion-mnist: {DEB} has no t10k-images" in child.stderr


@pytest.mark.usefixtures("network")
@pytest.mark.parametrize("variable", ["TFDS_DATA_DIR", "HOME"])
def test_all_refused(variable, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    if variable == "HOME":
        monkeypatch.delenv("TFDS_DATA_DIR")
        data = tmp_path / "tensorflow_datasets"
    else:
        monkeypatch.setenv("TFDS_DATA_DIR", "~/data")
        data = tmp_path / "data"
    assert_refused(run(tmp_path), data)


def test_all_stall(network, tmp_path):
    network({}, own="stall", mirror="stall", other="stall")
    child = run(tmp_path)
    assert_refused(child, tmp_path / "data")
    assert child.stderr.count("no answer") == 2


# What is there is whole, or it is made anew


def wait_for(condition):
    """Wait until ``condition`` holds; fail after a minute."""
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    pytest.fail("it did not come to that")


def test_killed_then_two_at_once_then_nothing_to_do(network, build, tmp_path):
    """The next runs find nothing to trip over, and share the work."""
    proxy = network(ARCHIVES, own="stall half way")
    data = tmp_path / "data"
    child = start(tmp_path)
    wait_for(lambda: list(data.glob("*.preparing/archives/*")))
    child.kill()
    assert finish(child, 60).returncode == -signal.SIGKILL
    assert list(data.glob("*.preparing/archives/*"))
    # And what tensorflow-datasets leaves when it is killed: long ago, or at work.
    old, new = (data / f"fashion_mnist/incomplete.{x}_3.0.1" for x in ("OLD", "NEW"))
    for folder in (old, new):
        folder.mkdir(parents=True)
    os.utime(old, (0, 0))

    proxy = network(ARCHIVES, own="serve")
    proxy.asked.clear()
    child = start(tmp_path)
    # It works for seconds yet, for it imports TensorFlow, which is here already.
    wait_for(lambda: proxy.asked)
    second, first = build(), finish(child, 60)
    assert_prepared(first, data, "its own source", new)
    assert second.returncode == 0, second.stderr
    assert second.stdout.startswith("Waiting for another process that prepares it\n")
    assert len(proxy.asked) == 4
    assert {host for host, _ in proxy.asked} == {OWN}
    assert new.exists()
    facts = json.loads((tmp_path / "docs/_build/data.json").read_text())
    assert facts["name"] == "fashion_mnist 3.0.1"
    assert facts["sha256"] == SHA256

    proxy.asked.clear()
    third = run(tmp_path, "-X", "importtime")
    assert third.returncode == 0
    assert third.stdout == first.stdout.splitlines(keepends=True)[-1]
    assert proxy.asked == []
    # Known by its parts: importlib.import_module does not tell of the package itself.
    imported = re.findall(r"^import time:.*\| +(\w+)", third.stderr, re.MULTILINE)
    assert "tensorflow_datasets" in imported
    assert "tensorflow" not in imported


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with the data set, as tensorflow-datasets prepares it."""
    data = tmp_path_factory.mktemp("prepared")
    for name, content in ARCHIVES.items():
        (data / "archives").mkdir(exist_ok=True)
        (data / "archives" / name).write_bytes(content)
    config = tfds.download.DownloadConfig(manual_dir=data / "archives")
    builder = tfds.builder("fashion_mnist", data_dir=data / "data")
    builder.download_and_prepare(download_dir=data, download_config=config)
    return data / "data"


def flip(folder, records=RECORDS):
    with (folder / records).open("r+b") as file:
        file.seek(-50_000, os.SEEK_END)  # past the first thousand images to train on
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))


def flip_to_test_on(folder):
    flip(folder, RECORDS.replace("train", "test"))


def cut_in_a_record(folder):
    os.truncate(folder / RECORDS, (folder / RECORDS).stat().st_size - 1)


def cut_between_records(folder):
    """A record is its length, in 8 bytes, a checksum of that, itself, and another."""
    content, end = (folder / RECORDS).read_bytes(), 0
    for _ in range(1_100):
        end += 8 + 4 + int.from_bytes(content[end : end + 8], "little") + 4
    os.truncate(folder / RECORDS, end)


def lose_records(folder):
    (folder / RECORDS).unlink()


def lose_info(folder):
    (folder / "dataset_info.json").unlink()


def spoil_info(folder):
    (folder / "dataset_info.json").write_text("{")


def lose_all(folder):
    for path in folder.iterdir():
        path.unlink()


DAMAGES = [
    flip,
    flip_to_test_on,
    cut_in_a_record,
    cut_between_records,
    lose_records,
    lose_info,
]
DAMAGES += [spoil_info, lose_all]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def damaged(request, prepared, tmp_path):
    """A copy of the data set, with the damage that is asked for."""
    shutil.copytree(prepared, tmp_path / "data")
    request.param(tmp_path / "data" / FOLDER)
    return tmp_path / "data" / FOLDER


def load_all(page):
    """Load all images of both splits, and return those to train on."""
    page.load("fashion_mnist", "test", 1_000_000)
    (images, _), _ = page.load("fashion_mnist", "train", 1_000_000)
    return images


def assert_exits(run, data):
    """Check that a page exits with a message on the data set's folder in ``data``."""
    with pytest.raises(SystemExit) as stop:
        run()
    fault, remedy = stop.value.code.splitlines()
    assert fault.startswith(f"{data}/fashion_mnist cannot be read or made: ")
    assert remedy.startswith("Delete this folder and run again with the internet, or")
    return fault


@pytest.mark.usefixtures("network")
@pytest.mark.parametrize("damaged", DAMAGES, indirect=True)
def test_damaged_data_is_found_before_it_is_used(damaged, page, use_data, monkeypatch):
    """By the build and by a page, which leave it as it is."""
    before = contents(damaged)
    monkeypatch.setattr(prepare_data, "FACTS", damaged / "none")
    assert prepare_data.facts_or_none(damaged) is None
    use_data(damaged.parents[1])
    assert_exits(lambda: load_all(page), damaged.parents[1])
    assert contents(damaged) == before


@pytest.mark.parametrize("damaged", [flip], indirect=True)
def test_the_build_repairs_damaged_data(damaged, network, build, tmp_path):
    """If it can have the archives; else it says what to do, and leaves all there is."""
    before = contents(damaged)
    child = build()
    assert child.returncode == 1
    said = f"{damaged} is not whole, and is prepared anew\n"
    assert child.stdout.startswith(said)
    assert (
        f"Run this again with a network and room for it, or copy {damaged} from"
        in child.stderr
    )
    assert contents(damaged) == before
    proxy = network(ARCHIVES, own="503", mirror="serve")
    child = build()
    assert_prepared(child, tmp_path / "data", "the GitHub mirror")
    assert {host for host, _ in proxy.asked} == {OWN, MIRROR}
    assert child.stdout.startswith(said)
    facts = json.loads((tmp_path / "docs/_build/data.json").read_text())
    assert facts["sha256"] == SHA256


@pytest.mark.parametrize("content", ["", "{", '{"files": "others"}'])
def test_facts_that_are_not_of_the_data_are_made_anew(
    content, prepared, monkeypatch, tmp_path
):
    (tmp_path / "data.json").write_text(content)
    monkeypatch.setattr(prepare_data, "FACTS", tmp_path / "data.json")
    facts = prepare_data.facts_or_none(prepared / FOLDER)
    assert facts["sha256"] == SHA256
    # Known again without being read.
    facts["sha256"] = "as it was read before"
    (tmp_path / "data.json").write_text(json.dumps(facts))
    assert prepare_data.facts_or_none(prepared / FOLDER) == facts


# Disks


def test_a_read_only_disk(network, build, page, use_data, tmp_path):
    network(ARCHIVES, own="serve")
    data = tmp_path / "data"
    with disk("ro", data):
        assert_no_room(build(), data, "Read-only")
        use_data(data)
        assert_exits(lambda: load_all(page), data)


def test_a_disk_without_room_for_the_archives(network, page, use_data, tmp_path):
    network(ARCHIVES, own="serve")
    data = tmp_path / "data"
    with disk("size=512k", data):
        assert_no_room(run(tmp_path), data, "[Errno 28]")
        use_data(data)
        assert_exits(lambda: load_all(page), data)


@pytest.mark.parametrize(
    "size, reason", [("1500k", "Error while extracting"), ("2600k", ".tfrecord")]
)
def test_a_disk_without_room_for_what_follows(size, reason, network, build, tmp_path):
    """For what is unpacked, and for the records."""
    network(ARCHIVES, own="serve")
    with disk(f"size={size}", tmp_path / "data"):
        assert_no_room(build(), tmp_path / "data", reason)


def assert_no_room(child, data, reason):
    assert child.returncode == 1
    fault, remedy = child.stderr.splitlines()[-2:]
    assert fault.startswith(f"Fashion-MNIST cannot be put into {data / FOLDER}: ")
    assert reason in fault
    assert "set TFDS_DATA_DIR to a folder that can be written" in remedy
    assert "Traceback" not in child.stderr
    assert_nothing_else(data)


def test_a_checkout_that_cannot_be_written(network, build, tmp_path):
    network(ARCHIVES, own="serve")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/_build").write_text("a file, which no folder can replace")
    child = build()
    assert child.returncode == 1
    fault, remedy = child.stderr.splitlines()[-2:]
    assert fault.startswith(f"The site cannot be built in {tmp_path / 'docs/_build'}: ")
    assert remedy == "Copy the checkout to a place that can be written."


def test_a_user_without_a_home(monkeypatch, capsys):
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", "~no_such_user/data")
    with pytest.raises(SystemExit) as stop:
        prepare_data.main()
    (line,) = stop.value.code.splitlines()
    assert "home directory" in line and "Set TFDS_DATA_DIR" in line


@pytest.mark.usefixtures("network")
def test_data_on_a_disk_that_cannot_be_written(prepared, build, page, tmp_path):
    """As in a folder of a whole institute."""
    data = tmp_path / "data"
    with mounted(data, "--bind", prepared):
        subprocess.run(["mount", "-o", "remount,bind,ro", data], check=True)
        end = build()
        assert end.returncode == 0, end.stderr
        assert len(load_all(page)) == 1_200


# What a page does by itself: it asks for the archives, and leaves the rest to
# TensorFlow Datasets.


@pytest.mark.parametrize(
    "manner, reason",
    [
        ("refuse", "ProxyError"),
        ("503", "503 Server Error"),
        ("stall", "Read timed out"),
        ("wrong bytes", "NonMatchingChecksumError"),
    ],
)
def test_a_page_without_data(manner, reason, network, page, use_data, tmp_path):
    wrong = {name: bytes(len(archive)) for name, archive in ARCHIVES.items()}
    proxy = network(wrong, own="serve" if manner == "wrong bytes" else manner)
    use_data(tmp_path / "data")
    start = time.monotonic()
    assert reason in assert_exits(lambda: load_all(page), tmp_path / "data")
    assert time.monotonic() - start < 20
    assert {host for host, _ in proxy.asked} == {OWN}
    assert not (tmp_path / "data" / FOLDER).exists()


def test_a_page_makes_its_data(network, page, use_data, tmp_path):
    """With the first run, also after one that failed."""
    wrong = {name: bytes(len(archive)) for name, archive in ARCHIVES.items()}
    network(wrong, own="serve")
    use_data(tmp_path / "data")
    assert_exits(lambda: load_all(page), tmp_path / "data")
    network(ARCHIVES, own="serve")
    assert len(load_all(page)) == 1_200
    network({}, own="refuse")
    assert len(load_all(page)) == 1_200


@pytest.mark.usefixtures("network")
@pytest.mark.parametrize(
    "script",
    [page for page in PAGES if "def load(" in page.read_text()],
    indirect=True,
    ids=lambda page: page.stem,
)
def test_every_page_says_so_too(script, use_data, monkeypatch, tmp_path):
    use_data(tmp_path / "data")
    monkeypatch.setattr(sys, "argv", [script.name])
    assert_exits(lambda: runpy.run_path(script, run_name="__main__"), tmp_path / "data")


@pytest.mark.usefixtures("network")
def test_the_script_says_so_too(tmp_path):
    """No traceback, and a status that is not 0."""
    child = subprocess.run(
        [sys.executable, PAGE], capture_output=True, text=True, timeout=60
    )
    assert child.returncode == 1
    assert child.stdout == ""
    fault, _ = child.stderr.splitlines()[-2:]
    assert fault.startswith(f"{tmp_path}/data/fashion_mnist cannot be read or made: ")
    assert "Traceback" not in child.stderr
