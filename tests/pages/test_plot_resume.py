"""A killed run that goes on: kills, checkpoints, minibatches, and what is said."""

import contextlib
import io
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from types import SimpleNamespace

import jax
import matplotlib.pyplot as plt
import numpy as np
import pytest

from helpers import ROOT, load, plotted, printed, read_table

PAGE = ROOT / "examples/deep_learning/plot_resume.py"
SOLVERS = ["Polyak", "SGD", "Armijo", "MoMo", "Adam"]
FORGETFUL = {"Polyak", "SGD"}  # they remember nothing of earlier steps
NUM_STEPS = 30
KILLS = ["from outside", "kill_at"]

counts = pytest.mark.parametrize("count", [2, 4])
hosts = pytest.mark.parametrize("host", ["localhost", "192.0.2.1"])


@pytest.fixture(scope="module")
def page():
    return load(PAGE)


@pytest.fixture(scope="module")
def data(page):
    """Return images and labels as ``main`` gives them to a run, of the small data."""
    (images, labels), _ = page.load("fashion_mnist", "train", 10_000)
    return page.shrink(images), labels


@pytest.fixture(scope="module")
def several(loopback_python):
    """Let there be several processes: those of Python get a host name of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", loopback_python)
        yield


def in_turn(*jobs):
    """Return a job of several, since each start of processes takes seconds."""
    return lambda: [job() for job in jobs]


def steps_in(folder):
    """Return the steps that have a checkpoint."""
    return sorted(int(file.name) for file in folder.iterdir() if file.name.isdigit())


def disturb(page, data, folder, count, process, number):
    """Send a signal to a process in the middle of a run; return how the run ends.

    It has a checkpoint of step 10 then, and up to 15 steps more.
    """
    draw, go_on, pids = page.draw_rows, page.go_on, folder.with_suffix(".pids")
    pids.mkdir()

    def draw_slowly(images, labels, number):
        time.sleep(0.1)
        return draw(images, labels, number)

    def job():
        (pids / str(jax.process_index())).write_text(str(os.getpid()))
        return go_on(*data, NUM_STEPS, folder)

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(1) as pool:
        patch.setattr(page, "draw_rows", draw_slowly)
        end = pool.submit(page.run_in_processes, job, count, 1, 100)
        while not (folder / "10").exists():
            assert not end.done(), end.exception()
            time.sleep(0.01)
        time.sleep(np.random.default_rng().uniform(0, 1.5))
        assert not end.done(), end.exception()
        os.kill(int((pids / str(process)).read_text()), number)
        return end.exception() or end.result()


@pytest.fixture(scope="module")
def runs_of(page, data, several, tmp_path_factory):
    """Return a function that tells of runs on a number of devices, with what is left.

    A result is a list, of what each of the processes returned.
    """

    def shards_of(number):
        split = page.draw_rows(*data, number)
        return [
            [(x.index[0].start, np.array(x.data)) for x in array.addressable_shards]
            for array in split
        ]

    @cache
    def run(count):
        root = tmp_path_factory.mktemp(f"runs-{count}")
        job = partial(page.go_on, *data, NUM_STEPS)
        killed = {name: root / name for name in KILLS}
        ends = {
            "from outside": disturb(
                page, data, killed["from outside"], count, count - 2, signal.SIGKILL
            )
        }
        with pytest.raises(SystemExit) as end:
            stopped = partial(job, killed["kill_at"], kill_at=17)
            page.run_in_processes(stopped, count, 1, 100)
        ends["kill_at"] = end.value
        saved = {name: steps_in(folder) for name, folder in killed.items()}
        for name, folder in killed.items():
            for copy in ("fewer", "forgetful", "unfinished"):
                shutil.copytree(folder, root / copy / name)
        unfinished = root / "unfinished/kill_at"
        shutil.copytree(unfinished / "10", unfinished / "20.orbax-checkpoint-tmp")
        same = page.run_in_processes(
            in_turn(
                partial(shards_of, 7),
                partial(job, root / "whole"),
                *[partial(job, folder) for folder in killed.values()],
            ),
            count,
            1,
            200,
        )
        fewer = page.run_in_processes(
            in_turn(
                partial(shards_of, 7),
                partial(job, root / "forgetful/kill_at", forget=True),
                partial(job, unfinished),
                *[partial(job, root / "fewer" / name) for name in KILLS],
            ),
            count // 2,
            2,
            200,
        )
        shards, whole, *resumed = zip(*same, strict=True)
        shards_of_fewer, forgetful, unfinished, *others = zip(*fewer, strict=True)
        return SimpleNamespace(
            ends=ends,
            saved=saved,
            whole=whole,
            resumed=dict(zip(KILLS, resumed, strict=True)),
            fewer=dict(zip(KILLS, others, strict=True)),
            forgetful=forgetful,
            unfinished=unfinished,
            shards=[shards, shards_of_fewer],
        )

    return run


def digests_of(results):
    """Return the digests of a run, which are the same in all of its processes."""
    first, *others = [result["digests"] for result in results]
    assert list(first) == SOLVERS and len(set(first.values())) == len(SOLVERS)
    assert all(other == first for other in others)
    return first


# A kill


@counts
@pytest.mark.parametrize("kill", KILLS)
def test_a_kill_ends_a_run_in_the_middle(runs_of, count, kill):
    runs = runs_of(count)
    assert "A process ended with status" in str(runs.ends[kill])
    assert 10 <= max(runs.saved[kill]) < NUM_STEPS
    if kill == "kill_at":
        assert max(runs.saved[kill]) == 10


@counts
@pytest.mark.parametrize("kill", KILLS)
def test_a_resumed_run_ends_with_the_same_bits(runs_of, count, kill):
    runs = runs_of(count)
    assert len(runs.resumed[kill]) == count
    assert digests_of(runs.resumed[kill]) == digests_of(runs.whole)


@counts
@pytest.mark.parametrize("kill", KILLS)
def test_the_number_of_processes_may_change(runs_of, count, kill):
    runs = runs_of(count)
    assert len(runs.fewer[kill]) == count // 2
    assert digests_of(runs.fewer[kill]) == digests_of(runs.whole)


@counts
@pytest.mark.parametrize("kill", KILLS)
def test_a_run_goes_on_from_the_last_checkpoint(runs_of, count, kill):
    """Its losses are those of the run that was never killed, from there."""
    runs = runs_of(count)
    first = max(runs.saved[kill])
    assert first > 0 and first % 10 == 0
    for result in (*runs.resumed[kill], *runs.fewer[kill]):
        assert result["first"] == first
        losses = runs.whole[0]["losses"][first:]
        np.testing.assert_allclose(result["losses"], losses, rtol=1e-5)


@counts
def test_the_state_of_the_solver_counts(runs_of, count):
    """MoMo, Adam and Armijo end with other bits without it; the others do not."""
    runs = runs_of(count)
    whole, forgetful = digests_of(runs.whole), digests_of(runs.forgetful)
    assert {name for name in SOLVERS if whole[name] == forgetful[name]} == FORGETFUL
    assert {result["first"] for result in runs.forgetful} == {10}


@counts
def test_an_unfinished_checkpoint_is_not_used(runs_of, count):
    runs = runs_of(count)
    assert {result["first"] for result in runs.unfinished} == {10}
    assert digests_of(runs.unfinished) == digests_of(runs.whole)


# A SIGTERM


def test_after_a_sigterm_no_step_is_lost(page, data, runs_of, tmp_path):
    """All processes stop after the same step, with its checkpoint, and without error.

    A new run goes on from there, and ends with the bits of a run never stopped.
    """
    whole = digests_of(runs_of(2).whole)
    folder = tmp_path / "run"
    results = disturb(page, data, folder, 2, 1, signal.SIGTERM)
    assert isinstance(results, list), results
    assert [result["first"] for result in results] == [0, 0]
    (done,) = {len(result["losses"]) for result in results}
    assert 10 < done < NUM_STEPS
    assert max(steps_in(folder)) == done
    assert digests_of(results) != whole
    job = partial(page.go_on, *data, NUM_STEPS, folder)
    (resumed,) = page.run_in_processes(job, 1, 2, 100)
    assert (resumed["first"], len(resumed["losses"])) == (done, NUM_STEPS - done)
    assert resumed["digests"] == whole


# The minibatch


@pytest.fixture
def numbered():
    """Return images that tell their number, and labels that follow from it."""
    numbers = np.arange(500)
    return np.repeat(numbers[:, None], 196, axis=1), numbers % 10


def test_a_minibatch_has_64_of_the_images_with_their_labels(page, numbered):
    images, labels = map(np.array, page.draw_rows(*numbered, 3))
    assert images.shape == (64, 196) and labels.shape == (64,)
    assert np.all(images == images[:, :1])
    assert set(images[:, 0]) <= set(range(500)) and len(set(images[:, 0])) > 32
    assert np.array_equal(labels, images[:, 0] % 10)


def test_a_minibatch_depends_on_the_number_of_its_step_alone(page, numbered):
    first = [np.array(page.draw_rows(*numbered, number)[0]) for number in range(20)]
    for number in reversed(range(20)):
        again = np.array(page.draw_rows(*numbered, number)[0])
        same = [np.array_equal(again, other) for other in first]
        assert same == [number == other for other in range(20)]


@counts
def test_the_rows_of_all_devices_are_the_minibatch(page, data, runs_of, count):
    """Each device has a share, in whatever process it is."""
    whole = [np.array(array) for array in page.draw_rows(*data, 7)]
    for processes in runs_of(count).shards:
        for i, array in enumerate(whole):
            shares = sorted(
                (share for shards in processes for share in shards[i]),
                key=lambda share: share[0],
            )
            assert [start for start, _ in shares] == [*range(0, 64, 64 // count)]
            assert np.array_equal(np.concatenate([x for _, x in shares]), array)


# The whole page


@pytest.fixture(scope="module")
def main_of(page, several, tmp_path_factory):
    """Return a function that runs ``main`` on a host, and tells all that came of it.

    Each process of a run notes what it was given.
    """
    go_on = page.go_on

    @cache
    def run(host):
        notes, temporary = (tmp_path_factory.mktemp(x) for x in ("notes", "temporary"))

        def note(images, labels, num_steps, folder, **options):
            size = jax.process_count(), jax.local_device_count()
            row = [os.path.basename(folder), *size, num_steps, options]
            with open(notes / str(os.getpid()), "a") as file:
                file.write(f"{row}\n")
            return go_on(images, labels, num_steps, folder, **options)

        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(io.StringIO()) as log,
        ):
            patch.setattr(page, "go_on", note)
            patch.setattr(socket, "gethostname", lambda: host)
            patch.setattr(tempfile, "tempdir", str(temporary))
            patch.setenv("TMPDIR", str(temporary))
            results = page.main(["page", "--num_steps=40"])
        figure = plt.gcf()
        plt.close(figure)
        files = sorted(notes.iterdir(), key=lambda file: file.stat().st_mtime)
        return SimpleNamespace(
            log=log.getvalue(),
            figure=figure,
            results=results,
            left=[*temporary.iterdir()],
            pids=[int(file.name) for file in files],
            notes=[line for file in files for line in file.read_text().splitlines()],
        )

    return run


def check_digests(cells):
    """Check the digests of the four runs, by solver."""
    assert list(cells) == SOLVERS
    for name, (whole, *resumed, forgetful) in cells.items():
        assert resumed == [whole, whole]
        assert (forgetful == whole) == (name in FORGETFUL)
        assert len(whole) == 8 and int(whole, 16) >= 0


@hosts
def test_main_goes_on_with_the_same_bits(main_of, host):
    results = main_of(host).results
    assert [result["first"] for result in results] == [0, 30, 30, 30]
    assert [len(result["losses"]) for result in results] == [40, 10, 10, 10]
    digests = [result["digests"] for result in results]
    check_digests({name: [x[name] for x in digests] for name in digests[0]})


@hosts
def test_main_prints_the_digests(main_of, host):
    run = main_of(host)
    *notice, table, closing = run.log.strip().split("\n\n")
    rows = {name: cells for name, *cells in read_table(table)}
    digests = [result["digests"] for result in run.results]
    assert rows == {name: [x[name] for x in digests] for name in SOLVERS}
    assert closing == "The runs went on from step 30."
    reason = f"{host} is not a loopback address: all is in one process."
    assert notice == ([] if host == "localhost" else [reason])


@hosts
def test_main_runs_on_two_devices_in_as_many_processes_as_it_may(main_of, host):
    """The devices are in one process if others can reach the host."""
    notes = main_of(host).notes
    many, few = ((2, 1), (1, 2)) if host == "localhost" else ((1, 2), (1, 2))
    expected = [
        *[["whole", *many, 40, {}]] * many[0],
        *[["killed", *many, 40, {"kill_at": 37}]] * many[0],
        *[["killed", *many, 40, {}]] * many[0],
        ["fewer", *few, 40, {}],
        ["forgetful", *few, 40, {"forget": True}],
    ]
    assert notes == [str(row) for row in expected]


def test_the_bits_are_the_same_in_one_process(main_of):
    one, two = (main_of(host).results for host in ("192.0.2.1", "localhost"))
    assert [x["digests"] for x in one] == [x["digests"] for x in two]


@hosts
def test_main_leaves_nothing(main_of, host):
    run = main_of(host)
    assert run.left == []
    assert len(run.pids) == (7 if host == "localhost" else 4)
    for pid in run.pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@hosts
def test_figure(main_of, host):
    run = main_of(host)
    assert run.figure.get_size_inches()[0] <= 7.2
    (ax,) = run.figure.axes
    labels = [text.get_text() for text in run.figure.legends[0].get_texts()]
    assert [line.get_label() for line in ax.lines] == labels == SOLVERS
    *_, with_states, without = (result["losses"] for result in run.results)
    for line, column in zip(ax.lines, (without - with_states).T, strict=True):
        assert line.get_xdata().tolist() == [*range(31, 41)]
        assert line.get_ydata() == pytest.approx(column)
    assert len({line.get_color() for line in ax.lines}) == len(SOLVERS)
    assert len({str(line._unscaled_dash_pattern) for line in ax.lines}) == len(SOLVERS)


def test_devices_are_an_even_number_and_the_kill_comes_before_the_end(page):
    """So that half as many processes can go on, and a minibatch can be split."""
    for count in ("2", "4", "8"):
        assert page.parse_flags(["page", f"--num_devices={count}"]).num_devices == count
    for flag in ("--num_devices=3", "--num_devices=1", "--num_steps=37"):
        with pytest.raises(SystemExit, match=flag.split("=")[0]):
            page.parse_flags(["page", flag])


# What the page says of its own numbers, in the built page.


@pytest.fixture(scope="module")
def lost():
    """Return {solver: differences of losses}, which the figure shows."""
    (lines,) = plotted(PAGE).values()
    assert list(lines) == SOLVERS
    assert all(rows[:, 0].tolist() == [*range(31, 61)] for rows in lines.values())
    return {name: rows[:, 1] for name, rows in lines.items()}


def test_the_built_page_goes_on_from_step_30_with_the_same_bits():
    *_, table, closing = printed(PAGE).strip().split("\n\n")
    check_digests({name: cells for name, *cells in read_table(table)})
    assert closing == "The runs went on from step 30."


def test_momo_and_adam_lose_without_their_states(lost):
    assert 0.3 < lost["MoMo"].max() < 1.5
    assert 0.02 < lost["Adam"].max() < 0.4


def test_armijo_loses_little_and_others_nothing(lost):
    assert 0 < np.abs(lost["Armijo"]).max() < 0.1
    for name in FORGETFUL:
        assert np.all(lost[name] == 0)
