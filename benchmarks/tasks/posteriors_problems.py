"""Two small problems on which a long run of NUTS is affordable: yachts of new hull forms, and turned moons.

Both are transfers. A source network is trained on hull forms, or moons, of its own; the target has a few examples of
others, and its prior lies at the source's weights.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import bayestl as btl

YACHT, MOONS = "yacht", "moons"
DROPOUT = 0.1
NOISE = 0.1
SOURCE_STEPS = 4000


class Problem(NamedTuple):
    """A target task.

    Attributes:
        name: its name.
        joint: network, likelihood and prior.
        dropout: the same with dropout in the hidden layer.
        start: the source's weights.
        train: the labelled examples.
        validation: inputs and targets for every choice.
        test: inputs and targets, scored once.
        grid: for regression, the target values at which predictive densities are compared; None for classes.
    """

    name: str
    joint: btl.LogJoint
    dropout: btl.LogJoint
    start: Any
    train: Any
    validation: tuple[Any, Any]
    test: tuple[Any, Any]
    grid: Any


class Network(nnx.Module):
    """One or two hidden layers of tanh; dropout after the last."""

    def __init__(self, key: Any, sizes: tuple[int, ...], rate: float):
        rngs = nnx.Rngs(params=key, dropout=0)
        pairs = list(itertools.pairwise(sizes))
        self.hidden = nnx.List([nnx.Linear(*pair, rngs=rngs) for pair in pairs[:-1]])
        self.dropout = nnx.Dropout(rate, rngs=rngs)
        self.head = nnx.Linear(*pairs[-1], rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self.hidden:
            x = jnp.tanh(layer(x))
        return self.head(self.dropout(x))


def network(sizes: tuple[int, ...], rate: float = 0.0, seed: int = 0) -> btl.Net:
    """A network with weights from one seed; dropout has no share in them."""
    return btl.nets.from_nnx(Network(jax.random.key(seed), sizes, rate))


def yacht(seed: int, data_dir: Path, num_train: int = 40, num_validation: int = 40) -> Problem:
    """Resistance of sailing yachts: the source knows eleven hull forms, the target is about eleven others."""
    folder = data_dir / "uci" / "yacht"
    table = np.loadtxt(folder / "data.txt")
    columns = np.loadtxt(folder / "index_features.txt").astype(int)
    inputs, targets = table[:, columns], table[:, int(np.loadtxt(folder / "index_target.txt"))]
    # All features but the last, the Froude number, describe the hull.
    _, hull = np.unique(inputs[:, :-1], axis=0, return_inverse=True)
    ours = np.random.default_rng(0).permutation(hull.max() + 1)[: (hull.max() + 1) // 2]
    source = np.isin(hull, ours)
    mean, scale = inputs[source].mean(0), inputs[source].std(0)
    inputs = ((inputs - mean) / np.where(scale > 0, scale, 1)).astype(np.float32)
    targets = ((targets - targets[source].mean()) / targets[source].std()).astype(np.float32)[:, None]
    sizes = (inputs.shape[1], 32, 1)
    likelihood = btl.likelihoods.normal(NOISE)
    fitted = source_fit(network(sizes), likelihood, btl.data.arrays(inputs[source], targets[source]))
    # Isotropic around the source, so that every structure of curvature has a closed form.
    prior = btl.sources.point(fitted.params, 0.1)
    rest = np.random.default_rng(seed + 1).permutation(np.flatnonzero(~source))
    grid = np.linspace(-1.5, 5.0, 651, dtype=np.float32)
    return problem(YACHT, sizes, likelihood, prior, fitted, inputs, targets, rest, num_train, num_validation, grid)


def moons(seed: int, data_dir: Path, num_train: int = 30, num_validation: int = 100) -> Problem:
    """Two moons, turned by 30 degrees against those of the source; the prior has the shape of the source's iterates."""
    from sklearn.datasets import make_moons

    sizes, likelihood = (2, 16, 16, 2), btl.likelihoods.categorical()
    points, labels = make_moons(1000, noise=0.2, random_state=0)
    points = np.asarray(points, np.float32)
    collector = btl.sources.IterateCollector(keep=5, after=SOURCE_STEPS // 2)
    source = btl.data.arrays(points, np.asarray(labels, np.int32))
    fitted = source_fit(network(sizes), likelihood, source, [collector])
    prior = btl.sources.from_iterates(collector.iterates, rank=5, covariance_scale=100.0, eps=1e-2)
    points, labels = make_moons(num_train + num_validation + 500, noise=0.2, random_state=seed + 1)
    angle = np.deg2rad(30)
    turned = np.asarray(points) @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    inputs, targets = turned.astype(np.float32), np.asarray(labels, np.int32)
    rows = np.arange(len(inputs))
    return problem(MOONS, sizes, likelihood, prior, fitted, inputs, targets, rows, num_train, num_validation, None)


def source_fit(net: btl.Net, likelihood: Any, data: Any, callbacks: Any = ()) -> btl.FitResult:
    """The source's weights: MAP under a weak prior around zero."""
    prior = btl.gaussians.isotropic(btl.tree.zeros_like(net.params), 1.0)
    joint = btl.LogJoint(net, likelihood, prior, num_data=data.num_examples)
    return btl.fit(
        jax.random.key(0),
        btl.infer.map_estimate(joint, optax.sgd(0.003, momentum=0.9)),
        net.params,
        data,
        steps=SOURCE_STEPS,
        batch_size=32,
        callbacks=callbacks,
        progress=False,
    )


def problem(
    name: str,
    sizes: tuple[int, ...],
    likelihood: Any,
    prior: Any,
    fitted: btl.FitResult,
    inputs: np.ndarray,
    targets: np.ndarray,
    rows: np.ndarray,
    num_train: int,
    num_validation: int,
    grid: Any,
) -> Problem:
    """The target with its rows dealt out."""
    train, validation, test = np.split(rows, [num_train, num_train + num_validation])
    joint, dropout = (
        btl.LogJoint(network(sizes, rate), likelihood, prior, num_data=num_train) for rate in (0.0, DROPOUT)
    )
    data = btl.data.arrays(inputs[train], targets[train])
    held_out = (inputs[validation], targets[validation]), (inputs[test], targets[test])
    return Problem(name, joint, dropout, fitted.params, data, *held_out, grid)


PROBLEMS = {YACHT: yacht, MOONS: moons}
