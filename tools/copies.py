"""Write the copies: what pages share, and what README tells of them.

    make copies

Pages import nothing from each other. Two definitions of the same name, at the top level
of two pages, are a definition that these pages share, except those in ``OWN``. They are
copied from the page that comes first in reading order to the others.

The table in README ends each of its lines with what a page finds: the first finding
under *In short*.
"""

import ast
import re
import runpy
import sys

from gallery import pages
from gallery.show import findings

README = pages.ROOT / "README.md"

OWN = {"_", "main", "parse_flags", "SOLVERS", "STYLES"}


def definitions(text):
    """Return {name: lines from, lines to} of what the source of a page defines.

    These are the functions, the classes and the values at its top level.
    """
    found = {}
    for node in ast.parse(text).body:
        names = [node.name] if isinstance(node, ast.FunctionDef | ast.ClassDef) else []
        for target in getattr(node, "targets", []):
            stored = (x for x in ast.walk(target) if isinstance(x, ast.Name))
            names += [x.id for x in stored if isinstance(x.ctx, ast.Store)]
        start = min(x.lineno for x in (node, *getattr(node, "decorator_list", ())))
        for name in set(names) - OWN:
            found[name] = start - 1, node.end_lineno
    return found


def ordered(scripts):
    """Return pages in reading order."""
    conf = runpy.run_path(pages.ROOT / "conf.py")
    return sorted(scripts, key=pages.Order(tuple(conf["gallery_reading_order"])))


def copied(texts):
    """Return the sources of pages, each with the definitions of those before it."""
    first, results = {}, []
    for text in texts:
        lines = text.splitlines(keepends=True)
        places = definitions(text)
        shared = {places[name]: first[name] for name in places if name in first}
        # From the end, so that the places before stay what they are.
        for start, end in sorted(shared, reverse=True):
            lines[start:end] = shared[start, end]
        text = "".join(lines)
        for name, (start, end) in definitions(text).items():
            first.setdefault(name, text.splitlines(keepends=True)[start:end])
        results.append(text)
    return results


def with_answers(text, scripts):
    """Return the ``text`` of README with what the pages ``scripts`` find.

    Raises ValueError if a page tells no finding, or has no line there.
    """
    for script in scripts:
        finding = findings.markdown(findings.read(script).finding)
        if not finding:
            raise ValueError(f"{script.name} needs an admonition In short with a list")
        (row,) = re.findall(rf"^\| \[`{script.name}`.*", text, re.MULTILINE)
        name, question, _ = row.strip("| ").split(" | ", 2)
        answer = finding.replace("|", r"\|")
        text = text.replace(row, f"| {name} | {question} | {answer} |")
    return text


def main():
    """Write the files whose copies differ, and print their names."""
    scripts = ordered(pages.scripts())
    before = {file: file.read_text() for file in (*scripts, README)}
    after = dict(zip(scripts, copied([before[x] for x in scripts]), strict=True))
    try:
        after[README] = with_answers(before[README], scripts)
    except ValueError as error:
        sys.exit(str(error))
    for file, text in after.items():
        if text != before[file]:
            file.write_text(text)
            print(file.relative_to(pages.ROOT))


if __name__ == "__main__":
    main()
