"""Compare what the code on the pages links to with what those sites have today.

Sphinx knows other sites by inventories. The build's own, in ``inventories/``, list what
the pages name: this tells when a site has moved one of them.
"""

import runpy
import sys
from pathlib import Path

import requests
from sphinx.util.inventory import InventoryFile

ROOT = Path(__file__).parents[1]
PATIENCE = 30  # seconds to wait for a site


def entries(content, url):
    """Return the entries of an inventory as {(role, name): address}."""
    roles = InventoryFile.loads(content, uri=url).data.items()
    return {(role, name): x.uri for role, items in roles for name, x in items.items()}


def differences(content, url):
    """Return a line for each entry of ``content`` that the site at ``url`` has not."""
    try:
        answer = requests.get(url + "objects.inv", timeout=PATIENCE)
        answer.raise_for_status()
    except requests.RequestException as error:
        return [f"{url} has no inventory to compare with ({type(error).__name__})"]
    live = entries(answer.content, url)
    return [
        f"{role} {name} is not at {address}: {live.get((role, name), 'gone')}"
        for (role, name), address in entries(content, url).items()
        if live.get((role, name)) != address
    ]


def main():
    """Print all differences; exit with an error if there are any."""
    documentation = runpy.run_path(ROOT / "conf.py")["documentation"]
    lines = []
    for name, url in documentation.items():
        lines += differences((ROOT / f"docs/inventories/{name}.txt").read_bytes(), url)
    sys.exit("\n".join(lines) or None)


if __name__ == "__main__":
    main()
