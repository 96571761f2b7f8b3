"""Sphinx configuration: the decisions, each section with its documentation."""

import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

# -- Project ---------------------------------------------------------------------------
# https://www.sphinx-doc.org/en/master/usage/configuration.html#project-information

project = "Stochastic solver gallery"
author = "The maintainers of the Stochastic solver gallery"
copyright = "2026, " + author

# Where the site will be: its links in the sitemap and for social media are absolute.
# The default is what ``make serve`` shows.
html_baseurl = (os.environ.get("SITE_URL") or "http://localhost:8000").rstrip("/") + "/"

# -- General ---------------------------------------------------------------------------
# https://www.sphinx-doc.org/en/master/usage/configuration.html#general-configuration

sys.path.insert(0, str(Path(__file__).parent / "docs/_ext"))

extensions = [
    "sphinx.ext.intersphinx",
    "sphinx_gallery.gen_gallery",
    "gallery",  # this project's own, in docs/_ext
    "notfound.extension",
    "sphinx_copybutton",
    "sphinxext.opengraph",
]
exclude_patterns = ["_build"]
# The folder of a clone may have a space in its name; those of pages have none, see
# docs/_ext/gallery/pages.py.
suppress_warnings = ["sphinx_gallery.space_in_filename"]
html_math_renderer = "mathml"

# -- Gallery ---------------------------------------------------------------------------
# docs/_ext/gallery/__init__.py

# The order in which pages are best read; those not named here follow, by name.
gallery_reading_order = [
    "plot_sgd_solvers",
    "plot_line_search_anatomy",
    "plot_stepsize_sensitivity",
    "plot_tuning_budget",
    "plot_parameter_free",
    "plot_schedule",
    "plot_batch_size",
    "plot_interpolation",
    "plot_jaxopt_to_optax",
    "plot_own_rule",
    "plot_devices_and_hosts",
    "plot_resume",
]
# The sections of pages that are plumbing, by title: their code is folded.
gallery_folded = ("Imports", "Data", "Settings", "Tables and figure", "Running")
# How long the code of a page may take, in seconds: busy machines take several times as
# long as others, so this is for pages that hang.
gallery_page_budget = 300
# OWNER/NAME on GitHub, and the branch there that has the built notebooks under docs/:
# then each page has a link that opens it in Colab.
gallery_repository = os.environ.get("GITHUB_REPOSITORY", "")
gallery_notebook_branch = os.environ.get("NOTEBOOK_BRANCH", "")
# The date of the source: where it is set, builds of the same source are the same to the
# byte, see https://reproducible-builds.org/specs/source-date-epoch/.
if not os.environ.get("SOURCE_DATE_EPOCH"):
    os.environ.pop("SOURCE_DATE_EPOCH", None)  # Sphinx would take "" for a number
gallery_source_date = os.environ.get("SOURCE_DATE_EPOCH", "")

# https://sphinx-gallery.github.io/stable/configuration.html
# The extension adds what says where pages are and how they run.
sphinx_gallery_conf = {
    # Code links to what is written in it, not to the class of its value.
    "inspect_global_variables": False,
    # One page needs no archive of all pages, and no list of how long each one took;
    # that list would load scripts and styles from other hosts, too.
    "download_all_examples": False,
    "write_computation_times": False,
}

# -- Links to other documentation ------------------------------------------------------
# https://www.sphinx-doc.org/en/master/usage/extensions/intersphinx.html

# The inventories are lists of what the pages name: a build asks no other site, and its
# links do not depend on the day. ``make linkcheck`` compares them with those sites.
documentation = {
    "flax": "https://flax-linen.readthedocs.io/en/latest/",
    "jax": "https://docs.jax.dev/en/latest/",
    "jaxopt": "https://jaxopt.github.io/stable/",
    "matplotlib": "https://matplotlib.org/stable/",
    "numpy": "https://numpy.org/doc/stable/",
    "optax": "https://optax.readthedocs.io/en/latest/",
    "python": "https://docs.python.org/3/",
    "scipy": "https://docs.scipy.org/doc/scipy/",
}
intersphinx_mapping = {
    name: (url, f"inventories/{name}.txt") for name, url in documentation.items()
}

# -- HTML ------------------------------------------------------------------------------
# https://sphinx-book-theme.readthedocs.io/en/stable/reference/configuration.html

html_theme = "sphinx_book_theme"
html_title = project
html_context = {"default_mode": "light", "repository": gallery_repository}
html_theme_options = {
    "footer_content_items": ["copyright.html", "licence.html"],
    "home_page_in_toc": True,
    "navbar_persistent": [],  # the side bar has the search
    "use_download_button": False,  # each page has downloads of its own
}
# Without the name of the site, which the first entry of the navigation has.
html_sidebars = {"**": ["search-button-field.html", "sidebar-nav.html"]}
templates_path = ["docs/_templates"]
html_static_path = ["docs/_static"]
html_css_files = ["gallery.css"]
html_js_files = [("gallery.js", {"defer": "defer"})]
html_favicon = "docs/_static/favicon.svg"

# -- Around the pages ------------------------------------------------------------------
# https://sphinx-copybutton.readthedocs.io
# https://sphinxext-opengraph.readthedocs.io
# https://sphinx-notfound-page.readthedocs.io

# Blocks of code, and the command that runs a page.
copybutton_selector = "div.highlight pre, .page-command code"
copybutton_prompt_text = r">>> |\.\.\. |\$ |In \[\d*\]: "
copybutton_prompt_is_regexp = True
ogp_site_url = html_baseurl
ogp_social_cards = {"enable": False}  # the extension draws others, with the figure
notfound_urls_prefix = urlsplit(html_baseurl).path
