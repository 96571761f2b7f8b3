# SPDX-License-Identifier: Apache-2.0
# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = ["absl-py", "cloudpickle", "flax>=0.10.1", "importlib_resources",
#   "jax>=0.8", "matplotlib>=3.8.4", "numpy", "optax>=0.2.5",
#   "orbax-checkpoint>=0.11.20", "requests", "tensorflow-datasets",
#   "tensorflow-cpu; platform_machine == 'x86_64'",
#   "tensorflow; platform_machine != 'x86_64'"]
# ///
"""
Can a killed run go on as if nothing had happened?
==================================================
Several processes train together. If one is killed, all stop. Can a new run go on from a
*checkpoint*, a copy on disk, and reach the same parameters, bit for bit? Five solvers
train a small model on Fashion-MNIST. One of two processes is killed after 37 of 60
steps. New runs go on from the checkpoint of step 30. Solvers differ:

- :func:`SGD <optax.sgd>` and :func:`Polyak <optax.polyak_sgd>` remember nothing of
  earlier steps;
- :func:`Armijo <optax.scale_by_backtracking_linesearch>` remembers its step size;
- :func:`MoMo <optax.contrib.momo>` and :func:`Adam <optax.adam>` remember averages over
  earlier steps.

.. admonition:: In short

   - **A resumed run ends with the same bits.** For all five solvers, parameters and
     state after 60 steps are those of a run that was never killed.
   - **One process can go on for two.** After two processes with one device each, one
     process with two devices ends with the same bits.
   - **Save the state of the solver, too.** Without it, MoMo's loss is up to 0.7 higher
     (other seeds: 0.4 to 2.0), and Adam's up to 0.16 (0.03 to 0.4). Armijo's changes by
     less than 0.1, and SGD's and Polyak's not at all.

The model is small and runs on CPUs. Another number of devices, or one process in place
of four, can change the last digits.

**Figure:** training loss of a run that went on without the states of its solvers, minus
that of a run that went on with them.
"""

# %%
# Imports
# -------
# ``uv run`` installs the packages that the first lines of the script list.
import hashlib
import os
import shutil
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from functools import partial
from tempfile import TemporaryDirectory

import cloudpickle
import flax.linen as nn
import jax
import matplotlib.pyplot as plt
import numpy as np
import optax
import orbax.checkpoint as ocp
import requests
import tensorflow_datasets as tfds
from absl import flags

# %%
# Solvers
# -------
# Armijo's step sizes are at most 1. A step must achieve half of the predicted decrease.
SEARCH = optax.scale_by_backtracking_linesearch(30, slope_rtol=0.5)
SOLVERS = {
    "Polyak": optax.polyak_sgd(max_learning_rate=1.0),
    "SGD": optax.sgd(0.1),
    "Armijo": optax.chain(optax.sgd(1.0), SEARCH),  # a search scales the step
    "MoMo": optax.contrib.momo(1.0),
    "Adam": optax.adam(0.01),
}


# %%
# One step of all solvers
# -----------------------
# All solvers train at the same time, each with its own parameters and state. After the
# step, ``sample``, the first 1,000 images, gives the losses.
def step_all(pairs, minibatch, sample):
    """Return the pair (parameters, state) of each solver after a step, and losses."""
    pairs = {name: take_step(SOLVERS[name], *pairs[name], *minibatch) for name in pairs}
    return pairs, [average_loss(pairs[name][0], *sample) for name in SOLVERS]


def take_step(solver, params, state, images, labels):
    """Return the parameters and the state after a step on a minibatch."""
    loss = partial(average_loss, images=images, labels=labels)
    value, grad = jax.value_and_grad(loss)(params)
    extra = {"value": value, "grad": grad, "value_fn": loss}
    updates, state = solver.update(grad, state, params, **extra)
    return optax.apply_updates(params, updates), state


# %%
# A loop that resumes
# -------------------
# To go on, a run needs three things: the parameters, the states of the solvers, and its
# place in the data. Here, the place is the number of the checkpoint, because the number
# of a step is the seed of its minibatch. Each device gets some of the rows.
def draw_rows(images, labels, number):
    """Return the minibatch of a step, split over the devices of all processes."""
    mesh = jax.sharding.Mesh(jax.devices(), ("devices",))
    split = jax.NamedSharding(mesh, jax.P("devices"))
    rows = np.random.default_rng(number).integers(len(labels), size=64)
    return jax.device_put((images[rows], labels[rows]), split)


