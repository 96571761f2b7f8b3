"""Lead from each document to the one before and the one after, past the lists."""

from gallery import pages


def is_list(docname):
    """Tell whether a document is a list of pages that sphinx-gallery made."""
    return docname.startswith(f"{pages.BUILT}/") and not pages.is_page(docname)


def find(relations, docname, way):
    """Return the next document that is no list, or None; ``way`` is 1 back or 2 on."""
    found = relations[docname][way]
    while found and is_list(found):
        found = relations[found][way]
    return found


def link(app, pagename, templatename, context, doctree):
    """Set the links at the foot of a document."""
    relations = app.env.collect_relations()
    for name, way in (("prev", 1), ("next", 2)):
        found = find(relations, pagename, way) if pagename in relations else None
        if found:
            title = app.env.titles[found].astext()
            uri = app.builder.get_relative_uri(pagename, found)
            context[name] = {"link": uri, "title": title}
        else:
            context[name] = None
