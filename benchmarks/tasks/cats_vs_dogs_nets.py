"""The networks of the cats-against-dogs task: head alone, tail and head, all of it, and all of it from scratch."""

from __future__ import annotations

from typing import Any

import jax
from flax import nnx

import bayestl as btl
from benchmarks._published import NETWORKS, as_run_here, stages
from benchmarks.tasks.cats_vs_dogs_config import Config
from benchmarks.tasks.cats_vs_dogs_source import Source


class Head(nnx.Module):
    """One logit per picture, (B,): linear, or with a hidden layer of ReLUs before it."""

    def __init__(self, key: Any, inputs: int, hidden: int | None):
        rngs = nnx.Rngs(params=key)
        self.dense = nnx.Linear(inputs, hidden, rngs=rngs) if hidden else None
        self.out = nnx.Linear(hidden or inputs, 1, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x if self.dense is None else nnx.relu(self.dense(x))
        return self.out(x)[..., 0]


def new_head(config: Config, hidden: int | None, seed: int) -> Head:
    """The head that the runs of one seed start from."""
    return Head(jax.random.fold_in(jax.random.key(4), seed), NETWORKS[config.network].channels, hidden)


def head_net(config: Config, hidden: int | None, seed: int = 0) -> btl.Net:
    """The head alone, on features."""
    return btl.nets.from_nnx(btl.pretrained.Backbone({"head": new_head(config, hidden, seed)}))


def tail_net(config: Config, origin: Source, hidden: int | None, seed: int = 0) -> btl.Net:
    """Tail and head, on maps of the body."""
    pool = {"pool": btl.pretrained.global_average, "head": new_head(config, hidden, seed)}
    return btl.nets.from_nnx(btl.pretrained.Backbone({**stages(origin.tail), **pool}))


def whole_net(config: Config, origin: Source, hidden: int | None, seed: int = 0) -> btl.Net:
    """Body, tail and head on pictures; the body is constant."""
    pool = {"pool": btl.pretrained.global_average, "head": new_head(config, hidden, seed)}
    net = btl.nets.from_nnx(btl.pretrained.Backbone({**stages(origin.body), **stages(origin.tail), **pool}))
    with_parameters = {path.split("/")[0] for path in btl.tree.paths(net.params)}
    return btl.nets.freeze(net, [f"{name}/**" for name in origin.body.stages if name in with_parameters])


def fresh_net(config: Config, hidden: int | None, seed: int = 0) -> btl.Net:
    """The same network from a random initialisation, all of it trained, its running statistics too."""
    network = NETWORKS[config.network]
    body = as_run_here(network.make(jax.random.fold_in(jax.random.key(9), seed), cut=network.end))
    for _, part in nnx.iter_modules(body):
        if isinstance(part, nnx.BatchNorm):
            part.momentum = 0.9  # the original's 0.99 would need more steps than a run has
    pool = {"pool": btl.pretrained.global_average, "head": new_head(config, hidden, seed)}
    return btl.nets.trained_state(btl.nets.from_nnx(btl.pretrained.Backbone({**stages(body), **pool})))
