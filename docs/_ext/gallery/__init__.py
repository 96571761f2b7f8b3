"""Run the pages of the gallery and show them.

This file is the map: ``setup`` lists every hook in the order in which they run, with
the function that hangs there. ``pages`` knows where pages are and what they require,
``settings`` what the environment may set.
What counts for running a page is in ``run``, and what counts for showing it is in
``show``. ``stale`` tells which pages run again. ``docs/building.rst`` tells the same as
a story, with the files that a build leaves.
"""

from sphinx_gallery.directives import imgsgnode

from gallery import pages, run, settings, stale
from gallery.show import (
    frame,
    home,
    images,
    layout,
    links,
    llms,
    mathematics,
    neighbours,
    notebooks,
    preview,
    sitemap,
)


def tell_sphinx_gallery(app, config):
    """Give sphinx-gallery its options; those in conf.py and on a command line win."""
    order = pages.Order(tuple(config.gallery_reading_order))
    conf = config.sphinx_gallery_conf
    config.sphinx_gallery_conf = (
        run.options(config) | {"within_subsection_order": order} | conf
    )


def setup(app):
    """Add the settings of conf.py, and hang every function on its hook."""
    # Names of pages in the order in which they are best read.
    app.add_config_value("gallery_reading_order", (), "env", types=(tuple, list))
    # Titles of sections that are folded.
    app.add_config_value("gallery_folded", (), "html", types=(tuple, list))
    # Seconds that the code of a page may take.
    app.add_config_value("gallery_page_budget", 300, "", types=(int, float))
    # The one page to run, or all.
    app.add_config_value("gallery_page", "", "", types=str)
    # OWNER/NAME on GitHub, and the branch there that has the notebooks.
    app.add_config_value("gallery_repository", "", "env", types=str)
    app.add_config_value("gallery_notebook_branch", "", "env", types=str)
    # Seconds since 1970, if a build is to be the same to the byte when it is repeated.
    app.add_config_value("gallery_source_date", "", "env", types=str)

    # A build begins.
    app.connect("config-inited", settings.check, priority=0)
    app.connect("config-inited", tell_sphinx_gallery, priority=0)
    app.connect("builder-inited", pages.check, priority=0)
    app.connect("builder-inited", stale.run_again, priority=1)
    # sphinx-gallery runs the pages that changed: see ``run.options`` for its hooks.
    # Sphinx reads the documents that changed.
    app.connect("env-get-outdated", stale.read_again)
    app.add_directive("page-list", home.PageList)
    app.add_transform(frame.Frame)
    app.add_transform(images.FirstFigure)
    app.add_transform(images.DarkImages)
    # Sphinx writes them.
    app.connect("doctree-resolved", images.register)
    app.setup_extension("sphinx_markdown_builder")  # for notebooks and llms.txt
    app.connect("doctree-resolved", notebooks.write)
    app.connect("doctree-resolved", llms.write)
    app.connect("doctree-resolved", layout.arrange)
    app.add_node(imgsgnode, html=(images.visit_figure, None), override=True)
    app.add_html_math_renderer("mathml", *mathematics.RENDERERS)
    app.add_js_file(None, body=images.MODE)
    app.add_js_file(None, body=layout.FOLDS)
    app.connect("html-page-context", images.make_valid)
    app.connect("html-page-context", neighbours.link)
    app.connect("html-page-context", preview.describe, priority=400)  # before opengraph
    # The build ends.
    app.connect("build-finished", sitemap.write)
    app.connect("build-finished", llms.write_list)
    app.connect("build-finished", links.check)
    app.connect("build-finished", stale.keep)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
