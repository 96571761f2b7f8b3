"""What readers download runs as it is, and prints what the page does."""

import ast
import base64
import re
import shutil
import subprocess
import sys
import venv
from collections import Counter
from pathlib import Path, PurePath

import nbformat
import packaging
import pytest
from nbclient import NotebookClient
from sphinx_gallery.py_source_parser import split_code_and_text_blocks

from environment import REAL_DATA
from gallery.pages import read_block
from gallery.show.notebooks import advice, install_cell, module_of
from helpers import PAGE, built, flagship, load, run_script, without_times, write_wheel

FAST = PAGE.with_stem("plot_interpolation")


@pytest.fixture
def notebook(downloads):
    return nbformat.read(downloads[".ipynb"], nbformat.NO_CONVERT)


# The script


def test_the_script_is_the_source(script, downloads):
    assert set(downloads) == {".py", ".ipynb"}
    assert downloads[".py"].read_bytes() == script.read_bytes()


def test_times_are_left_out_and_nothing_else():
    """However long they are, and where they are left out already."""
    log = "  two 0.50 in 3 steps\n  {0}s: took {0}s ({1} ms) at 0.5\n\n"
    log += "  a       ms\n  b   {2:>6}\n  c 0.50\n"
    for times in (("1.23", "3", "1.23"), ("12.345", "56", "78.90"), ("1e-05", "0", 4)):
        lines = without_times(log.format(*times))
        assert lines == [
            "  two 0.50 in 3 steps",
            "  -.--s: took -.--s (-.-- ms) at 0.5",
            "  a       ms",
            "  b     -.--",
            "  c 0.50",
        ]
        assert without_times("\n".join(lines)) == lines


def test_the_script_runs_from_an_empty_folder(script, downloads, log, tmp_path):
    """With no word of the libraries beside its own."""
    shutil.copy(downloads[".py"], tmp_path)
    quiet = "TF_CPP_MIN_LOG_LEVEL", "TF_ENABLE_ONEDNN_OPTS"
    env = {name: value for name, value in REAL_DATA.items() if name not in quiet}
    run = run_script(script.name, cwd=tmp_path, env=env)
    assert run.returncode == 0, run.stderr
    (figure,) = tmp_path.glob("*.png")
    assert run.stderr == f"There is no display. The figure is in {figure}\n"
    assert without_times(run.stdout) == without_times(log)


def test_the_requirements_are_what_the_script_imports(script):
    """And what its imports need without saying so; nothing is of this repository."""
    imports = set()
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.Import):
            imports |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imports.add(node.module.partition(".")[0])
    if "tensorflow_datasets" in imports:
        imports |= {"importlib_resources", "tensorflow"}
    modules = set(map(module_of, read_block(script)["dependencies"]))
    assert modules == imports - sys.stdlib_module_names


@flagship
def test_uv_runs_the_script_with_nothing_else(script, downloads, tmp_path):
    """In an environment that uv makes from the block in the script."""
    shutil.copy(downloads[".py"], tmp_path)
    uv = shutil.which("uv", path=str(PurePath(sys.executable).parent))
    flags = ["--num_seeds=1", "--maxiter=20"]
    run = subprocess.run(
        [uv, "run", "--python", sys.executable, script.name, *flags],
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
    assert notebook.metadata.language_info.file_extension == ".py"
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)


def test_the_notebook_has_the_code_of_the_script(script, notebook):
    install, *cells = [x.source for x in notebook.cells if x.cell_type == "code"]
    assert install == install_cell(script)
    _, blocks = split_code_and_text_blocks(script)
    sources = [block.content.strip() for block in blocks if block.type == "code"]
    assert cells == sources


