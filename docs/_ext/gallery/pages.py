"""Where the pages are, how they are named and ordered, and what they require."""

import re
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "examples"
# The folder of the documents where sphinx-gallery writes what it makes of the pages.
BUILT = "auto_examples"


# Places and names


def scripts():
    """Return the paths of all pages, sorted."""
    return sorted(EXAMPLES.glob("*/plot_*.py"))


def is_page(docname):
    """Tell whether a document is a page that sphinx-gallery made of a script."""
    return re.match(f"{BUILT}/.*/plot_", docname) is not None


def copy_of(script, srcdir):
    """Return where sphinx-gallery puts its copy of ``script``, and all files beside it.

    ``script`` is a path or, since names are unique, the name of a page alone.
    """
    path = next(path for path in scripts() if path.name == Path(script).name)
    return Path(srcdir, BUILT, path.relative_to(EXAMPLES))


def docname_of(script):
    """Return the name of the document that sphinx-gallery makes of ``script``."""
    return f"{BUILT}/{script.relative_to(EXAMPLES).with_suffix('').as_posix()}"


@dataclass(frozen=True)
class Order:
    """A key that sorts pages by ``names``; pages that it does not name come last."""

    names: tuple[str, ...]

    def __call__(self, path):
        """Return the place of a page, whose name ends ``path``."""
        name = Path(path).stem
        known = name in self.names
        return self.names.index(name) if known else len(self.names), name


def in_order(config):
    """Return the paths of all pages in the order in which they are best read."""
    return sorted(scripts(), key=Order(tuple(config.gallery_reading_order)))


# Requirements


def read_block(path):
    """Return the ``# /// script`` block (PEP 723) of the script at ``path`` as a dict.

    The requirements of a page stand in this block alone. Raises ValueError if there is
    no such block, or if it lacks what every page must say.
    """
    pattern = r"^# /// script\n((?:#.*\n)+?)# ///$"
    try:
        (lines,) = re.findall(pattern, path.read_text(), re.MULTILINE)
        requirements = tomllib.loads(re.sub("^# ?", "", lines, flags=re.MULTILINE))
        return {key: requirements[key] for key in ("requires-python", "dependencies")}
    except (ValueError, KeyError) as error:
        raise ValueError(
            f"{path.name} needs one block '# /// script' at its top, with its "
            f"requires-python and dependencies ({error})"
        ) from None


def required(path):
    """Return the names of the packages that the script at ``path`` requires here."""
    needs = map(Requirement, read_block(path)["dependencies"])
    return [x.name for x in needs if not x.marker or x.marker.evaluate()]


def reads_data(path):
    """Tell whether the script at ``path`` reads the data set that a build prepares."""
    return "tensorflow-datasets" in required(path)


# Before a build


def check(app):
    """Stop the build, before any page runs, if a page is not as pages must be."""
    folders = {}
    for path in scripts():
        try:
            read_block(path)
        except ValueError as error:
            sys.exit(str(error))
        if not path.stem.isidentifier():
            sys.exit(f"{path.name} needs a name of letters, digits and underscores")
        # The files that are built from all pages lie in the same folders.
        folder = path.parent.name
        if (other := folders.setdefault(path.name, folder)) != folder:
            sys.exit(f"Two pages have the name {path.name}, in {other} and {folder}")
    for page in sorted(Path(app.srcdir, BUILT).glob("*/plot_*.py")):
        if page.name not in folders:
            sys.exit(f"{page.name} is built but not in examples: make clean")
    only, names = app.config.gallery_page, [Path(name).stem for name in folders]
    if only and only not in names:
        sys.exit(f"There is no page {only}; the pages are {', '.join(names)}")


if __name__ == "__main__":
    # Relative, for a shell: the folder of a clone may have a space in its name.
    print(*(path.relative_to(ROOT) for path in scripts()))
