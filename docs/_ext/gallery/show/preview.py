"""Give each document the description and the image that other sites show of it.

See https://ogp.me; ``sphinxext.opengraph`` writes the tags.
"""

import textwrap
from html import escape
from pathlib import Path

from docutils import nodes
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont, ImageOps

from gallery import pages
from gallery.run.figures import beside
from gallery.show import findings

SIZE = WIDTH, HEIGHT = 1200, 630
# Pixels around the parts, the width of the figure and the height of the title's type.
MARGIN, FIGURE, LETTER = 40, 680, 44
LARGE = '<meta name="twitter:card" content="summary_large_image" />\n'
LONGEST = 200  # letters of a description that other sites show


def compose(title, figure):
    """Return ``title`` beside the image at the path ``figure``, on a white ground."""
    card = Image.new("RGB", SIZE, "white")
    with Image.open(figure) as image:
        image = image.convert("RGB")
    image = ImageOps.contain(image, (FIGURE, HEIGHT - 2 * MARGIN))
    card.paste(image, (WIDTH - MARGIN - image.width, (HEIGHT - image.height) // 2))
    font = ImageFont.truetype(findfont("DejaVu Sans:bold"), LETTER)
    columns = (WIDTH - image.width - 3 * MARGIN) // (0.75 * LETTER)
    lines = textwrap.fill(title, int(columns))
    ImageDraw.Draw(card).text((MARGIN, HEIGHT // 2), lines, "black", font, anchor="lm")
    return card


def figure_of(app, docname):
    """Return the path of the figure of a page; other documents have the first page's.

    It may not be there.
    """
    page = docname if pages.is_page(docname) else None
    if page is None and (scripts := pages.in_order(app.config)):
        page = pages.docname_of(scripts[0])
    path = Path(app.srcdir, page or docname)
    return beside(path.parent / f"images/sphx_glr_{path.name}_001.png", "_2x")


def description_of(app, docname, doctree):
    """Return what a page finds, or how a document begins, in whole sentences."""
    if pages.is_page(docname):
        finding = findings.read(Path(app.srcdir, f"{docname}.py")).finding
        if finding:
            return findings.plain(finding)
    paragraphs = [
        paragraph.astext()
        for paragraph in doctree.findall(nodes.paragraph)
        if isinstance(paragraph.parent, nodes.section)  # not in a box about the page
    ]
    return shortened(paragraphs[0]) if paragraphs else ""


def shortened(text):
    """Return as many whole sentences of ``text`` as other sites show."""
    kept = ""
    for sentence in findings.sentences(" ".join(text.split())):
        # A colon leads to a list, which is not there.
        if kept and (len(kept + sentence) >= LONGEST or sentence.endswith(":")):
            break
        kept = f"{kept} {sentence}".strip()
    return kept


def describe(app, pagename, templatename, context, doctree):
    """Add both to what the template and ``sphinxext.opengraph`` know of a document."""
    if not doctree:
        return
    title = app.env.titles[pagename].astext()
    fields = {}
    if description := description_of(app, pagename, doctree):
        fields["og:description"] = escape(description)
        tag = f'<meta name="description" content="{escape(description)}" />\n'
        context["metatags"] += tag
    figure = figure_of(app, pagename)
    if figure.exists():
        name = f"preview_{pagename.replace('/', '_')}.png"
        folder = Path(app.outdir, app.builder.imagedir)
        folder.mkdir(exist_ok=True)
        compose(title, figure).save(folder / name)
        context["metatags"] += LARGE
        fields |= {
            "og:image": f"{app.config.html_baseurl}{app.builder.imagedir}/{name}",
            "og:image:width": str(WIDTH),
            "og:image:height": str(HEIGHT),
            "og:image:alt": f"{title}, with a figure",
        }
    context["meta"] = (context["meta"] or {}) | fields
