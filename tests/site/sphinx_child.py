"""Run Sphinx in a process that has what it needs, but nothing of this project.

This module is apart from ``builds``, which imports the project's own code: a small site
has a copy of that code, and a build must read the copy.
"""

import os
import sys


def run(folder, arguments, env):
    """Build in ``folder``, in this process; leave what it says in files there."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    if "PYTHONPATH" in env:
        sys.path.insert(0, env["PYTHONPATH"])
    for number, name in (1, "stdout"), (2, "stderr"):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    from sphinx.cmd.build import main

    sys.exit(main(arguments))
