"""The flagship page: flags, data, losses, step sizes, curves, log, figure."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds
from conftest import PAGE, SOLVERS, check_log, run_script

DEFAULTS = {
    "rmsprop_stepsize": 1e-3,
    "gd_stepsize": 1e-1,
    "aggressiveness": 0.9,
    "max_stepsize": 1.0,
    "maxiter": 100,
    "batch_size": 128,
    "net_width": 4,
    "dataset": "fashion_mnist",
}


# Flags


def test_defaults(page):
    assert page.parse(["page"]).flag_values_dict() == DEFAULTS


def test_a_parse_forgets_the_one_before(page):
    assert page.parse(["page", "--maxiter=6"]).maxiter == 6
    assert page.parse(["page"]).maxiter == 100


@pytest.mark.parametrize(
    "flag",
    [
        *(f"--{name}=1e-6" for name in list(DEFAULTS)[:4]),
        *(f"--{name}=1e6" for name in ("rmsprop_stepsize", "gd_stepsize")),
        "--max_stepsize=1e6",
        "--aggressiveness=0.999",
        *("--maxiter=0", "--maxiter=2000"),
        *("--batch_size=1", "--batch_size=1000"),
        *("--net_width=1", "--net_width=100"),
        *(f"--dataset={name}" for name in ("mnist", "kmnist", "emnist")),
        *(f"--dataset={name}" for name in ("fashion_mnist", "cifar10", "cifar100")),
    ],
)
def test_right_flags(page, flag):
    name, value = flag.removeprefix("--").split("=")
    setting = page.parse(["page", flag]).flag_values_dict()[name]
    assert setting == type(setting)(value)


@pytest.mark.parametrize(
    "wrong",
    [
        *(f"--{n}={x}" for n in list(DEFAULTS)[:4] for x in ("nan", "0", "-1", "inf")),
        "--max_stepsize=abc",
        *("--aggressiveness=1", "--aggressiveness=1.5"),
        *("--maxiter=-1", "--maxiter=2001", "--maxiter=abc", "--maxiter=1.5"),
        *("--batch_size=0", "--batch_size=1001", "--net_width=0", "--net_width=101"),
        *("--dataset=foo", "--maxitr=3", "--maxiter", "maxiter=3", "-f", "word"),
    ],
)
def test_wrong_flags(page, wrong, capsys):
    with pytest.raises(SystemExit) as stop:
        page.parse(["page", wrong])
    (line,) = stop.value.code.splitlines()
    assert wrong.strip("-").split("=")[0] in line
    assert "--help" in line
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("argument", ["--maxiter=abc", "--maxitr=3", "3", "--help"])
def test_the_answer_comes_before_the_slow_imports(argument):
    run = run_script("-X", "importtime", PAGE, argument)
    imports = [line for line in run.stderr.splitlines() if line.startswith("import")]
    modules = {line.rpartition("|")[2].strip() for line in imports}
    assert "absl.flags" in modules
    assert not modules & {"jax", "flax", "matplotlib", "tensorflow"}
    if argument == "--help":
        assert run.returncode == 0
        assert all(f"--{name}:" in run.stdout for name in DEFAULTS)
    else:
        assert run.returncode == 1
        assert run.stdout == ""
        assert len(run.stderr.splitlines()) == len(imports) + 1


def test_importing_does_nothing():
    code = f"""
import importlib.util, sys
from absl import flags
import flax.linen, jax, jaxopt, matplotlib, optax, tensorflow_datasets
import matplotlib.pyplot as plt

def state():
    config = dict(jax.config.values)
    return list(flags.FLAGS), dict(matplotlib.rcParams), config, plt.get_fignums()

