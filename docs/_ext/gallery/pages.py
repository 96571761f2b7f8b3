"""List pages in the order in which they are best read."""

from pathlib import Path

order = []  # the names of the pages in conf.py


def place(path):
    """Return the place of a page, as a key to sort by: those not named come last."""
    name = Path(path).stem
    return order.index(name) if name in order else len(order), name


def read(app, config):
    """Take the order from the configuration: sphinx-gallery gives keys only paths."""
    order[:] = config.reading_order


def read_all_again(app, env, added, changed, removed):
    """Have all documents read when there is one more or less, for each lists them."""
    return env.found_docs if added or removed else []


def setup(app):
    """Add ``reading_order``, a list of names of pages."""
    app.add_config_value("reading_order", [], "env", types=list)
    app.connect("config-inited", read)
    app.connect("env-get-outdated", read_all_again)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
