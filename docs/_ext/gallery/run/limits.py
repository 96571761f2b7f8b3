"""End a page that warns, exits or hangs, so that it fails the build by its name."""

import resource
import signal
import sys
import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

outside_of_pages = warnings.filters[:]
page = {}  # the seconds that the blocks of the page "used" until now


class PageError(Exception):
    """A page did what ends pages; sphinx-gallery reports the error with the page."""


class TimeUp(BaseException):
    """Raised in a page whose time is up, whatever exceptions that page handles."""


def reset(gallery_conf, fname, when):
    """Turn warnings into errors ``when`` is "before" a page, and back "after" it.

    The exception is jaxopt's notice, on import, that jaxopt is no longer maintained:
    the pages know and say so. Each page starts with its whole time, and with the memory
    that the process has now.
    """
    if when == "before":
        page.clear()
        warnings.simplefilter("error")
        warnings.filterwarnings(
            "ignore", "JAXopt is no longer maintained", DeprecationWarning
        )
        # Linux forgets the largest memory of a process on request. Other systems do
        # not, so there a page counts with the pages before it.
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    else:
        warnings.filters[:] = outside_of_pages


def peak():
    """Return the largest resident memory of this process, in MB."""
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
        and ``sys.exit(0)`` would even let it succeed. Raises PageError instead.
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
            reason, place = f"called sys.exit({end.code!r})", end
        else:
            return 0.0 if self.timeless else peak(), result
        raise PageError(f"The page {reason}").with_traceback(place.__traceback__)
