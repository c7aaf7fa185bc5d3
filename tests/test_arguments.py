"""Arguments in the wrong order end in one sentence that names the function."""

from __future__ import annotations

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayestl as btl
from bayestl._arguments import check_key

ROOMS = (btl, btl.bridges, btl.diagnostics, btl.infer, btl.nets, btl.predict, btl.pretrained)


def _takes_key() -> list[Any]:
    """Every public function whose first argument is a key, or one key per member."""
    functions = {}
    for room in ROOMS:
        for name in room.__all__:
            value = getattr(room, name)
            if inspect.isfunction(value) and value.__module__.startswith("bayestl"):
                first = next(iter(inspect.signature(value).parameters), None)
                if first in ("key", "keys"):
                    functions[name] = value
    # Called by ``ensemble`` with a key that it has made.
    return [f for name, f in functions.items() if name not in ("random_anchors", "random_anchors_and_targets")]


def _key_elsewhere() -> list[str]:
    places = []
    for room in ROOMS:
        for name in room.__all__:
            value = getattr(room, name)
            if inspect.isfunction(value) and value.__module__.startswith("bayestl"):
                names = list(inspect.signature(value).parameters)
                places += [f"{room.__name__}.{name}" for key in ("key", "keys") if key in names[1:]]
    return places


def test_the_key_comes_first():
    # ``sticking_the_landing`` is a divergence, all of which take q and the prior first; ``pretrained.read`` means the
    # name of an array in a file.
    assert _key_elsewhere() == ["bayestl.infer.sticking_the_landing", "bayestl.pretrained.read"]
    names = {f.__name__ for f in _takes_key()}
    assert {"fit", "fit_many", "laplace", "report", "monte_carlo", "mlp", "nuts", "reestimate_state"} <= names


@pytest.mark.parametrize("function", _takes_key(), ids=lambda f: f.__name__)
def test_arguments_in_the_wrong_order(function):
    net = btl.nets.mlp(jax.random.key(0), (2, 3, 1))
    joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), None, num_data=4)
    parameters = inspect.signature(function).parameters.values()
    required = [p for p in parameters if p.default is p.empty]
    arguments = [joint for p in required if p.kind is p.POSITIONAL_OR_KEYWORD]
    options = {p.name: 1 for p in required if p.kind is p.KEYWORD_ONLY}
    expected = (
        rf"^{function.__name__}'s first argument is (a random key|an array of random keys.*); got a LogJoint\. Give "
    )
    with pytest.raises(TypeError, match=expected):
        function(*arguments, **options)


def test_what_a_key_is():
    key, old = jax.random.key(0), jax.random.PRNGKey(0)
    for one in (key, old, np.asarray(old)):
        check_key("fit", one)
    many = jax.random.split(key, 3)
    check_key("fit_many", many, batched=True)
    check_key("fit_many", jax.random.split(old, 3), batched=True)
    jax.jit(lambda k: check_key("fit", k))(key)
    jax.vmap(lambda k: check_key("fit", k))(many)
    for wrong, name in (
        (0, "an int"),
        (None, "a NoneType"),
        (jnp.ones(3), "an array of shape \\(3,\\) and dtype float32"),
    ):
        with pytest.raises(
            TypeError, match=f"^fit's first argument is a random key; got {name}\\. Give jax.random.key"
        ):
            check_key("fit", wrong)
    with pytest.raises(TypeError, match=r"^fit's first argument is a random key; got an array of shape \(3,\)"):
        check_key("fit", many)
    with pytest.raises(TypeError, match=r"an array of random keys, one per member; got an array of shape \(\)"):
        check_key("fit_many", key, batched=True)
