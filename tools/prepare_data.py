"""Prepare Fashion-MNIST with tensorflow-datasets, so that pages can just load it.

The four archives are fetched from the first source that has them, checked against the
checksums that tensorflow-datasets registers, and handed to it as manual downloads. All
this happens in one folder, which becomes the data set's own when all of its records
have been read: what is there is whole, and a run that was killed leaves nothing that is
not found and deleted by the next.
"""

import fcntl
import hashlib
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path

import requests
import tensorflow_datasets as tfds
import urllib3
from tqdm import tqdm

MIRROR = (
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/"
    "data/fashion/"
)
NAME = "fashion_mnist"
PACKAGE = "dataset-fashion-mnist"
# What the build tells of the data on its pages, and by which it knows the data again.
FACTS = Path(__file__).parents[1] / "docs/_build/data.json"
APT_GET = (
    "apt-get",
    "-q",
    "-oAcquire::Retries=0",
    "-oAcquire::http::Timeout=5",
    "-oAcquire::https::Timeout=5",
)
# Seconds to wait for an answer or for more bytes, and the slowest useful download in
# bytes a second: with these, three dead sources take less than a minute.
PATIENCE = 8
SLOWEST = 20_000
# Seconds after which nobody works any more in a folder that nothing was put into.
ABANDONED = 3_600


class SourceError(Exception):
    """A source does not have the archives; the message is the reason."""


def respond(url):
    """Return the response to a GET of ``url``, or raise SourceError within PATIENCE.

    The thread is there because requests bounds neither the look-up of a name nor the
    sum of the attempts at a host's several addresses.
    """
    answers = queue.SimpleQueue()

    def get():
        try:
            answers.put(requests.get(url, stream=True, timeout=PATIENCE))
        except OSError as error:  # which requests' own errors are too
            answers.put(error)

    threading.Thread(target=get, daemon=True).start()
    try:
        answer = answers.get(timeout=PATIENCE)
    except queue.Empty:
        raise SourceError(f"no answer within {PATIENCE} s") from None
    if isinstance(answer, OSError):
        raise SourceError(f"no connection ({type(answer).__name__})")
    if not answer.ok:
        raise SourceError(f"status {answer.status_code}")
    return answer


def download(url, path, size):
    """Write ``size`` bytes of ``url`` to ``path``, or raise SourceError."""
    start, received = time.monotonic(), 0
    # The bar is not drawn where there is no terminal.
    bar = tqdm(desc=path.name, total=size, unit="B", unit_scale=True, disable=None)
    try:
        with bar, respond(url) as response, path.open("wb") as file:
            # iter_content would wait for a full chunk, for however long it drips.
            while chunk := response.raw.read1(1 << 15):
                received += file.write(chunk)
                bar.update(len(chunk))
                seconds = time.monotonic() - start
                if received > size:
                    raise SourceError(f"{path.name} is larger than registered")
                if seconds > PATIENCE and received < SLOWEST * seconds:
                    raise SourceError(f"{path.name} comes too slowly")
    except urllib3.exceptions.HTTPError as error:
        raise SourceError(f"{path.name} cut short ({type(error).__name__})") from None


def from_own_source(archives, folder):
    """Download from where tensorflow-datasets does."""
    for url, archive in archives.items():
        download(url, folder / archive.filename, archive.size)


def from_mirror(archives, folder):
    """Download the same files from the authors' repository."""
    for archive in archives.values():
        download(MIRROR + archive.filename, folder / archive.filename, archive.size)


def run(*command, cwd, limit):
    """Run ``command``; raise SourceError with the last it said if it fails."""
    try:
        subprocess.run(
            command,
            cwd=cwd,
            # Where no name server answers, apt-get would ask for minutes.
            env=os.environ | {"RES_OPTIONS": "timeout:2 attempts:1"},
            timeout=limit,
            text=True,
            # Progress is for a terminal, as everywhere here.
            stdout=None if sys.stderr.isatty() else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=True,
        )
    except FileNotFoundError:
        raise SourceError(f"no {command[0]} here") from None
    except subprocess.TimeoutExpired:
        raise SourceError(f"{command[0]} took over {limit} s") from None
    except subprocess.CalledProcessError as error:
        last = error.stderr.strip().rpartition("\n")[2]
        raise SourceError(f"{command[0]}: {last}") from None


def from_debian(archives, folder):
    """Unpack Debian's or Ubuntu's package, without installing it.

    Its archives hold the registered bytes behind a header without name and time; with
    the header put back they are the registered files again.
    """
    try:
        run(*APT_GET, "download", "--print-uris", PACKAGE, cwd=folder, limit=10)
    except SourceError:
        if shutil.which("apt-get") and os.geteuid() == 0:
            run(*APT_GET, "update", cwd=folder, limit=30)
    size = sum(archive.size for archive in archives.values())
    run(*APT_GET, "download", PACKAGE, cwd=folder, limit=size / SLOWEST)
    (deb,) = folder.glob("*.deb")
    run("dpkg-deb", "-x", deb, folder, cwd=folder, limit=60)
    for archive in archives.values():
        name = archive.filename
        packaged = folder / "usr/share/datasets/fashion-mnist" / name
        if not packaged.exists():
            raise SourceError(f"{deb.name} has no {name}")
        stamp = 1504176606 if name.startswith("train") else 1504176627
        header = bytes.fromhex("1f8b0808") + stamp.to_bytes(4, "little") + b"\0\3"
        header += name.removesuffix(".gz").encode() + b"\0"
        (folder / name).write_bytes(header + packaged.read_bytes()[10:])


