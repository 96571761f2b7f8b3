"""Write down what a page was made with, for its foot."""

import json
import os
import platform
import subprocess
import time
from importlib import metadata
from pathlib import Path

from gallery import pages

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


def commit():
    """Return the commit that is checked out, marked if files differ, or None."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"]
    run = subprocess.run(command, cwd=pages.ROOT, capture_output=True, text=True)
    return run.stdout.strip() if run.returncode == 0 else None


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
