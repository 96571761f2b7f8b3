# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["absl-py", "cloudpickle", "flax>=0.10.1", "jax>=0.8",
#   "matplotlib>=3.8.4", "numpy", "optax>=0.2.5"]
# ///
"""
What do step-size rules send over the network?
==============================================
Devices that split a minibatch must add up their gradients in each step. Does a rule
that adapts the step size send more than gradients? Six solvers train a model with 6,634
parameters (26,536 bytes) on four devices:

- :func:`SGD <optax.sgd>` and :func:`Adam <optax.adam>` need only the gradient;
- :func:`Polyak <optax.polyak_sgd>`, :func:`MoMo <optax.contrib.momo>` also need a loss;
- :func:`Armijo <optax.scale_by_backtracking_linesearch>` tries step sizes. Each *trial*
  needs a loss;
- :func:`Zoom <optax.scale_by_zoom_linesearch>`, the line search of :func:`L-BFGS
  <optax.lbfgs>`, needs a gradient in each, too.

.. admonition:: In short

   - **If each device has all parameters, Polyak and MoMo send 4 bytes more than SGD.**
     SGD sends 26,536 bytes. A trial of Armijo adds 4, and a trial of Zoom 26,540.
   - **If devices have shares of parameters, each trial gathers nearly all of them.**
     SGD sends 53,032 bytes. A trial of Armijo adds 26,500, and a trial of Zoom 53,048.
   - **Devices change only rounding.** After 10 Armijo steps, parameters are within 1e-5
     of those of one device. Two and four processes end with equal bits.
   - **Each trial waits for the network.** By a formula, Armijo takes 4 times as long as
     SGD with few parameters; with many, about 2, but near 1 for copies on the internet.

Bytes are sizes of arrays that programs for CPUs exchange. GPUs may differ.

**Figure:** bytes of a step with its trials, if each device has a copy of the parameters
(left) or a share (right). Bottom: time of an Armijo step over that of an SGD step, by
a formula (not measured), for 256 devices and three trials.
"""

# %%
# Imports
# -------
# ``uv run`` installs the packages that the first lines of the script list.
import hashlib
import os
import re
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from functools import partial

import cloudpickle
import flax.linen as nn
import jax
import matplotlib.pyplot as plt
import numpy as np
import optax
from absl import flags

# %%
# Solvers
# -------
# Armijo's step sizes are at most 1. A step must achieve half of the predicted decrease.
SEARCH = optax.scale_by_backtracking_linesearch(30, slope_rtol=0.5)
SOLVERS = {
    "SGD": optax.sgd(0.1),
    "Adam": optax.adam(0.001),
    "Polyak": optax.polyak_sgd(max_learning_rate=1.0),
    "MoMo": optax.contrib.momo(1.0),
    "Armijo": optax.chain(optax.sgd(1.0), SEARCH),  # a search scales the step
    "Zoom": optax.chain(optax.sgd(1.0), optax.scale_by_zoom_linesearch(30)),
}


# %%
# One step on any number of devices
# ---------------------------------
# The code of a step names no device. The loss is the mean over the whole minibatch,
# whichever devices hold its images. Under ``jit``, JAX adds the communication.
NETWORK = nn.Sequential((nn.Dense(32), nn.relu, nn.Dense(10)))


def average_loss(params, images, labels):
    """Return the mean cross-entropy of a minibatch."""
    logits = NETWORK.apply(params, images)
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def take_step(solver, params, state, images, labels):
    """Return the parameters and the state after a step on a minibatch."""
    loss = partial(average_loss, images=images, labels=labels)
    value, grad = jax.value_and_grad(loss)(params)
    extra = {"value": value, "grad": grad, "value_fn": loss}
    updates, state = solver.update(grad, state, params, **extra)
    return optax.apply_updates(params, updates), state


# %%
# ``out_shardings`` places arrays on devices. Each device has a copy of parameters and
# state, or a share (shard) of each array whose first axis splits evenly.
def compile_step(solver, minibatch, sharded):
    """Return the compiled step, with initial parameters and state on all devices."""
    mesh = minibatch[0].sharding.mesh

    def init():
        params = NETWORK.init(jax.random.key(0), np.zeros((1, 196)))
        return params, solver.init(params)

    def shard(leaf):
        divisible = leaf.ndim > 0 and leaf.shape[0] % mesh.size == 0
        axes = mesh.axis_names if sharded and divisible else ()
        return jax.NamedSharding(mesh, jax.P(*axes))

    shardings = jax.tree.map(shard, jax.eval_shape(init))
    start = jax.jit(init, out_shardings=shardings)()
    step = jax.jit(partial(take_step, solver), out_shardings=shardings)
    return step.lower(*start, *minibatch).compile(), start


