"""What counts for running a page.

When a file in this folder changes, all pages run again; see ``gallery.stale``.
"""

from gallery import pages
from gallery.run import limits


def options(config):
    """Return the options of sphinx-gallery that say where pages are and how they run.

    sphinx-gallery imports the functions that it knows by name, because Sphinx pickles
    the configuration.
    """
    timeless = bool(config.gallery_source_date)
    reset = ["matplotlib"]
    reset += [f"gallery.run.{x}" for x in ("limits.reset", "figures.reset")]
    reset += ["gallery.run.provenance.record"]
    return {
        "examples_dirs": f"../{pages.EXAMPLES.name}",  # relative to docs/
        "gallery_dirs": pages.BUILT,
        "filename_pattern": rf"/{config.gallery_page or 'plot_.*'}\.py$",
        # Before a page and after it. Its times are hidden last, when all is written.
        "reset_modules": (*reset, *["gallery.run.times.hide"] * timeless),
        "reset_modules_order": "both",
        # Around each block of a page, and after it.
        "show_memory": limits.Watch(config.gallery_page_budget, timeless),
        "image_scrapers": ("gallery.run.figures.scrape",),
        "min_reported_time": float("inf") if timeless else 0,
    }
