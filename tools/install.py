"""Install what a lock names, and nothing else, with uv from where pip would get it.

    .venv/bin/python tools/install.py requirements-docs.txt

uv does not read pip's configuration, which is where many companies and schools name the
package index that can be reached.
"""

import ast
import os
import subprocess
import sys

from uv import find_uv_bin

# What pip calls a setting, and the variable by which uv knows it.
# https://pip.pypa.io/en/stable/topics/configuration/
# https://docs.astral.sh/uv/reference/environment/
VARIABLES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "no-index": "UV_NO_INDEX",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
    "client-cert": "SSL_CLIENT_CERT",
    "proxy": "ALL_PROXY",
    "timeout": "UV_HTTP_TIMEOUT",
    "default-timeout": "UV_HTTP_TIMEOUT",
}
LISTS = {"UV_FIND_LINKS": ",", "UV_INDEX": " ", "UV_INSECURE_HOST": " "}


def pip_settings():
    """Return what pip's files and variables set, as uv's variables.

    A setting of ``pip install`` goes before one of all commands, and a variable of the
    environment before both.
    """
    command = [sys.executable, "-m", "pip", "config", "list"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    settings = dict(line.split("=", 1) for line in lines.splitlines())
    found = {}
    for section in ("global", "install", ":env:"):
        for name, variable in VARIABLES.items():
            if f"{section}.{name}" in settings:
                words = str(ast.literal_eval(settings[f"{section}.{name}"])).split()
                found[variable] = LISTS.get(variable, " ").join(words)
    return found


def main(lock):
    """Make this environment that of ``lock``; exit as uv does."""
    # pip takes the best of all indexes, and so does uv when it may. That is safe with a
    # lock, because nothing is installed whose hash is not in it.
    env = {"UV_INDEX_STRATEGY": "unsafe-best-match"} | pip_settings() | os.environ
    command = [find_uv_bin(), "pip", "sync", "--require-hashes"]
    command += ["--python", sys.executable, lock]
    if sys.dont_write_bytecode:
        # As in many containers: each process would compile all that it imports again.
        command += ["--compile-bytecode"]
    sys.exit(subprocess.run(command, env=env).returncode)


if __name__ == "__main__":
    main(sys.argv[1])
