"""Lay out a page: the figure and the tables come first, and the plumbing is folded.

This is done when the notebook is written, which keeps the order of the script.
"""

from itertools import takewhile

from docutils import nodes
from sphinx.util import logging
from sphinx_gallery.directives import imgsgnode

from gallery import pages
from gallery.show import tables
from gallery.show.notebooks import END, RESULT, is_plumbing

logger = logging.getLogger(__name__)

# Folds are open where there are no scripts. The first script in a fold closes it before
# a browser shows what is in it, so nothing moves.
OPEN = '<details class="plumbing" open="open">\n<summary>'
CLOSE = "</summary>\n<script>document.currentScript.parentElement.open = false</script>"
# All images are lazy, for then a browser fetches only the one of the mode. The first
# figure is what readers wait for, so the one that they see waits for nothing.
EAGER = """<script>
{
const {theme} = document.documentElement.dataset;
document.querySelector(`article .only-${theme}`).loading = "eager";
}
</script>"""
# A link may lead into a fold, or to a section that has one. A click on a link to where
# the reader is already changes no address, but it shall open the fold again.
FOLDS = """{
const open = () => {
    const target = document.getElementById(location.hash.slice(1));
    if (!target) return;
    const inner = target.querySelector(":scope > details.plumbing") ?? target;
    const folds = [...document.querySelectorAll("details:not([open])")];
    const around = folds.filter(fold => fold.contains(inner));
    for (const fold of around) fold.open = true;
    if (around.length) target.scrollIntoView();
};
addEventListener("DOMContentLoaded", open);
addEventListener("hashchange", open);
addEventListener("click", event => {
    const link = event.target.closest("a[href*='#']");
    if (link?.href == location.href) open();
});
}"""


def html(text):
    """Return a node that is written as it is."""
    return nodes.raw("", text, format="html")


# The answer first


def is_caption(node):
    """Tell whether a node is the paragraph that becomes the caption of the figure."""
    return (
        isinstance(node, nodes.paragraph)
        and isinstance(node[0], nodes.strong)
        and node[0].astext() == "Figure:"
    )


def figure_of(page):
    """Return the images of the first figure of a page, and its description."""
    first = next(page.findall(imgsgnode), None)
    if first is None:
        return [], []
    after = first.parent[first.parent.index(first) :]
    images = list(takewhile(lambda node: isinstance(node, imgsgnode), after))
    rest = after[len(images) : len(images) + 1]
    described = [x for x in rest if "figure-description" in x.get("classes", ())]
    return images, described


def take_tables(log):
    """Take the tables out of the node of a log, and return them."""
    try:
        rest, found = tables.split(log.astext())
    except ValueError as error:
        logger.warning("%s", error, location=log)
        return []
    if found and rest:
        log.rawsource = rest  # Sphinx takes text that differs for text with markup
        log[:] = [nodes.Text(rest)]
    elif found:
        log.parent.remove(log)
    return found


def put_answer_first(page):
    """Move figure and tables to the caption that ends the introduction.

    Without a caption, the figure stays where it is, and tables are below their log.
    """
    logs, made = [x for x in page.findall(nodes.literal_block) if is_log(x)], []
    caption = next(filter(is_caption, page), None)
    for log in logs:
        section, place = log.parent, log.parent.index(log)
        found = [
            tables.node(table, f"table-{number}")
            for number, table in enumerate(take_tables(log), len(made) + 1)
        ]
        made += found
        if caption is None:
            place += log in section.children  # it has other lines, too
            section[place:place] = found
    if caption is None:
        return
    caption["classes"].append("page-caption")
    images, described = figure_of(page)
    for node in images + described:
        node.parent.remove(node)
    dark = any("only-dark" in image["classes"] for image in images)
    eager = [html(EAGER)] if dark else []
    place = page.index(caption)
    page[place : place + 1] = [*images, *eager, caption, *described, *made]


# Folds


def is_log(node):
    """Tell whether a node is what a block of the script printed."""
    return "sphx-glr-script-out" in node.get("classes", ())


def stays_open(node):
    """Tell whether a node is made by code, or is of the end of the page."""
    classes = set(node.get("classes", ()))
    result = isinstance(node, nodes.raw) and RESULT in node.astext()
    made = is_log(node) or isinstance(node, imgsgnode) or result
    return made or bool(END & classes)


def fold(section):
    """Fold a section; its title and first paragraph stay visible, and what it makes.

    The paragraph may have links, so it cannot be in the summary, which is a button. It
    is behind the fold, and styles show it below the title.
    """
    title, *rest = section.children
    lead = []
    if rest and isinstance(rest[0], nodes.paragraph):
        lead = [rest.pop(0)]
        lead[0]["classes"].append("plumbing-lead")
    folded = list(takewhile(lambda node: not stays_open(node), rest))
    after = rest[len(folded) :]
    fold = [html(OPEN), title, html(CLOSE), *folded, html("</details>")]
    section["classes"].append("has-plumbing")
    section[:] = [*fold, *lead, *after]


def arrange(app, doctree, docname):
    """Lay out a page of the site."""
    if app.builder.name != "html" or not pages.is_page(docname):
        return
    page = next(doctree.findall(nodes.section))
    put_answer_first(page)
    for section in list(page.findall(nodes.section)):
        if is_plumbing(section, app.config.gallery_folded):
            fold(section)
