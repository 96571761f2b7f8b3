"""Write the site for language models: each document as Markdown, and a list of them.

See https://llmstxt.org.
"""

from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx_gallery.directives import imgsgnode
from sphinx_markdown_builder.translator import MarkdownTranslator

from gallery import pages
from gallery.show import preview
from gallery.show.notebooks import LINKED

LEFT_OUT = {"404"}  # documents that tell nothing


NOTE = "sphx-glr-download-link-note"  # which leads to the downloads of the page
# What Markdown has no place for, and what it has the content of.
REMOVED = addnodes.toctree, imgsgnode, nodes.comment, nodes.image, nodes.raw
OPENED = addnodes.download_reference, nodes.admonition


def simplified(doctree):
    """Return a copy of a document that has what Markdown has: no image, box or HTML."""
    document = doctree.deepcopy()
    for node in list(document.findall(nodes.Element)):
        if isinstance(node, REMOVED) or NOTE in node["classes"]:
            node.parent.remove(node)
        elif isinstance(node, OPENED):
            title = node.next_node(nodes.title)
            if title is not None:
                bold = nodes.strong("", title.astext())
                title.replace_self(nodes.paragraph("", "", bold))
            node.replace_self(node.children)
        elif node.tagname == LINKED:
            text = node.astext()
            node.replace_self(nodes.literal_block(text, text, language="python"))
    return document


def write(app, doctree, docname):
    """Write a document as Markdown beside its HTML."""
    if app.builder.name == "html":
        document = simplified(doctree)
        translator = MarkdownTranslator(document, app.builder)
        document.walkabout(translator)
        path = Path(app.outdir, f"{docname}.md")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{translator.astext().strip()}\n")


def write_list(app, error):
    """List all documents, whichever this build wrote anew: pages first, in order."""
    if error is not None or app.builder.name != "html":
        return
    env, base, lines = app.env, app.config.html_baseurl, []
    order = [pages.docname_of(script) for script in pages.in_order(app.config)]
    for docname in [*order, *sorted(env.found_docs - {*order, *LEFT_OUT})]:
        about = preview.description_of(app, docname, env.get_doctree(docname))
        lines.append(f"- [{env.titles[docname].astext()}]({base}{docname}.md): {about}")
    root = app.config.root_doc
    summary = preview.description_of(app, root, env.get_doctree(root))
    start = [f"# {app.config.project}", "", f"> {summary}", ""]
    Path(app.outdir, "llms.txt").write_text("\n".join([*start, *lines, ""]))
