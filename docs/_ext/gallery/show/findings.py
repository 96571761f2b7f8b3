"""Read what a page asks and finds, which all documents around it repeat.

Both stand in the docstring of the page alone: the question in its first paragraph, and
the findings in the admonition *In short*.
"""

import ast
import re
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

IN_SHORT = r"^\.\. admonition:: In short\n((?:[ \t]+\S.*\n|[ \t]*\n)+)"


@dataclass(frozen=True)
class Summary:
    """What a page says of itself, as reStructuredText without links.

    ``question`` and ``finding`` are empty if the page has none.
    """

    title: str
    question: str
    finding: str


def read(script):
    """Return the summary of the page at ``script``."""
    return summarize(ast.get_docstring(ast.parse(Path(script).read_text())))


def summarize(docstring):
    """Return the summary of the page that has ``docstring``."""
    lines = docstring.strip().splitlines()
    text = "\n".join(lines[2:]).strip() + "\n"  # after the title and its underline
    short = re.search(IN_SHORT, text, re.MULTILINE)
    items = re.split(r"^- ", dedent(short[1]) if short else "", flags=re.MULTILINE)[1:]
    return Summary(
        title=lines[0].strip(),
        question=question(without_links(text.split("\n\n")[0])),
        finding=without_links(items[0]) if items else "",
    )


def question(paragraph):
    """Return ``paragraph`` as far as its first question, or else its first sentence."""
    asked = re.match(r".*?\?(?=\s|$)", paragraph)
    return asked[0] if asked else next(iter(sentences(paragraph)), "")


def sentences(text):
    """Return the sentences of ``text``."""
    return re.split(r"(?<=[.?!])\s+(?=[^a-z])", text.strip()) if text.strip() else []


def without_links(text):
    """Return ``text`` as one line whose roles, links and references are words.

    Formulas stay. What is linked on a page may have no such name elsewhere.
    """
    text = " ".join(text.split())
    text = re.sub(r":(?!math)[\w:.+-]+:`~?(.*?)(\s*<[^`]*>)?`", r"\1", text)
    text = re.sub(r"`([^`]+?)\s*<[^`]*>`__?", r"\1", text)
    return re.sub(r"(\\?\s)?\[[\w#*]+\]_", "", text)


def markdown(text):
    """Return ``text`` without links as Markdown."""
    return re.sub(r":math:`(.*?)`", r"$\1$", text).replace("``", "`")


def plain(text):
    """Return ``text`` without links as words alone."""
    return re.sub(r"[*`$]", "", markdown(text))