before = state()
spec = importlib.util.spec_from_file_location("page", {str(PAGE)!r})
spec.loader.exec_module(importlib.util.module_from_spec(spec))
assert state() == before
assert "tensorflow" not in sys.modules
"""
    run = run_script("-W", "error", "-W", "ignore::DeprecationWarning", "-c", code)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


# Data and model


def settings_of(page, *flags):
    return page.parse(["page", "--batch_size=32", "--maxiter=5", *flags])


@pytest.fixture(scope="module")
def problem(page):
    """Minibatches, network, initial parameters, solvers: as ``main`` makes them."""
    settings = settings_of(page)
    minibatches, num_classes = page.draw_minibatches(settings)
    net = page.make_net(settings.net_width, num_classes)
    params = jax.jit(net.init)(jax.random.key(0), minibatches[0][0] / 255)
    solvers = page.make_solvers(partial(page.loss_fun, net), settings)
    return minibatches, params, {name: solver for name, (_, solver) in solvers.items()}


def test_minibatches(page):
    settings = settings_of(page)
    minibatches, num_classes = page.draw_minibatches(settings)
    again, _ = page.draw_minibatches(settings)
    assert num_classes == 10
    assert len(minibatches) == len(again) == 7
    for (images, labels), (same_images, same_labels) in zip(
        minibatches, again, strict=True
    ):
        assert images.shape == (32, 28, 28, 1) and images.dtype == np.uint8
        assert labels.shape == (32,) and labels.dtype == np.int64
        assert np.array_equal(images, same_images)
        assert np.array_equal(labels, same_labels)


def test_minibatches_are_shuffled_with_a_buffer_of_ten(page):
    """The first minibatch can hold what stood in the eleventh, but nothing later."""
    minibatches, _ = page.draw_minibatches(settings_of(page))
    ordered = tfds.load("fashion_mnist", split="train", as_supervised=True)
    first = {image.tobytes() for image in minibatches[0][0]}
    places = [
        place
        for place, (image, _) in enumerate(tfds.as_numpy(ordered.take(400)))
        if image.tobytes() in first
    ]
    assert len(places) == 32
    assert 8 * 32 < max(places) < 11 * 32


def test_more_minibatches_than_an_epoch_has(page):
    minibatches, _ = page.draw_minibatches(
        page.parse(["page", "--batch_size=1000", "--maxiter=3"])
    )
    assert [len(labels) for _, labels in minibatches] == [1000] * 5


def test_number_of_parameters(page):
    net = page.make_net(4, 10)
    params = net.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 6794
    assert "6,794" in PAGE.read_text()


@pytest.mark.parametrize(
    "dataset, shape, num_classes",
    [
        *((name, (28, 28, 1), 10) for name in ("mnist", "kmnist", "fashion_mnist")),
        ("emnist", (28, 28, 1), 62),
        ("cifar10", (32, 32, 3), 10),
        ("cifar100", (32, 32, 3), 100),
    ],
)
def test_every_data_set(page, dataset, shape, num_classes):
    with tfds.testing.mock_data(num_examples=16):
        minibatches, classes = page.draw_minibatches(
            settings_of(page, f"--dataset={dataset}", "--batch_size=8")
        )
    images, labels = minibatches[0]
    assert (images.shape, classes) == ((8, *shape), num_classes)
    net = page.make_net(4, classes)
    params = jax.jit(net.init)(jax.random.key(0), images / 255)
    loss, _ = jax.jit(partial(page.loss_fun, net))(params, images, labels)
    assert loss == pytest.approx(np.log(num_classes), rel=0.3)


def test_a_run_on_many_classes_in_colour(run_page):
    with tfds.testing.mock_data(num_examples=16):
        run = run_page("--dataset=cifar100", "--batch_size=8", "--maxiter=1")
    assert run.figure.get_suptitle() == "Classification on cifar100"
    assert all(np.all(losses > 0) for losses, _ in run.curves.values())


# Losses and step sizes


def independent_loss(params, images, labels):
    """The loss written out: products, sums and the definition of the log loss."""
    params = params["params"]

    def conv(x, layer):
        padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        windows = [
            padded[:, i : i + x.shape[1], j : j + x.shape[2]] @ layer["kernel"][i, j]
            for i in range(3)
            for j in range(3)
        ]
        x = jnp.maximum(sum(windows) + layer["bias"], 0)
        return sum(x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)) / 4

    layers = sorted(params.values(), key=lambda layer: layer["kernel"].size)
    convs = [layer for layer in layers if layer["kernel"].ndim == 4]
    final, hidden = [layer for layer in layers if layer["kernel"].ndim == 2]
    x = jnp.asarray(images, jnp.float32) / 255
    for layer in convs:
        x = conv(x, layer)
    x = jnp.maximum(x.reshape(len(x), -1) @ hidden["kernel"] + hidden["bias"], 0)
    logits = x @ final["kernel"] + final["bias"]
    picked = logits[jnp.arange(len(labels)), labels]
    return jnp.mean(jnp.log(jnp.sum(jnp.exp(logits), 1)) - picked)


@pytest.mark.parametrize("name", SOLVERS)
def test_losses_and_errors_are_from_before_the_update(page, problem, name):
    minibatches, params, solvers = problem
    losses, _ = page.train(name, solvers[name], params, minibatches)
    update = jax.jit(solvers[name].update)
    state = solvers[name].init_state(params, *minibatches[0])
    for loss, minibatch in zip(losses, minibatches[1:], strict=True):
        expected, gradient = jax.value_and_grad(independent_loss)(params, *minibatch)
        squares = sum(jnp.sum(g**2) for g in jax.tree.leaves(gradient))
        params, state = update(params, state, *minibatch)
        assert loss == pytest.approx(float(expected), rel=1e-5)
        assert state.error == pytest.approx(float(squares) ** 0.5, rel=1e-4)


@pytest.mark.parametrize("cap", [0.05, 20.0])
@pytest.mark.parametrize("name", SOLVERS[:2])
def test_step_sizes_are_positive_and_capped(page, problem, name, cap):
    minibatches, params, solvers = problem
    settings = settings_of(page, f"--max_stepsize={cap}")
    _, solver = page.make_solvers(solvers[name].fun, settings)[name]
    _, stepsizes = page.train(name, solver, params, minibatches)
    assert np.all(stepsizes > 0) and np.all(stepsizes <= np.float32(cap))


def quadratic(curvature):
    """A loss curvature * norm(x)^2 / 2 that looks at no data."""

    def fun(x, images, labels):
        loss = curvature * jnp.sum(x**2) / 2
        return loss, loss

    return fun


@pytest.mark.parametrize(
    "cap, stepsize, after", [(1.0, 0.5, [1.5, 2.0]), (0.1, 0.1, [2.7, 3.6])]
)
def test_a_polyak_step_by_hand(page, cap, stepsize, after):
    """At (3, 4) loss / norm(gradient)^2 is 12.5 / 25."""
    settings = settings_of(page, f"--max_stepsize={cap}")
    _, solver = page.make_solvers(quadratic(1.0), settings)["Polyak SGD"]
    x = jnp.array([3.0, 4.0])
    x, state = solver.update(x, solver.init_state(x, None, None), None, None)
    assert state.stepsize == pytest.approx(stepsize)
    assert x == pytest.approx(np.array(after))


def test_an_armijo_step_by_hand(page):
    """With curvature 4 a step s is accepted if (1 - 4 s)^2 <= 1 - 0.8 s: s <= 0.45.

    Shrunk by 0.8 from 1, that is 0.8^4 = 0.4096, and too long for Goldstein to grow.
    """
    _, solver = page.make_solvers(quadratic(4.0), settings_of(page))["Armijo SGD"]
    x = jnp.array([1.0, -2.0])
    _, state = solver.update(x, solver.init_state(x, None, None), None, None)
    assert state.stepsize == pytest.approx(0.8**4)


def test_every_armijo_step_satisfies_its_condition(page, problem):
    minibatches, params, solvers = problem
    solver = solvers["Armijo SGD"]
    update = jax.jit(solver.update)
    state = solver.init_state(params, *minibatches[0])
    for minibatch in minibatches[1:]:
        loss = independent_loss(params, *minibatch)
        params, state = update(params, state, *minibatch)
        decrease = (1 - 0.9) * state.stepsize * state.error**2
        assert independent_loss(params, *minibatch) <= loss - decrease + 1e-5


def test_solvers_have_the_settings(page):
    flags = ["--max_stepsize=2", "--aggressiveness=0.7"]
    flags += ["--rmsprop_stepsize=0.0003", "--gd_stepsize=0.25"]
    solvers = page.make_solvers(quadratic(1.0), page.parse(["page", *flags]))
    assert list(solvers) == SOLVERS
    assert [label for label, _ in solvers.values()] == [
        "Polyak max_stepsize=2.0",
        "Armijo aggressiveness=0.7",
        "RMSProp stepsize=0.0003",
        "SGD stepsize=0.250",
    ]
    polyak, armijo, rmsprop, sgd = (solver for _, solver in solvers.values())
    assert polyak.max_stepsize == armijo.max_stepsize == 2
    assert polyak.momentum == armijo.momentum == 0
    assert (armijo.aggressiveness, armijo.maxls) == (0.7, 20)
    assert armijo.reset_option == "goldstein"
    x = jnp.array([2.0])
    step, _ = sgd.update(x, sgd.init_state(x, None, None), None, None)
    assert step == pytest.approx(2 - 0.25 * 2)
    step, _ = rmsprop.update(x, rmsprop.init_state(x, None, None), None, None)
    assert step == pytest.approx(2 - 0.0003 / np.sqrt(0.1), abs=1e-6)


def test_a_repeat_is_the_same_to_the_bit(page, problem):
    minibatches, params, solvers = problem
    for name, solver in solvers.items():
        once = page.train(name, solver, params, minibatches)
        again = page.train(name, solver, params, minibatches)
        assert np.array_equal(once, again, equal_nan=True)


# Curves, log and figure


@pytest.mark.parametrize("length", range(1, 11))
def test_moving_average(page, length):
    random = np.random.default_rng(length).normal(size=length)
    smooth = page.moving_average(random)
    assert len(smooth) == length
    for i, value in enumerate(smooth):
        reach = min(2, i, length - 1 - i)
        assert value == pytest.approx(random[i - reach : i + reach + 1].mean())
    # Only means that are centred leave a straight line as it is.
    assert page.moving_average(np.arange(length)) == pytest.approx(np.arange(length))


@pytest.mark.parametrize("maxiter", [0, 3])
def test_curves_of_a_short_run(page, run_page, maxiter):
    run = run_page("--batch_size=32", f"--maxiter={maxiter}")
    above, below = run.figure.axes
    for i, (label, (losses, stepsizes)) in enumerate(run.curves.items()):
        assert len(losses) == len(stepsizes) == maxiter + 1
        assert below.lines[i].get_label() == label
        assert np.array_equal(below.lines[i].get_xdata(), range(maxiter + 1))
        assert np.array_equal(below.lines[i].get_ydata(), page.moving_average(losses))
        assert np.array_equal(above.lines[i].get_ydata(), stepsizes, equal_nan=True)


@pytest.fixture(scope="module")
def default_run(run_page):
    return run_page()


def test_log(default_run):
    check_log(default_run.log)


def test_every_solver_starts_from_the_same_loss(default_run):
    assert len({losses[0] for losses, _ in default_run.curves.values()}) == 1


def test_figure(default_run):
    figure = default_run.figure
    above, below = figure.axes
    assert figure.get_size_inches()[0] <= 7.2
    assert figure.get_suptitle() == "Classification on fashion_mnist"
    assert above.get_yscale() == below.get_yscale() == "log"
    assert above.get_shared_x_axes().joined(above, below)
    assert [below.get_xlabel(), below.get_ylabel()] == ["iteration", "training loss"]
    assert above.get_ylabel() == "step size"
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "Polyak max_stepsize=1.0",
        "Armijo aggressiveness=0.9",
        "RMSProp stepsize=0.001",
        "SGD stepsize=0.100",
    ]
    for get in ("get_color", "get_linestyle"):
        styles = [getattr(line, get)() for line in below.lines]
        assert len(set(styles)) == 4
        assert [getattr(line, get)() for line in above.lines] == styles


# What the page says of its own numbers, on the real data


@pytest.fixture(scope="module")
def real_curves(tmp_path_factory):
    """Losses and step sizes at the defaults, and of RMSProp at the step size to try."""
    file = tmp_path_factory.mktemp("curves") / "curves.npz"
    code = f"""