# %%
# Orbax [1]_ saves after steps 1, 10, 20, ... A SIGTERM to one of several processes
# makes all save the same step and stop. The last process dies after ``kill_at`` steps.
SAVING = ocp.CheckpointManagerOptions(
    save_interval_steps=10, enable_async_checkpointing=False
)


def go_on(images, labels, num_steps, folder, kill_at=None, forget=False):
    """Go on from the last checkpoint in ``folder``; return the results of this run."""
    mesh = jax.sharding.Mesh(jax.devices(), ("devices",))
    start = jax.jit(start_all, out_shardings=jax.NamedSharding(mesh, jax.P()))()
    sample, losses = (images[:1_000], labels[:1_000]), []
    lowered = jax.jit(step_all).lower(start, draw_rows(images, labels, 0), sample)
    step = lowered.compile()  # once: jit would compile again, as types of states change
    with ocp.CheckpointManager(folder, options=SAVING) as manager:
        done = manager.latest_step() or 0
        template = ocp.args.StandardRestore(start)
        pairs = manager.restore(done, args=template) if done else start
        if forget:  # the states of the solvers
            pairs = {name: (pairs[name][0], start[name][1]) for name in pairs}
        for number in range(done, num_steps):
            if number == kill_at and jax.process_index() == jax.process_count() - 1:
                os.kill(os.getpid(), 9)  # SIGKILL, as by kill -9
            pairs, new = step(pairs, draw_rows(images, labels, number), sample)
            losses.append(np.array(new))
            manager.save(number + 1, args=ocp.args.StandardSave(pairs))
            if manager.reached_preemption(number + 1):
                break
    return {"first": done, "losses": np.array(losses), "digests": digest_all(pairs)}


# %%
# Processes
# ---------
# Each run has child processes (0.5 GB each). They end with this process. :doc:`What
# do step-size rules send over the network? <plot_devices_and_hosts>` explains the code.
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
# If a child fails or takes too long, ``write_end`` closes first, and all children end.
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
# Model and loss
# --------------
# The network has one hidden layer of 32 units, and 6,634 parameters.
NETWORK = nn.Sequential((nn.Dense(32), nn.relu, nn.Dense(10)))


def average_loss(params, images, labels):
    """Return the mean cross-entropy of a minibatch."""
    logits = NETWORK.apply(params, images)
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def digest_all(pairs):
    """Return a digest of each solver's parameters and state: equal for equal bits."""
    digests = {}
    for name in SOLVERS:
        bits = b"".join(np.ravel(leaf) for leaf in jax.tree.leaves(pairs[name]))
        digests[name] = hashlib.sha256(bits).hexdigest()[:8]
    return digests


def start_all():
    """Return initial parameters, the same for all solvers, and the state of each."""
    params = NETWORK.init(jax.random.key(0), np.zeros((1, 196)))
    return {name: (params, solver.init(params)) for name, solver in SOLVERS.items()}


# %%
# Data
# ----
# The data are 10,000 images of Fashion-MNIST, shrunk from 28x28 to 14x14 pixels.
REMEDY = "Delete this folder and run again with the internet, or set TFDS_DATA_DIR."


def load(dataset, split, size):
    """Return images and labels of the first ``size`` of a split, and its info."""
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # no TensorFlow message
    try:
        builder = tfds.builder(f"{dataset}:3.*.*")
        if not builder.data_path.exists():
            for url in builder.url_infos:  # fails fast if a host is down
                requests.head(url, timeout=5).raise_for_status()
            builder.download_and_prepare()
        config = tfds.ReadConfig(try_autocache=False)  # no warning of partial reads
        data = builder.as_dataset(split=split, read_config=config, as_supervised=True)
        return next(data.batch(size).as_numpy_iterator()), builder.info
    except Exception as error:  # each library raises errors of its own
        folder = f"{tfds.core.constants.DATA_DIR}/{dataset}"
        sys.exit(f"{folder} cannot be read or made: {error!r:.200}\n{REMEDY}")


def shrink(images):
    """Return the means of 2x2 pixels, as float32 (images, 196), from 0 to 1."""
    squares = images.reshape(-1, 14, 2, 14, 2)
    means = squares.mean(axis=(2, 4), dtype=np.float32)
    return means.reshape(-1, 196) / 255


