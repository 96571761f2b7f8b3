"""Rules of one's own: steps by hand, types, chains, runs, figure, and what is said."""

import contextlib
import inspect
import io
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import pytest

from helpers import ROOT, load, printed, read_table, step

PAGE = ROOT / "examples/deep_learning/plot_own_rule.py"
RULES = ["Polyak", "DecSPS", "Goldstein"]
SOLVERS = [*RULES, "Polyak, average", "average, Polyak"]
SMALL = ["--num_seeds=2", "--num_steps=8", "--batch_size=16"]


@pytest.fixture(scope="module")
def page():
    return load(PAGE)


@pytest.fixture(scope="module")
def run_page(page):
    """Return a function that runs ``main`` on few images and tells all that came of it.

    ``runs`` are the arguments of the calls of ``train_and_log``.
    """

    def run(*flags):
        train_and_log, runs = page.train_and_log, []

        def watched(*arguments):
            runs.append(arguments)
            return train_and_log(*arguments)

        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(io.StringIO()) as log,
        ):
            patch.setattr(page, "train_and_log", watched)
            results = page.main(["page", *flags])
        figure = plt.gcf()
        plt.close(figure)
        return SimpleNamespace(
            log=log.getvalue(), figure=figure, results=results, runs=runs
        )

    return run


@pytest.fixture(scope="module")
def small(run_page):
    return run_page(*SMALL)


# Rules


def test_a_rule_in_ten_lines(page):
    lines = inspect.getsource(page.polyak).splitlines()
    assert len([line for line in lines if line.strip()]) <= 10


@pytest.mark.parametrize("cap", [0.01, 1.0, jnp.inf])
def test_polyak_is_that_of_optax(page, cap):
    def loss(x):
        return jnp.sum(jnp.cosh(x["a"])) + x["b"] ** 4

    x = {"a": jnp.array([0.3, -2.0]), "b": jnp.array(0.7)}
    own, _ = step(page.polyak(cap), loss, x)
    theirs, _ = step(optax.polyak_sgd(cap), loss, x)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), own, theirs)


@pytest.mark.parametrize("name", RULES)
def test_a_zero_gradient_is_no_step(page, name):
    """With a loss of zero, and with another one."""
    for constant in (0, 1):
        (moved, state) = step(
            page.SOLVERS[name](1.0), lambda x, c=constant: c + x**2, jnp.array(0.0)
        )
        assert float(moved) == 0
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


@pytest.mark.parametrize("name", RULES[:2])
@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_the_unit_of_the_loss_does_not_matter(page, name, factor):
    """For two steps: a step of Polyak and of DecSPS has no unit of the loss."""

    def walk(factor):
        rule, x, state = page.SOLVERS[name](1e6), jnp.array([3.0, 1.0]), None
        for _ in range(2):
            moved, state = step(rule, lambda x: factor * jnp.sum(x**4), x, state)
            x = x + moved
        return x

    np.testing.assert_allclose(walk(factor), walk(1.0), rtol=1e-5)


def test_goldstein_leaves_out_trials_that_are_no_numbers(page):
    """From 2, step sizes from 4/7 on leave the domain of x² - log x."""
    moved, state = step(
        page.SOLVERS["Goldstein"](4.0), lambda x: x**2 - jnp.log(x), jnp.array(2.0)
    )
    assert 2 + float(moved) > 0
    stepsize = optax.tree.get(state, "learning_rate")
    assert float(stepsize) == pytest.approx(4 * 0.8**9)
    # Each of nine shorter trials, and the first.
    assert optax.tree.get(state, "num_linesearch_steps") == 10


MIXED = [
    {"a": jnp.bfloat16, "b": jnp.float32},
    {"a": jnp.bfloat16, "b": jnp.bfloat16},
    {"a": jnp.float32, "b": jnp.float64},
]


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("types", MIXED, ids=["mixed", "half", "double"])
def test_types_stay(page, name, types):
    """In ``jit``, ``vmap`` and ``scan``, which refuse a state whose types change."""
    with jax.enable_x64(jnp.float64 in types.values()):
        x = {"a": jnp.ones((2, 3), types["a"]), "b": jnp.full(4, 2, types["b"])}
        solver = optax.with_extra_args_support(page.SOLVERS[name](0.25))

        def loss(x):
            return sum(jnp.sum(leaf.astype(jnp.float32) ** 2) for leaf in x.values())

        def scan_steps(scale):
            def one(carry, _):
                x, state = carry
                value, grad = jax.value_and_grad(loss)(x)
                extra = {"value": value, "grad": grad, "value_fn": loss}
                updates, state = solver.update(grad, state, x, **extra)
                same = jax.tree.map(lambda u, p: u.dtype == p.dtype, updates, x)
                assert jax.tree.all(same)
                return (optax.apply_updates(x, updates), state), None

            start = optax.tree.cast_like(optax.tree.scale(scale, x), x)
            (end, _), _ = jax.lax.scan(one, (start, solver.init(start)), length=5)
            return loss(end)

        losses = jax.jit(jax.vmap(scan_steps))(jnp.array([1.0, 3.0]))
        assert losses.dtype == jnp.float32
        assert np.all(losses < np.array([1, 9]) * float(loss(x)) / 2)


