"""The flagship page: flags, data, losses, step sizes, curves, log, figure."""

import contextlib
from functools import partial

import jax
import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import optax
import pytest
import tensorflow_datasets as tfds
from helpers import PAGE, SOLVERS, check_log, run_script, without_times
from old_loop import PlainCNN

DEFAULTS = {
    "rmsprop_stepsize": 1e-3,
    "gd_stepsize": 1e-1,
    "aggressiveness": 0.9,
    "max_stepsize": 1.0,
    "maxiter": 100,
    "batch_size": 128,
    "net_width": 4,
    "dataset": "fashion_mnist",
    "num_seeds": 5,
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
        *("--net_width=1", "--net_width=100", "--num_seeds=1", "--num_seeds=20"),
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
        *("--num_seeds=0", "--num_seeds=21", "--num_seeds=1.5"),
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


# Data and model


def settings_of(page, *flags):
    return page.parse(["page", "--batch_size=32", "--maxiter=5", *flags])


def draw(page, seed=0, flags=()):
    settings = settings_of(page, *flags)
    (examples,), _ = page.load(settings.dataset, "train")
    return page.draw_minibatches(examples, settings, seed)


@pytest.fixture(scope="module")
def problem(page):
    """Count, minibatches, initial parameters, solvers: as ``main`` makes them."""
    settings = settings_of(page)
    minibatches = draw(page)
    net, count = page.CNN(settings.net_width, 10), jax.new_ref(0)
    params = jax.jit(net.init)(jax.random.key(0), minibatches[0][0])
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
    images, labels = minibatches[0]
    assert images.shape == (8, *shape)
    assert info.features["label"].num_classes == num_classes
    assert next(test.batch(16).as_numpy_iterator())[0].shape == (16, *shape)
    net = page.CNN(4, num_classes)
    params = jax.jit(net.init)(jax.random.key(0), images)
    loss, _ = page.loss_fun(net, jax.new_ref(0), params, images, labels)
    assert loss == pytest.approx(np.log(num_classes), rel=0.3)


def test_a_run_on_many_classes_in_colour(run_page):
    with mock_data():
        run = run_page(
            "--dataset=cifar100", "--batch_size=8", "--maxiter=1", "--num_seeds=2"
        )
    assert run.figure.get_suptitle() == "Classification on cifar100"
    assert all(np.all(logs[..., 1] > 0) for logs in run.curves.values())


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


@pytest.mark.parametrize("width, shape", [(4, (28, 28, 1)), (3, (32, 32, 3))])
def test_the_network_is_the_plain_one(page, width, shape):
    """Logits and gradients agree, on other widths, sizes and channels, too."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (8, *shape), np.uint8)
    labels = random.integers(0, 10, 8)
    net, plain = page.CNN(width, 10), PlainCNN(width, 10)
    params = jax.jit(net.init)(jax.random.key(0), images)
    shapes = jax.eval_shape(plain.init, jax.random.key(0), images)
    shapes = jax.tree.map(jnp.shape, shapes)
    size = shape[0] // 4
    assert jax.tree.map(jnp.shape, plain_params(params, size)) == shapes
    logits = jax.jit(plain.apply)(plain_params(params, size), images)
    assert jax.jit(net.apply)(params, images) == pytest.approx(
        np.array(logits), abs=1e-5
    )
    fun = partial(page.loss_fun, net, jax.new_ref(0))
    gradient, _ = jax.jit(jax.grad(fun, has_aux=True))(params, images, labels)
    expected = jax.grad(partial(plain_loss, net=plain))
    expected = jax.jit(expected)(params, images, labels)
    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    jax.tree.map(close, gradient, expected)


def test_initial_parameters_are_drawn_as_the_plain_network_draws_them(page):
    """Equal variances: 1 over the number of inputs of a layer; biases are zero."""
    images = jnp.zeros((1, 28, 28, 1))
    params = jax.jit(page.CNN(64, 10).init)(jax.random.key(0), images)
    plain = jax.jit(PlainCNN(64, 10).init)(jax.random.key(1), images)
    for leaf, expected in zip(
        *map(jax.tree.leaves, (plain_params(params), plain)), strict=True
    ):
        assert leaf.std() == pytest.approx(float(expected.std()), rel=0.1)


@pytest.mark.parametrize("name", SOLVERS)
def test_every_step_along_a_trajectory(page, name):
    """Losses, gradients and errors are the plain network's, before the update.

    Two free runs cannot be compared, because rounding errors grow from step to step.
    Gradients are compared in double precision: in single, a rounding error can put a
    unit on the other side of its ReLU's kink, and the gradient jumps.
    """
    settings = settings_of(page, "--maxiter=100")
    minibatches = draw(page, flags=["--maxiter=100"])
    # A third of the labels is wrong, lest losses shrink to the size of their rounding.
    random = np.random.default_rng(0)
    for _, labels in minibatches:
        labels[::3] = random.integers(0, 10, len(labels[::3]))
    fun = partial(page.loss_fun, page.CNN(4, 10), jax.new_ref(0))
    params = jax.jit(page.CNN(4, 10).init)(jax.random.key(0), minibatches[0][0])
    _, solver = page.make_solvers(fun, settings)[name]
    (log,), (end,), _ = page.train(solver, jax.new_ref(0), [(params, minibatches)])
    norm, expected_loss = optax.tree.norm, jax.jit(plain_loss)
    gradient = jax.jit(jax.grad(fun, has_aux=True))
    expected_gradient = jax.jit(jax.grad(plain_loss))
    state = solver.init_state(params, *minibatches[0])
    params, state = jax.device_put((params, state), jax.devices()[0])
    update = jax.jit(solver.update)
    assert len(log) == 101
    for (error, loss, stepsize), minibatch in zip(log, minibatches[1:], strict=True):
        expected = float(expected_loss(params, *minibatch))
        assert loss == pytest.approx(expected, rel=1e-5)
        g, _ = gradient(params, *minibatch)
        assert error == pytest.approx(float(norm(g)), rel=1e-4)
        with jax.enable_x64(True):
            double = jax.tree.map(lambda leaf: np.float64(leaf), params)
            g, _ = gradient(double, *minibatch)
            h = expected_gradient(double, *minibatch)
            assert norm(jax.tree.map(jnp.subtract, g, h)) <= 1e-4 * norm(h)
        params, state = update(params, state, *minibatch)
        expected = float(getattr(state, "stepsize", np.nan))
        assert stepsize == pytest.approx(expected, nan_ok=True)
    assert all(map(np.array_equal, jax.tree.leaves(end), jax.tree.leaves(params)))


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


def test_every_armijo_step_satisfies_its_condition(page, problem):
    _, minibatches, params, solvers = problem
    solver = solvers["Armijo SGD"]
    update = jax.jit(solver.update)
    state = solver.init_state(params, *minibatches[0])
    for minibatch in minibatches[1:]:
        loss = plain_loss(params, *minibatch)
        params, state = update(params, state, *minibatch)
        decrease = (1 - 0.9) * state.stepsize * state.error**2
        assert plain_loss(params, *minibatch) <= loss - decrease + 1e-5


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
    assert page.accuracy(predict, jnp.eye(10), minibatches) == 0.4


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
    x = jnp.array([2.0])
    step, _ = sgd.update(x, sgd.init_state(x, None, None), None, None)
    assert step == pytest.approx(2 - 0.25 * 2)
    step, _ = rmsprop.update(x, rmsprop.init_state(x, None, None), None, None)
    assert step == pytest.approx(2 - 0.0003 / np.sqrt(0.1), abs=1e-6)


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


@pytest.mark.parametrize("length", range(1, 11))
@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_curves(page, length, seeds):
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


@pytest.mark.parametrize("maxiter", [0, 3])
def test_a_short_run(run_page, maxiter):
    run = run_page("--batch_size=32", f"--maxiter={maxiter}", "--num_seeds=1")
    assert list(run.table) == SOLVERS
    for logs in run.curves.values():
        assert logs.shape == (1, maxiter + 1, 3)
        assert np.all(np.isfinite(logs[..., :2]))
    assert f"{maxiter + 1} iterations of SGD took" in run.log
    above, below = run.figure.axes
    assert len(above.lines) == len(below.lines) == 4


def test_every_solver_gets_the_same_starts(page, run_page, monkeypatch):
    """Seeds differ in their parameters and in their minibatches."""
    seen, train = [], page.train

    def watched(solver, count, starts):
        seen.append(starts)
        return train(solver, count, starts)

    monkeypatch.setattr(page, "train", watched)
    run_page("--batch_size=32", "--maxiter=1", "--num_seeds=3")
    assert len(seen) == 4
    for start, *others in zip(*seen, strict=True):
        assert len(jax.tree.leaves(start)) == 8 + 2 * 3
        for other in others:
            assert all(
                np.array_equal(leaf, same)
                for leaf, same in zip(
                    *map(jax.tree.leaves, (start, other)), strict=True
                )
            )
    parameters, minibatches = zip(*seen[0], strict=True)
    kernels = {p["params"]["Dense_1"]["kernel"].tobytes() for p in parameters}
    assert len(kernels) == len({b[0][0].tobytes() for b in minibatches}) == 3


def test_seeds(run_page):
    """More of them change no earlier one, and the log stays that of the first."""
    one = run_page("--batch_size=32", "--maxiter=5", "--num_seeds=1")
    three = run_page("--batch_size=32", "--maxiter=5", "--num_seeds=3")
    for label, logs in three.curves.items():
        assert len(logs) == 3
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


@pytest.fixture(scope="module")
def default_run(run_page):
    return run_page()


def test_log(default_run):
    check_log(default_run.log)


def test_every_solver_starts_from_the_same_loss(default_run):
    """On each seed, and on no two seeds."""
    first = [set(logs[:, 0, 1]) for logs in default_run.curves.values()]
    assert len(first[0]) == 5
    assert first == [first[0]] * 4


def test_two_runs_print_the_same(run_page):
    """Log and table, times aside."""
    flags = ["--batch_size=32", "--maxiter=40", "--num_seeds=2"]
    once, again = (without_times(run_page(*flags).log) for _ in range(2))
    assert once == again
    assert "loss=" in once[0] and once[-2].startswith("RMSProp ")


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
        assert [getattr(line, get)() for line in legend.get_lines()] == styles
        assert len(set(styles)) == 4
        assert [getattr(line, get)() for line in above.lines] == styles


# What the page says of its own numbers, on the real data


REAL_RUNS = """
import importlib.util, sys
import jax, jax.numpy as jnp, numpy as np

spec = importlib.util.spec_from_file_location("page", sys.argv[1])
page = importlib.util.module_from_spec(spec)
spec.loader.exec_module(page)
runs = {"images": len(page.load("fashion_mnist", "train")[0][0])}
for which, flags in ("default", []), ("tuned", ["--rmsprop_stepsize=0.01"]):
    curves, table = page.main(["page", *flags])
    for logs, (name, row) in zip(curves.values(), table.items()):
        runs[f"{which} {name} logs"] = logs
        runs[f"{which} {name} accuracies"] = row[0]
        runs[f"{which} {name} evaluations"] = row[1]

# Each parameter that a solver starts from, the next number up.
device_put = jax.device_put


def put_rounded(start, device):
    params, state = start
    params = jax.tree.map(lambda leaf: jnp.nextafter(leaf, jnp.inf), params)
    return device_put((params, state), device)


jax.device_put = put_rounded
make_solvers, polyak = page.make_solvers, "Polyak SGD"
page.make_solvers = lambda *arguments: {polyak: make_solvers(*arguments)[polyak]}
_, table = page.main(["page"])
runs["rounded accuracies"] = table[polyak][0]
np.savez(sys.argv[2], **runs)
"""


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Return what ``REAL_RUNS`` saves: "default", "tuned" and "rounded" runs."""
    file = tmp_path_factory.mktemp("real") / "real.npz"
    run = run_script("-c", REAL_RUNS, PAGE, file)
    assert run.returncode == 0, run.stderr
    return dict(np.load(file))


def each(real, which, what):
    """Return {solver: array} of ``what`` in the runs ``which``."""
    return {name: real[f"{which} {name} {what}"] for name in SOLVERS}


# Rounding errors grow large within a hundred iterations: the margins below also held
# for four other roundings of the initial parameters, on each of the five seeds.


def test_fraction_of_an_epoch(page, real):
    settings = page.parse(["page"])
    images = (settings.maxiter + 1) * settings.batch_size
    said = (
        f"{images:,} of {real['images']:,} images,\n# {images / 60_000:.2f} of an epoch"
    )
    assert said in PAGE.read_text()


def test_losses(real):
    """Near 2.3 = log(10) at first, the same for all, and near one at last."""
    losses = {k: logs[:, :, 1] for k, logs in each(real, "default", "logs").items()}
    first = losses["SGD"][:, 0]
    assert first == pytest.approx(2.3, abs=0.15)
    ends = [np.median(series[:, -20:].mean(axis=1)) for series in losses.values()]
    assert 0.75 < min(ends) <= max(ends) < 1.25
    assert all(np.array_equal(series[:, 0], first) for series in losses.values())


def test_the_line_search_is_fastest_at_first_and_all_are_close_at_last(real):
    losses = {k: logs[:, :, 1] for k, logs in each(real, "default", "logs").items()}
    early = {k: np.median(x[:, 20:40].mean(axis=1)) for k, x in losses.items()}
    assert early.pop("Armijo SGD") < min(early.values()) - 0.2
    ends = [np.median(series[:, -20:].mean(axis=1)) for series in losses.values()]
    assert max(ends) < min(ends) + 0.25


def test_accuracies_are_in_range_and_overlap(real):
    accuracies = each(real, "default", "accuracies")
    medians = [np.median(values) for values in accuracies.values()]
    assert 0.5 < min(medians) <= max(medians) < 0.8
    assert max(medians) < min(medians) + 0.15
    lowest = [values.min() for values in accuracies.values()]
    highest = [values.max() for values in accuracies.values()]
    assert max(lowest) < min(highest)


def test_the_line_search_stays_below_a_fifth(real):
    assert np.all(real["default Armijo SGD logs"][:, 20:, 2] < 0.2)


def test_the_line_search_costs_less_than_half_a_step_more(real):
    evaluations = each(real, "default", "evaluations")
    armijo = evaluations.pop("Armijo SGD")
    assert 1 + (np.median(armijo) - 1) / 3 == pytest.approx(1.4, abs=0.15)
    assert all(np.all(values == 1) for values in evaluations.values())


def test_polyak_step_sizes_vary_more_than_tenfold(real):
    stepsizes = real["default Polyak SGD logs"][:, 20:, 2]
    assert np.median(stepsizes.max(axis=1) / stepsizes.min(axis=1)) > 10


def test_a_rounding_error_moves_the_accuracy_of_polyak(real):
    accuracies = real["default Polyak SGD accuracies"]
    rounded = real["rounded accuracies"]
    assert np.abs(rounded - accuracies).max() > 0.05


def test_tuned_rmsprop_is_ahead_of_all(real):
    accuracies = each(real, "tuned", "accuracies")
    tuned = np.median(accuracies.pop("RMSProp"))
    assert tuned == pytest.approx(0.75, abs=0.025)
    others = [*accuracies.values(), real["default RMSProp accuracies"]]
    assert tuned > max(np.median(values) for values in others) + 0.02
