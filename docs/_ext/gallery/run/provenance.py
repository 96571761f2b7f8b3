"""Write down what a page was made with, for its foot."""

import json
import os
import platform
import subprocess
import time
from functools import cache
from importlib import metadata
from pathlib import Path

from sphinx.util import logging

from gallery import pages

logger = logging.getLogger(__name__)

DATE = "%Y-%m-%d"


def data_set(srcdir):
    """Return name and SHA-256 of the prepared data, or None before it is prepared.

    ``make data`` leaves them in ``srcdir``, the folder of the documents. The SHA-256 is
    of images and labels: the files that hold them differ between machines.
    """
    file = Path(srcdir, "_build/data.json")
    if not file.exists():
        return None
    facts = json.loads(file.read_text())
    return facts["name"], facts["sha256"]


@cache
def commit():
    """Return the commit that is checked out, marked if files differ, or None.

    Where git cannot tell, a line of the build says why. A folder above may be another
    project's repository.
    """
    command = ["git", "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"]
    try:
        run = subprocess.run(
            command,
            cwd=pages.ROOT,
            env=os.environ | {"GIT_CEILING_DIRECTORIES": str(pages.ROOT.parent)},
            capture_output=True,
            text=True,
        )
    except OSError as error:
        why = f"git: {error.strerror}"
    else:
        if run.returncode == 0:
            return run.stdout.strip()
        why = run.stderr.strip().partition("\n")[0]
    logger.info("Pages tell no commit, because there is none to be had (%s)", why)
    return None


def record(gallery_conf, fname, when):
    """Write beside a page what it was made with, as soon as it ran."""
    if when == "before":
        return
    import jax  # a page may set what JAX reads when it is imported

    source = gallery_conf["src_dir"]
    page = pages.copy_of(fname, source)
    facts = {
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in pages.required(page)},
        "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
        "data": data_set(source) if pages.reads_data(page) else None,
        "date": time.strftime(DATE, time.gmtime()),
        "commit": commit(),
    }
    page.with_suffix(".json").write_text(json.dumps(facts, indent=2) + "\n")
