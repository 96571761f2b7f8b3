"""What readers download runs as it is, and prints what the page does."""

import ast
import base64
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import PurePath

import nbformat
import pytest
from conftest import PAGE, REAL_DATA, SITE, run_script
from nbclient import NotebookClient
from notebooks import install_cell, module_of
from page_frame import read_block
from PIL import Image
from sphinx_gallery.py_source_parser import split_code_and_text_blocks


def without_times(log):
    """Return the lines of log and table without times, which end their lines."""
    return re.sub(r" +\d+\.\d\ds?$", "", log.strip(), flags=re.MULTILINE).splitlines()


@pytest.fixture
def notebook(downloads):
    return nbformat.read(downloads[".ipynb"], nbformat.NO_CONVERT)


# The script


def test_the_script_is_the_source(downloads):
    assert set(downloads) == {".py", ".ipynb"}
    assert downloads[".py"].read_bytes() == PAGE.read_bytes()


def test_the_script_runs_from_an_empty_folder(downloads, log, tmp_path):
    shutil.copy(downloads[".py"], tmp_path)
    run = run_script(PAGE.name, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert without_times(run.stdout) == without_times(log)


def test_the_requirements_are_what_the_script_imports():
    """And what its imports need without saying so."""
    imports = set()
    for node in ast.walk(ast.parse(PAGE.read_text())):
        if isinstance(node, ast.Import):
            imports |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imports.add(node.module.partition(".")[0])
    modules = set(map(module_of, read_block(PAGE)["dependencies"]))
    undeclared = {"importlib_resources", "tensorflow"}  # by tensorflow-datasets
    assert modules == imports - sys.stdlib_module_names | undeclared


def test_uv_runs_the_script_with_nothing_else(downloads, tmp_path):
    """In an environment that uv makes from the block in the script."""
    shutil.copy(downloads[".py"], tmp_path)
    uv = shutil.which("uv", path=str(PurePath(sys.executable).parent))
    flags = ["--num_seeds=1", "--maxiter=20"]
    run = subprocess.run(
        [uv, "run", "--python", sys.executable, PAGE.name, *flags],
        cwd=tmp_path,
        env=REAL_DATA,
        text=True,
        capture_output=True,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("loss=") == 8


# The notebook


def test_the_notebook_is_of_the_current_format(notebook):
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (
        nbformat.v4.nbformat,
        nbformat.v4.nbformat_minor,
    )
    assert notebook.metadata.kernelspec.name == "python3"
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)


def test_the_notebook_has_the_code_of_the_script(notebook):
    install, *cells = [x.source for x in notebook.cells if x.cell_type == "code"]
    assert install == install_cell(PAGE)
    _, blocks = split_code_and_text_blocks(PAGE)
    sources = [block.content.strip() for block in blocks if block.type == "code"]
    assert cells == sources


def test_the_notebook_has_the_text_in_markdown(notebook):
    text = "\n".join(x.source for x in notebook.cells if x.cell_type == "markdown")
    assert text.startswith("# Comparison of different SGD algorithms\n")
    for raw in (r":\w+:`", r"``", r"`_", r"^\.\. ", r"\]_", r"^[=-]{4,}$"):
        assert not re.search(raw, text, re.MULTILINE), raw
    address = r"https://jaxopt\.github\.io/\S+jaxopt\.PolyakSGD"
    assert re.search(rf"\[.?Polyak SGD.?\]\({address}\)", text)
    assert r"$f / \|\nabla f\|^2$" in text
    assert "[arXiv:2002.10542](https://arxiv.org/abs/2002.10542)" in text
    # Neither box, nor foot, nor the description of the figure.
    for frame in ("Run this page", "What the figure shows", "How this page was made"):
        assert frame not in text
    titles = re.findall("^## (.*)", text, re.MULTILINE)
    assert titles[0] == "Settings" and titles[-1] == "Discussion"


def words(text):
    """Return the words of rST or Markdown, without roles, directives and addresses."""
    text = re.sub(r"<[^>]*>|\]\([^)]*\)|:\w+:|^\.\. \w+::", " ", text, flags=re.M)
    return re.findall(r"[a-z]+", text.lower())


def test_the_notebook_has_every_word(notebook):
    _, blocks = split_code_and_text_blocks(PAGE)
    texts = [block.content for block in blocks if block.type == "text"]
    cells = [x.source for x in notebook.cells if x.cell_type == "markdown"]
    for text, cell in zip(texts, cells, strict=True):
        assert words(text) == words(cell)


def test_the_notebook_has_the_output_of_the_page(notebook, log):
    *_, last = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not [x for x in notebook.cells if x is not last and x.get("outputs")]
    drawn, printed = last.outputs
    dense = SITE / f"_images/sphx_glr_{PAGE.stem}_001_2x.png"
    assert base64.b64decode(drawn.data["image/png"]) == dense.read_bytes()
    with Image.open(dense) as image:
        width, height = image.size
    size = {"width": width // 2, "height": height // 2}
    assert drawn.metadata["image/png"] == size
    assert printed.text.strip() == log.strip()
    assert set(drawn.data) == {"image/png", "text/plain"}


def test_the_notebook_runs_and_runs_again(notebook, log, tmp_path):
    """Unmodified in a fresh kernel; then every cell once more in the same one."""
    client = NotebookClient(notebook, resources={"metadata": {"path": str(tmp_path)}})
    # A kernel chooses its own way to draw.
    with client.setup_kernel(env={**REAL_DATA, "MPLBACKEND": ""}):
        for _ in range(2):
            for index, cell in enumerate(notebook.cells):
                client.execute_cell(cell, index)
            outputs = [o for cell in notebook.cells for o in cell.get("outputs", ())]
            printed = [o for o in outputs if o.get("name") == "stdout"]
            drawn = [o for o in outputs if "image/png" in o.get("data", ())]
            assert without_times("".join(o.text for o in printed)) == without_times(log)
            assert len(drawn) == 1
            assert not [o for o in outputs if o.output_type == "execute_result"]


def test_the_first_cell_installs_what_is_missing(tmp_path):
    """In a new environment: a package that is missing, and no other."""
    wheel = tmp_path / "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny.py", "")
        about = "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n"
        archive.writestr("tiny-1.0.dist-info/METADATA", about)
        archive.writestr("tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\n")
        archive.writestr("tiny-1.0.dist-info/RECORD", "")
    script = tmp_path / "script.py"
    block = (
        f"requires-python = '>=3'\n# dependencies = ['tiny @ {wheel.as_uri()}', 'pip']"
    )
    script.write_text(f"# /// script\n# {block}\n# ///\n")
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env/bin/python"
    subprocess.run([python, "-c", install_cell(script)], check=True)
    subprocess.run([python, "-c", "import tiny"], check=True)
    wheel.unlink()
    subprocess.run([python, "-c", install_cell(script)], check=True)
