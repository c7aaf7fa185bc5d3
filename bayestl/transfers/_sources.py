"""From what is called a source to weights, and a Gaussian around them where there is one."""

from __future__ import annotations

import math
import os
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bayestl import _tree, posteriors, sources
from bayestl._types import Net, NetState, Params
from bayestl.gaussians import Gaussian
from bayestl.posteriors import Mixture, Point, Samples
from bayestl.sources import Iterates, SourceMixture, StudentT

# Draws that are each a source, with three families of their own.
_MOST_DRAWS = 8


class Read(NamedTuple):
    """One source.

    Attributes:
        name: "source", or with its number where there are several.
        params: its weights.
        gaussian: around them, where it has one.
        log_weight: how probable it is held to be before the data, relative to equal ones.
        state: running statistics that belong to the weights, where it has any.
    """

    name: str
    params: Params
    gaussian: Gaussian | None = None
    log_weight: float = 0.0
    state: NetState = ()


def read_sources(source: Any, net: Net, new: list[str]) -> list[Read]:
    """All sources by name, those in a mixture one by one.

    Raises:
        ValueError: an empty list; a prior of which no scale is open.
    """
    given = _several(source, net)
    return [read for name, one in given.items() for read in _read(name, one, net, new)]


def _several(source: Any, net: Net) -> dict[str, Any]:
    if not isinstance(source, list) or set(_tree.paths(source)) & set(_tree.paths(net.params)):
        return {"source": source}
    if not source:
        raise ValueError("source is an empty list; give at least one source")
    return {"source" if len(source) == 1 else f"source {number}": one for number, one in enumerate(source, 1)}


def _read(name: str, source: Any, net: Net, new: list[str]) -> list[Read]:
    if isinstance(source, str | os.PathLike):
        source = _from_file(source)
    if callable(getattr(source, "weights_for", None)):  # a file of published weights and its table
        source = source.weights_for(net, new=new)
    if isinstance(source, StudentT):
        raise TypeError(
            f"{name} is a StudentT, whose parameters have a scale each, so that no one scale is left open; give the "
            "Gaussian that it was made from: mixing its scales, as transfer does, gives tails too"
        )
    if isinstance(source, Samples):
        source = _each_a_point(name, source)
    if isinstance(source, SourceMixture | Mixture):
        return _components(name, source, net, new)
    if isinstance(source, Iterates):
        typical = float(jnp.mean(jnp.stack([jnp.mean(v) for v in jax.tree.leaves(source.variance)])))
        count = min(int(source.count), source.last.capacity)
        source = sources.from_iterates(source, rank=count, eps=max(0.1 * typical, 1e-12))
    if isinstance(source, Gaussian):
        return [Read(name, source.mean, source)]
    if isinstance(source, dict) or set(_tree.paths(source)) & set(_tree.paths(net.params)):
        return [Read(name, source)]
    # Networks, results of `fit` and of `pretrained.load`, points.
    holder = getattr(source, "net", source)
    state = getattr(holder, "net_state", getattr(holder, "state", ()))
    params = getattr(holder, "params", holder)
    return [Read(name, params, state=state if params is not holder else ())]


def _from_file(path: Any) -> Any:
    try:
        return posteriors.load(path).posterior
    except ValueError as error:
        raise ValueError(
            f"{error}; published weights come with a table of their names: "
            "source=btl.pretrained.WeightFile(path, btl.pretrained.tables.RESNET50)"
        ) from None


def _components(name: str, mixture: SourceMixture | Mixture, net: Net, new: list[str]) -> list[Read]:
    """The sources of a mixture, which the data weigh anew from the weights that it gives them."""
    weights = np.asarray(jax.nn.softmax(jnp.asarray(mixture.log_weights)), float)
    parts = [(part, w) for part, w in zip(mixture.components, weights, strict=True) if w > 0]
    names = [name] if len(parts) == 1 else [_numbered(name, number) for number in range(1, len(parts) + 1)]
    return [
        read._replace(log_weight=read.log_weight + math.log(weight * len(parts)))
        for inner, (part, weight) in zip(names, parts, strict=True)
        for read in _read(inner, part, net, new)
    ]


def _numbered(name: str, number: int) -> str:
    return f"{name}.{number}" if name[-1].isdigit() else f"{name} {number}"


def _each_a_point(name: str, samples: Samples) -> Mixture:
    """Draws may be of different basins, whose mean is no network; so each is a source."""
    num = jax.tree.leaves(samples.draws)[0].shape[0]
    if num > _MOST_DRAWS:
        raise ValueError(
            f"{name} holds {num} draws, and each would be a source of its own; where they are of one basin, give "
            "sources.from_samples(draws, eps=...), else a few of them"
        )
    points = [Point(jax.tree.map(lambda x, i=number: x[i], samples.draws)) for number in range(num)]
    return Mixture(tuple(points), samples.log_weights)
