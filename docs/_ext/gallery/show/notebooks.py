"""Write the notebook of a page: its text and code, and a cell that installs."""

import base64
import os
import re
import shutil
from functools import cache
from importlib import metadata
from itertools import count
from pathlib import Path
from urllib.parse import urljoin

import nbformat
from bs4 import BeautifulSoup
from docutils import nodes
from docutils.utils import new_document
from nbformat import v4
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from sphinx_gallery.directives import imgsgnode
from sphinx_markdown_builder.translator import MarkdownTranslator

from gallery import pages
from gallery.run.figures import beside

INSTALL = """\
# Install what is missing here, as JAXopt is on Colab, and tell what is too old.
import subprocess
import sys
from importlib import metadata, util

from packaging.requirements import Requirement

requirements = [
{pairs}
]
missing = [need for module, need in requirements if util.find_spec(module) is None]
if missing:
    pip = [sys.executable, "-m", "pip", "install", "--quiet"]
    subprocess.run(pip + missing, check=True)
for need in (Requirement(text) for _, text in requirements):
    if need.specifier and metadata.version(need.name) not in need.specifier:
        old = f"{{need.name}} {{metadata.version(need.name)}} is installed"
        sys.exit(f"{{old}}: run %pip install '{{need}}' and restart the kernel")"""
# Pages end in a call of ``run_main(main, ARGV)``, where ARGV is the command line.
ADVICE = """\
The next cell installs what is missing. To change a setting here, replace `ARGV` in the
last code cell, for example by `["page", "{flag}"]`."""
# The flag that a page has as its example.
FLAG = re.compile(r"^# Flags change the settings, as in ``(--\w+=\w+)``", re.MULTILINE)
# JupyterLab and Colab fold the code of such a cell.
FOLDED = {"jupyter": {"source_hidden": True}, "cellView": "form"}
METADATA = {
    "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
    "language_info": {"name": "python", "file_extension": ".py"},
}
RESULT = "output_result"  # sphinx-gallery's class for HTML that code ends in
LINKED = "code_links_block"  # sphinx-gallery's node for code
# Parts that are about the page, and where it ends.
ABOUT = {"sphx-glr-download-link-note", "page-run", "figure-description"}
END = {"sphx-glr-timing", "page-foot", "sphx-glr-footer"}
# All that is installed, which takes a while to read.
packages_distributions = cache(metadata.packages_distributions)


def module_of(requirement):
    """Return the module that a requirement is imported as: absl for absl-py."""
    name = canonicalize_name(Requirement(requirement).name)
    modules = [
        module
        for module, packages in packages_distributions().items()
        if name in map(canonicalize_name, packages)
    ]
    usual = name.replace("-", "_")
    return modules[0] if modules and usual not in modules else usual


def install_cell(path):
    """Return the source of the cell that installs what the script ``path`` requires."""
    needs = pages.read_block(path)["dependencies"]
    pairs = "\n".join(f'    ("{module_of(name)}", "{name}"),' for name in needs)
    return INSTALL.format(pairs=pairs)


def advice(path):
    """Return the text of the cell that says how to change a setting of the script."""
    flag = FLAG.search(path.read_text())
    return ADVICE.format(flag=flag[1] if flag else "--flag=value")


class Markdown(MarkdownTranslator):
    """Node visitor that keeps the level of a title that stands without its section."""

    def visit_title(self, node):
        """Write a title of the level it had on the page."""
        marks = "#" * node["level"]
        self.add(f"{marks} {node.astext()}", prefix_eol=2, suffix_eol=2)
        raise nodes.SkipNode

    def visit_raw(self, node):
        """Keep HTML, which Markdown may have."""
        if node["format"] == "html":
            self.add(node.astext(), prefix_eol=2, suffix_eol=2)
        raise nodes.SkipNode


def to_markdown(app, docname, parts):
    """Return nodes of the page ``docname`` as Markdown."""
    document = new_document(docname)
    document += [part.deepcopy() for part in parts]
    # Code in the text that has links, which Markdown has no place for.
    for code in list(document.findall(lambda node: node.tagname == LINKED)):
        text = code.astext()
        code.replace_self(nodes.literal_block(text, text, language=code["lang"]))
    # Markdown has no boxes: the title of one becomes a line.
    for box in list(document.findall(nodes.admonition)):
        title = nodes.paragraph("", "", nodes.strong("", box[0].astext()))
        box.replace_self([title, *box[1:]])
    # The notebook is read far from the pages that it links to.
    for link in document.findall(nodes.reference):
        if link.get("internal") and "refuri" in link:
            base = app.config.html_baseurl + app.builder.get_target_uri(docname)
            link["refuri"] = urljoin(base, link["refuri"])
    translator = Markdown(document, app.builder)
    document.walkabout(translator)
    return translator.astext().strip()


