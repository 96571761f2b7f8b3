"""Rules that can be pasted: each Optax transformation of each page works on its own.

A rule is tested as the code that a reader copies: its imports, what it names, and it.
"""

import ast
import inspect
import re
from functools import partial
from itertools import product

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from helpers import PAGES, load, run_script

# What a function of a page may require to make a rule.
HYPERPARAMETERS = {
    "aggressiveness": 0.9,
    "cap": 0.5,
    "max_learning_rate": 0.5,
    "maxls": 20,
    "rule": "optax.sgd(0.5)",
    "schedule": "optax.constant_schedule(1.0)",
    "slope_rtol": 0.1,
    "smoothness": 4.0,
}
# A rule of Optax that works for parameters of one type alone: see the test below.
MOMO = "(optax.contrib.momo(1.0))"


# Discovery


def makers(page):
    """Yield the name, node and code of what makes a rule or is one.

    These are functions, and calls and lambdas in top-level assignments.
    """
    for node in ast.parse(page.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, node, node.name
        if isinstance(node, ast.Assign):
            name, entries = ast.unparse(node.targets[0]), {None: node.value}
            if isinstance(node.value, ast.Dict):
                entries = dict(zip(node.value.keys, node.value.values, strict=True))
            for key, value in entries.items():
                if isinstance(value, ast.Lambda | ast.Call):
                    entry = f"{name}[{ast.unparse(key)}]" if key else name
                    yield entry, value, f"({ast.unparse(value)})"


def required(maker):
    """Return the names of the parameters that have no default."""
    parameters = inspect.signature(maker).parameters.values()
    needed = (x for x in parameters if x.default is x.empty)
    return [x.name for x in needed if x.kind not in (x.VAR_POSITIONAL, x.VAR_KEYWORD)]


def run(code, namespace):
    """Return the value of an expression."""
    namespace = dict(namespace)
    exec(f"rule = {code}", namespace)
    return namespace["rule"]


def rules_of(module, name, maker, code):
    """Yield the name and the code of each rule that ``maker`` makes, or is.

    Functions of nothing are only called if their name tells that they make something.
    """
    if isinstance(maker, nn.Module):  # a model, which can be called, too
        return
    if callable(maker):
        if {*required(maker)} - {*HYPERPARAMETERS}:
            return
        if not inspect.signature(maker).parameters and not name.startswith("make_"):
            return
        values = [f"{x}={HYPERPARAMETERS[x]}" for x in required(maker)]
        code += f"({', '.join(values)})"
        maker = run(code, vars(module))
    found = {name: (maker, code)}
    if isinstance(maker, dict):
        found = {f"{name}[{x!r}]": (y, f"{code}[{x!r}]") for x, y in maker.items()}
    for entry, (rule, call) in found.items():
        if isinstance(rule, optax.GradientTransformation):
            # A line search, which asks for the loss by name, comes last in a chain.
            search = "value_fn" in inspect.signature(rule.update).parameters
            yield entry, f"optax.chain(optax.sgd(1.0), {call})" if search else call


def pasted(page, call):
    """Return the code that makes ``rule``: all that its ``call`` names, and no more."""
    lines, imports, definitions = page.read_text().splitlines(), {}, {}
    for node in ast.parse(page.read_text()).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                bound = alias.asname or alias.name.split(".")[0]
                start = f"from {node.module} " if hasattr(node, "module") else ""
                imports[bound] = f"{start}import {ast.unparse(alias)}"
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            definitions[node.name] = node
        elif isinstance(node, ast.Assign):
            definitions |= {ast.unparse(target): node for target in node.targets}
    names, new = set(), [ast.parse(call)]
    while new:
        used = {x.id for n in new for x in ast.walk(n) if isinstance(x, ast.Name)}
        new = [definitions[x] for x in used - names if x in definitions]
        names |= used
    code = [line for name, line in imports.items() if name in names]
    for name, node in definitions.items():
        if name in names:
            first = min(x.lineno for x in (node, *getattr(node, "decorator_list", ())))
            code += lines[first - 1 : node.end_lineno]
    return "\n".join([*code, f"rule = {call}\n"])


def find():
    """Return {name: code} of all rules, and the makers of rules that were not called.

    Rules whose code is the same on several pages are one.
    """
    names, missed = {}, []
    for page in PAGES:
        module = load(page)
        for name, node, code in makers(page):
            maker = run(code, vars(module))
            found = [x for x in rules_of(module, name, maker, code) if MOMO not in x]
            for rule, call in found:
                names.setdefault(pasted(page, call), f"{page.stem}: {rule}")
            ends = [x.value for x in ast.walk(node) if isinstance(x, ast.Return)]
            ends += [node.body] if isinstance(node, ast.Lambda) else []
            text = " ".join(ast.unparse(end) for end in ends if end)
            if not found and ("GradientTransf" in text or "optax.chain(" in text):
                unknown = {*required(maker)} - {*HYPERPARAMETERS}
                missed.append(f"{page.stem}, {name}: add {unknown} to HYPERPARAMETERS")
    return {name: code for code, name in names.items()}, missed


RULES, MISSED = find()


def test_every_rule_is_found():
    """By its type, and all that returns a transformation or a chain was called."""
    assert not MISSED
    found = {code.splitlines()[-1] for code in RULES.values()}
    assert {"rule = dec_sps(cap=0.5)", "rule = polyak(cap=0.5)"} <= found


# Types

HALF, SINGLE, DOUBLE = jnp.bfloat16, jnp.float32, jnp.float64
# The types of the first and of other leaves.
TYPES = {
    "mixed": (HALF, SINGLE),
    "mixed, single first": (SINGLE, HALF),
    "half": (HALF, HALF),
    "double": (SINGLE, DOUBLE),
}
PLACES = {
    "alone": lambda rule: rule,
    "first": lambda rule: optax.chain(rule, optax.scale(0.5)),
    "last": lambda rule: optax.chain(optax.add_decayed_weights(1e-4), rule),
    "between": lambda rule: optax.chain(
        optax.add_decayed_weights(1e-4), rule, optax.identity(), optax.scale(0.5)
    ),
}


def make(name, place="alone"):
    """Return a rule, of its pasted code alone, in a chain."""
    namespace = {}
    exec(RULES[name], namespace)
    return optax.with_extra_args_support(PLACES[place](namespace["rule"]))


def parameters(first, other):
    """Return a dictionary, of a matrix, a list and a tuple with a scalar."""
    nested = [(jnp.full(32, -0.15, other), jnp.array(0.2, first))]
    return {"a": jnp.full((8, 8), 0.2, first), "b": nested}


def loss(params):
    """Return a loss, in float32 or wider, with curvatures of 1, 2 and 3."""
    leaves = enumerate(jax.tree.leaves(params), start=1)
    wide = ((i, x.astype(jnp.promote_types(x.dtype, SINGLE))) for i, x in leaves)
    return sum(i / 2 * jnp.sum(x**2) for i, x in wide)


def step(rule, params, state):
    value, grad = jax.value_and_grad(loss)(params)
    extra = {"value": value, "grad": grad, "value_fn": loss}
    return rule.update(grad, state, params, **extra)


def types_of(tree):
    return jax.tree.map(lambda leaf: leaf.dtype, tree)


MIXED = {"mixed", "mixed, single first", "double"}
# The rules of Optax itself that widen updates, and the types that they widen: all to
# the widest, and all to that of the first leaf. ``apply_updates`` casts them back.
WIDE = {
    r"polyak_sgd(?!, trace)|interpolation.*'Polyak'|batch.*'Polyak": MIXED,
    r"(?i)armijo|SEARCH$|backtracking|zoom": {"mixed, single first"},
}

every_rule = pytest.mark.parametrize("name", RULES)


@every_rule
def test_types_stay(name):
    """Of updates and of the state, in every chain and with every mix of types."""
    for (types, leaves), place in product(TYPES.items(), PLACES):
        wide = any(types in x for rule, x in WIDE.items() if re.search(rule, name))
        with jax.enable_x64(types == "double"):
            params, rule = parameters(*leaves), make(name, place)
            before = params, rule.init(params)
            after = jax.eval_shape(partial(step, rule), *before)
        (updates, state), (new, new_state) = map(types_of, before), map(types_of, after)
        assert (updates != new) == wide, (types, place)
        assert state == new_state, (types, place)


def test_momo_of_optax_changes_the_types_of_its_state():
    """The day that it does not, it can be tested with all others."""
    params, rule = parameters(HALF, SINGLE), run(MOMO, {"optax": optax})
    state = rule.init(params)
    _, new = jax.eval_shape(partial(step, rule), params, state)
    assert types_of(state) != types_of(new)


@every_rule
@pytest.mark.parametrize("types, place", [("mixed", "between"), ("double", "alone")])
def test_the_loss_falls(name, types, place):
    """In ``jit``, ``vmap`` and ``scan``, which refuse a state whose types change."""
    with jax.enable_x64(types == "double"):
        rule = make(name, place)

        def scan_steps(scale):
            def one(carry, _):
                updates, state = step(rule, *carry)
                return (optax.apply_updates(carry[0], updates), state), None

            x = parameters(*TYPES[types])
            start = optax.tree.cast_like(optax.tree.scale(scale, x), x)
            (end, _), _ = jax.lax.scan(one, (start, rule.init(start)), length=5)
            assert types_of(end) == types_of(x)
            return loss(start), loss(end)

        before, after = jax.jit(jax.vmap(scan_steps))(jnp.array([1.0, 0.5]))
        assert np.all(after < before)


@every_rule
def test_single_and_double_agree(name):
    """In the first step."""
    with jax.enable_x64(True):

        @jax.jit
        def first_steps():
            rule, starts = make(name), [parameters(x, x) for x in (SINGLE, DOUBLE)]
            return [step(rule, x, rule.init(x))[0] for x in starts]

        single, double = map(jax.tree.leaves, first_steps())
        for x, y in zip(single, double, strict=True):
            assert (x.dtype, y.dtype) == (SINGLE, DOUBLE) and np.all(y != 0)
            np.testing.assert_allclose(x, y, rtol=1e-5)


# A network of the reader's own

TRAIN = """
import runpy, sys, traceback
import flax.linen as nn, jax, jax.numpy as jnp, optax

half = {"param_dtype": jnp.bfloat16}
net = nn.Sequential([nn.Dense(8, **half), nn.tanh, nn.Dense(3, **half)])
images = jax.random.normal(jax.random.key(0), (32, 5))
labels = jax.random.randint(jax.random.key(1), 32, 0, 3)
start = net.init(jax.random.key(2), images)

def loss(params):
    logits = net.apply(params, images)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

def train(rule):
    rule, params = optax.with_extra_args_support(rule), start

    @jax.jit
    def step(params, state):
        value, grad = jax.value_and_grad(loss)(params)
        extra = {"value": value, "grad": grad, "value_fn": loss}
        updates, state = rule.update(grad, state, params, **extra)
        return optax.apply_updates(params, updates), state

    state = rule.init(params)
    for _ in range(20):
        params, state = step(params, state)
    assert loss(params) < loss(start), "the loss does not fall"
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(params))
    states = jax.tree.leaves(rule.init(start)), jax.tree.leaves(state)
    assert all(x.dtype == y.dtype for x, y in zip(*states)), "the state's types change"

for file in sys.argv[1:]:
    try:
        train(runpy.run_path(file)["rule"])
    except Exception:  # whatever it is, it is told, fails the test, and hides no other
        print(open(file).read().splitlines()[-1], traceback.format_exc())
"""


def test_pasted_rules_train_a_network(tmp_path):
    """In Flax with bfloat16, for 20 steps, in a process that has no page."""
    files = [tmp_path / f"rule_{i}.py" for i in range(len(RULES))]
    for file, code in zip(files, RULES.values(), strict=True):
        file.write_text(code)
    result = run_script("-c", TRAIN, *files, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert not result.stdout, result.stdout
