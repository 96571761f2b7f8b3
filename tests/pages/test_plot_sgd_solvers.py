"""The flagship page: data, losses, step sizes, curves, log, figure, what is said."""

import contextlib
import io
import os
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import optax
import pytest
import tensorflow_datasets as tfds

from environment import CAME
from helpers import PAGE, SOLVERS, Linear, plotted, printed, without_times
from old_loop import PlainCNN

# Data and model


def settings_of(page, *flags):
    return page.parse(["page", "--batch_size=32", "--maxiter=5", *flags])


def draw(page, seed=0, flags=()):
    settings = settings_of(page, *flags)
    (examples,), _ = page.load(settings.dataset, "train")
    return page.draw_minibatches(examples, settings, seed)


@pytest.fixture(scope="module")
def problem(page):
    """Count, minibatches, initial parameters, solvers: as ``main`` makes them.

    But of a linear network, whose steps are compiled at once.
    """
    settings = settings_of(page)
    minibatches = draw(page)
    net, count = Linear(1, 10), jax.new_ref(0)
    params = net.init(jax.random.key(0), minibatches[0][0])
    solvers = page.make_solvers(partial(page.loss_fun, net, count), settings)
    solvers = {name: solver for name, (_, solver) in solvers.items()}
    return count, minibatches, params, solvers


def test_load(page):
    (train, test), info = page.load("fashion_mnist", "train", "test")
    assert info.features["label"].num_classes == 10
    assert (len(train), len(test)) == (1_600, 310)
    images, labels = next(test.batch(60).as_numpy_iterator())
    assert (images.shape, images.dtype) == ((60, 28, 28, 1), np.uint8)
    assert (labels.shape, labels.dtype) == ((60,), np.int64)


def test_minibatches(page):
    minibatches, again = draw(page), draw(page)
    assert len(minibatches) == len(again) == 7
    for (images, labels), (same_images, same_labels) in zip(
        minibatches, again, strict=True
    ):
        assert images.shape == (32, 28, 28, 1) and images.dtype == np.uint8
        assert labels.shape == (32,) and labels.dtype == np.int64
        assert np.array_equal(images, same_images)
        assert np.array_equal(labels, same_labels)


def test_each_seed_has_an_order_of_its_own(page):
    orders = [draw(page, seed) for seed in range(3)]
    firsts = {minibatches[0][0].tobytes() for minibatches in orders}
    assert len(firsts) == 3


def test_minibatches_are_shuffled_with_a_buffer_of_ten(page):
    """The first minibatch can hold what stood in the eleventh, but nothing later."""
    minibatches = draw(page)
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
    minibatches = draw(page, flags=["--batch_size=1000", "--maxiter=3"])
    assert [len(labels) for _, labels in minibatches] == [1000] * 5


def test_number_of_parameters(page):
    images = jnp.zeros((1, 28, 28, 1))
    params = jax.eval_shape(page.CNN(4, 10).init, jax.random.key(0), images)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 6794
    assert "6,794" in PAGE.read_text()


