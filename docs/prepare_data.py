"""Prepare Fashion-MNIST with tensorflow-datasets, so that pages can just load it.

The four archives are fetched from the first source that has them and handed to
tensorflow-datasets as manual downloads: it checks them against its registered
checksums and prepares the data set in its own folder, ``TFDS_DATA_DIR`` or
``~/tensorflow_datasets``.
"""

import hashlib
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import requests
import tensorflow_datasets as tfds
import urllib3
from tqdm import tqdm

MIRROR = (
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/"
    "data/fashion/"
)
PACKAGE = "dataset-fashion-mnist"
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


def prepare(builder):
    """Prepare the data set of ``builder``; exit with a message if no source has it."""
    archives = builder.url_infos
    reasons = []
    for name, fetch in SOURCES.items():
        print(f"Getting Fashion-MNIST from {name}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            try:
                fetch(archives, Path(folder))
                check(archives, Path(folder))
            except (SourceError, OSError) as error:  # a full disk, an empty package
                reasons.append(f"  {name}: {error}")
                continue
            config = tfds.download.DownloadConfig(
                manual_dir=folder, extract_dir=f"{folder}/extracted"
            )
            builder.download_and_prepare(
                download_dir=f"{folder}/downloads", download_config=config
            )
            return
    sys.exit(
        "Fashion-MNIST could not be had:\n"
        + "\n".join(reasons)
        + f"\nRun this again with a network, or copy {builder.data_dir} from a machine "
        "that has it."
    )


def main():
    """Prepare the data set unless that is done."""
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    builder = tfds.builder("fashion_mnist:3.*.*")
    if not builder.data_path.exists():
        prepare(builder)
    print(f"Fashion-MNIST is in {builder.data_dir}")


if __name__ == "__main__":
    main()
