"""Frame a page: a line on how to run it at its top, how it was made at its foot."""

import json
import re
import time
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform

from gallery import pages
from gallery.run.provenance import DATE


def read_json(path):
    """Return what the file at ``path`` holds, or None if there is no such file."""
    return json.loads(path.read_text()) if path.exists() else None


def code(text):
    """Return inline code."""
    return nodes.literal(text, text)


def field_list(rows):
    """Return {name: parts of its text} as a list of fields."""
    fields = nodes.field_list()
    for name, parts in rows.items():
        body = nodes.field_body("", nodes.paragraph("", "", *parts))
        fields += nodes.field("", nodes.field_name("", name), body)
    return fields


def download(docname, file, text):
    """Return a link by which readers download ``file``, which lies beside the page."""
    target = {"reftarget": file, "refdoc": docname, "refdomain": ""}
    return addnodes.download_reference(text, "", nodes.Text(text), **target)


def fold(title, parts, name):
    """Return ``parts`` folded under a title, as an element of the class ``name``."""
    heading = nodes.title("", title)
    return nodes.admonition("", heading, *parts, classes=[name], collapsible="closed")


def way(config, docname, path, facts, cost):
    """Return the line on how to run a page, with what it takes without uv in a fold.

    ``facts`` and ``cost`` are those of the run of the page, or None.
    """
    command = code(f"uv run {path.name}")
    items = [
        nodes.inline("", "", command, classes=["page-command"]),
        download(docname, path.name, "script"),
        download(docname, f"{path.stem}.ipynb", "notebook"),
    ]
    if config.gallery_repository and config.gallery_notebook_branch:
        branch = f"{config.gallery_repository}/blob/{config.gallery_notebook_branch}"
        url = f"https://colab.research.google.com/github/{branch}/docs/{docname}.ipynb"
        items.append(nodes.reference("", "open in Colab", refuri=url))
    block = pages.read_block(path)
    needs = f"Python {block['requires-python']}"
    # Both differ between two runs of a page.
    if facts and cost and not config.gallery_source_date:
        took = f"{cost['time']:.0f} s on {facts['cores']} cores"
        items.append(nodes.Text(took))
        # All pages run in one process, which keeps the libraries of those before.
        memory = f"{cost['memory'] / 1e3:.1f} GB of memory at most"
        needs += f", and {memory} in its own process, with what earlier pages left"
    line = nodes.paragraph(
        "", "", nodes.strong("", "Run it yourself:"), nodes.Text(" ")
    )
    for item in items:
        line += [item, nodes.Text(" · ")]
    names = [
        # In quotes that all shells know, where there is more than a name.
        need if re.fullmatch(r"[\w-]+", need) else f'"{need}"'
        for need in block["dependencies"]
    ]
    commands = f"pip install {' '.join(names)}\npython {path.name}"
    rest = [
        nodes.literal_block(commands, commands, language="shell"),
        nodes.paragraph("", f"The page needs {needs}."),
    ]
    # An admonition, which no preview of the page takes for its beginning.
    without = fold("without uv", rest, "page-without-uv")
    return nodes.admonition("", line, without, classes=["page-run"])


def foot(config, facts):
    """Return the foot of a page: a fold with what the page was made with.

    A build that is to be reproducible tells the date of the source.
    """
    versions = {"Python": facts["python"], **facts["versions"]}
    rows = {
        "Versions": [nodes.Text(", ".join(map(" ".join, versions.items())))],
        "Device": [nodes.Text(f"{facts['device']}, {facts['cores']} cores")],
    }
    if facts["data"]:
        name, digest = facts["data"]
        what = nodes.Text(f"{name}, SHA-256 of images and labels ")
        rows["Data set"] = [what, code(digest)]
    if epoch := config.gallery_source_date:
        day, date = "Source of", time.strftime(DATE, time.gmtime(int(epoch)))
    else:
        day, date = "Run on", facts["date"]
    rows[day] = [nodes.Text(date)]
    if commit := facts["commit"]:
        url = f"https://github.com/{config.gallery_repository}/commit/{commit}"
        link = config.gallery_repository and not commit.endswith("-dirty")
        name = nodes.reference("", commit, refuri=url) if link else nodes.Text(commit)
        rows[day] += [nodes.Text(", at commit "), name]
    return fold("How this page was made", [field_list(rows)], "page-foot")


def containers(document, name):
    """Return the containers of sphinx-gallery that have the class ``name``."""
    found = document.findall(nodes.container)
    return [container for container in found if name in container["classes"]]


class Frame(SphinxTransform):
    """Put line and foot into a page, and take out what they make superfluous."""

    default_priority = 400  # before the links to downloads are collected

    def apply(self):
        """Change the document if it is a page."""
        docname = self.env.docname
        if not pages.is_page(docname):
            return
        path = Path(self.env.srcdir, docname).with_suffix(".py")
        made, costs = path.with_suffix(".json"), path.with_suffix(".cost.json")
        for file in (made, costs):
            self.env.note_dependency(file)
        facts, cost = read_json(made), read_json(costs)
        section = next(self.document.findall(nodes.section))
        section.insert(1, way(self.config, docname, path, facts, cost))
        if facts:
            self.add_foot(foot(self.config, facts))
        # The archive holds the two downloads above it, but not the notebook of this
        # site. The memory is at the top.
        for container in containers(self.document, "sphx-glr-download-zip"):
            container.parent.remove(container)
        for paragraph in list(self.document.findall(nodes.paragraph)):
            if paragraph.astext().startswith("Estimated memory usage:"):
                paragraph.parent.remove(paragraph)

    def add_foot(self, foot):
        """Put ``foot`` above the downloads at the end of the page."""
        (end,) = containers(self.document, "sphx-glr-footer")
        while not isinstance(end.parent, nodes.section):
            end = end.parent
        section, place = end.parent, end.parent.index(end)
        while isinstance(section[place - 1], nodes.target):
            place -= 1
        section.insert(place, foot)
