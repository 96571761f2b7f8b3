"""Frame a page: a box on how to run it at its top, how it was made at its foot."""

import json
import os
import platform
import re
import subprocess
import sys
import time
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from sphinx.util.rst import escape

DATE = "%Y-%m-%d"
META = """
:og:image: {base}_images/sphx_glr_{name}_001.png
:og:image:alt: The figure of the page {title}

"""
BOX = """
.. admonition:: Run this page
   :class: page-box

   {fields}

   Without uv, these are the commands:

   .. code-block:: shell

      pip install {packages}
      python {name}

"""
FOOT = """
.. rubric:: How this page was made
   :class: page-foot

{fields}

"""
# The archive holds what the two links above it do, and not the notebook of this site.
ZIP = re.compile(r" +\.\. container:: .*-zip\n\n.*\n")


def read_block(path):
    """Return the ``# /// script`` block (PEP 723) of the script at ``path`` as a dict.

    It is the one place where the requirements of a page stand. Raises ValueError if it
    is not there, or lacks what is asked of every page.
    """
    pattern = r"^# /// script\n((?:#.*\n)+?)# ///$"
    try:
        (lines,) = re.findall(pattern, path.read_text(), re.MULTILINE)
        requirements = tomllib.loads(re.sub("^# ?", "", lines, flags=re.MULTILINE))
        return {key: requirements[key] for key in ("requires-python", "dependencies")}
    except (ValueError, KeyError) as error:
        raise ValueError(
            f"{path.name} needs one block '# /// script' at its top, with its "
            f"requires-python and dependencies ({error})"
        ) from None


def required(path):
    """Return the names of the packages that the script at ``path`` requires here."""
    needs = map(Requirement, read_block(path)["dependencies"])
    return [x.name for x in needs if not x.marker or x.marker.evaluate()]


# What a run was made with


def data_set(folder):
    """Return name and SHA-256 of the prepared data, or None before it is prepared.

    ``make data`` leaves them in ``folder``, that of the documents. The SHA-256 is of
    images and labels: the files that hold them differ between machines.
    """
    file = Path(folder, "_build/data.json")
    if not file.exists():
        return None
    facts = json.loads(file.read_text())
    return facts["name"], facts["sha256"]


def commit():
    """Return the commit that is checked out, marked if files differ, or None."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"]
    folder = Path(__file__).parent
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    return run.stdout.strip() if run.returncode == 0 else None


def record(gallery_conf, fname, when):
    """Write beside a page what it was made with, as soon as it was."""
    if when == "before" or not fname:
        return
    import jax

    # There is one, for names are unique.
    (page,) = Path(gallery_conf["src_dir"]).glob(f"auto_examples/*/{fname}")
    names, source = required(page), gallery_conf["src_dir"]
    facts = {
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in names},
        "device": jax.devices()[0].device_kind,
        "cores": os.cpu_count(),
        "data": data_set(source) if "tensorflow-datasets" in names else None,
        "date": time.strftime(DATE, time.gmtime()),
        "commit": commit(),
    }
    page.with_suffix(".json").write_text(json.dumps(facts, indent=2) + "\n")


# The page


def is_page(docname):
    """Tell pages that sphinx-gallery ran from the others."""
    return re.match("auto_examples/.*/plot_", docname) is not None


def plain(text):
    """Return ``text`` as rST that says this and does nothing else."""
    return escape(" ".join(text.split()))


def fields(rows, indent=""):
    """Return a field list in rST."""
    return f"\n{indent}".join(f":{name}: {text}" for name, text in rows.items())


def box(app, docname, text, facts):
    """Return rST for the top of a page: downloads, requirements, running time."""
    path, config = Path(app.srcdir, docname).with_suffix(".py"), app.config
    block = read_block(path)
    needs = [f'"{need}"' if " " in need else need for need in block["dependencies"]]
    downloads = [f":download:`{path.name}`", f":download:`{path.stem}.ipynb`"]
    if config.repository and config.notebook_branch:
        branch = f"{config.repository}/blob/{config.notebook_branch}"
        url = f"https://colab.research.google.com/github/{branch}/docs/{docname}.ipynb"
        downloads.append(f"`open in Colab <{url}>`__")
    rows = {
        "Download": ", ".join(downloads),
        "Run": f"``uv run {path.name}``, which installs what the page needs",
        "Requirements": f"Python {block['requires-python']}",
    }
    took = re.search(r"script:\*\* \((\d+) minutes ([\d.]+) seconds\)", text)
    if took and facts:
        seconds = 60 * int(took[1]) + float(took[2])
        rows["Running time"] = f"{seconds:.0f} s on {facts['cores']} CPU cores"
    lines = fields(rows, indent="   ")
    return BOX.format(fields=lines, packages=" ".join(needs), name=path.name)


def foot(facts, config):
    """Return rST for the foot of a page: what its run was made with.

    In a build that is to be the same again, the day is that of the source.
    """
    versions = {"Python": facts["python"], **facts["versions"]}
    rows = {
        "Versions": plain(", ".join(map(" ".join, versions.items()))),
        "Device": plain(f"{facts['device']}, {facts['cores']} cores"),
    }
    if facts["data"]:
        name, digest = facts["data"]
        rows["Data set"] = f"{plain(name)}, SHA-256 of images and labels ``{digest}``"
    if epoch := os.environ.get("SOURCE_DATE_EPOCH"):
        day, date = "Source of", time.strftime(DATE, time.gmtime(int(epoch)))
    else:
        day, date = "Run on", facts["date"]
    rows[day] = date
    if commit := facts["commit"]:
        url = f"https://github.com/{config.repository}/commit/{commit}"
        link = config.repository and not commit.endswith("-dirty")
        rows[day] += ", at commit " + (f"`{commit} <{url}>`__" if link else commit)
    return FOOT.format(fields=fields(rows))


def frame(app, docname, source):
    """Put box and foot into the rST of a page, before it is read."""
    if is_page(docname):
        text = ZIP.sub("", source[0])
        title = re.search(r"^\.\. _sphx_glr_.*:\n+(.*)\n=+\n", text, re.MULTILINE)
        middle, end = title.end(), text.index("\n.. _sphx_glr_download_")
        made, meta, last = Path(app.srcdir, f"{docname}.json"), "", ""
        facts = json.loads(made.read_text()) if made.exists() else None
        if facts:
            base, name = app.config.html_baseurl, Path(docname).name
            meta = META.format(base=base, name=name, title=title[1])
            last = foot(facts, app.config)
        first = box(app, docname, text, facts)
        source[0] = meta + text[:middle] + first + text[middle:end] + last + text[end:]


def check(app):
    """Stop, before any page runs, at one that lacks requirements or a name of its own.

    What is built from all pages lies in the same folders, named after them.
    """
    folders = {}
    for path in sorted(Path(app.confdir, "examples").glob("*/plot_*.py")):
        try:
            read_block(path)
        except ValueError as error:
            sys.exit(str(error))
        folder = path.parent.name
        if (other := folders.setdefault(path.name, folder)) != folder:
            sys.exit(f"Two pages have the name {path.name}, in {other} and {folder}")


def setup(app):
    """Frame every page; ``repository`` is OWNER/NAME on GitHub."""
    app.add_config_value("repository", "", "env", types=str)
    app.add_config_value("notebook_branch", "", "env", types=str)
    app.connect("builder-inited", check, priority=0)
    app.connect("source-read", frame)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