def test_the_notebook_says_how_a_setting_is_changed(script, notebook, tmp_path):
    """The last cell reads what stands there for ARGV, and refuses what is too small."""
    (replacement,) = re.findall(r"`(\[.*\])`", notebook.cells[1].source)
    _, flag = ast.literal_eval(replacement)
    name, value = flag.removeprefix("--").split("=")
    load(script).parse_flags(["page", flag])
    *others, last = [x.source for x in notebook.cells if x.cell_type == "code"][1:]
    assert last.count("ARGV") == 1
    changed = last.replace("ARGV", replacement.replace(f"={value}", "=0"))
    script = tmp_path / "script.py"
    script.write_text("\n\n".join([*others, changed]))
    run = run_script(script)
    assert run.returncode != 0
    assert name in run.stderr.splitlines()[-1]


def text_of(notebook):
    """Return the Markdown of a notebook, without the blocks of code in it."""
    text = "\n".join(x.source for x in notebook.cells if x.cell_type == "markdown")
    return re.sub(r"^```\w+\n.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def test_the_notebook_has_the_text_in_markdown(soup, notebook):
    text = text_of(notebook)
    for raw in (r":\w+:`", r"``", r"`_", r"^ *\.\. ", r"\]_", r"^[=-]{4,}$"):
        assert not re.search(raw, text, re.MULTILINE), raw
    # Neither line, nor foot, nor the description of a figure.
    for frame in ("Run it yourself", "What the figure shows", "How this page was made"):
        assert frame not in text
    titles = [title.find(string=True) for title in soup.article.select("h1, h2")]
    assert re.findall("^##? (.*)", text, re.MULTILINE) == titles
    assert text.startswith(f"# {titles[0]}\n")


@flagship
def test_the_notebook_of_the_flagship_has_links_and_mathematics(notebook):
    text = text_of(notebook)
    address = r"https://jaxopt\.github\.io/\S+jaxopt\.PolyakSGD"
    assert re.search(rf"\[.?Polyak SGD.?\]\({address}\)", text)
    assert r"$f / \|\nabla f\|^2$" in text
    assert "[arXiv:2002.10542](https://arxiv.org/abs/2002.10542)" in text


def words(text):
    """Return the words of rST or Markdown, without roles, directives and addresses."""
    text = re.sub(r"^ *\.\. (container:: .*|[\w-]+::)", " ", text, flags=re.M)
    text = re.sub(r"<[^>]*>|\]\([^)]*\)|:\w+:", " ", text)
    return re.findall(r"[a-z]+", text.lower())


def test_the_notebook_has_every_word(script, notebook):
    _, blocks = split_code_and_text_blocks(script)
    texts = [block.content for block in blocks if block.type == "text"]
    first, second, *others = [x for x in notebook.cells if x.cell_type == "markdown"]
    assert second.source == advice(script)
    cells = [cell.source for cell in (first, *others)]
    for text, cell in zip(texts, cells, strict=True):
        assert words(text) == words(cell)


def tokens(texts):
    """Return how often each word is in ``texts``, without the rules of tables."""
    found = Counter(word for text in texts for word in text.split())
    return Counter({word: n for word, n in found.items() if word.strip("-")})


def test_the_notebook_has_the_output_of_the_page(script, soup, notebook):
    """Each figure with its size, and each word that is printed, in log or table."""
    figures = []
    for tag in soup.article.select("img.sphx-glr-single-img.only-light"):
        link = tag["srcset"].split(", ")[1].removesuffix(" 2x")
        size = {name: int(tag[name]) for name in ("width", "height")}
        figures.append(((built(script).parent / link).read_bytes(), size))
    install, *cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not install.outputs
    drawn, texts = [], []
    for output in (output for cell in cells for output in cell.outputs):
        if output.output_type == "stream":
            texts.append(output.text)
        else:
            assert set(output.data) == {"image/png", "text/plain"}
            png = base64.b64decode(output.data["image/png"])
            drawn.append((png, output.metadata["image/png"]))
    assert drawn == figures
    for link in soup.select("table.printed .headerlink"):
        link.decompose()
    shown = soup.select(".sphx-glr-script-out pre, table.printed :is(th, td)")
    captions = [
        f"{x.get_text().strip()}:" for x in soup.select("table.printed caption")
    ]
    assert tokens(captions + [x.get_text() for x in shown]) == tokens(texts)


def test_the_notebook_runs_and_runs_again(script, soup, notebook, log, tmp_path):
    """Unmodified in a fresh kernel; then the cells that define, in the same kernel.

    After that, the settings can be read again, as the long last cell does first.
    """
    client = NotebookClient(notebook, resources={"metadata": {"path": str(tmp_path)}})
    *others, last = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert "run_main(main, ARGV)" in last.source
    again = nbformat.v4.new_code_cell("print(parse_flags(ARGV).flag_values_dict())")
    notebook.cells.append(again)
    # A kernel chooses its own way to draw.
    with client.setup_kernel(env={**REAL_DATA, "MPLBACKEND": ""}):
        for cell in (*others, last, *others, again):
            client.execute_cell(cell, notebook.cells.index(cell))
    outputs = [output for cell in (*others, last) for output in cell.outputs]
    printed = [o.text for o in outputs if o.get("name") == "stdout"]
    drawn = [o for o in outputs if "image/png" in o.get("data", ())]
    assert without_times("".join(printed)) == without_times(log)
    assert len(drawn) == len(soup.select("img.sphx-glr-single-img.only-light"))
    assert not [o for o in outputs if o.output_type == "execute_result"]
    settings = load(script).parse_flags(["page"]).flag_values_dict()
    assert ast.literal_eval(again.outputs[0].text) == settings


@pytest.mark.parametrize("script", [FAST], indirect=True)
def test_a_notebook_without_a_display_names_the_file_of_its_figure(notebook, tmp_path):
    client = NotebookClient(notebook, resources={"metadata": {"path": str(tmp_path)}})
    with client.setup_kernel(env={**REAL_DATA, "MPLBACKEND": "agg"}):
        for number, cell in enumerate(notebook.cells):
            client.execute_cell(cell, number)
    *_, last = [cell for cell in notebook.cells if cell.cell_type == "code"]
    errors = [x.text for x in last.outputs if x.get("name") == "stderr"]
    (figure,) = tmp_path.glob("*.png")
    assert errors == [f"There is no display. The figure is in {figure}\n"]


def make_kernel(folder):
    """Make an environment with what each kernel has; return its Python."""
    venv.create(folder, with_pip=True)
    (packages,) = folder.glob("lib/*/site-packages")
    shutil.copytree(Path(packaging.__file__).parent, packages / "packaging")
    return folder / "bin/python"


@pytest.mark.parametrize("need, told", [("tiny>=1.1", True), ("tiny>=0.1", False)])
def test_the_first_cell_tells_what_is_too_old(tmp_path, need, told):
    """In one line, with what to do."""
    script = tmp_path / "script.py"
    block = f"requires-python = '>=3'\n# dependencies = ['{need}']"
    script.write_text(f"# /// script\n# {block}\n# ///\n")
    python = make_kernel(tmp_path / "env")
    wheel = write_wheel(tmp_path)
    subprocess.run([python, "-m", "pip", "install", "--quiet", wheel], check=True)
    command = [python, "-c", install_cell(script)]
    run = subprocess.run(command, text=True, capture_output=True)
    line = f"tiny 1.0 is installed: run %pip install '{need}' and restart the kernel\n"
    assert run.stderr == (line if told else "")
    assert run.returncode == told


def test_the_first_cell_installs_what_is_missing(tmp_path):
    """In a new environment: a package that is missing, and no other."""
    wheel = write_wheel(tmp_path)
    script = tmp_path / "script.py"
    block = (
        f"requires-python = '>=3'\n# dependencies = ['tiny @ {wheel.as_uri()}', 'pip']"
    )
    script.write_text(f"# /// script\n# {block}\n# ///\n")
    python = make_kernel(tmp_path / "env")
    subprocess.run([python, "-c", install_cell(script)], check=True)
    subprocess.run([python, "-c", "import tiny"], check=True)
    wheel.unlink()
    subprocess.run([python, "-c", install_cell(script)], check=True)
