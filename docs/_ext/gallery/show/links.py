"""Warn of links inside the site that lead nowhere, which Sphinx does not follow.

``make linkcheck`` follows the links to other sites.
"""

from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

from sphinx.util import logging

logger = logging.getLogger(__name__)


class Links(HTMLParser):
    """Reads the ``links`` of an HTML file, and the ``ids`` that others can lead to."""

    def __init__(self, path):
        """Read the file at ``path``."""
        super().__init__()
        self.links, self.ids = [], set()
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        """Take what is there of each tag."""
        for name, value in attributes:
            if name in ("href", "src"):
                self.links.append(value)
            elif name == "srcset":
                self.links += [image.split()[0] for image in value.split(",")]
            elif name in ("id", "name"):
                self.ids.add(value)


def check(app, error):
    """Follow the links of all documents, whichever this build wrote anew."""
    if error is not None or app.builder.name != "html":
        return
    root, read = app.config.html_baseurl, cache(Links)
    for document in sorted(app.env.found_docs):
        place = app.builder.get_target_uri(document)
        for link in read(Path(app.outdir, place)).links:
            url = urlsplit(urljoin(root + place, link))
            inside = url.geturl().startswith(root)
            if not inside and (urlsplit(link).scheme or urlsplit(link).netloc):
                continue  # another site
            path = unquote(url.path.removeprefix(urlsplit(root).path))
            file = Path(app.outdir, path or "index.html")
            found = inside and file.is_file()
            if found and url.fragment and file.suffix == ".html":
                found = unquote(url.fragment) in read(file).ids
            if not found:
                logger.warning("dead link: %s", link, location=document)
