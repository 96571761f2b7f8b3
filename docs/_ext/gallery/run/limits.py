"""End a page that warns, exits or hangs, so that it fails the build by its name."""

import signal
import warnings

from sphinx_gallery import gen_rst

outside_of_pages = warnings.filters[:]
clock = {}  # the "budget" of each page, and what is "left" of it to this one, in s


class PageError(Exception):
    """What a page did that ends pages; sphinx-gallery reports it with the page."""


class TimeUp(BaseException):
    """Raised in a page whose time is up, whatever exceptions that page handles."""


def reset(gallery_conf, fname, when):
    """Turn warnings into errors ``when`` is "before" a page, and back "after" it.

    The exception is jaxopt's notice, on import, that it is no longer maintained: the
    pages know and say so. Each page gets its time anew.
    """
    if when == "before":
        clock["left"] = clock["budget"]
        warnings.simplefilter("error")
        warnings.filterwarnings(
            "ignore", "JAXopt is no longer maintained", DeprecationWarning
        )
    else:
        warnings.filters[:] = outside_of_pages


def stop(number, stack):
    """Handle the alarm that goes off when the time of a page is up."""
    raise TimeUp


def run(block):
    """Run a block of a page, in the place of what measures its memory.

    sphinx-gallery handles what is an Exception; all else would end the whole build, and
    ``sys.exit(0)`` would even have it succeed. Raises PageError instead.
    """
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, clock["left"])
            return 0.0, block()
        finally:
            clock["left"], _ = signal.setitimer(signal.ITIMER_REAL, 0)
    except TimeUp as end:
        reason, place = f"took more than {clock['budget']} s (page_budget)", end
    except SystemExit as end:
        reason, place = f"called sys.exit({end.code!r})", end
    raise PageError(f"The page {reason}").with_traceback(place.__traceback__)


def read(app, config):
    """Take the budget from the configuration."""
    clock["budget"] = config.page_budget


def setup(app):
    """Add ``page_budget``, the seconds that the code of a page may take."""
    app.add_config_value("page_budget", 300, "", types=(int, float))
    app.connect("config-inited", read)
    signal.signal(signal.SIGALRM, stop)
    gen_rst._sg_call_memory_noop = run
    return {"parallel_read_safe": True, "parallel_write_safe": True}
