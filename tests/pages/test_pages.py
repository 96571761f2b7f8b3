"""What every page is as a script: one that stands alone, and reads like the others."""

import ast
import math
import re

import pytest
from sphinx_gallery.py_source_parser import split_code_and_text_blocks

import copies
from helpers import PAGES, load, run_script

DATASETS = ["mnist", "kmnist", "emnist", "fashion_mnist", "cifar10", "cifar100"]
# The flags of each page: their default, then the lowest and the highest value that they
# take, or all values.
FLAGS = {
    "plot_sgd_solvers": {
        "dataset": ("fashion_mnist", *DATASETS),
        "num_seeds": (5, 1, 20),
        "maxiter": (100, 0, 2_000),
        "batch_size": (128, 1, 1_000),
        "net_width": (4, 1, 100),
        "max_stepsize": (1.0, 1e-6, 1e6),
        "aggressiveness": (0.9, 1e-6, 0.999),
        "rmsprop_stepsize": (1e-3, 1e-6, 1e6),
        "gd_stepsize": (1e-1, 1e-6, 1e6),
    },
    "plot_line_search_anatomy": {
        "num_seeds": (5, 1, 20),
        "maxiter": (100, 20, 2_000),
        "num_images": (13_056, 1, 60_000),
        "batch_size": (128, 1, 10_000),
        "num_features": (32, 1, 1_000),
    },
    "plot_stepsize_sensitivity": {
        "num_seeds": (5, 1, 20),
        "num_steps": (300, 1, 10_000),
        "batch_size": (64, 1, 1_000),
        "num_features": (32, 1, 1_000),
        "tolerance": (0.15, 0, 10),
    },
    "plot_tuning_budget": {
        "num_seeds": (10, 2, 20),
        "num_steps": (300, 1, 10_000),
        "batch_size": (64, 1, 1_000),
        "num_features": (32, 1, 1_000),
    },
    "plot_parameter_free": {
        "num_seeds": (5, 2, 20),
        "num_steps": (1_500, 5, 10_000),
        "batch_size": (64, 1, 1_000),
    },
    "plot_schedule": {
        "num_seeds": (5, 2, 20),
        "num_steps": (1_500, 50, 10_000),
        "batch_size": (64, 1, 1_000),
    },
    "plot_batch_size": {
        "num_seeds": (5, 1, 20),
        "num_steps": (8_000, 2, 50_000),
    },
    "plot_interpolation": {
        "num_seeds": (5, 1, 20),
        "maxiter": (4_000, 0, 20_000),
        "batch_size": (10, 1, 200),
        "num_relevant": (400, 1, 400),
        "noise": (0.5, 0, 1e3),
    },
    "plot_own_rule": {
        "num_seeds": (5, 1, 20),
        "num_steps": (300, 1, 10_000),
        "batch_size": (64, 1, 1_000),
    },
    "plot_devices_and_hosts": {
        "num_devices": (4, 2, 16),
        "num_steps": (10, 1, 1_000),
        "timeout": (120, 1, 3_600),
        "cluster": (False, False, True),
    },
    "plot_resume": {
        "num_devices": ("2", "2", "4", "8"),
        "num_steps": (60, 40, 1_000),
        "timeout": (120, 1, 3_600),
    },
    "plot_jaxopt_to_optax": {
        "num_seeds": (3, 1, 20),
        "maxiter": (16, 0, 2_000),
        "batch_size": (128, 1, 1_000),
        "net_width": (4, 1, 100),
        "max_stepsize": (1.0, 1e-6, 1.0),
        "aggressiveness": (0.9, 1e-6, 0.999),
    },
}

# Whatever changes on import has done so before the pages are imported.
IMPORT = """
import importlib.util, sys
import flax.linen, jax, jaxopt, optax, orbax.checkpoint, tensorflow_datasets
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
    settings.append(page.parse_flags([path]))
    assert state() == before, path
assert len(set(map(id, settings))) == len(settings), "pages share their flags"
assert "tensorflow" not in sys.modules
"""


def test_what_pages_share_is_copied_exactly():
    """So that whoever knows it from one page knows it on all."""
    scripts = copies.ordered(PAGES)
    texts = [script.read_text() for script in scripts]
    for script, text, copied in zip(scripts, texts, copies.copied(texts), strict=True):
        assert text == copied, f"{script.name}: make copies"


def test_importing_pages_does_nothing():
    """In one process: no flag is known outside of its page, nothing set or drawn."""
    warnings = ["-W", "error", "-W", "ignore::DeprecationWarning"]
    run = run_script(*warnings, "-c", IMPORT, *PAGES)
    assert run.returncode == 0, run.stderr
    assert run.stdout == run.stderr == ""


