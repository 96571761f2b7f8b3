"""What stands in for sources of the data and for disks."""

import contextlib
import hashlib
import http.server
import os
import subprocess
from pathlib import PurePosixPath
from urllib.parse import urlsplit

import pytest

OWN = "fashion-mnist.s3-website.eu-central-1.amazonaws.com"
MIRROR = "raw.githubusercontent.com"
DEB = "dataset-fashion-mnist_1_all.deb"


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
            case "stall half way":
                self.answer(len(file), file[: len(file) // 2])
                self.server.over.wait()
            case "drip":
                self.answer(len(file), b"")
                for _ in range(100):
                    self.server.over.wait(0.2)
                    self.wfile.write(b"\0")

    def do_HEAD(self):
        self.do_GET()

    def answer(self, size, content):
        self.send_response(200)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        if self.command != "HEAD":
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


@contextlib.contextmanager
def mounted(folder, *options):
    """Mount a file system at ``folder``; a test that needs one skips if it may not."""
    folder.mkdir(exist_ok=True)
    mount = subprocess.run(["mount", *options, folder], capture_output=True, text=True)
    if mount.returncode != 0:
        pytest.skip(f"this process may not mount: {mount.stderr.strip()}")
    try:
        yield
    finally:
        # Lazily, because a process that has ended may hold a file for a moment longer.
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextlib.contextmanager
def disk(kind, folder):
    """Have a disk at ``folder`` that is read-only, or has the size that is given."""
    if kind == "ro" and os.geteuid() != 0:  # root may write all the same
        folder.mkdir(mode=0o555)
        yield
    else:
        with mounted(folder, "-t", "tmpfs", "-o", kind, "none"):
            yield