# %%
# Settings
# --------
# Flags change the settings, as in ``--num_steps=100``, and ``--help`` lists all flags.
def parse_flags(argv):
    """Return the settings in ``argv``; exit with one line if one of them is wrong."""
    settings = flags.FlagValues()
    integer = partial(flags.DEFINE_integer, flag_values=settings)
    choices = ["2", "4", "8"]  # even, so that half as many processes can go on
    flags.DEFINE_enum("num_devices", "2", choices, "devices", flag_values=settings)
    integer("num_steps", 60, "steps of a run", 40, 1_000)
    integer("timeout", 120, "seconds that processes may take", 1, 3_600)
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
def print_digests(results):
    """Print a row for each solver, with a column for each of the ``results``."""
    print("Digests of parameters and state, equal for equal bits:")
    print("             never                by fewer     without")
    print("solver      killed     resumed   processes      states")
    print("------  ----------  ----------  ----------  ----------")
    for name in SOLVERS:
        cells = "".join(f"  {result['digests'][name]:>10}" for result in results)
        print(f"{name:6}{cells}")
    print(f"\nThe runs went on from step {results[1]['first']}.")


# %%
# Colours and dashes are the same on all pages.
STYLES = {
    "Polyak": {"color": "#0072b2", "linestyle": "-"},
    "SGD": {"color": "#cc79a7", "linestyle": ":"},
    "Armijo": {"color": "#009e73", "linestyle": "--"},
    "MoMo": {"color": "#56b4e9", "linestyle": (0, (3, 1, 1, 1))},
    "Adam": {"color": "#000000", "linestyle": (0, (1, 1))},
}


def plot_losses(first, losses, without_states):
    """Plot the difference of losses after step ``first``, a line for each solver."""
    fig, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
    steps = 1 + first + np.arange(len(losses))
    for name, row in zip(SOLVERS, (without_states - losses).T, strict=True):
        ax.plot(steps, row, label=name, lw=3, **STYLES[name])
    ax.set(xlabel="step", ylabel="loss, minus loss with states")
    fig.legend(handlelength=4, loc="outside center right")
    fig.suptitle("Training loss without the states of solvers")


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
# Five runs
# ---------
# A step gets the same minibatch in all runs, and two runs start with the first step.
def main(argv):
    """Train, kill another run, and resume it in three ways; return four results."""
    settings = parse_flags(argv)
    count = int(settings.num_devices)
    (images, labels), _ = load("fashion_mnist", "train", 10_000)
    job = partial(go_on, shrink(images), labels, settings.num_steps)
    run = partial(run_in_processes, timeout=settings.timeout)
    host = socket.gethostname()
    many, few = (count, count // 2) if is_loopback(host) else (1, 1)
    if many == 1:
        print(f"{host} is not a loopback address: all is in one process.\n")
    with TemporaryDirectory() as folder:
        [whole, *_] = run(partial(job, f"{folder}/whole"), many, count // many)
        with suppress(SystemExit):  # expected: a process is killed
            run(partial(job, f"{folder}/killed", kill_at=37), many, count // many)
        for name in ("fewer", "forgetful"):
            shutil.copytree(f"{folder}/killed", f"{folder}/{name}")
        [resumed, *_] = run(partial(job, f"{folder}/killed"), many, count // many)
        [(fewer, forgetful), *_] = run(
            lambda: [job(f"{folder}/fewer"), job(f"{folder}/forgetful", forget=True)],
            few,
            count // few,
        )
    print_digests([whole, resumed, fewer, forgetful])
    plot_losses(fewer["first"], fewer["losses"], forgetful["losses"])
    return whole, resumed, fewer, forgetful


if __name__ == "__main__":
    run_main(main, ARGV)

# %%
# Discussion
# ----------
# **A checkpoint needs all that changes between steps.** If a data pipeline has a state,
# such as a place in a shuffled list, a checkpoint needs this, too.
#
# **The order of a sum matters for the last digit.** With ``--num_devices=4``, four
# processes stop, and two go on with two devices each, to the same bits. One process
# with four devices adds up gradients in another order.
#
# **After a SIGTERM, several processes lose no step.** ``reached_preemption`` calls
# JAX's ``reached_preemption_sync_point``: all save the same step. One alone saves none.
#
# **A limitation:** the page ran on one machine. Several must share the folder. Training
# waits for each checkpoint. Orbax can also save in the background.
#
# **Next:** :doc:`What do step-size rules send over the network?
# <plot_devices_and_hosts>` counts what processes exchange. Or try ``--num_steps=100``.
#
# .. rubric:: References
#
# .. [1] Orbax, `Checkpointing <https://orbax.readthedocs.io>`__.
