"""Check what the environment sets, before a page runs."""

import os
import re
import sys
from urllib.parse import urlsplit

from sphinx.util import logging

logger = logging.getLogger(__name__)

# The year 9999 ends after as many seconds: no date is later.
LAST = 253_402_300_799


def is_site(url):
    """Tell whether ``url`` is an address at which a site can be."""
    parts = urlsplit(url)
    return (
        parts.scheme in ("http", "https")
        and bool(parts.hostname)
        and not re.search(r"[\s?#]", url)
    )


def check(app, config):
    """Exit with one line on a setting that makes no sense."""
    date, branch = config.gallery_source_date, config.gallery_notebook_branch
    checks = {
        "SITE_URL": (
            config.html_baseurl,
            is_site(config.html_baseurl),
            "an address, such as https://owner.github.io/name/",
        ),
        "GITHUB_REPOSITORY": (
            config.gallery_repository,
            re.fullmatch(r"([\w.-]+/[\w.-]+)?", config.gallery_repository, re.ASCII),
            "OWNER/NAME",
        ),
        "NOTEBOOK_BRANCH": (
            branch,
            re.fullmatch(r"([\w.-]+(/[\w.-]+)*)?", branch, re.ASCII),
            "the name of a branch",
        ),
        "SOURCE_DATE_EPOCH": (
            date,
            re.fullmatch(r"\d*", date, re.ASCII) and int(date or 0) <= LAST,
            "seconds since 1970, a whole number",
        ),
    }
    for name, (value, right, wanted) in checks.items():
        if not right:
            sys.exit(f"{name} is {value!r}, but must be {wanted}: change or unset it")
    if os.environ.get("CI") and not os.environ.get("SITE_URL"):
        url = config.html_baseurl
        logger.info("SITE_URL is not set: sitemap and previews name %s", url)
