"""List the pages on the home page: what each asks, and what it finds."""

from pathlib import PurePosixPath

from sphinx.util.docutils import SphinxDirective

from gallery import pages
from gallery.show import findings, layout

ENTRY = """
.. container:: page-entry

   .. image:: /{image}
      :alt:

   .. container:: page-entry-text

      :doc:`/{docname}`

      {question}

      {finding}

"""


def image_of(docname):
    """Return the image of a page, which ``images`` replaces by its card."""
    page = PurePosixPath(docname)
    return page.parent / f"images/thumb/sphx_glr_{page.name}_thumb.png"


class PageList(SphinxDirective):
    """``.. page-list::`` is the list of all pages in reading order."""

    def run(self):
        """Return the list; the document is read again when a page changes."""
        text = ""
        for script in pages.in_order(self.config):
            self.env.note_dependency(script)
            docname, page = pages.docname_of(script), findings.read(script)
            text += ENTRY.format(docname=docname, image=image_of(docname), **vars(page))
        entries = self.parse_text_to_nodes(text)
        # The first image is in sight from the start.
        return [entries[0], layout.html(layout.EAGER), *entries[1:]]
