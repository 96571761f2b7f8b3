"""Check the findings of the pages after the flagship on seeds that they do not show.

Each finding under *In short* is checked on seeds 0 to 24 in fives (in threes for moving
from JAXopt to Optax, in tens up to 29 for tuning). The pages show the first group.

    JAX_PLATFORMS=cpu .venv/bin/python benchmarks/claims_of_others.py

Names of checks, such as ``anatomy``, select some of them. With ``--rounded``, each
initial parameter of a network is raised to the next number. The exit status is 1 if a
finding fails. The Python of another environment checks with another JAX. The data must
be prepared.
"""

import contextlib
import io
import os
import sys
from functools import partial

os.environ.setdefault("MPLBACKEND", "agg")

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import old_loop

NUM_SEEDS = 25
UNCAPPED = ["SGD", "Momentum", "RMSProp", "Adam"]


def run(name, num_seeds=NUM_SEEDS):
    """Import a page, run it from many seeds; return the page and its results."""
    page = old_loop.load_page(old_loop.PAGE.with_name(f"{name}.py"))
    parse_flags = page.parse_flags

    def parse(argv):
        settings = parse_flags(argv)
        settings["num_seeds"].value = num_seeds  # more than the flag allows
        return settings

    page.parse_flags = parse
    print(f"{name}: {num_seeds} seeds", file=sys.stderr)
    with contextlib.redirect_stdout(io.StringIO()):
        return page, page.main([name])


def groups(size, num_seeds=NUM_SEEDS):
    """Return slices of ``size`` seeds."""
    return [
        slice(first, first + size) for first in range(0, num_seeds - size + 1, size)
    ]


def round_starts():
    """Make networks raise each initial parameter to the next number."""
    init = nn.Module.init

    def rounded(*arguments, **options):
        params = init(*arguments, **options)
        return jax.tree.map(lambda x: jnp.nextafter(x, jnp.inf), params)

    nn.Module.init = rounded


def anatomy():
    """Yield seeds, finding, value, lower and upper bound."""
    page, results = run("plot_line_search_anatomy")
    bounds = {  # of the step relative to 2 / sharpness, and of the trials in a step
        "Armijo 0.1": (1.2, 1.6, 2.1, 2.8),
        "Goldstein 0.1": (0.8, 1.0, 1.0, 1.2),
        "Armijo 0.5": (0.6, 0.9, 2.8, 3.0),
        "Goldstein 0.5": (0.8, 1.05, 30, 32),
    }
    for seeds in groups(5):
        for name, (inside, trials) in results.items():
            inside = jax.tree.map(lambda leaf, seeds=seeds: leaf[seeds], inside)
            product = np.median(inside.stepsize * inside.sharpness / 2)
            yield seeds, f"step over 2 / sharpness; {name}", product, *bounds[name][:2]
            yield seeds, f"trials; {name}", trials[seeds].mean(), *bounds[name][2:]
            best = np.median(page.MULTIPLES[inside.other_losses.argmin(axis=-1)])
            yield seeds, f"best step for others; {name}", best, 0.35, 0.65
            harms = inside.other_losses[..., page.MULTIPLES == 1] > 1
            yield seeds, f"share that harms; {name}", harms.mean(), 0.25, 0.6
        for name, lowest, highest in [
            ("Armijo 0.1", 1.5, 2.2),
            ("Goldstein 0.1", 4.5, 7),
        ]:
            inside, _ = results[name]
            ratio = np.median(inside.polyak[seeds] / inside.stepsize[seeds])
            yield seeds, f"Polyak over the step; {name}", ratio, lowest, highest