def check(archives, folder):
    """Raise SourceError unless ``folder`` has the registered bytes of all archives."""
    for archive in archives.values():
        with (folder / archive.filename).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != archive.checksum:
                raise SourceError(f"{archive.filename} has the wrong sha256")


SOURCES = {
    "its own source": from_own_source,
    "the GitHub mirror": from_mirror,
    f"the package {PACKAGE}": from_debian,
}


def fetch(archives, folder, target):
    """Fill ``folder`` from the first source that has all ``archives``.

    If there is none, exit with what can be done to have the data in ``target``.
    """
    reasons = []
    for name, source in SOURCES.items():
        print(f"Getting Fashion-MNIST from {name}", flush=True)
        try:
            source(archives, folder)
            check(archives, folder)
            return
        except SourceError as error:
            reasons.append(f"  {name}: {error}")
    sys.exit(
        "Fashion-MNIST could not be had:\n"
        + "\n".join(reasons)
        + "\nRun this again with a network and room for it, or copy "
        f"{target} from a machine that has it."
    )


# The data set


def read(folder):
    """Return the SHA-256 of images and labels in their order, of training and of test.

    The records that hold them differ between machines, their content must not. What
    cannot be read raises an error of tensorflow-datasets, TensorFlow or protobuf.
    """
    builder, digest = tfds.builder_from_directory(folder), hashlib.sha256()
    for split in ("train", "test"):
        data = builder.as_dataset(split=split, batch_size=-1, as_supervised=True)
        for array in tfds.as_numpy(data):
            digest.update(array.tobytes())
    return digest.hexdigest()


def facts(folder):
    """Return name, SHA-256 of the content, and of the files, of the data in ``folder``.

    Nothing is read if the files are those that were read before.
    """
    files = hashlib.sha256()
    for path in sorted(filter(Path.is_file, folder.iterdir())):
        files.update(f"{path.name} {path.stat().st_size}\n".encode())
        files.update(path.read_bytes())
    known = {}
    with suppress(OSError, ValueError):  # there are none yet, or they were cut short
        known = json.loads(FACTS.read_text())
    if known.get("files") == files.hexdigest():
        return known
    return {
        "name": f"{folder.parent.name} {folder.name}",
        "sha256": read(folder),
        "files": files.hexdigest(),
    }


def facts_or_none(folder):
    """Return the facts of the data in ``folder`` if it is there and whole."""
    if not folder.exists():
        return None
    try:
        return facts(folder)
    except Exception:  # of many families: each library raises its own
        return None


def reason(error):
    """Return the kind of an error and the first line of what it says."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


@contextmanager
def locked(path):
    """Hold a lock that the system takes back when a process dies, however it does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Waiting for another process that prepares it", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def prepare(work, folder):
    """Prepare the data set below ``work``, put it into ``folder``, return its facts.

    ``work`` has nothing else in it, and is deleted.
    """
    shutil.rmtree(work, ignore_errors=True)  # of a run that was killed
    builder = tfds.builder(NAME, data_dir=work)
    made, archives = Path(builder.data_dir), work / "archives"
    if folder.exists():
        print(f"{folder} is not whole, and is prepared anew", flush=True)
    try:
        archives.mkdir(parents=True)
        fetch(builder.url_infos, archives, folder)
        config = tfds.download.DownloadConfig(manual_dir=archives)
        with redirect_stdout(None):  # it would name the place that is left in the end
            builder.download_and_prepare(
                download_dir=work / "downloads", download_config=config
            )
        found = facts(made)
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists():
            folder.rename(work / "not_whole")
        made.rename(folder)
        return found
    finally:
        shutil.rmtree(work, ignore_errors=True)


def main():
    """Prepare the data set unless it is there and whole, and write its facts down."""
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    try:
        root = Path(tfds.core.constants.DATA_DIR).expanduser()
    except RuntimeError as error:  # a user without a home
        sys.exit(f"{error} Set TFDS_DATA_DIR to a folder that can be written.")
    folder = root / NAME / str(tfds.builder_cls(NAME).VERSION)
    # What tensorflow-datasets itself left when it was killed, and nobody writes now.
    for path in folder.parent.glob("incomplete.*"):
        with suppress(FileNotFoundError):  # somebody did, and it is in its place now
            if time.time() - path.stat().st_mtime > ABANDONED:
                shutil.rmtree(path, ignore_errors=True)
    made = facts_or_none(folder)
    try:
        if made is None:
            with locked(root / f"{NAME}.lock"):
                work = root / f"{NAME}.preparing"
                made = facts_or_none(folder) or prepare(work, folder)
    except Exception as error:  # of many families, as above
        sys.exit(
            f"Fashion-MNIST cannot be put into {folder}: {reason(error)}\n"
            "Make room there, or set TFDS_DATA_DIR to a folder that can be written."
        )
    try:
        FACTS.parent.mkdir(exist_ok=True)
        FACTS.write_text(json.dumps(made, indent=2) + "\n")
    except OSError as error:
        sys.exit(
            f"The site cannot be built in {FACTS.parent}: {error.strerror}\n"
            "Copy the checkout to a place that can be written."
        )
    print(f"Fashion-MNIST is in {folder}")


if __name__ == "__main__":
    main()
