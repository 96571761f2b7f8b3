"""Mask the times in the output of a page, because nothing else differs between runs."""

import re

from gallery import pages

# What sphinx-gallery writes of what a page printed.
PRINTED = re.compile(
    r"^\.\. rst-class:: sphx-glr-script-out\n\n \.\. code-block:: none\n\n"
    r"(?:(?: {4}.*)?\n)+",
    re.MULTILINE,
)


NUMBER = r"\d+(?:\.\d+)?(?:e[+-]\d+)?"
# With its unit behind it; spaces before it may fill a column.
TIME = re.compile(rf"(?:(?<=\S)( ) *)?\b{NUMBER}(?= ?m?s\b)")
COLUMN = re.compile(rf" *{NUMBER}$")
MASK = "-.--"


def masked(log):
    """Return ``log`` with the same mask for all times, however long they are.

    A time is a number with its unit behind it, or above it: at the end of a line that
    is as long as the one above, which ends in the unit.
    """
    lines, width = [], None
    for line in log.split("\n"):
        if line.endswith(" ms"):
            width = len(line)
        elif len(line) == width:
            line = COLUMN.sub(lambda time: MASK.rjust(len(time[0])), line)
        else:
            width = None
        lines.append(TIME.sub(rf"\1{MASK}", line))
    return "\n".join(lines)


def hide(gallery_conf, fname, when):
    """Mask the times of a page after it ran, in a build that is to be reproducible.

    sphinx-gallery makes page, notebook and source from one file, which changes here.
    """
    if when == "after":
        rst = pages.copy_of(fname, gallery_conf["src_dir"]).with_suffix(".rst")
        text = PRINTED.sub(lambda printed: masked(printed[0]), rst.read_text())
        rst.unlink()  # it is read-only
        rst.write_text(text)