@pytest.mark.parametrize("argument", ["--no_such_flag=3", "word", "--help", "-h"])
def test_the_answer_comes_before_data_and_tensorflow(script, argument):
    run = run_script("-X", "importtime", script, argument)
    imports = [line for line in run.stderr.splitlines() if line.startswith("import")]
    modules = {line.rpartition("|")[2].strip() for line in imports}
    assert "absl.flags" in modules
    assert "tensorflow" not in modules
    if argument in ("--help", "-h"):
        assert run.returncode == 0
        told = run.stdout.replace("--[no]", "--")
        assert all(f"--{name}:" in told for name in FLAGS[script.stem])
    else:
        assert run.returncode == 1
        assert run.stdout == ""
        (line,) = set(run.stderr.splitlines()) - set(imports)
        assert argument.strip("-").partition("=")[0] in line


def outside(default, lowest, highest, *_):
    """Return values that a flag does not take: next to its bounds, and of no use."""
    wrong = ["", "word", "nan", "inf", "-inf"]
    if isinstance(default, bool):
        return wrong
    if isinstance(default, int):
        return [lowest - 1, highest + 1, "1.5", *wrong]
    if isinstance(default, float):
        below, above = math.nextafter(lowest, -1), math.nextafter(highest, math.inf)
        return [below, above, *wrong]
    return wrong


def test_flags_take_what_lies_in_their_bounds(script):
    """And each parse forgets the one before."""
    page, flags = load(script), FLAGS[script.stem]
    defaults = {name: default for name, (default, *_) in flags.items()}
    settings = page.parse_flags(["page"]).flag_values_dict()
    assert settings == defaults
    assert all(type(settings[name]) is type(x) for name, x in defaults.items())
    for name, (_, *bounds) in flags.items():
        for value in bounds:
            settings = page.parse_flags(
                ["page", f"--{name}={value}"]
            ).flag_values_dict()
            assert settings == defaults | {name: value}


def test_flags_refuse_all_else(script, capsys):
    """In one line that names what is wrong, and how to get help."""
    page, named = load(script), {"word": "word", "-f": "f", "--no_such_flag=3": "no_s"}
    for name, flag in FLAGS[script.stem].items():
        named |= {f"--{name}={value}": f"--{name}" for value in outside(*flag)}
        named |= {f"{name}=1": f"{name}=1", f"--{name}x=1": name}
        if flag[0] is not False:  # a boolean flag needs no value
            named[f"--{name}"] = name
    for argument, name in named.items():
        with pytest.raises(SystemExit) as stop:
            page.parse_flags(["page", argument])
        (line,) = stop.value.code.splitlines()
        assert name in line and line.endswith(" (see --help)"), argument
    assert capsys.readouterr() == ("", "")


# The parts of a page, in order; those with a name of their own say more by it.
PLUMBING = ["Data", "Settings", "Tables and figure"]


def sections(blocks):
    """Return [title, code blocks] of each section of a page."""
    found = []
    for block in blocks[1:]:
        if block.type == "text" and "\n---" in block.content:
            found.append([block.content.strip().partition("\n")[0], []])
        elif block.type == "code":
            found[-1][1].append(block.content)
    return found


def test_form(script):
    """Short, in short cells, with a title, docstrings, a discussion and references."""
    assert len(script.read_text().splitlines()) <= 430
    _, blocks = split_code_and_text_blocks(script)
    for block in blocks:
        if block.type == "code":
            assert len(block.content.strip().splitlines()) <= 30, block.lineno
    texts = [block.content for block in blocks if block.type == "text"]
    title, line = texts[0].strip().splitlines()[:2]
    assert line == "=" * len(title)
    assert texts[-1].startswith("Discussion\n----------\n**")
    assert "\n.. rubric:: References\n" in texts[-1]
    for node in ast.parse(script.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            assert ast.get_docstring(node), node.name


def test_the_answer_comes_first(script):
    """A question, two to four findings, the code that teaches, and then the rest."""
    _, blocks = split_code_and_text_blocks(script)
    before, _, after = blocks[0].content.partition("\n.. admonition:: In short\n")
    assert "?" in before
    findings = re.findall(r"^   - \*\*", after, re.MULTILINE)
    assert 2 <= len(findings) <= 4
    assert re.search(r"^\S", after, re.MULTILINE), "no scope"
    titles = [title for title, _ in sections(blocks)]
    assert titles[0] == "Imports" and titles[-1] == "Discussion"
    assert titles[-5:-2] == PLUMBING
    assert "\n**Next:** " in blocks[-1].content


def test_little_plumbing_comes_before_the_first_solver(script):
    """And what imports, reads flags and loads is a small part of the code."""
    _, blocks = split_code_and_text_blocks(script)
    (_, (imports,)), *_ = sections(blocks)
    assert len(list(filter(str.strip, imports.splitlines()))) <= 20