@pytest.mark.parametrize("name", RULES)
def test_a_cap_may_be_an_integer(page, name):
    def loss(x):
        return jnp.sum(x**4)

    ends = []
    for cap in (1, 1.0):
        x, state, solver = jnp.array([0.3, 0.4]), None, page.SOLVERS[name](cap)
        for _ in range(2):
            moved, state = step(solver, loss, x, state)
            x = x + moved
            assert np.any(moved != 0)
        ends.append(x)
    assert np.array_equal(*ends)


@pytest.mark.parametrize("name", RULES[1:])
def test_the_state_tells_the_step_size(page, name):
    x = jnp.array([1.0, -2.0])
    rule = optax.chain(page.SOLVERS[name](0.3), optax.identity())
    moved, state = step(rule, lambda x: jnp.sum(x**4), x)
    stepsize = optax.tree.get(state, "learning_rate")
    np.testing.assert_allclose(moved, -stepsize * 4 * x**3, rtol=1e-6)


# Chains, and what the discussion says of Optax


def test_where_weight_decay_goes(page):
    """On x² / 2 from 1: before Polyak it is scaled, and after it, it is not."""
    before = optax.chain(optax.add_decayed_weights(0.1), page.polyak(1.0))
    after = optax.chain(page.polyak(1.0), optax.add_decayed_weights(-0.1))
    for rule, end in ((before, 0.45), (after, 0.4)):
        moved, _ = step(rule, lambda x: x**2 / 2, jnp.array(1.0))
        assert 1 + float(moved) == pytest.approx(end)


@pytest.mark.parametrize("name", RULES[:2])
def test_rules_measure_the_gradient_wherever_they_stand(page, name):
    """Not the updates that an earlier part of the chain made."""
    rule = optax.chain(optax.scale(3.0), page.SOLVERS[name](1.0))
    moved, _ = step(rule, lambda x: x**2 / 2, jnp.array(1.0))
    assert float(moved) == pytest.approx(-1.5)


def test_schedules_know_no_loss():
    """What is injected is called with the number of steps, and with nothing else."""
    counts = []

    def schedule(*arguments, **options):
        counts.append((arguments, options))
        return 0.1

    rule = optax.inject_hyperparams(optax.sgd)(learning_rate=schedule)
    _, state = step(rule, lambda x: x**2, jnp.array(1.0))
    step(rule, lambda x: x**2, jnp.array(1.0), state)
    assert all(len(arguments) == 1 and not options for arguments, options in counts)
    assert "learning_rate" in state.hyperparams


@pytest.mark.parametrize("name", RULES)
def test_steps_that_are_not_finite_are_skipped(page, name):
    rule = optax.apply_if_finite(page.SOLVERS[name](1.0), 10)
    moved, state = step(rule, lambda x: x * jnp.nan, jnp.array(1.0))
    assert float(moved) == 0
    moved, _ = step(rule, lambda x: x**2, jnp.array(1.0), state)
    assert float(moved) < 0


def test_orders(page):
    """Two steps on x^4 from 1: Polyak's step size is 1 / 16 x^2, the gradient 4 x^3.

    The average of two is, corrected for its start at zero, 0.9 / 1.9 of the first and
    1 / 1.9 of the second.
    """
    x = 0.75  # after the first step, of a quarter
    polyak = 1 / (16 * x**2)
    for name, expected in [
        ("Polyak, average", -(0.9 * 0.25 + polyak * 4 * x**3) / 1.9),
        ("average, Polyak", -(0.9 * 4 + 4 * x**3) / 1.9 * polyak),
    ]:
        solver = page.SOLVERS[name](1.0)
        moved, state = step(solver, lambda x: x**4, jnp.array(1.0))
        assert float(moved) == pytest.approx(-0.25)
        moved, _ = step(solver, lambda x: x**4, jnp.array(x), state)
        assert float(moved) == pytest.approx(expected, rel=1e-5)


# Runs


@pytest.mark.parametrize("name", SOLVERS)
def test_runs_are_those_of_a_plain_loop(page, small, name):
    """From each seed, with the first three caps."""
    _, net, starts, train = small.runs[SOLVERS.index(name)]
    losses, stepsizes = small.results[name]
    assert losses.shape == (2, 4) and stepsizes.shape == (2, 4, 8)
    for seed, i in np.ndindex(2, 3):
        params, minibatches = jax.tree.map(lambda leaf, seed=seed: leaf[seed], starts)
        solver = optax.with_extra_args_support(page.SOLVERS[name](page.CAPS[i]))
        state = solver.init(params)
        for images, labels, logged in zip(
            *minibatches, stepsizes[seed, i], strict=True
        ):

            def loss(params, images=images, labels=labels):
                return page.cross_entropy(net, params, images, labels)

            updates, state = step(solver, loss, params, state)
            grad = jax.grad(loss)(params)
            params = optax.apply_updates(params, updates)
            if name in RULES[1:]:
                length = optax.tree.norm(updates) / optax.tree.norm(grad)
                assert logged == pytest.approx(float(length), rel=1e-2)
            else:
                assert np.isnan(logged)
        loss = float(page.cross_entropy(net, params, *train))
        assert losses[seed, i] == pytest.approx(loss, rel=1e-2)


