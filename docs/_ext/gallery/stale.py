"""Make again what is stale: sphinx-gallery looks at nothing but scripts.

What counts is content. A page runs again when its script, the lock, the code of the
build or, if it reads them, the data changed. All documents are read again when any of
these did but a script, or what is around the pages.
"""

import hashlib
import os
import sys
from pathlib import Path

from gallery.show.frame import data_set, required


def key(files, *others):
    """Return the SHA-256 of names and content of ``files``, and of ``others``."""
    parts = [(path.name, path.read_bytes()) for path in sorted(files)]
    return hashlib.sha256(repr([parts, others]).encode()).hexdigest()


def code(root):
    """Return what all pages are made with, as files."""
    patterns = "conf.py", "requirements-docs.txt", "docs/_ext/**/*.py"
    return [path for pattern in patterns for path in root.glob(pattern)]


def forget(app):
    """Have a page run again by deleting what sphinx-gallery knows it by.

    Its new key can be written at once, since sphinx-gallery writes the other only of a
    page that passed.
    """
    root, built = Path(app.confdir), Path(app.srcdir, "auto_examples")
    for page in sorted(built.glob("*/plot_*.py")):
        if not (root / "examples" / page.relative_to(built)).exists():
            sys.exit(f"{page.name} is built but not in examples: make clean")
    timeless = bool(os.environ.get("SOURCE_DATE_EPOCH"))
    for script in root.glob("examples/*/plot_*.py"):
        page = built / script.relative_to(root / "examples")
        reads = "tensorflow-datasets" in required(script)
        data = data_set(app.srcdir) if reads else None
        new, file = key([*code(root), script], data, timeless), page.with_suffix(".key")
        if not file.exists() or file.read_text() != new:
            page.with_suffix(".py.md5").unlink(missing_ok=True)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(new)


def read_again(app, env, added, changed, removed):
    """Have all documents read if what they are made with changed since they were."""
    root, epoch = Path(app.confdir), os.environ.get("SOURCE_DATE_EPOCH")
    folders = "docs/_static/*", "docs/_templates/*", "docs/inventories/*"
    around = [path for folder in folders for path in root.glob(folder)]
    others = data_set(app.srcdir), epoch, app.config.html_baseurl
    env.made_with = key([*code(root), *around], *others)
    file = written(app)
    same = file.exists() and file.read_text() == env.made_with
    return [] if same else env.found_docs


def written(app):
    """Return the file that tells what the documents were made with."""
    return Path(app.doctreedir, f"{app.builder.name}.key")


def keep(app, error):
    """Keep what the documents were made with, now that they are written."""
    if error is None:
        written(app).write_text(app.env.made_with)


def setup(app):
    """Look before sphinx-gallery runs pages, and after the pages were checked."""
    app.connect("builder-inited", forget, priority=1)
    app.connect("env-get-outdated", read_again)
    app.connect("build-finished", keep)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
