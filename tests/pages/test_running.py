"""How a page ends that cannot do all: in a line, and with nothing lost."""

import os
import signal
import subprocess
import sys

import matplotlib.pyplot as plt
import pytest

from environment import REAL_DATA
from helpers import PAGE, load, run_script

FAST = PAGE.with_stem("plot_interpolation")
FLAGS = ["--num_seeds=1", "--maxiter=40", "--batch_size=1"]
FIGURE = "Gaps of five solvers on four least-squares problems.png"
AT_THE_END = {k: v for k, v in REAL_DATA.items() if k != "PYTHONUNBUFFERED"}
AT_ONCE = REAL_DATA | {"PYTHONUNBUFFERED": "1"}


def start(env, page=FAST, flags=FLAGS, **pipes):
    """Start a page and return the process."""
    command = [sys.executable, page, *flags]
    return subprocess.Popen(command, env=env, text=True, **pipes)


def test_without_a_display_the_figure_is_a_file(tmp_path):
    run = run_script(FAST, *FLAGS, cwd=tmp_path)
    file = tmp_path / FIGURE
    assert run.stderr == f"There is no display. The figure is in {file}\n"
    assert run.returncode == 0
    assert file.read_bytes().startswith(b"\x89PNG")


def test_a_figure_that_cannot_be_saved_is_told(tmp_path):
    (tmp_path / FIGURE).mkdir()
    run = run_script(FAST, *FLAGS, cwd=tmp_path)
    assert run.returncode == 1
    (line,) = run.stderr.splitlines()
    assert FIGURE in line and "Is a directory" in line
    assert "gap" in run.stdout  # the numbers are printed all the same


@pytest.mark.parametrize("interactive", [False, True])
def test_with_a_display_there_is_no_file(page, tmp_path, monkeypatch, interactive):
    """Windows that were closed, or that stay open in an interactive session."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        plt, "show", (lambda: None) if interactive else lambda: plt.close("all")
    )
    with plt.ion() if interactive else plt.ioff():
        page.run_main(lambda argv: plt.figure().suptitle("a"), ["page"])
    plt.close("all")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("env", [AT_THE_END, AT_ONCE], ids=["at the end", "at once"])
def test_nobody_reads_on(tmp_path, env):
    """As after ``| head``."""
    end, pipe = os.pipe()
    process = start(env, cwd=tmp_path, stdout=pipe, stderr=subprocess.PIPE)
    os.close(pipe)
    os.close(end)
    _, errors = process.communicate()
    assert process.returncode == 1
    assert not errors.replace(
        f"There is no display. The figure is in {tmp_path / FIGURE}\n", ""
    )


def test_an_interrupt_is_a_line(tmp_path):
    """After the first solver's log, while the three others take seconds."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = start(AT_ONCE, PAGE, ["--num_seeds=1"], cwd=tmp_path, **pipes)
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert errors == "Interrupted\n"
    assert process.returncode == 1


@pytest.mark.parametrize("name", ["plot_sgd_solvers", "plot_jaxopt_to_optax"])
@pytest.mark.parametrize("value, warns", [(0.51, False), (0.5, True)])
def test_a_search_that_needs_many_trials_is_told(capsys, name, value, warns):
    """Before the data is read: Goldstein's two conditions need more than one half."""
    page = load(PAGE.with_stem(name))

    def stop(*_):
        raise LookupError

    page.load = stop
    with pytest.raises(LookupError):
        page.main(["page", f"--aggressiveness={value}"])
    warning = "--aggressiveness <= 0.5 needs many trials: try 0.7\n"
    assert capsys.readouterr() == ("", warning if warns else "")


@pytest.mark.parametrize("platform", ["cuda", "nonsense"])
def test_devices_are_asked_for_before_data(tmp_path, platform):
    env = REAL_DATA | {"JAX_PLATFORMS": platform, "TFDS_DATA_DIR": str(tmp_path / "no")}
    run = run_script(PAGE, cwd=tmp_path, env=env)
    assert run.returncode == 1
    (line,) = run.stderr.splitlines()
    assert line.startswith(f"JAX_PLATFORMS={platform} finds no device, try cpu: ")
    assert not run.stdout and not list(tmp_path.iterdir())
