"""Time the flagship script in turns with the old loop, each as a whole process.

Prints the medians over ROUNDS rounds, on two cores where the system can be told so, and
their ratio, which is to be 2.5 at least. The data must be prepared.
"""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
ROUNDS = 3
SCRIPTS = {
    "old loop": ROOT / "benchmarks/old_loop.py",
    "page": ROOT / "examples/deep_learning/plot_sgd_solvers.py",
}


def seconds(script):
    """Run ``script`` at its defaults and return the seconds that it took."""
    env = os.environ | {"JAX_PLATFORMS": "cpu", "MPLBACKEND": "agg"}
    start = time.perf_counter()
    subprocess.run([sys.executable, script], env=env, check=True, capture_output=True)
    return time.perf_counter() - start


def main():
    """Time every script once a round, so that a busy moment hits all alike."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    times = {name: [] for name in SCRIPTS}
    for number in range(1, ROUNDS + 1):
        for name, script in SCRIPTS.items():
            times[name].append(seconds(script))
            print(f"round {number}: {name} took {times[name][-1]:.1f} s", flush=True)
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, median in medians.items():
        ratio = medians["old loop"] / median
        print(f"{name:10s} median {median:5.1f} s, {ratio:.2f} times as fast")


if __name__ == "__main__":
    main()