def sensitivity():
    """Yield seeds, finding, value, lower and upper bound."""
    page, results = run("plot_stepsize_sensitivity")
    for seeds in groups(5):
        losses = {name: sweep.losses[seeds] for name, sweep in results.items()}
        folds = {
            name: 10 ** np.median([page.good_width(row, 0.15) for row in losses[name]])
            for name in UNCAPPED
        }
        yield seeds, "narrowest range, in factors", min(folds.values()), 3.5, 25
        yield seeds, "widest range, in factors", max(folds.values()), 3.5, 25
        medians = {name: np.median(rows, axis=0) for name, rows in losses.items()}
        ends = {name: row[-1] for name, row in medians.items()}
        over = {name: row[-1] / row.min() for name, row in medians.items()}
        caps = [page.STEPSIZES[medians[name].argmin()] for name in ("Polyak", "Armijo")]
        yield seeds, "100 over the best cap", 100 / max(caps), 99, np.inf
        capped = max(ends["Polyak"], ends["Armijo"])
        yield seeds, "Polyak and Armijo at 100", capped, 0, 2
        yield seeds, "without a cap, at 100", min(ends[x] for x in UNCAPPED), 10, np.inf
        least = min(over["MoMo"], over["MoMo-Adam"])
        yield seeds, "MoMo, MoMo-Adam over their best", least, 2, np.inf
        least = min(over["Momentum"], over["Adam"])
        yield seeds, "Momentum, Adam over their best", least, 50, np.inf


def budget():
    """Yield seeds, finding, value, lower and upper bound."""
    page, (results, tries) = run("plot_tuning_budget", 30)
    evens = {  # trials to beat Polyak: of all step sizes, and of those up to 1
        "SGD": (9, np.inf, 6, np.inf),  # near one half for any number
        "Momentum": (3, 5, 2, 3),
        "RMSProp": (2, 4, 1, 3),
        "Adam": (2, 4, 1, 3),
    }
    for seeds in groups(10, 30):
        losses = {name: rows[seeds] for name, rows in results.items()}
        for name, bounds in evens.items():
            number = page.even_trials(losses["Polyak"], losses[name])
            yield seeds, f"trials to beat Polyak; {name}", number, *bounds[:2]
            some = page.up_to(1, losses[name])
            number = page.even_trials(losses["Polyak"], some)
            yield seeds, f"the same, up to 1; {name}", number, *bounds[2:]
            number = page.even_trials(losses["Armijo"], losses[name])
            most = 8 if name == "SGD" else 4
            yield seeds, f"trials to beat Armijo; {name}", number, 2, most
        _, best, _ = page.quartiles_of_winners(losses["Adam"], 10)
        least = min(np.median(losses["Polyak"]), np.median(losses["Armijo"]))
        yield seeds, "Adam, best of ten", best, 0.5, 0.56
        yield seeds, "least of Polyak and Armijo", least, 0.59, 0.72
        cost = 1 + tries["Armijo"][seeds].mean() / 3
        yield seeds, "gradients a step, Armijo", cost, 1.45, 1.6


def interpolation():
    """Yield seeds, finding, value, lower and upper bound."""
    _, results = run("plot_interpolation")
    for seeds in groups(5):
        for title, gaps in results.items():
            ends = {name: np.median(rows[seeds, -1]) for name, rows in gaps.items()}
            starts = [np.median(gaps[name][seeds, 0]) for name in ("Polyak", "Armijo")]
            pair = ends["Polyak"], ends["Armijo"]
            if title.startswith("400"):
                yield seeds, f"Polyak, Armijo; {title}", max(pair), 0, 1e-9
                yield seeds, f"DecSPS; {title}", ends["DecSPS"], 0.02, np.inf
                yield seeds, f"SGD; {title}", ends["SGD"], 0, 0.001
            else:
                yield seeds, f"first gap; {title}", starts[0], 0.13, 0.27
                yield seeds, f"least of both; {title}", min(pair), 0.08, 0.32
                yield seeds, f"largest of both; {title}", max(pair), 0.08, 0.32
                yield seeds, f"DecSPS; {title}", ends["DecSPS"], 0, 0.003
                ratio = min(pair) / ends["DecSPS"]
                yield seeds, f"both over DecSPS; {title}", ratio, 50, np.inf