# %%
# The compiled program shows what devices send. An *all-reduce* adds up arrays of all
# devices, and an *all-gather* joins shares. Each result counts once. A trial is a round
# of a ``while`` loop. Zoom's has two branches. One runs, so one counts.
def count_bytes(compiled):
    """Return the bytes that a step sends outside of trials, and those of a trial."""
    sent = [0, 0]
    names = "all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute"
    for line in compiled.as_text().splitlines():
        found = re.search(rf" = (.*?) (?:{names})(?:-done)?\(", line)
        if found and "/cond/branch_0_fun/" not in line:
            for bits, shape in re.findall(r"[a-z](\d+)\[([\d,]*)\]", found[1]):
                size = np.prod([int(n) for n in shape.split(",") if n])
                sent[int("/while/" in line)] += int(size) * int(bits) // 8
    return sent


# %%
# Training
# --------
# Devices split the rows of the same minibatches. Training uses copies, not shares.
def train_on_devices(names, batch_size, num_steps, sharded=(False,)):
    """Train with each solver on all devices of all processes; return the results."""
    mesh = jax.sharding.Mesh(jax.devices(), ("devices",))
    rows = jax.NamedSharding(mesh, jax.P("devices"))
    minibatches = jax.device_put(make_minibatches(batch_size, num_steps), rows)
    results = {}
    for name in names:
        programs = [compile_step(SOLVERS[name], minibatches[0], x) for x in sharded]
        step, carry = programs[0]
        trials = []
        for minibatch in minibatches:
            carry = step(*carry, *minibatch)
            trials.append(optax.tree.get(carry[1], "num_linesearch_steps", 0))
        leaves = [np.ravel(leaf) for leaf in jax.tree.leaves(carry)]
        results[name] = {
            "bytes": [count_bytes(program) for program, _ in programs],
            "trials": np.mean(trials),
            "params": np.concatenate(leaves[:4]),  # weights and biases of two layers
            "digest": hashlib.sha256(b"".join(leaves)).hexdigest()[:12],
        }
    return results


# %%
# Devices and processes
# ---------------------
# JAX cannot change devices once it runs, so training is in new processes (0.5 GB each).
# A child ends itself when a pipe closes: the parent has ended, or given up.
CHILD = """
import os, signal, sys, threading, cloudpickle
def end_with_parent():
    os.read(int(sys.argv[1]), 1)  # returns when the pipe closes
    os.kill(os.getpid(), signal.SIGKILL)  # JAX catches SIGTERM
threading.Thread(target=end_with_parent, daemon=True).start()
results = os.fdopen(os.dup(1), "wb")
os.dup2(2, 1)  # libraries print to stdout, too
cloudpickle.dump(cloudpickle.load(sys.stdin.buffer)(), results)
"""


# %%
# If a child fails or takes too long, ``write_end`` closes, and all children end.
def run_in_processes(job, num_processes, num_devices, timeout):
    """Return what ``job()`` returns in each of the processes, or exit with one line."""

    def run(process_id):
        task = cloudpickle.dumps(
            partial(join_and_call, job, address, num_processes, process_id)
        )
        devices = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(num_devices)}
        devices["JAX_TRACEBACK_FILTERING"] = "off"  # so that the error is the last line
        options = {"env": os.environ | devices, "input": task, "pass_fds": [read_end]}
        options |= {"capture_output": True, "timeout": timeout}
        child = subprocess.run([sys.executable, "-c", CHILD, str(read_end)], **options)
        if child.returncode:
            error = child.stderr.decode(errors="replace").strip().split("\n")[-1]
            sys.exit(f"A process ended with status {child.returncode}: {error:.200}")
        return cloudpickle.loads(child.stdout)

    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"  # a free port
    read_end, write_end = os.pipe()
    with (
        open(read_end),
        ThreadPoolExecutor(num_processes) as pool,
        open(write_end, "w"),
    ):
        futures = [pool.submit(run, i) for i in range(num_processes)]
        try:
            return [future.result() for future in as_completed(futures)]
        except subprocess.TimeoutExpired:
            sys.exit(f"No result in {timeout} s. Allow more with --timeout.")


# %%
# JAX sends data without encryption, at the addresses of the host name. So there are
# several processes only if these are *loopback*: no other machine can reach them.
def join_and_call(job, address, num_processes, process_id):
    """Join the other processes, if there are any, and return ``job()``."""
    if num_processes > 1:
        only_here = {"coordinator_bind_address": address}  # not on all interfaces
        jax.distributed.initialize(address, num_processes, process_id, **only_here)
    return job()


