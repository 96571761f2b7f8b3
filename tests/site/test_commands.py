"""The commands: what make and the tools do."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import uv

import check_inventories
import copies
from builds import make
from helpers import PAGE, ROOT, run_script, write_wheel


def test_a_failed_build_fails_again(copy, write_page):
    """Sphinx alone would not warn twice of a page that it does not read again."""
    write_page(text=":func:`nothing.such`")
    shutil.copy(ROOT / "Makefile", copy)
    (copy / ".venv").symlink_to(sys.prefix)
    for _ in range(2):
        run = make("--assume-old=.venv/installed", "html", cwd=copy)
        assert run.returncode != 0
        assert "nothing.such" in run.stderr


def test_make_help_lists_what_readme_names():
    run = make("help", cwd=ROOT)
    listed = re.findall(r"^  make (\S+)", run.stdout, re.MULTILINE)
    named = re.findall(r"make ([a-z-]+)", (ROOT / "README.md").read_text())
    assert {"html", "test", "help"} <= set(named) <= set(listed)


@pytest.mark.parametrize("version", [(3, 9), (3, 14)])
def test_make_refuses_another_python(tmp_path, version):
    """One line that says which Python is wanted, and nothing made."""
    python = tmp_path / "python"
    code = f"import sys; sys.version_info = {version}; $2"
    script = f'exec "{sys.executable}" -c "{code}"'
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("requirements-docs.txt", "requirements-uv.txt", "tools/install.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    run = make(f"PYTHON={python}", "html", cwd=tmp_path)
    assert run.returncode != 0
    assert "Python 3.11, 3.12 or 3.13 is needed" in run.stderr
    assert not (tmp_path / ".venv").exists()


PIP = """
[global]
index-url = http://127.0.0.1:1/simple
[install]
index-url = {}
"""


def test_the_lock_is_installed_from_where_pip_would_get_it(tmp_path, serve):
    """Where pip's configuration names the index, and with the hashes of the lock."""
    address, asked = serve
    (tmp_path / "simple/tiny").mkdir(parents=True)
    wheel = write_wheel(tmp_path / "simple/tiny")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    link = f'<a href="{wheel.name}">{wheel.name}</a>'
    (tmp_path / "simple/tiny/index.html").write_text(link)
    (tmp_path / "pip.conf").write_text(PIP.format(f"{address}simple"))
    names = "PIP_", "UV_", "SSL_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"
    env = {x: y for x, y in os.environ.items() if not x.upper().startswith(names)}
    env |= {"PIP_CONFIG_FILE": str(tmp_path / "pip.conf")}
    env |= {"UV_CACHE_DIR": str(tmp_path / "cache")}
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env/bin/python"
    (packages,) = (tmp_path / "env").glob("lib/*/site-packages")
    (packages / "uv.pth").write_text(str(Path(uv.__file__).parents[1]))
    env |= {"PYTHONDONTWRITEBYTECODE": "1"}
    for sha256, works in (("0" * 64, False), (digest, True)):
        lock = tmp_path / "lock.txt"
        lock.write_text(f"tiny==1.0 --hash=sha256:{sha256}\n")
        command = [python, ROOT / "tools/install.py", lock]
        run = subprocess.run(command, env=env, capture_output=True, text=True)
        assert (run.returncode == 0) == works, run.stderr
        found = subprocess.run([python, "-c", "import tiny"], capture_output=True)
        assert (found.returncode == 0) == works
        assert works or "hash" in run.stderr.lower()
    assert any("/simple/tiny/" in line for line in asked)
    # Compiled once, where Python would compile it each time.
    assert list(packages.glob("__pycache__/tiny.*.pyc"))


def test_uv_is_that_of_the_lock():
    """The file that has it alone names the same version, with the same hashes."""
    lock = (ROOT / "requirements-docs.txt").read_text()
    pin = re.search(r"^uv==.*?(?=^\S|^ +# )", lock, re.MULTILINE | re.DOTALL)[0]
    assert pin in (ROOT / "requirements-uv.txt").read_text()
    assert len(re.findall("--hash", pin)) > 5


FIRST = '''"""One."""
import ast


def shared(x):
    return x + 1


@ast.parse
class Shared:
    pass


VALUE, other = 1, 2


def main():
    return shared(1)


_ = main()
'''
SECOND = '''"""Two."""
def own():
    return 3


VALUE, other = (
    3,
    4,
)


class Shared:
    pass


# A comment.
def shared(x):
    """Do so."""
    return x


def main():
    return own()


_ = 2
'''
EXPECTED = '''"""Two."""
def own():
    return 3


VALUE, other = 1, 2


@ast.parse
class Shared:
    pass


# A comment.
def shared(x):
    return x + 1


def main():
    return own()


_ = 2
'''


def test_copies_are_those_of_the_first_page():
    third = "def own():\n    return 0\n"
    results = copies.copied([FIRST, SECOND, third])
    assert results == [FIRST, EXPECTED, "def own():\n    return 3\n"]
    assert copies.copied(results) == results


def test_pages_are_read_in_their_order():
    """The flagship comes first, whose definitions the others copy."""
    names = [Path("examples/plot_a.py"), Path("plot_interpolation.py"), PAGE]
    assert copies.ordered(names) == [PAGE, *names[1::-1]]


def test_inventories_are_compared_with_what_a_site_has(tmp_path, serve):
    (tmp_path / "conf.py").touch()
    function = ".. py:module:: jax\n\n.. py:function:: jit\n\n.. py:function:: vmap\n"
    (tmp_path / "index.rst").write_text(function)
    run = run_script("-m", "sphinx", "-q", ".", "out", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    address = serve[0] + "out/"
    start = "# Sphinx inventory version 1\n# Project: JAX\n# Version:\n"
    lines = "jax.jit function index.html\njax.vmap function other.html\n"
    lines += "jax.pmap function index.html\n"
    moved, gone = check_inventories.differences((start + lines).encode(), address)
    assert moved.startswith("py:function jax.vmap is not at ")
    assert moved.endswith(f": {address}index.html#jax.vmap")
    assert gone.startswith("py:function jax.pmap") and gone.endswith(": gone")
    (silent,) = check_inventories.differences(b"", address + "nowhere/")
    assert "has no inventory to compare with (HTTPError)" in silent
