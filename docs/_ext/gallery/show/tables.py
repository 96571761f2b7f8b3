"""Find the tables in what a page printed, and make tables of the page of them.

A printed table is a block of lines: header lines, a rule whose dashes mark the columns,
and rows. A line before the headers that ends in a colon is its caption.
"""

import re
from dataclasses import dataclass

from docutils import nodes

RULE = re.compile(r" *-+(?: +-+)+ *")
# With a unit or without; dashes stand for a time that is masked, or for no number.
NUMBER = re.compile(r"[-+]?\d[\d,]*(\.\d+)?(e[-+]?\d+)?( ?(%|ms|s|[kMG]B))?|nan|[-.]+|")


@dataclass(frozen=True)
class Table:
    """A table: the caption (or nothing), the headers, and the rows of cells."""

    caption: str
    headers: list[str]
    rows: list[list[str]]

    def is_number(self, column):
        """Tell whether a column has numbers alone."""
        return all(NUMBER.fullmatch(row[column]) for row in self.rows)


def cells(line, columns):
    """Return the cells of ``line``; raise ValueError if one leaves its column."""
    between = list(line)
    for start, end in columns:
        between[start:end] = " " * len(between[start:end])
    if "".join(between).strip():
        raise ValueError(f"a cell of a table is wider than its dashes: {line.strip()}")
    return [line[start:end].strip() for start, end in columns]


def parse(block):
    """Return the table that a block of lines is, or None if it is none."""
    lines = block.split("\n")
    rules = [place for place, line in enumerate(lines) if RULE.fullmatch(line)]
    if not rules or rules[0] == 0 or rules[0] == len(lines) - 1:
        return None
    (rule, *_), caption = rules, ""
    columns = [match.span() for match in re.finditer("-+", lines[rule])]
    above = lines[:rule]
    if len(above) > 1 and above[0].rstrip().endswith(":"):
        caption = above.pop(0).strip().removesuffix(":")
    headers = zip(*(cells(line, columns) for line in above), strict=True)
    return Table(
        caption,
        [" ".join(filter(None, parts)) for parts in headers],
        [cells(line, columns) for line in lines[rule + 1 :]],
    )


def split(log):
    """Return ``log`` without its tables, and the tables."""
    rest, tables = [], []
    for block in re.split(r"\n(?:[ \t]*\n)+", log.strip("\n")):
        table = parse(block)
        if table is None:
            rest.append(block)
        else:
            tables.append(table)
    return "\n\n".join(rest), tables


def node(table, name):
    """Return ``table`` as a node that has ``name`` as its id.

    Columns of numbers get a class of their own.
    """
    group = nodes.tgroup(cols=len(table.headers))
    group += [nodes.colspec(colwidth=1) for _ in table.headers]

    def row(texts):
        made = nodes.row()
        for column, text in enumerate(texts):
            classes = ["number"] if table.is_number(column) else []
            made += nodes.entry("", nodes.paragraph("", text), classes=classes)
        return made

    group += nodes.thead("", row(table.headers))
    group += nodes.tbody("", *map(row, table.rows))
    title = [nodes.title("", table.caption)] if table.caption else []
    classes = ["printed", "colwidths-auto"]
    return nodes.table("", *title, group, classes=classes, ids=[name])
