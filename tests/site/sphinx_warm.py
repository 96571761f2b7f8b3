"""Build a site once, so that builds in children of this process find all imported.

It has the libraries of the real site, but nothing of this project: the children build
with copies of the project's own code.
"""

import contextlib
import os
import tempfile
from pathlib import Path

import jax  # noqa: F401  (a build tells its version)
from sphinx.cmd.build import main

CONF = """
extensions = [
    "sphinx.ext.intersphinx",
    "sphinx_gallery.gen_gallery",
    "sphinx_markdown_builder",
    "notfound.extension",
    "sphinx_copybutton",
    "sphinxext.opengraph",
]
html_theme = "sphinx_book_theme"
sphinx_gallery_conf = {"examples_dirs": "examples", "gallery_dirs": "auto_examples"}
ogp_site_url = ogp_image = "http://localhost/"
"""
INDEX = "Title\n=====\n\n.. toctree::\n\n   auto_examples/index\n"
PAGE = '"""\nTitle\n=====\n"""\nimport matplotlib.pyplot as plt\n\nplt.plot([1, 2])\n'

with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    (folder / "examples").mkdir()
    (folder / "conf.py").write_text(CONF)
    (folder / "index.rst").write_text(INDEX)
    (folder / "examples/GALLERY_HEADER.rst").write_text("Title\n=====\n")
    (folder / "examples/plot_page.py").write_text(PAGE)
    with (
        open(os.devnull, "w") as nothing,
        contextlib.redirect_stdout(nothing),
        contextlib.redirect_stderr(nothing),
    ):
        main(["-q", name, f"{name}/html"])