def migration():
    """Yield seeds, finding, value, lower and upper bound."""
    _, results = run("plot_jaxopt_to_optax")
    for seeds in groups(3):
        largest = {name: rows[seeds].max() for name, rows in results.items()}
        momentum = [name for name in largest if "momentum" in name.lower()]
        yield (
            seeds,
            "momentum differs by",
            max(largest.pop(x) for x in momentum),
            0,
            1e-7,
        )
        yield seeds, f"the other {len(largest)} differ by", max(largest.values()), 0, 0


def own_rule():
    """Yield seeds, finding, value, lower and upper bound."""
    _, results = run("plot_own_rule")
    for seeds in groups(5):
        medians = {
            name: np.median(losses[seeds], axis=0)[1:]  # caps 1, 10 and 100
            for name, (losses, _) in results.items()
        }
        yield seeds, "Polyak, then an average", medians["Polyak, average"][1], 0.5, 0.63
        yield seeds, "the other order", medians["average, Polyak"][1], 1.1, 3
        yield seeds, "Goldstein, least", medians["Goldstein"].min(), 0.55, 0.7
        yield seeds, "Goldstein, largest", medians["Goldstein"].max(), 0.55, 0.7
        yield seeds, "DecSPS, least", medians["DecSPS"].min(), 0.72, 0.95
        yield seeds, "DecSPS, largest", medians["DecSPS"].max(), 0.72, 1.1
        yield seeds, "Polyak, cap 1", medians["Polyak"][0], 0.55, 0.72


def parameter_free():
    """Yield seeds, finding, value, lower and upper bound."""
    page, (_, runs) = run("plot_parameter_free")
    bounds = {  # of the loss over that of tuned Adam, after the short and the long run
        "Schedule-Free SGD": (0.88, 1.06, 0.88, 1.06),
        "Prodigy": (0.9, 1.08, 0.9, 1.08),
        "COCOB": (1.0, 1.23, 0.97, 1.1),
        "D-Adaptation": (1.0, 1.12, 1.12, 1.4),
        "DoG": (1.15, 1.5, 1.0, 1.26),
        "DoWG": (2, 5, 2, 5),
    }
    others = "Polyak", "Armijo", "Mechanic SGD", "Mechanic Adam", "Adam at 0.001"
    for seeds in groups(5):
        group = {
            name: page.Runs(*(leaf[seeds] for leaf in found))
            for name, found in runs.items()
        }
        ratios = page.compare_to_adam(group)
        for name in [*bounds, *others, "Schedule-Free AdamW"]:
            pairs = bounds.get(name, (1.1, 1.5, 1.03, 1.4))
            for length, ratio in enumerate(np.median(ratios[name], axis=0)):
                low, high = pairs[2 * length : 2 * length + 2]
                yield seeds, f"{name}, {('short', 'long')[length]}", ratio, low, high
        for name, low, high in [
            ("Schedule-Free SGD", 1.2, 2.4),
            ("Schedule-Free AdamW", 0.29, 0.34),
        ]:
            loss = np.median(group[name].losses[:, 2, 1])
            yield seeds, f"{name}, ten times its default: loss", loss, low, high
        for name, low, high in [
            ("Schedule-Free SGD", 1.0, 1.06),
            ("Schedule-Free AdamW", 0.97, 1.0),
        ]:
            found = group[name]
            ratio = np.median(found.losses_in_training[:, 1, 1] / found.losses[:, 1, 1])
            yield seeds, f"{name}, where gradients are computed", ratio, low, high
        for name, low, high in [
            ("D-Adaptation", 0.025, 0.06),
            ("Prodigy", 0.012, 0.03),
            ("DoG", 0.3, 0.55),
        ]:
            learned = np.median(group[name].learned[:, 1, -1, -1])
            yield seeds, f"{name} learns", learned, low, high


