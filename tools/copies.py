"""Copy what pages share from the page that comes first in reading order to the others.

    make copies

Pages import nothing from each other. Two definitions of the same name, at the top level
of two pages, are a definition that these pages share, except those in ``OWN``.
"""

import ast
import runpy

from gallery import pages

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


def main():
    """Write the pages whose copies differ, and print their names."""
    scripts = ordered(pages.scripts())
    texts = [script.read_text() for script in scripts]
    for script, before, after in zip(scripts, texts, copied(texts), strict=True):
        if after != before:
            script.write_text(after)
            print(script.relative_to(pages.ROOT))


if __name__ == "__main__":
    main()
