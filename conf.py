"""Sphinx configuration: the decisions, each section with its documentation."""

import sys
from pathlib import Path

# -- Project ---------------------------------------------------------------------------
# https://www.sphinx-doc.org/en/master/usage/configuration.html#project-information

project = "Stochastic solver gallery"
author = "The maintainers of the Stochastic solver gallery"
copyright = "2026, " + author

# -- General ---------------------------------------------------------------------------
# https://www.sphinx-doc.org/en/master/usage/configuration.html#general-configuration

extensions = ["sphinx_gallery.gen_gallery"]
exclude_patterns = ["_build"]

# -- Gallery ---------------------------------------------------------------------------
# https://sphinx-gallery.github.io/stable/configuration.html

# Where sphinx-gallery finds the function that ``reset_modules`` names.
sys.path.insert(0, str(Path(__file__).parent / "docs"))

sphinx_gallery_conf = {
    "examples_dirs": "../examples",  # relative to docs/, the source folder
    "gallery_dirs": "auto_examples",
    "image_srcset": ["2x"],
    # Names rather than functions, so that Sphinx can pickle the configuration.
    "reset_modules": ("matplotlib", "page_warnings.as_errors"),
    "reset_modules_order": "both",
    # One page needs no archive of all pages, and no list of how long each one took;
    # that list would load scripts and styles from other hosts, too.
    "download_all_examples": False,
    "write_computation_times": False,
}

# -- HTML ------------------------------------------------------------------------------
# https://sphinx-book-theme.readthedocs.io/en/stable/reference/configuration.html

html_theme = "sphinx_book_theme"
html_title = project
html_context = {"default_mode": "auto"}
html_static_path = ["docs/_static"]
html_css_files = ["gallery.css"]
