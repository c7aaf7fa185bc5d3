"""One small network with batch normalisation and dropout, built in every library with the same numbers."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayestl import nets, tree

os.environ.setdefault("KERAS_BACKEND", "jax")

INPUTS = jax.random.normal(jax.random.key(9), (6, 3))
WIDTH, OUTPUTS, MOMENTUM, EPSILON = 8, 2, 0.9, 1e-3

_rng = np.random.default_rng(0)
VALUES = {
    "dense/kernel": _rng.normal(size=(3, WIDTH)),
    "dense/bias": _rng.normal(size=WIDTH),
    "norm/scale": _rng.uniform(0.5, 1.5, WIDTH),
    "norm/bias": _rng.normal(size=WIDTH),
    "norm/mean": _rng.normal(size=WIDTH),
    "norm/var": _rng.uniform(0.5, 2.0, WIDTH),
    "head/kernel": _rng.normal(size=(WIDTH, OUTPUTS)),
    "head/bias": _rng.normal(size=OUTPUTS),
}
VALUES = {name: value.astype(np.float32) for name, value in VALUES.items()}


def hidden(inputs: Any) -> np.ndarray:
    """What batch normalisation normalises, (B, WIDTH), float64."""
    return np.asarray(inputs, np.float64) @ VALUES["dense/kernel"] + VALUES["dense/bias"]


def features(inputs: Any, mean: np.ndarray, var: np.ndarray) -> np.ndarray:
    """What the head is linear in, (B, WIDTH), float64, normalised by these statistics."""
    x = (hidden(inputs) - mean) / np.sqrt(np.asarray(var, float) + EPSILON)
    return np.maximum(x * VALUES["norm/scale"] + VALUES["norm/bias"], 0)


def expected(inputs: Any, mean: np.ndarray, var: np.ndarray) -> np.ndarray:
    """Outputs without dropout, (B, OUTPUTS), float64."""
    return features(inputs, mean, var) @ VALUES["head/kernel"] + VALUES["head/bias"]


class Built(NamedTuple):
    """A library's module as a network.

    Attributes:
        net: the network.
        own: inputs -> outputs of the library's own call in evaluation mode.
        again: a new network from the same module.
        left: what the library's module holds, to be compared before and after.
    """

    net: nets.Net
    own: Callable[[Any], Any]
    again: Callable[[], nets.Net]
    left: Callable[[], list[np.ndarray]]


def nnx(rate: float) -> Built:
    from flax import nnx

    class Network(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.dense = nnx.Linear(3, WIDTH, rngs=rngs)
            self.norm = nnx.BatchNorm(WIDTH, momentum=MOMENTUM, epsilon=EPSILON, rngs=rngs)
            self.dropout = nnx.Dropout(rate, rngs=rngs)
            self.head = nnx.Linear(WIDTH, OUTPUTS, rngs=rngs)

        def __call__(self, x):
            return self.head(self.dropout(nnx.relu(self.norm(self.dense(x)))))

    module = Network(nnx.Rngs(0))
    for name, value in VALUES.items():
        layer, leaf = name.split("/")
        getattr(getattr(module, layer), leaf).set_value(jnp.asarray(value))

    def own(inputs):
        return nnx.view(module, deterministic=True, use_running_average=True)(inputs)

    def left():
        return [np.asarray(x) for x in jax.tree.leaves(nnx.state(module, nnx.Not(nnx.RngKey)))]

    return Built(nets.from_nnx(module), own, lambda: nets.from_nnx(module), left)


def linen(rate: float) -> Built:
    import flax.linen as nn

    class Network(nn.Module):
        @nn.compact
        def __call__(self, x, train: bool):
            x = nn.Dense(WIDTH, name="dense")(x)
            norm = nn.BatchNorm(momentum=MOMENTUM, epsilon=EPSILON, name="norm")
            x = nn.relu(norm(x, use_running_average=not train))
            return nn.Dense(OUTPUTS, name="head")(nn.Dropout(rate, deterministic=not train)(x))

    variables: dict[str, Any] = {"params": {}, "batch_stats": {}}
    for name, value in VALUES.items():
        layer, leaf = name.split("/")
        kind = "batch_stats" if leaf in ("mean", "var") else "params"
        variables[kind].setdefault(layer, {})[leaf] = jnp.asarray(value)
    module = Network()

    def make():
        return nets.from_linen(module, variables, train={"train": True}, evaluate={"train": False})

    def left():
        return [np.asarray(x) for x in jax.tree.leaves(variables)]

    return Built(make(), lambda inputs: module.apply(variables, inputs, train=False), make, left)


def keras(rate: float) -> Built:
    library = pytest.importorskip("keras")
    layers = library.layers
    model = library.Sequential(
        [
            library.Input((3,)),
            layers.Dense(WIDTH, name="dense"),
            layers.BatchNormalization(momentum=MOMENTUM, epsilon=EPSILON, name="norm"),
            layers.ReLU(),
            layers.Dropout(rate),
            layers.Dense(OUTPUTS, name="head"),
        ]
    )
    theirs = {"norm/scale": "gamma", "norm/bias": "beta", "norm/mean": "moving_mean", "norm/var": "moving_variance"}
    for name, value in VALUES.items():
        layer, leaf = name.split("/")
        getattr(model.get_layer(layer), theirs.get(name, leaf)).assign(value)

    def left():
        flags = [(x.trainable, getattr(x, "momentum", 0.0)) for x in model.layers]
        trainable = [v.trainable for v in model.variables]
        return [np.asarray(flags), np.asarray(trainable), *(np.asarray(v.value) for v in model.variables)]

    return Built(
        nets.from_keras(model),
        lambda inputs: model(inputs, training=False),
        lambda: nets.from_keras(model),
        left,
    )


def equinox(rate: float) -> Built:
    eqx = pytest.importorskip("equinox")

    class Network(eqx.Module):
        dense: Any
        norm: Any
        dropout: Any
        head: Any

        def __init__(self, key):
            self.dense, self.head = eqx.nn.Linear(3, WIDTH, key=key), eqx.nn.Linear(WIDTH, OUTPUTS, key=key)
            self.norm = eqx.nn.BatchNorm(WIDTH, "batch", eps=EPSILON, momentum=MOMENTUM, mode="batch")
            self.dropout = eqx.nn.Dropout(rate)

        def __call__(self, x, state, *, key):
            x, state = self.norm(self.dense(x), state)
            return self.head(self.dropout(jax.nn.relu(x), key=key)), state

    module, state = eqx.nn.make_with_state(Network)(jax.random.key(0))
    values = jax.tree.map(jnp.asarray, VALUES)
    module = eqx.tree_at(
        lambda m: (m.dense.weight, m.dense.bias, m.norm.weight, m.norm.bias, m.head.weight, m.head.bias),
        module,
        (
            values["dense/kernel"].T,
            values["dense/bias"],
            values["norm/scale"],
            values["norm/bias"],
            values["head/kernel"].T,
            values["head/bias"],
        ),
    )
    state = state.set(module.norm.batch_state_index, (values["norm/mean"], values["norm/var"]))

    def own(inputs):
        evaluated = eqx.nn.inference_mode(module)
        return jax.vmap(lambda x: evaluated(x, state, key=None)[0])(inputs)

    def left():
        return [np.asarray(x) for x in jax.tree.leaves((eqx.filter(module, eqx.is_array), state))]

    return Built(nets.from_equinox(module, state), own, lambda: nets.from_equinox(module, state), left)


LIBRARIES = (nnx, linen, keras, equinox)


def statistics(state: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance, (WIDTH,) each, from a state of any of the libraries, all of which keep them in this order."""
    mean, var = (np.asarray(x) for x in jax.tree.leaves(state) if np.shape(x) == (WIDTH,))
    return mean, var


def leaf(params: Any, ending: str) -> Any:
    """The leaf whose path ends so."""
    (found,) = (x for path, x in tree.by_paths(params).items() if path.endswith(ending))
    return found
