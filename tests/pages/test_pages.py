"""What every page is as a script: one that stands alone, and reads like the others."""

import ast

import pytest
from helpers import PAGES, load, run_script
from sphinx_gallery.py_source_parser import split_code_and_text_blocks

SLOW = {"flax", "jax", "jaxopt", "matplotlib", "numpy", "optax", "scipy", "tensorflow"}

# Whatever changes on import has done so before the pages are imported.
IMPORT = """
import importlib.util, sys
import flax.linen, jax, jaxopt, optax, tensorflow_datasets
import matplotlib.pyplot as plt
from absl import flags

def state():
    config = dict(jax.config.values)
    return list(flags.FLAGS), dict(plt.rcParams), config, plt.get_fignums()

before, settings = state(), []
for path in sys.argv[1:]:
    spec = importlib.util.spec_from_file_location("page", path)
    page = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(page)
    settings.append(page.parse([path]))
    assert state() == before, path
assert len(set(map(id, settings))) == len(settings), "pages share their flags"
assert "tensorflow" not in sys.modules
"""


def definitions(script):
    """Yield (name, source) of the functions, classes and values of a page."""
    lines = script.read_text().splitlines()
    for node in ast.parse(script.read_text()).body:
        names = [node.name] if isinstance(node, ast.FunctionDef | ast.ClassDef) else []
        for target in getattr(node, "targets", []):
            stored = (x for x in ast.walk(target) if isinstance(x, ast.Name))
            names += [x.id for x in stored if isinstance(x.ctx, ast.Store)]
        start = min(x.lineno for x in (node, *getattr(node, "decorator_list", ())))
        for name in names:
            yield name, lines[start - 1 : node.end_lineno]


def test_what_pages_share_is_copied_exactly():
    """So that whoever knows it from one page knows it on all."""
    first = {}
    for script in PAGES:
        for name, source in definitions(script):
            if name not in ("_", "main"):
                other, same = first.setdefault(name, (script.name, source))
                assert source == same, f"{name} in {script.name} and in {other}"


def test_importing_pages_does_nothing():
    """In one process: no flag is known outside of its page, nothing set or drawn."""
    warnings = ["-W", "error", "-W", "ignore::DeprecationWarning"]
    run = run_script(*warnings, "-c", IMPORT, *PAGES)
    assert run.returncode == 0, run.stderr
    assert run.stdout == run.stderr == ""


@pytest.mark.parametrize("argument", ["--no_such_flag=3", "word", "--help"])
def test_the_answer_comes_before_the_slow_imports(script, argument):
    run = run_script("-X", "importtime", script, argument)
    imports = [line for line in run.stderr.splitlines() if line.startswith("import")]
    modules = {line.rpartition("|")[2].strip() for line in imports}
    assert "absl.flags" in modules
    assert not modules & SLOW
    if argument == "--help":
        assert run.returncode == 0
        assert all(f"--{name}:" in run.stdout for name in load(script).FLAGS)
    else:
        assert run.returncode == 1
        assert run.stdout == ""
        (line,) = set(run.stderr.splitlines()) - set(imports)
        assert argument.strip("-").partition("=")[0] in line


def test_form(script):
    """Short, in short cells, with a title, docstrings, a discussion and references."""
    assert len(script.read_text().splitlines()) <= 450
    _, blocks = split_code_and_text_blocks(script)
    for block in blocks:
        if block.type == "code":
            assert len(block.content.strip().splitlines()) <= 30, block.lineno
    texts = [block.content for block in blocks if block.type == "text"]
    title, line = texts[0].strip().splitlines()[:2]
    assert line == "=" * len(title)
    assert texts[-1].startswith("Discussion\n----------\n")
    assert "\n.. rubric:: References\n" in texts[-1]
    for node in ast.parse(script.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            assert ast.get_docstring(node), node.name
