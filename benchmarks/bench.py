"""Compare the flagship with the loop it replaced, and print one table of ratios.

Whole scripts are run by pyperf, each time in a process of its own; steps are timed in
this process, warmed up and waited for. All contenders take turns, ROUNDS times, so that
a busy moment hits them alike; the table shows medians. The data must be prepared.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import jax
import pyperf

import old_loop

ROUNDS = 5
OLD_STEPS, NEW_STEPS = 20, 80


def run_script(file, script, *flags, **env):
    """Let pyperf run a script once and append seconds and memory to ``file``."""
    command = [sys.executable, "-m", "pyperf", "command", "--copy-env"]
    command += ["--processes=1", "--values=1", "--warmups=0", "--loops=1"]
    command += [f"--append={file}", "--", sys.executable, script, *flags]
    env = os.environ | {"MPLBACKEND": "agg"} | env
    # The page saves its figure to where it runs.
    subprocess.run(
        command, env=env, cwd=file.parent, check=True, stdout=subprocess.DEVNULL
    )


def time_scripts(folder):
    """Return {contender: (seconds, bytes)}, medians of whole scripts."""
    old, new = Path(old_loop.__file__), old_loop.PAGE
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    contenders = {
        "old": partial(run_script, folder / "old", old),
        "one": partial(run_script, folder / "one", new, "--num_seeds=1"),
        "cached": partial(run_script, folder / "cached", new, "--num_seeds=1", **cache),
        "five": partial(run_script, folder / "five", new),
    }
    run_script(folder / "fill", new, "--num_seeds=1", **cache)
    for number in range(1, ROUNDS + 1):
        print(f"scripts, round {number} of {ROUNDS}", file=sys.stderr)
        for run in contenders.values():
            run()
    medians = {}
    for name in contenders:
        benchmark = pyperf.Benchmark.load(str(folder / name))
        runs = [run.get_metadata() for run in benchmark.get_runs()]
        memory = statistics.median(run["command_max_rss"] for run in runs)
        medians[name] = benchmark.median(), memory
    return medians


def new_steps(update, params, state, minibatches):
    """Yield parameters and state after each step of a jitted ``update``."""
    for minibatch in minibatches:
        params, state = update(params, state, *minibatch)
        yield params, state


def seconds_a_step(steps, minibatches):
    """Return what a step takes when all are made and waited for."""
    start = time.perf_counter()
    *_, last = steps(minibatches)
    jax.block_until_ready(last[0])
    return (time.perf_counter() - start) / len(minibatches)


def time_steps():
    """Return {(contender, solver): median seconds} of steady steps."""
    page = old_loop.load_page()
    settings = page.parse_flags(["page"])
    examples, info = page.load(settings.dataset, "train", 20_000)
    num_classes = info.features["label"].num_classes
    first, *minibatches = page.draw_minibatches(*examples, settings, 0)
    # The first twenty compile, and search the longest for a step size.
    warm_up, rest = minibatches[:20], minibatches[20:]
    plain = old_loop.PlainCNN(settings.net_width, num_classes)
    net = page.CNN(settings.net_width, num_classes)
    funs = {
        "nn.Conv": (partial(old_loop.loss_fun, plain), plain),
        "page": (partial(page.mean_loss, net, jax.new_ref(0)), net),
    }
    contenders = {}
    for which, (fun, net) in funs.items():
        start = jax.jit(net.init)(jax.random.key(0), first[0])
        solvers = page.make_solvers(fun, settings)
        for name in [name for name in solvers if name not in page.TUNED]:
            solver = solvers[name]
            update = jax.jit(solver.update)
            params, state = jax.device_put(
                (start, solver.init_state(start, *first)), jax.devices()[0]
            )
            *_, (params, state) = new_steps(update, params, state, warm_up)
            steps = partial(new_steps, update, params, state)
            contenders[which, name] = partial(seconds_a_step, steps, rest[:NEW_STEPS])
            if which == "nn.Conv":
                steps = partial(old_loop.steps, fun, update, params, state)
                old = partial(seconds_a_step, steps, rest[:OLD_STEPS])
                contenders["old", name] = old
    seconds = {contender: [] for contender in contenders}
    for number in range(1, ROUNDS + 1):
        print(f"steps, round {number} of {ROUNDS}", file=sys.stderr)
        for contender, run in contenders.items():
            seconds[contender].append(run())
    return {contender: statistics.median(seconds[contender]) for contender in seconds}


def main():
    """Time all, on two cores where the system can be told so, and print the table."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    with tempfile.TemporaryDirectory() as folder:
        scripts = time_scripts(Path(folder))
    steps = time_steps()
    rows = [
        (
            f"step of {name}, {which}",
            *(1e3 * steps[key, name] for key in ("old", which)),
        )
        for which in ("nn.Conv", "page")
        for key, name in steps
        if key == which
    ]
    print(f"{'medians of ' + str(ROUNDS):32}{'old loop':>10}{'now':>10}{'ratio':>8}")
    for row, old, new in rows:
        print(f"{row:32}{old:7.1f} ms{new:7.1f} ms{old / new:8.1f}")
    old_seconds, old_bytes = scripts.pop("old")
    names = {
        "one": "one seed",
        "cached": "one seed, compiled before",
        "five": "five seeds",
    }
    for name, (seconds, _) in scripts.items():
        row = f"script, {names[name]}"
        print(
            f"{row:32}{old_seconds:8.1f} s{seconds:8.1f} s{old_seconds / seconds:8.1f}"
        )
    old_mib, mib = old_bytes / 2**20, scripts["five"][1] / 2**20
    print(
        f"{'memory, five seeds':32}{old_mib:6.0f} MiB{mib:6.0f} MiB{old_mib / mib:8.1f}"
    )


if __name__ == "__main__":
    main()