@contextlib.contextmanager
def mock_data():
    """All data sets are there, with random images, and have nothing to download."""
    with (
        tfds.testing.mock_data(num_examples=16),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(tfds.core.DatasetBuilder, "url_infos", {})
        yield


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
    with mock_data():
        settings = settings_of(page, f"--dataset={dataset}", "--batch_size=8")
        (examples, test), info = page.load(dataset, "train", "test")
        minibatches = page.draw_minibatches(examples, settings, 0)
    images, _ = minibatches[0]
    assert images.shape == (8, *shape)
    assert info.features["label"].num_classes == num_classes
    assert next(test.batch(16).as_numpy_iterator())[0].shape == (16, *shape)
    net = page.CNN(4, num_classes)
    logits, _ = jax.eval_shape(net.init_with_output, jax.random.key(0), images)
    assert logits.shape == (8, num_classes)


def test_a_run_on_many_classes_in_colour(page, run_page, monkeypatch):
    """With one solver, since none looks at images."""
    make = page.make_solvers
    monkeypatch.setattr(page, "make_solvers", lambda *x: {"SGD": make(*x)["SGD"]})
    flags = "--dataset=cifar100", "--batch_size=8", "--maxiter=1", "--num_seeds=2"
    with mock_data():
        run = run_page(*flags)
    assert run.figure.get_suptitle() == "Classification on cifar100"
    (logs,) = run.curves.values()
    assert logs.shape == (2, 2, 3)
    assert logs[:, 0, 1] == pytest.approx(np.log(100), rel=0.3)


# Losses and step sizes


def plain_params(params, size=7):
    """The page's parameters as ``PlainCNN`` has them: shaped and ordered its way."""
    page = params["params"]
    plain = {"Dense_1": page["Dense_1"]}
    for i in (0, 1):
        kernel, bias = page[f"Einsum_{i}"]["kernel"], page[f"Einsum_{i}"]["bias"]
        kernel = kernel.reshape(3, 3, -1, len(bias))
        plain[f"Conv_{i}"] = {"kernel": kernel, "bias": bias}
    kernel, bias = page["Dense_0"]["kernel"], page["Dense_0"]["bias"]
    kernel = kernel.reshape(-1, size, size, len(bias)).transpose(2, 1, 0, 3)
    kernel = kernel.reshape(-1, len(bias))
    plain["Dense_0"] = {"kernel": kernel, "bias": bias}
    return {"params": plain}


def plain_loss(params, images, labels, net=None):
    """The loss by ``PlainCNN`` and the definition of the multiclass logistic loss."""
    net = net or PlainCNN(4, 10)
    logits = net.apply(plain_params(params, images.shape[1] // 4), images)
    picked = logits[jnp.arange(len(labels)), labels]
    return jnp.mean(jnp.log(jnp.sum(jnp.exp(logits), 1)) - picked)


def drawn_params(net, images):
    """Return parameters of the variance of initial ones, biases not zero."""
    random = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: np.float32(random.normal(0, len(leaf) ** -0.5, leaf.shape)),
        jax.eval_shape(net.init, jax.random.key(0), images),
    )


@pytest.mark.parametrize("width, shape", [(4, (28, 28, 1)), (3, (32, 32, 3))])
def test_the_network_is_the_plain_one(page, width, shape):
    """Logits and gradients agree, on other widths, sizes and channels, too."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (8, *shape), np.uint8)
    labels = random.integers(0, 10, 8)
    net, plain = page.CNN(width, 10), PlainCNN(width, 10)
    params = drawn_params(net, images)
    size = shape[0] // 4
    plain_shapes = jax.eval_shape(plain.init, jax.random.key(0), images)
    shapes = (plain_params(params, size), plain_shapes)
    assert jax.tree.all(jax.tree.map(lambda x, y: x.shape == y.shape, *shapes))

    @jax.jit
    def both(params):
        fun = partial(page.loss_fun, net, jax.new_ref(0))
        gradient, _ = jax.grad(fun, has_aux=True)(params, images, labels)
        expected = jax.grad(partial(plain_loss, net=plain))(params, images, labels)
        logits = plain.apply(plain_params(params, size), images)
        return (net.apply(params, images), logits), (gradient, expected)

    logits, gradients = both(params)
    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    close(*logits)
    jax.tree.map(close, *gradients)


def test_initial_parameters_are_drawn_as_the_plain_network_draws_them(page):
    """Variances are 1 over the number of inputs of a layer; biases are zero."""
    images = jnp.zeros((1, 28, 28, 1))
    params = jax.jit(page.CNN(64, 10).init)(jax.random.key(0), images)["params"]
    assert len(params) == 4
    for layer in params.values():
        variance = 1 / len(layer["kernel"])
        assert np.var(layer["kernel"]) == pytest.approx(variance, rel=0.2)
        assert np.all(layer["bias"] == 0)


@pytest.fixture(scope="module")
def fun(page):
    return partial(page.loss_fun, page.CNN(4, 10), jax.new_ref(0))


@pytest.fixture(scope="module")
def judge(fun):
    """Return a function of parameters and a minibatch, in double precision.

    It returns the plain loss, the norm of its gradient, and how far from that the
    gradient on the page is, relative to it.
    """

    @jax.jit
    def compute(params, images, labels):
        gradient, _ = jax.grad(fun, has_aux=True)(params, images, labels)
        loss, expected = jax.value_and_grad(plain_loss)(params, images, labels)
        apart = jax.tree.map(jnp.subtract, gradient, expected)
        norm = optax.tree.norm(expected)
        return loss, norm, optax.tree.norm(apart) / norm

    def judge(params, *minibatch):
        with jax.enable_x64(True):
            return map(float, compute(jax.tree.map(np.float64, params), *minibatch))

    return judge


@pytest.fixture(scope="module")
def trajectory(page):
    """Return where a trajectory starts: initial parameters and 42 minibatches."""
    minibatches = draw(page, flags=["--maxiter=40"])
    # A third of the labels is wrong, lest losses shrink to the size of their rounding.
    random = np.random.default_rng(0)
    for _, labels in minibatches:
        labels[::3] = random.integers(0, 10, len(labels[::3]))
    return drawn_params(page.CNN(4, 10), minibatches[0][0]), minibatches


@contextlib.contextmanager
def updates_of(solver):
    """Yield the list of what its jitted updates take and return from now on."""
    jit, seen = jax.jit, []

    def watched(fun, **options):
        compiled = jit(fun, **options)

        def update(*arguments):
            seen.append((arguments, compiled(*arguments)))
            return seen[-1][1]

        return update if fun == solver.update else compiled

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "jit", watched)
        yield seen


@pytest.mark.parametrize("name", SOLVERS)
def test_every_step_along_a_trajectory(page, fun, judge, trajectory, name):
    """Losses, gradients and errors are the plain network's, before the update.

    Two free runs cannot be compared, because rounding errors grow from step to step.
    Gradients are compared in double precision: in single, a rounding error can put a
    unit on the other side of its ReLU's kink, and the gradient jumps.
    """
    now, minibatches = trajectory
    _, solver = page.make_solvers(fun, settings_of(page))[name]
    with updates_of(solver) as updates:
        (log,), (end,), _ = page.train(solver, jax.new_ref(0), [trajectory])
    # The first update warms up.
    assert len(log) == len(updates) - 1 == 41
    for step, (error, loss, stepsize) in enumerate(log, 1):
        (params, _, *minibatch), (after, state) = updates[step]
        assert all(map(np.array_equal, minibatch, minibatches[step]))
        assert jax.tree.all(jax.tree.map(np.array_equal, params, now))
        expected, norm, apart = judge(params, *minibatch)
        assert loss == pytest.approx(expected, rel=1e-5)
        assert error == pytest.approx(norm, rel=1e-4)
        assert apart <= 1e-4
        expected = float(getattr(state, "stepsize", np.nan))
        assert stepsize == pytest.approx(expected, nan_ok=True)
        now = after
    assert jax.tree.all(jax.tree.map(np.array_equal, end, now))


@pytest.mark.parametrize("cap", [0.05, 20.0])
@pytest.mark.parametrize("name", SOLVERS[:2])
def test_step_sizes_are_positive_and_capped(page, problem, name, cap):
    count, minibatches, params, solvers = problem
    settings = settings_of(page, f"--max_stepsize={cap}")
    _, solver = page.make_solvers(solvers[name].fun, settings)[name]
    (log,), _, _ = page.train(solver, count, [(params, minibatches)])
    stepsizes = log[:, 2]
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


def linear_loss(params, images, labels):
    """The loss of a linear network, by numpy."""
    layer = jax.tree.map(np.float64, params["params"]["Dense_0"])
    logits = images.reshape(len(images), -1) / 255 @ layer["kernel"] + layer["bias"]
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return -np.log(shares[range(len(labels)), labels]).mean()


def test_every_armijo_step_satisfies_its_condition(page, problem):
    _, minibatches, params, solvers = problem
    solver = solvers["Armijo SGD"]
    update = jax.jit(solver.update)
    state = solver.init_state(params, *minibatches[0])
    for minibatch in minibatches[1:]:
        loss = linear_loss(params, *minibatch)
        params, state = update(params, state, *minibatch)
        decrease = (1 - 0.9) * state.stepsize * state.error**2
        assert linear_loss(params, *minibatch) <= loss - decrease + 1e-5


def test_evaluations_by_hand(page):
    """The step of 0.8^4 was the fifth tried, and was tried again at each later step."""
    count = jax.new_ref(0)

    def counted(*args):
        count[...] += 1
        return quadratic(4.0)(*args)

    solvers = page.make_solvers(counted, settings_of(page))
    starts = [(jnp.array([1.0, -2.0]), [(None, None)] * 5)]
    evaluations = {
        name: float(page.train(solver, count, starts)[2][0, 0])
        for name, (_, solver) in solvers.items()
    }
    first, later = 1 + 5, 1 + 1
    armijo = (first + 3 * later) / 4
    assert evaluations == dict(zip(SOLVERS, [1, armijo, 1, 1], strict=True))


def test_evaluations_are_those_of_the_function(page, problem):
    """A callback that sees each evaluation where it happens counts as many."""
    _, minibatches, params, solvers = problem
    seen = []

    def watched(*args):
        jax.debug.callback(lambda: seen.append(None))
        return solvers["Armijo SGD"].fun(*args)

    _, solver = page.make_solvers(watched, settings_of(page))["Armijo SGD"]
    state = solver.init_state(params, *minibatches[0])
    update, end = jax.jit(solver.update), params
    jax.effects_barrier()
    seen.clear()
    for minibatch in minibatches[1:]:
        end, state = update(end, state, *minibatch)
    jax.block_until_ready(end)
    jax.effects_barrier()
    count, minibatches, params, solvers = problem
    run = page.train(solvers["Armijo SGD"], count, [(params, minibatches)])
    assert run[2][0, 0] == len(seen) / 6
    assert len(seen) > 12


def test_accuracy(page):
    def predict(params, images):
        return params[images[:, 0, 0, 0]]

    images = np.zeros((10, 2, 2, 1), np.uint8)
    images[:, 0, 0, 0] = range(10)
    labels = np.array([0, 1, 2, 3, 0, 0, 0, 0, 0, 0])
    minibatches = [(images[:7], labels[:7]), (images[7:], labels[7:])]
    assert page.accuracy(predict, np.eye(10), minibatches) == 0.4


def test_table(page, capsys):
    accuracies = [0.5, 0.9, 0.6]
    evaluations, seconds = np.array([2.5, 4.0, 2.8]), np.array([0.004, 0.5, 0.0061])
    page.print_table({"Armijo SGD": (accuracies, evaluations, seconds)})
    *_, row = capsys.readouterr().out.splitlines()
    assert row.split() == ["Armijo", "SGD", "0.600", "0.500", "0.900", "1.60", "6.10"]


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

    def two_steps(solver):
        x = jnp.array([2.0])
        once, state = solver.update(x, solver.init_state(x, None, None), None, None)
        twice, _ = solver.update(once, state, None, None)
        return float(once[0]), float(twice[0])

    # A second step tells of momentum.
    assert two_steps(sgd) == pytest.approx((2 * 0.75, 2 * 0.75**2))
    once = 2 - 0.0003 / np.sqrt(0.1)
    twice = once - 0.0003 * once / np.sqrt(0.9 * 0.1 * 2**2 + 0.1 * once**2)
    assert two_steps(rmsprop) == pytest.approx((once, twice), abs=3e-7)


def test_a_repeat_is_the_same_to_the_bit(page, problem):
    """From a start of its own, and as the second of two starts."""
    count, minibatches, params, solvers = problem
    other = jax.tree.map(lambda leaf: leaf / 2, params)
    start, another = (params, minibatches), (other, minibatches[::-1])
    for solver in solvers.values():
        (once,), _, (evaluations, _) = page.train(solver, count, [start])
        logs, _, (more, _) = page.train(solver, count, [another, start])
        assert np.array_equal(once, logs[1], equal_nan=True)
        assert not np.array_equal(once, logs[0], equal_nan=True)
        assert more[1] == evaluations[0]


# Curves, log and figure


@pytest.mark.parametrize(
    "seeds, length", [(1, 1), (3, 2), (2, 4), (1, 5), (3, 6), (2, 10)]
)
def test_curves(page, seeds, length):
    """Medians and bands, of step sizes and of centred means of five losses."""
    random = np.random.default_rng(length)
    names = [*SOLVERS, "a fifth"]
    curves = {name: np.exp(random.normal(size=(seeds, length, 3))) for name in names}
    curves["SGD"][..., 2] = np.nan
    page.plot_curves(curves, "title")
    figure = plt.gcf()
    plt.close(figure)
    above, below = figure.axes
    for i, logs in enumerate(curves.values()):
        ends = np.pad(logs[:, :, 1], ((0, 0), (2, 2)), mode="edge")
        losses = [ends[:, k : k + 5].mean(axis=1) for k in range(length)]
        for ax, series in ((above, logs[:, :, 2]), (below, np.transpose(losses))):
            line, band = ax.lines[i], ax.collections[i]
            assert np.array_equal(line.get_xdata(), range(length))
            median = np.median(series, axis=0)
            assert line.get_ydata() == pytest.approx(median, nan_ok=True)
            assert matplotlib.colors.same_color(
                line.get_color(), band.get_facecolor()[0][:3]
            )
            if not np.isnan(series).any():
                ((path,),) = (band.get_paths(),)
                for x in range(length):
                    here = path.vertices[path.vertices[:, 0] == x, 1]
                    assert here.min() == pytest.approx(series[:, x].min())
                    assert here.max() == pytest.approx(series[:, x].max())


def test_log_by_hand(page, capsys):
    """Every 20th step, a step size if there is one, and the time of all."""
    log = np.linspace([0, 4, 0.5], [40, 2, 0.1], 41)
    page.print_log("a", log, 0.25)
    log[:, 2] = np.nan
    page.print_log("b", log[:20], 1.0)
    assert capsys.readouterr().out.splitlines() == [
        "[a] (   0), error=0.000, loss=4.000, stepsize=0.500000",
        "[a] (  20), error=20.000, loss=3.000, stepsize=0.300000",
        "[a] (  40), error=40.000, loss=2.000, stepsize=0.100000",
        "41 iterations of a took 10.25s",
        "",
        "[b] (   0), error=0.000, loss=4.000",
        "20 iterations of b took 20.00s",
        "",
    ]


def test_a_run_of_one_step(run_page):
    run = run_page("--batch_size=32", "--maxiter=0", "--num_seeds=1")
    assert list(run.table) == SOLVERS
    for logs in run.curves.values():
        assert logs.shape == (1, 1, 3)
        assert np.all(np.isfinite(logs[..., :2]))
    assert "1 iterations of SGD took" in run.log
    above, below = run.figure.axes
    assert len(above.lines) == len(below.lines) == 4


SMALL = ["--batch_size=32", "--maxiter=20", "--net_width=2"]


@pytest.fixture(scope="module")
def three(page, run_page):
    """Return a run from three seeds, with all ``starts`` and ``ends`` of solvers."""
    train, seen = page.train, []

    def watched(solver, count, starts):
        logs, ends, costs = train(solver, count, starts)
        seen.append((starts, ends))
        return logs, ends, costs

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "train", watched)
        run = run_page(*SMALL, "--num_seeds=3")
    run.starts, run.ends = zip(*seen, strict=True)
    return run


def test_every_solver_gets_the_same_starts(three):
    """Seeds differ in their parameters and in their minibatches."""
    first, *others = three.starts
    assert len(others) == 3
    assert len(jax.tree.leaves(first)) == 3 * (2 + 2 * 22)
    for other in others:
        assert jax.tree.all(jax.tree.map(np.array_equal, first, other))
    parameters, minibatches = zip(*first, strict=True)
    kernels = [p["params"]["Dense_0"]["kernel"] for p in parameters]
    assert {kernel.shape for kernel in kernels} == {(784, 2 * 10)}
    assert len({kernel.tobytes() for kernel in kernels}) == 3
    assert len({b[0][0].tobytes() for b in minibatches}) == 3


def test_accuracies_are_those_of_the_ends(three):
    """On all of the images to test on."""
    test = tfds.load("fashion_mnist", split="test", as_supervised=True)
    images, labels = next(test.batch(310).as_numpy_iterator())
    for ends, (accuracies, *_) in zip(three.ends, three.table.values(), strict=True):
        for end, accuracy in zip(ends, accuracies, strict=True):
            logits = np.array(Linear(2, 10).apply(end, images))
            hits = logits.argmax(axis=1) == labels
            assert float(accuracy) == pytest.approx(hits.mean(), abs=0.004)


def test_seeds(run_page, three):
    """More of them change no earlier one, and the log stays that of the first."""
    one = run_page(*SMALL, "--num_seeds=1")
    for label, logs in three.curves.items():
        assert logs.shape == (3, 21, 3)
        assert len({log[0, 1] for log in logs}) == 3
        assert np.array_equal(logs[:1], one.curves[label], equal_nan=True)
    for seed in range(3):
        assert len({logs[seed, 0, 1] for logs in three.curves.values()}) == 1
    (log, *_), (same_log, *_) = one.log.split("\n\n"), three.log.split("\n\n")
    assert log.splitlines()[:-1] == same_log.splitlines()[:-1]
    for name, (accuracies, evaluations, seconds) in three.table.items():
        # Shares of the 310 test images.
        right = 310 * np.array(accuracies)
        assert right == pytest.approx(np.rint(right))
        assert len(accuracies) == len(evaluations) == len(seconds) == 3
        assert accuracies[0] == one.table[name][0][0]


def test_two_runs_print_the_same(run_page, three):
    """Log and table, times aside."""
    once, again = map(without_times, (three.log, run_page(*SMALL, "--num_seeds=3").log))
    assert once == again
    assert "loss=" in once[0] and once[-2].startswith("RMSProp ")


def test_figure(three):
    figure = three.figure
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
        assert [getattr(line, get)() for line in legend.get_lines()] == styles
        assert len(set(styles)) == 4
        assert [getattr(line, get)() for line in above.lines] == styles


# What the page says of its own numbers: in the figure and the table of the built page


@pytest.fixture(scope="module")
def curves():
    """Return {panel: {solver: rows (iteration, median, lowest, highest)}}."""
    panels = plotted(PAGE)
    assert [label.split()[0] for label in panels["training loss"]] == [
        *("Polyak", "Armijo", "RMSProp", "SGD")
    ]
    assert list(panels["step size"]) == list(panels["training loss"])[:2]
    return {
        panel: dict(zip(SOLVERS, lines.values(), strict=False))
        for panel, lines in panels.items()
    }


@pytest.fixture(scope="module")
def table():
    """Return {solver: (median, lowest, highest accuracy, evaluations)}."""
    rows = list(filter(str.strip, printed(PAGE).splitlines()))[-4:]
    assert [row[:10].strip() for row in rows] == SOLVERS
    return {row[:10].strip(): tuple(map(float, row[10:].split()[:4])) for row in rows}


# And where these have no number, on the real data.


@pytest.fixture(scope="module")
def real(page):
    """Run Polyak SGD, the same from rounded parameters, and RMSProp, tuned.

    Return {name: (logs, accuracies)}, and the number of images to train on.
    """
    load, train, make_solvers = page.load, page.train, page.make_solvers
    folder = CAME.get("TFDS_DATA_DIR", Path.home() / "tensorflow_datasets")
    names = ["Polyak SGD", "rounded", "RMSProp"]
    left = iter(names)

    def load_few(name, train, test):
        """Load those images to train on that are drawn or could have been."""
        return load(name, f"{train}[:15000]", test)

    def make_few(fun, settings):
        solvers = make_solvers(fun, settings)
        solvers["rounded"] = ("rounded", solvers["Polyak SGD"][1])
        return {name: solvers[name] for name in names}

    def train_rounded(solver, count, starts):
        """Start from the next number up, of each parameter, where it is rounded."""
        up = np.inf if next(left) == "rounded" else np.nan

        def move(leaf):
            return leaf if np.isnan(up) else jnp.nextafter(leaf, up)

        return train(solver, count, [(jax.tree.map(move, p), x) for p, x in starts])

    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(io.StringIO()),
    ):
        patch.setattr(tfds.core.constants, "DATA_DIR", os.fspath(folder))
        patch.setattr(page, "load", load_few)
        patch.setattr(page, "make_solvers", make_few)
        patch.setattr(page, "train", train_rounded)
        curves, rows = page.main(["page", "--rmsprop_stepsize=0.01"])
        images = tfds.builder("fashion_mnist:3.*.*").info.splits["train"].num_examples
    plt.close()
    runs = zip(rows.items(), curves.values(), strict=True)
    return {name: (logs, np.array(row[0])) for (name, row), logs in runs}, images


# Rounding errors grow large within a hundred iterations: the margins below also held
# for four other roundings of the initial parameters, on each of the five seeds.


def test_fraction_of_an_epoch(page, real):
    settings, (_, number) = page.parse(["page"]), real
    images = (settings.maxiter + 1) * settings.batch_size
    said = f"{images:,} of {number:,} images,\n# {images / number:.2f} of an epoch"
    assert said in PAGE.read_text()


def test_first_losses(real):
    """Near 2.3 = log(10), whatever the solver."""
    logs, _ = real[0]["RMSProp"]
    assert logs[:, 0, 1] == pytest.approx(np.full(5, 2.3), abs=0.15)
    assert np.array_equal(logs[:, 0, 1], real[0]["Polyak SGD"][0][:, 0, 1])


def test_the_line_search_is_fastest_at_first_and_all_are_close_to_one_at_last(curves):
    losses = {name: rows[:, 1] for name, rows in curves["training loss"].items()}
    early = {name: series[20:40].mean() for name, series in losses.items()}
    assert early.pop("Armijo SGD") < min(early.values()) - 0.2
    ends = [series[-20:].mean() for series in losses.values()]
    assert 0.75 < min(ends) <= max(ends) < min(1.25, min(ends) + 0.25)


def test_accuracies_are_in_range_and_overlap(table):
    medians, lowest, highest, _ = zip(*table.values(), strict=True)
    assert 0.5 < min(medians) <= max(medians) < 0.8
    assert max(medians) < min(medians) + 0.15
    assert max(lowest) < min(highest)


def test_the_line_search_stays_below_a_fifth(curves):
    assert np.all(curves["step size"]["Armijo SGD"][20:, 3] < 0.2)


def test_the_line_search_costs_less_than_half_a_step_more(table):
    evaluations = {name: row[-1] for name, row in table.items()}
    assert evaluations.pop("Armijo SGD") == pytest.approx(1.4, abs=0.15)
    assert set(evaluations.values()) == {1}


def test_polyak_step_sizes_vary_more_than_tenfold(real):
    """The bands of the figure do not tell what a single seed does."""
    logs, _ = real[0]["Polyak SGD"]
    stepsizes = logs[:, 20:, 2]
    assert np.median(stepsizes.max(axis=1) / stepsizes.min(axis=1)) > 10


def test_a_rounding_error_moves_the_accuracy_of_polyak(real):
    accuracies, rounded = (real[0][name][1] for name in ("Polyak SGD", "rounded"))
    assert np.abs(rounded - accuracies).max() > 0.05


def test_tuned_rmsprop_is_ahead_of_all(real, table):
    tuned = np.median(real[0]["RMSProp"][1])
    assert tuned == pytest.approx(0.75, abs=0.025)
    assert tuned > max(median for median, *_ in table.values()) + 0.02
