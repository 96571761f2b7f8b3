"""List all pages for search engines in sitemap.xml, whichever this build wrote anew."""

from pathlib import Path
from xml.sax.saxutils import escape


def write(app, error):
    """Write the list; see https://www.sitemaps.org/protocol.html."""
    if error is None and app.builder.name == "html":
        base, link = app.config.html_baseurl, app.builder.get_target_uri
        pages = [base + link(name) for name in sorted(app.env.found_docs - {"404"})]
        lines = [f"<url><loc>{escape(page)}</loc></url>" for page in pages]
        start = '<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">'
        text = "\n".join(["<?xml version='1.0' encoding='utf-8'?>", start, *lines])
        Path(app.outdir, "sitemap.xml").write_text(f"{text}\n</urlset>\n")
