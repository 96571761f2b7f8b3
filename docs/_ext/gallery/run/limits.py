"""End a page that warns, exits or hangs, so that it fails the build by its name.

A page can also do wrong where no exception reaches sphinx-gallery: in a thread, while
Python deletes an object, or in what it logs.
"""

import gc
import logging
import resource
import signal
import sys
import threading
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sphinx.util import logging as sphinx_logging

from gallery import pages

logger = sphinx_logging.getLogger(__name__)
outside_of_pages = warnings.filters[:]
page = {}  # the seconds that the blocks of the page "used" until now
faults = []  # what the page did wrong where no exception tells of it


class PageError(Exception):
    """A page did what ends pages; sphinx-gallery reports the error with the page."""


class TimeUp(BaseException):
    """Raised in a page whose time is up, whatever exceptions that page handles."""


def told(error):
    """Return an exception in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def in_thread(end):
    """Handle an exception that ended a thread, as ``threading.excepthook``."""
    if end.exc_type is not SystemExit:
        faults.append(f"had an exception in a thread, {told(end.exc_value)}")


def while_deleting(end):
    """Handle an exception that Python ignores, as ``sys.unraisablehook``."""
    error = end.exc_value or end.exc_type()
    faults.append(f"had an exception that Python ignores, {told(error)}")


def log_record(*arguments, **options):
    """Make a record of a logger, and note it if it tells of an error."""
    record = logging.LogRecord(*arguments, **options)
    if record.levelno >= logging.ERROR and not record.name.startswith("sphinx"):
        message = " ".join(record.getMessage().split())
        faults.append(f"logged an error, {record.name}: {message}")
    return record


def reset(gallery_conf, fname, when):
    """Turn warnings into errors ``when`` is "before" a page, and back "after" it.

    The exception is jaxopt's notice, on import, that jaxopt is no longer maintained:
    the pages know and say so. Each page starts with its whole time, and with the memory
    that the process has now.
    """
    if when == "before":
        page.clear()
        faults.clear()
        threading.excepthook, sys.unraisablehook = in_thread, while_deleting
        logging.setLogRecordFactory(log_record)
        warnings.simplefilter("error")
        warnings.filterwarnings(
            "ignore", "JAXopt is no longer maintained", DeprecationWarning
        )
        # Linux forgets the largest memory of a process on request. Other systems do
        # not, so there a page counts with the pages before it.
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    else:
        gc.collect()  # objects of the page, which may complain
        threading.excepthook, sys.unraisablehook = (
            threading.__excepthook__,
            sys.__unraisablehook__,
        )
        logging.setLogRecordFactory(logging.LogRecord)
        warnings.filters[:] = outside_of_pages
        passed = pages.copy_of(fname, gallery_conf["src_dir"]).with_suffix(".py.md5")
        if faults and passed.exists():
            passed.unlink()  # by which sphinx-gallery would not run it again
            logger.warning("%s unexpectedly failed: The page %s", fname, faults[0])


def peak():
    """Return the largest resident memory of this process, in MB.

    Children are left out. The system tells the largest memory that a child ever had,
    which at first is the memory of this process.
    """
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def stop(number, stack):
    """Handle the alarm that goes off when the time of a page is up."""
    raise TimeUp


@dataclass(frozen=True)
class Watch:
    """Runs the blocks of pages, in the place of a function that measures memory.

    ``budget`` is the time of a page in seconds. ``timeless`` leaves out what differs
    between two runs of the same page.
    """

    budget: float
    timeless: bool

    def __call__(self, block):
        """Run a block of a page; return the memory it took, in MB, and its result.

        sphinx-gallery handles an Exception; anything else would end the whole build,
        and ``sys.exit(0)`` would even let it succeed. Raises PageError instead. Only
        Ctrl-C ends the build, also where the page turns it into an exit.
        """
        if not page:
            # sphinx-gallery subtracts what it measures before a page. A reader who runs
            # the script needs all of it.
            page["used"] = 0.0
            return 0.0, block()
        left = max(self.budget - page["used"], 0.001)  # 0 would be no limit
        handler = signal.signal(signal.SIGALRM, stop)
        try:
            try:
                signal.setitimer(signal.ITIMER_REAL, left)
                result = block()
            finally:
                rest, _ = signal.setitimer(signal.ITIMER_REAL, 0)
                page["used"] += left - rest
                signal.signal(signal.SIGALRM, handler)
        except TimeUp as end:
            reason, place = f"took more than {self.budget} s (gallery_page_budget)", end
        except SystemExit as end:
            if isinstance(end.__context__, KeyboardInterrupt):
                raise end.__context__ from None
            reason, place = f"called sys.exit({end.code!r})", end
        else:
            if faults:
                raise PageError(f"The page {faults[0]}")
            return 0.0 if self.timeless else peak(), result
        raise PageError(f"The page {reason}").with_traceback(place.__traceback__)