import importlib.util, numpy
spec = importlib.util.spec_from_file_location("page", {str(PAGE)!r})
page = importlib.util.module_from_spec(spec)
spec.loader.exec_module(page)
curves = page.main(["page"]) | page.main(["page", "--rmsprop_stepsize=0.01"])
numpy.savez({str(file)!r}, **curves)
"""
    run = run_script("-c", code)
    assert run.returncode == 0, run.stderr
    return dict(np.load(file))


# A rounding error grows large within a hundred iterations. The margins also held with
# other roundings of the initial parameters, and with other initial parameters.


def test_losses(real_curves):
    """Near 2.3 = log(10) at first, the same for all, and well below at last."""
    first = {losses[0] for losses, _ in real_curves.values()}
    assert len(real_curves) == 5
    assert len(first) == 1
    assert first.pop() == pytest.approx(2.3, abs=0.05)
    assert all(losses[-20:].mean() < 1.4 for losses, _ in real_curves.values())


def test_the_line_search_is_fastest_at_first_and_all_are_close_at_last(real_curves):
    four = {k: v for k, v in real_curves.items() if k != "RMSProp stepsize=0.01"}
    middle = {label: losses[20:40].mean() for label, (losses, _) in four.items()}
    assert middle.pop("Armijo aggressiveness=0.9") < min(middle.values()) - 0.2
    ends = [losses[-20:].mean() for losses, _ in four.values()]
    assert max(ends) < min(ends) + 0.25


def test_the_line_search_stays_below_a_tenth(real_curves):
    _, stepsizes = real_curves["Armijo aggressiveness=0.9"]
    assert np.all(stepsizes[20:] < 0.1)


def test_polyak_step_sizes_vary_more_than_tenfold(real_curves):
    _, stepsizes = real_curves["Polyak max_stepsize=1.0"]
    assert stepsizes[20:].max() > 10 * stepsizes[20:].min()


def test_tuned_rmsprop_ends_lowest(real_curves):
    ends = {label: losses[-20:].mean() for label, (losses, _) in real_curves.items()}
    assert ends.pop("RMSProp stepsize=0.01") < min(ends.values()) - 0.1