def parts(page, level=0):
    """Yield what a page consists of, section by section."""
    for node in page.children:
        if isinstance(node, nodes.section):
            yield from parts(node, level + 1)
        else:
            if isinstance(node, nodes.title):
                node["level"] = level
            yield node


def is_code(node):
    """Tell the code of the script; with links in it, it is a node of sphinx-gallery."""
    attributes = {"literal_block": "language", LINKED: "lang"}
    return node.get(attributes.get(node.tagname)) == "Python"


def is_plumbing(node, titles):
    """Tell whether a node is a section with one of ``titles``."""
    return isinstance(node, nodes.section) and node[0].astext() in titles


def image_output(app, node):
    """Return a figure of the page as output of a cell, at twice the density."""
    path = beside(Path(app.srcdir, node["uri"].lstrip("/")), "_2x")
    png = base64.b64encode(path.read_bytes()).decode()
    size = {name: int(node[name]) for name in ("width", "height")}
    return v4.new_output(
        "display_data",
        {"image/png": png, "text/plain": node["alt"]},
        metadata={"image/png": size},
    )


def html_output(node):
    """Return what a cell ended in and shows as HTML, as output of a cell."""
    html = BeautifulSoup(node.astext(), "html.parser")
    (result,) = html.select(f".{RESULT}")
    data = {"text/html": result.decode_contents(), "text/plain": result.get_text()}
    return v4.new_output("display_data", data)


def make(app, doctree, docname):
    """Return the notebook of a page: what sphinx-gallery made of the script, in cells.

    Where a block of the script begins, sphinx-gallery leaves a comment in the page.
    """
    path = Path(app.srcdir, f"{docname}.py")
    cells, text, early = [], [], []

    def end_text():
        if text:
            cells.append(v4.new_markdown_cell(to_markdown(app, docname, text)))
            text.clear()

    def add_output(output):
        # A page of one block shows its output above its code.
        end_text()
        (cells[-1].outputs if cells[-1].cell_type == "code" else early).append(output)

    for node in parts(doctree):
        classes = set(node.get("classes", ()))
        if END & classes:
            break
        if isinstance(node, nodes.comment):
            end_text()
        elif is_code(node):
            end_text()
            folded = is_plumbing(node.parent, app.config.gallery_folded)
            cells.append(
                v4.new_code_cell(
                    node.astext().rstrip(),
                    outputs=early,
                    metadata=FOLDED if folded else {},
                )
            )
            early = []
        elif "sphx-glr-script-out" in classes:
            add_output(v4.new_output("stream", text=node.astext()))
        elif isinstance(node, nodes.raw) and RESULT in node.astext():
            add_output(html_output(node))
        elif isinstance(node, imgsgnode):
            if "only-light" in classes:
                add_output(image_output(app, node))
        elif not isinstance(node, nodes.target) and not ABOUT & classes:
            text.append(node)
    end_text()
    # Behind the introduction, which says what the page is about.
    cells[1:1] = [
        v4.new_markdown_cell(advice(path)),
        v4.new_code_cell(install_cell(path), metadata=FOLDED),
    ]
    return number(v4.new_notebook(cells=cells, metadata=METADATA))


def number(notebook):
    """Give each cell of ``notebook`` its place, instead of a random name, as its id."""
    codes = count(1)
    for place, cell in enumerate(notebook.cells):
        cell.id = f"cell-{place}"
        if cell.cell_type == "code":
            cell.execution_count = next(codes)
    return notebook


def write(app, doctree, docname):
    """Write the notebook of a page over the one that sphinx-gallery wrote."""
    if app.builder.format == "html" and pages.is_page(docname):
        path = Path(app.srcdir, f"{docname}.ipynb")
        before = path.stat()
        nbformat.write(make(app, doctree, docname), path)
        # The page offers it for download: were it newer, the page would be read again.
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        # Sphinx copies downloads before it writes pages.
        _, place = app.env.dlfiles[path.relative_to(app.srcdir)]
        shutil.copy(path, Path(app.outdir, "_downloads", place))