def test_all_solvers_get_the_same_starts_and_data(page, small):
    for run, make_solver in zip(small.runs, page.SOLVERS.values(), strict=True):
        assert run[0] is make_solver
        same = jax.tree.map(np.array_equal, run[2:], small.runs[0][2:])
        assert jax.tree.all(same)
    params, _ = small.runs[0][2]
    leaves = jax.tree.leaves(jax.tree.map(lambda leaf: leaf[0], params))
    assert sum(leaf.size for leaf in leaves) == 6634
    assert "6,634" in PAGE.read_text()


def test_two_runs_print_the_same(run_page, small):
    assert run_page(*SMALL).log == small.log


# Tables and figure


def numbers_of(table):
    """Return {name: numbers} of a printed table."""
    return {name: [*map(float, cells)] for name, *cells in read_table(table)}


def test_table_of_losses(small):
    table, _ = map(numbers_of, small.log.split("\n\n"))
    assert list(table) == list(small.results) == SOLVERS
    for name, (losses, _) in small.results.items():
        assert table[name] == pytest.approx(np.median(losses, axis=0), abs=0.006)


def test_cases_by_hand(page, small):
    """Polyak steps halve x² and x² / 2; a search takes 4 * 0.8^k, first within reach.

    On a quadratic with curvature c, step sizes up to 1.8 / c lower the loss by a tenth
    of what the gradient predicts. On x² - log x, the loss at 2 is 4 - log 2, and the
    slope there is 3.5.
    """
    _, table = map(numbers_of, small.log.split("\n\n"))
    polyak = 2 - (4 - np.log(2)) / 3.5
    searched = 2 - 4 * 0.8**9 * 3.5
    assert table == {
        "x² / 2 from 1": pytest.approx([0.5, 0.5, 1 - 4 * 0.8**4], abs=0.006),
        "5 x² from 1": pytest.approx([0.5, 0.5, 1 - 40 * 0.8**14], abs=0.006),
        "x² / 2 from 0": [0, 0, 0],
        "x² - log x from 2": pytest.approx([polyak, polyak, searched], abs=0.006),
    }


def test_figure(page, small):
    fig = small.figure
    assert fig.get_size_inches()[0] <= 7.2
    step_ax, loss_ax = fig.axes
    assert [line.get_label() for line in loss_ax.lines] == SOLVERS
    assert [line.get_label() for line in step_ax.lines] == RULES[1:]
    for line in loss_ax.lines:
        losses, _ = small.results[line.get_label()]
        assert line.get_xdata() == pytest.approx([0.1, 1, 10, 100])
        assert line.get_ydata() == pytest.approx(np.median(losses, axis=0))
    for line in step_ax.lines:
        _, stepsizes = small.results[line.get_label()]
        assert line.get_ydata() == pytest.approx(np.median(stepsizes[:, 2], axis=0))
    for ax in fig.axes:
        assert len({str(line._unscaled_dash_pattern) for line in ax.lines}) == len(
            ax.lines
        )


# What the page says of its own numbers, in the first table of the built page.
# ``benchmarks/claims_of_others.py`` checks wider margins on other seeds.


@pytest.fixture(scope="module")
def losses():
    """Return {solver: losses with caps of 0.1, 1, 10 and 100}."""
    table, _ = map(numbers_of, printed(PAGE).strip().split("\n\n"))
    return table


def test_a_rule_gets_the_loss_by_name(page):
    """``update`` of each rule asks for what it needs by name, and for nothing else."""
    asked = {
        name: set(inspect.signature(rule(1.0).update).parameters)
        for name, rule in (("Polyak", page.polyak), ("DecSPS", page.dec_sps))
    }
    assert asked["Polyak"] >= {"updates", "state", "params", "value", "grad"}
    assert asked["DecSPS"] >= {"updates", "state", "params", "value"}
    rule = page.scale_by_goldstein(20, 0.1, 1.0)
    assert "value_fn" in inspect.signature(rule.update).parameters


def test_the_rule_goes_first_and_an_average_last(losses):
    assert losses["Polyak, average"][2] == pytest.approx(0.57, abs=0.06)
    assert losses["average, Polyak"][2] > 1.1
    assert losses["average, Polyak"][2] == pytest.approx(2.35, abs=0.2)


def test_goldstein_hardly_needs_a_cap_and_dec_sps_is_slow(losses):
    assert losses["Goldstein"][1:] == pytest.approx([0.6] * 3, abs=0.05)
    assert losses["DecSPS"][1:] == pytest.approx([0.8] * 3, abs=0.15)
    assert losses["Polyak"][1] == pytest.approx(0.6, abs=0.08)
    assert min(losses["DecSPS"]) > 1.15 * losses["Polyak"][1]
