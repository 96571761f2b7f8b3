"""Make again what is stale: sphinx-gallery looks at nothing but scripts.

Content counts, not the time it was written. There are two keys. A page runs again when
its own key changed, which is of what runs it: the script, ``run/``, the versions of the
packages that it requires and, if it reads them, the data. All documents are read again
when their key changed, which is of all else that is around them.
"""

import hashlib
import platform
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from gallery import pages
from gallery.run.provenance import data_set

HERE = Path(__file__).parent


def key(paths, *others):
    """Return the SHA-256 of names and content of files, and of ``others``."""
    parts = [(path.name, path.read_bytes()) for path in sorted(paths) if path.is_file()]
    return hashlib.sha256(repr([parts, others]).encode()).hexdigest()


# Pages


def versions(names):
    """Return the versions of packages, and of all that these require, by name."""
    found, wanted = {}, list(names)
    while wanted:
        name = canonicalize_name(wanted.pop())
        if name in found:
            continue
        try:
            package = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # the page will say so
        found[name] = package.version
        for line in package.requires or []:
            need = Requirement(line)
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                wanted.append(need.name)
    return sorted(found.items())


def page_key(script, app):
    """Return the key of a page: of what runs it."""
    return key(
        [script, *(HERE / "run").glob("*.py")],
        platform.python_version(),
        metadata.version("sphinx-gallery"),
        versions(pages.required(script)),
        data_set(app.srcdir) if pages.reads_data(script) else None,
        bool(app.config.gallery_source_date),
    )


def run_again(app):
    """Have a page run again by deleting what sphinx-gallery knows it by.

    The new key can be written at once, because sphinx-gallery writes its own only of a
    page that passed.
    """
    only = app.config.gallery_page
    for script in pages.scripts():
        if only in ("", script.stem):
            page = pages.copy_of(script, app.srcdir)
            new, file = page_key(script, app), page.with_suffix(".key")
            if not file.exists() or file.read_text() != new:
                page.with_suffix(".py.md5").unlink(missing_ok=True)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(new)


# Documents


def documents_key(app):
    """Return the key of all documents: of what is around them."""
    patterns = "conf.py", "requirements-docs.txt", "docs/_ext/**/*.py"
    patterns += "docs/_static/*", "docs/_templates/*", "docs/inventories/*"
    paths = [path for pattern in patterns for path in pages.ROOT.glob(pattern)]
    config = app.config
    return key(
        paths, data_set(app.srcdir), config.gallery_source_date, config.html_baseurl
    )


def read_again(app, env, added, changed, removed):
    """Have all documents read if what is around them changed since they were.

    Each document lists the others, so one more or less of them counts, too.
    """
    env.made_with = documents_key(app)
    file = written(app)
    same = file.exists() and file.read_text() == env.made_with
    return env.found_docs if added or removed or not same else []


def written(app):
    """Return the file that tells what the documents were made with."""
    return Path(app.doctreedir, f"{app.builder.name}.key")


def keep(app, error):
    """Keep what the documents were made with, after they are written."""
    if error is None:
        written(app).write_text(app.env.made_with)