def schedule():
    """Yield seeds, finding, value, lower and upper bound."""
    page, (results, first) = run("plot_schedule")
    caps = page.CAPS_TO_TRY >= 1
    for seeds in groups(5):
        helps = 0
        for length, by_schedule in results.items():
            for name in page.SOLVERS:
                tuned = {
                    title: np.median(page.tune_on_others(np.array(losses[name])[seeds]))
                    for title, losses in by_schedule.items()
                }
                ratio = tuned["decay"] / tuned["constant"]
                helps += ratio < 1
                case = f"{name}, {length} steps"
                yield seeds, f"decay over constant; {case}", ratio, 0.78, 1.04
                ratio = tuned["warm-up"] / tuned["decay"]
                yield seeds, f"warm-up over decay; {case}", ratio, 0.9, 1.04
        yield seeds, "cases in which decay helps", helps, 7, 8
        loss = np.median(first[seeds], axis=0)[-1]
        yield seeds, "decay before Polyak, cap of 10", loss, 1.05, 2.4
        by_schedule = results[min(results)]
        for name, largest, least in [("Polyak", 0.62, 0.56), ("Armijo", 0.63, 0.6)]:
            rows = {
                title: np.median(np.array(losses[name])[seeds], axis=0)[caps]
                for title, losses in by_schedule.items()
            }
            yield (
                seeds,
                f"{name}, decay, caps of 1 on",
                rows["decay"].max(),
                0.5,
                largest,
            )
            found = rows["constant"]
            yield seeds, f"{name}, constant: least", found.min(), least, 0.75
            yield seeds, f"{name}, constant: largest", found.max(), 0.7, 2


def batch_size():
    """Yield seeds, finding, value, lower and upper bound."""
    _, floors = run("plot_batch_size")
    falls = {  # from 1 example to 128
        "SGD, 0.003": (120, 160),
        "SGD, 0.01": (145, 190),
        "Polyak, f_min": (5, 7),
        "Armijo": (3.6, 4.6),
    }
    for seeds in groups(5):
        medians = {name: np.median(x[seeds], axis=0) for name, x in floors.items()}
        for name, bounds in falls.items():
            yield seeds, f"fall; {name}", medians[name][0] / medians[name][-1], *bounds
        ratio = medians["SGD, 0.01"] / medians["SGD, 0.003"]
        yield seeds, "SGD, 0.01 over 0.003: least", ratio.min(), 3, 4.5
        yield seeds, "SGD, 0.01 over 0.003: largest", ratio.max(), 3, 4.5
        polyak = medians["Polyak, cap 1"]
        ratio = medians["Armijo"][:4] / polyak[:4]
        yield seeds, "Armijo over Polyak, up to 32", ratio.min(), 1.1, 3
        yield seeds, "Polyak, cap 1: least", polyak.min(), 0.037, 0.045
        yield seeds, "Polyak, cap 1: largest", polyak.max(), 0.037, 0.045
        ratio = medians["Polyak, cap 0.01"][1:] / medians["SGD, 0.01"][1:]
        yield seeds, "Polyak, cap 0.01, over SGD: least", ratio.min(), 0.99, 1.01
        yield seeds, "Polyak, cap 0.01, over SGD: largest", ratio.max(), 0.99, 1.01


