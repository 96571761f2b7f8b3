"""Make a warning in a page fail the build."""

import warnings

outside_of_pages = warnings.filters[:]


def as_errors(gallery_conf, fname, when):
    """Turn warnings into errors ``when`` is "before" a page, and back "after" it.

    The exception is jaxopt's notice, on import, that it is no longer maintained: the
    pages know and say so.
    """
    if when == "before":
        warnings.simplefilter("error")
        warnings.filterwarnings(
            "ignore", "JAXopt is no longer maintained", DeprecationWarning
        )
    else:
        warnings.filters[:] = outside_of_pages