def is_loopback(host):
    """Return whether all addresses of ``host`` are loopback addresses."""
    with suppress(OSError):  # the name has no address
        addresses = [x[4][0] for x in socket.getaddrinfo(host, None)]
        return all(x == "::1" or x.startswith("127.") for x in addresses)
    return False


# %%
# More parameters, more devices
# -----------------------------
# How much longer is a step with a line search of three trials? Assume N = 256 devices,
# links of B bytes a second with a delay of L seconds, and P parameters of 4 bytes. A
# gradient takes C seconds, half a nanosecond for each parameter, and a loss C / 3. With
# copies, SGD takes :math:`C + 8 P / B + 2 L \log_2 N`: gradients travel, then the sum.
# A trial takes :math:`C / 3 + 2 L \log_2 N`. On CPUs, shares add 4 P / B to both.
LINKS = {"data center": (50e9, 10e-6), "internet": (12.5e6, 30e-3)}  # B, L


def armijo_over_sgd(num_params, bandwidth, delay, sharded):
    """Return the time of an Armijo step over that of an SGD step, by the formula."""
    gradient, delays = 0.5e-9 * num_params, 2 * delay * np.log2(256)
    gather = sharded * 4 * num_params / bandwidth
    step = gradient + 8 * num_params / bandwidth + delays + gather
    return 1 + 3 * (gradient / 3 + delays + gather) / step


# %%
# Data
# ----
# Images are random, because the bytes of a step and of a trial do not depend on them.
def make_minibatches(batch_size, num_steps):
    """Return a pair of images (batch_size, 196) and labels for each step."""
    random = np.random.default_rng(0)
    labels = random.integers(10, size=(num_steps, batch_size))
    centers = random.normal(size=(10, 196))
    images = random.normal(centers[labels], scale=3).astype(np.float32)
    return list(zip(images, labels, strict=True))


# %%
# Settings
# --------
# Flags change the settings, as in ``--num_devices=8``, and ``--help`` lists all flags.
def parse_flags(argv):
    """Return the settings in ``argv``; exit with one line if one of them is wrong."""
    settings = flags.FlagValues()
    integer = partial(flags.DEFINE_integer, flag_values=settings)
    integer("num_devices", 4, "devices, and the largest number of processes", 2, 16)
    integer("num_steps", 10, "steps of a run", 1, 1_000)
    integer("timeout", 120, "seconds that processes may take", 1, 3_600)
    flags.DEFINE_boolean("cluster", False, "join a cluster", flag_values=settings)
    return read_flags(settings, argv)


def read_flags(settings, argv):
    """Return ``settings`` with the values in ``argv``; exit if one of them is wrong."""
    if {"-h", "--help"} & set(argv):
        print(settings)
        sys.exit()
    try:
        words = settings(argv)[1:]
    except flags.Error as error:
        sys.exit(f"{error} (see --help)")
    if words:
        sys.exit(f"unexpected argument {words[0]} (see --help)")
    for name, value in settings.flag_values_dict().items():
        if isinstance(value, float) and np.isnan(value):
            sys.exit(f"flag --{name}=nan is not a number (see --help)")
    return settings


# %%
# Tables and figure
# -----------------
# A *digest* depends on each bit of the parameters and of the state.
def print_traffic(results, setups):
    """Print a row for each solver, and one for each setup of Armijo."""
    print("Bytes that a step sends without its trials, and in each trial:")
    print("        copies  copies  shares  shares  trials")
    print("solver    step   trial    step   trial  a step")
    print("------  ------  ------  ------  ------  ------")
    for name, result in results.items():
        cells = "".join(f"{size:8}" for size in np.ravel(result["bytes"]))
        print(f"{name:6}{cells}{result['trials']:8.1f}")
    print("\nDigests of Armijo, and largest differences to the first:")
    for setup, runs in setups.items():
        digest = " ".join({run["Armijo"]["digest"] for run in runs})
        first = next(iter(setups.values()))[0]["Armijo"]["params"]
        difference = abs(runs[0]["Armijo"]["params"] - first).max()
        print(f"{setup}: {digest}, {difference:.0e}")