def train_seeds(compile_step, network, solvers, minibatches, rounded):
    """Return {solver: parameters (seeds, n)}, from ten minibatches for each seed."""
    mesh = jax.sharding.Mesh(jax.devices(), ("devices",))
    minibatches = jax.device_put(minibatches, jax.NamedSharding(mesh, jax.P("devices")))
    results = {name: [] for name in solvers}
    for name, solver in solvers.items():
        step, start = compile_step(solver, minibatches[0], False)
        shardings = jax.tree.map(lambda leaf: leaf.sharding, start)
        for seed in range(len(minibatches) // 10):
            params = network.init(jax.random.key(seed), np.zeros((1, 196)))
            if rounded:
                params = jax.tree.map(lambda x: jnp.nextafter(x, jnp.inf), params)
            carry = jax.device_put((params, solver.init(params)), shardings)
            for minibatch in minibatches[10 * seed : 10 * seed + 10]:
                carry = step(*carry, *minibatch)
            leaves = [np.ravel(leaf) for leaf in jax.tree.leaves(carry[0])]
            results[name].append(np.concatenate(leaves))
    return results


def devices():
    """Yield seeds, finding, value, lower and upper bound."""
    page = old_loop.load_page(old_loop.PAGE.with_name("plot_devices_and_hosts.py"))
    minibatches = page.make_minibatches(64, 10 * NUM_SEEDS)
    parts = page.compile_step, page.NETWORK, page.SOLVERS, minibatches
    job = partial(train_seeds, *parts, rounded="--rounded" in sys.argv)
    [one], [four] = (page.run_in_processes(job, 1, n, 600) for n in (1, 4))
    for seeds in groups(5):
        for name in page.SOLVERS:
            pairs = zip(one[name][seeds], four[name][seeds], strict=True)
            difference = max(abs(x - y).max() for x, y in pairs)
            bound = 1e-4 if name == "Adam" else 1e-5
            yield seeds, f"four devices and one; {name}", difference, 0, bound


def resume():
    """Yield seeds, finding, value, lower and upper bound."""
    page = old_loop.load_page(old_loop.PAGE.with_name("plot_resume.py"))
    (images, labels), _ = page.load("fashion_mnist", "train", 10_000)
    images, step = page.shrink(images), jax.jit(page.step_all)
    sample, differences = (images[:1_000], labels[:1_000]), []
    for seed in range(NUM_SEEDS):
        params = page.NETWORK.init(jax.random.key(seed), np.zeros((1, 196)))
        start = {name: (params, x.init(params)) for name, x in page.SOLVERS.items()}
        whole, forgetful, rows = start, None, []
        for number in range(60):
            place = [seed, number] if seed else number  # the page has the number alone
            minibatch = page.draw_rows(images, labels, place)
            if number == 30:
                forgetful = {name: (whole[name][0], start[name][1]) for name in whole}
            whole, losses = step(whole, minibatch, sample)
            if forgetful:
                forgetful, without = step(forgetful, minibatch, sample)
                rows.append(np.subtract(without, losses))
        differences.append(rows)
    differences = np.array(differences)  # (seeds, steps, solvers)
    bounds = {"MoMo": (0.35, 2.1), "Adam": (0.025, 0.45), "Armijo": (0, 0.1)}
    for seeds in groups(5):
        for i, name in enumerate(page.SOLVERS):
            rows = differences[seeds, :, i]
            most = (abs(rows) if name == "Armijo" else rows).max(axis=1)
            limits = bounds.get(name, (0, 0))
            yield seeds, f"without state, least; {name}", most.min(), *limits
            yield seeds, f"without state, most; {name}", most.max(), *limits


CHECKS = (
    anatomy,
    sensitivity,
    budget,
    parameter_free,
    schedule,
    batch_size,
    interpolation,
    migration,
    own_rule,
    devices,
    resume,
)


def main():
    """Print a row for each finding and group; exit with 1 if a finding fails."""
    print(f"JAX {jax.__version__}")
    print(f"{'seeds':8}{'finding':50}{'value':>10}")
    failures = 0
    checks = {check.__name__: check for check in CHECKS}
    names = [word for word in sys.argv[1:] if word != "--rounded"] or list(checks)
    if "--rounded" in sys.argv:
        round_starts()
    for check in [checks[name] for name in names]:
        for seeds, finding, value, lowest, highest in check():
            holds = lowest <= value <= highest
            failures += not holds
            row = f"{seeds.start}-{seeds.stop - 1}"
            row = f"{row:8}{finding:50}{value:10.3g}"
            print(row if holds else f"{row}  fails", flush=True)
    print(f"{failures} fail")
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
