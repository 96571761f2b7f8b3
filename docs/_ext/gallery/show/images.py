"""Show the images of a page: the light or the dark one, sharp on every screen."""

import re
from pathlib import Path

from docutils import nodes
from PIL import Image
from sphinx.transforms import SphinxTransform
from sphinx.util import logging
from sphinx_gallery.directives import imgsgnode

from gallery import pages
from gallery.run.figures import beside, description_id
from gallery.show import findings

logger = logging.getLogger(__name__)

# The theme sets the mode after it has read the page; until then, a browser would show,
# and fetch, both images of two. Paper is white, and nobody can unfold what is printed.
MODE = """{
const {dataset} = document.documentElement;
const {matches} = matchMedia("(prefers-color-scheme: dark)");
if (dataset.theme == "auto") dataset.theme = matches ? "dark" : "light";
let theme, folds;
addEventListener("beforeprint", () => {
    theme = dataset.theme;
    folds = [...document.querySelectorAll("details:not([open])")];
    dataset.theme = "light";
    for (const image of document.images) image.loading = "eager";
    for (const fold of folds) fold.open = true;
});
addEventListener("afterprint", () => {
    dataset.theme = theme;
    for (const fold of folds) fold.open = false;
});
}"""


class FirstFigure(SphinxTransform):
    """Say in the description of the first figure of a page what the page finds."""

    default_priority = 490  # before the dark image takes the description

    def apply(self):
        """Add the first finding to the title of the figure."""
        docname = self.env.docname
        if pages.is_page(docname):
            script = Path(self.env.srcdir, f"{docname}.py")
            finding = findings.plain(findings.read(script).finding)
            figure = next(self.document.findall(imgsgnode), None)
            if figure is not None and finding:
                figure["alt"] = f"{figure['alt']}: {finding}"


class DarkImages(SphinxTransform):
    """Show the dark image in dark mode wherever a page shows one that has it.

    Of a page, show the card, and not sphinx-gallery's thumbnail of its whole figure.
    """

    default_priority = 500

    def apply(self):
        """Put the dark image behind the light one, and give both what both need."""
        images = [
            *self.document.findall(nodes.image),
            *self.document.findall(imgsgnode),
        ]
        for light in images:
            card = light["uri"].replace("_thumb.png", "_card.png")
            if Path(self.env.srcdir, card.lstrip("/")).exists():
                light["uri"] = card
            path = Path(self.env.srcdir, light["uri"].lstrip("/"))
            if not path.exists():
                continue
            with Image.open(path) as image:
                light["width"], light["height"] = map(str, image.size)
            # Lazy, for then a browser fetches only the image that it shows; no link,
            # which Sphinx makes of an image with a width.
            light["loading"] = "lazy"
            light["classes"].append("no-scaled-link")
            if beside(path, "_dark").exists():
                dark = light.deepcopy()
                dark["uri"] = beside(Path(light["uri"]), "_dark").as_posix()
                light["classes"].append("only-light")
                dark["classes"].append("only-dark")
                light.parent.insert(light.parent.index(light) + 1, dark)


def files(node):
    """Return the paths of a figure at the density of the page, and at twice that."""
    path = Path(node["uri"].lstrip("/"))
    return path, beside(path, "_2x")


def register(app, doctree, docname):
    """Have the builder copy the figures of a document.

    Sphinx asks for that before it hands the document to a process that writes it, since
    the process could not tell.
    """
    for node in doctree.findall(imgsgnode):
        if "width" not in node:  # the page of the figure failed
            logger.warning("figure not found: %s", node["uri"], location=node)
            continue
        for path in files(node):
            app.builder.images[path.as_posix()] = path.name


def visit_figure(self, node):
    """Write the ``<img>`` that sphinx-gallery leaves without size and escaping."""
    if "width" in node:
        once, twice = (f"{self.builder.imgpath}/{path.name}" for path in files(node))
        names = "alt", "width", "height", "loading"
        attributes = {name: node[name] for name in names}
        attributes["class"] = " ".join(["sphx-glr-single-img", *node["classes"]])
        description = description_id(files(node)[0])
        if description in self.document.ids:
            attributes["aria-details"] = description
        srcset = f"{once}, {twice} 2x"
        tag = self.emptytag(node, "img", src=once, srcset=srcset, **attributes)
        self.body.append(tag)
    raise nodes.SkipNode


def make_valid(app, pagename, templatename, context, doctree):
    """Take out what is not HTML in the cards of pages: sphinx-gallery's own tooltips.

    They only repeat how the page begins. The list of tags, of which there are none,
    comes once for each folder, with the same id.
    """
    if "body" in context:
        body = re.sub(r' tooltip="[^"]*"', "", context["body"])
        context["body"] = re.sub(r"<div id='sg-tag-list'.*?</div>", "", body)