# %%
# The lower panel plots the formula.
def plot_costs(results):
    """Plot the bytes of a step, and below them the time of Armijo over that of SGD."""
    panels = [["copies", "shares"], ["time", "time"]]
    fig, axes = plt.subplot_mosaic(panels, figsize=(6.4, 5.4), layout="constrained")
    sent = [x["bytes"] @ np.array([1, x["trials"]]) / 1e3 for x in results.values()]
    for name, row in zip(panels[0], np.transpose(sent), strict=True):
        axes[name].barh(list(results), row, color="#0072b2")
        axes[name].set(title=f"{name} of parameters", xlabel="kB per step")
        axes[name].set(xlim=(0, 1.1 * np.max(sent)))
    num_params = np.logspace(4, 10, 61)
    for link, color in zip(LINKS, ["#009e73", "#d55e00"], strict=True):
        for sharded, dash in enumerate(["-", "--"]):
            ratio = armijo_over_sgd(num_params, *LINKS[link], sharded)
            label = f"{link}, {panels[0][sharded]}"
            axes["time"].plot(num_params, ratio, dash, color=color, lw=3, label=label)
    axes["time"].set(xscale="log", xlabel="parameters", ylabel="time, Armijo / SGD")
    axes["time"].legend(handlelength=4)
    fig.suptitle("What a step sends, and what a line search costs")


# %%
# Without a display, the figure becomes a file.
def run_main(main, argv):
    """Call ``main(argv)``, then show its figure; exit with one line if that fails."""
    try:
        jax.devices()  # fails before the data is read, which takes longer
    except (AssertionError, RuntimeError) as error:
        name = jax.config.jax_platforms
        sys.exit(f"JAX_PLATFORMS={name} finds no device, try cpu: {error!r:.200}")
    try:
        main(argv)
        plt.show()
        if plt.get_fignums() and not plt.isinteractive():  # no window was shown
            file = os.path.abspath(f"{plt.gcf().get_suptitle()}.png")
            plt.savefig(file)
            print(f"There is no display. The figure is in {file}", file=sys.stderr)
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit("Interrupted")
    except BrokenPipeError:  # the reader of the pipe is gone, as after ``| head``
        os._exit(1)
    except OSError as error:
        sys.exit(str(error))


ARGV = sys.argv[:1] if "get_ipython" in globals() else sys.argv


# %%
# Four devices, one to four processes
# -----------------------------------
# The function ``train_on_devices`` is the same in all setups.
def main(argv):
    """Train in all setups; return {setup: [results of each process]}."""
    settings = parse_flags(argv)
    count = jax.device_count() if settings.cluster else settings.num_devices
    sizes = 16 * count, settings.num_steps
    everything = partial(train_on_devices, SOLVERS, *sizes, sharded=(False, True))
    if settings.cluster:
        results = everything()
        setups = {f"{jax.process_count()} processes": [results]}
    else:
        run = partial(run_in_processes, timeout=settings.timeout)
        armijo = partial(train_on_devices, ["Armijo"], *sizes)
        [results] = run(everything, 1, count)
        setups = {"1 device": run(armijo, 1, 1), f"{count} devices": [results]}
        host = socket.gethostname()
        if not is_loopback(host):
            print(f"{host} is not a loopback address: all is in one process.\n")
        for number in [2, count] if is_loopback(host) else []:
            if count % number == 0:
                setups[f"{number} processes"] = run(armijo, number, count // number)
    if jax.process_index() == 0:
        print_traffic(results, setups)
        plot_costs(results)
    return setups


# %%
# On a cluster with SLURM, type ``srun --nodes=2 python plot_devices_and_hosts.py
# --cluster`` [1]_. JAX finds all processes. Use a network that you trust.
if __name__ == "__main__" and parse_flags(ARGV).cluster:
    try:
        jax.distributed.initialize()  # before JAX starts
    except (RuntimeError, ValueError) as error:
        sys.exit(f"No cluster is found. Start with srun or mpirun: {error!r:.200}")

# %%
if __name__ == "__main__":
    run_main(main, ARGV)

# %%
# Discussion
# ----------
# **Leave communication to** ``jit``. Let ``local_loss`` be the loss of a device's own
# images. In ``jax.shard_map``, no error comes from ``value, grad = jax.lax.pmean(
# jax.value_and_grad(local_loss)(params), "devices")``. But JAX has added up gradients
# already, so 10 steps of Armijo end at a loss of 4.0, not 0.25. With
# ``check_vma=False``, it is 0.25. If each device searches its own loss: 0.2 to 2.0.
#
# **A limitation:** times come from a formula. The page did not run on several machines.
#
# **Next:** :doc:`Can a killed run go on? <plot_resume>` Devices can also split
# :doc:`a sweep of step sizes <plot_stepsize_sensitivity>`. Or try ``--num_devices=8``.
#
# .. rubric:: References
#
# .. [1] JAX, `Multi-process <https://docs.jax.dev/en/latest/multi_process.html>`__.
