"""From what is called a source to families of priors."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bayestl import _tree, gaussians, posteriors, sources
from bayestl._log_joint import LogJoint
from bayestl._types import Inputs, Key, Net, Params
from bayestl.gaussians import Gaussian
from bayestl.sources import Iterates
from bayestl.transfers._head import find_head, zeroed
from bayestl.tune import Family, isotropic_family

SOURCE, SCRATCH = "source", "from scratch"


class Families(NamedTuple):
    """What :func:`bayestl.transfer` chooses among.

    Attributes:
        families: of priors.
        kinds: for each, ``"source"`` or ``"from scratch"``.
        head: the paths of the last layer, None where it was not found.
        reference: the source's parameters where its head serves the target, at whose outputs scales are measured.
        reused: the paths that come from a source.
    """

    families: tuple[Family, ...]
    kinds: tuple[str, ...]
    head: tuple[str, ...] | None
    reference: Params | None
    reused: tuple[str, ...]


def families_of(
    key: Key, joint: LogJoint, net: Net, source: Any, new: Sequence[str], head: Sequence[str] | None, inputs: Inputs
) -> Families:
    """The source; the source with its head at zero; a fresh network with its head at zero.

    A head at zero predicts the same for every input, whatever the body, and does not mislead. A new head leaves out the
    first. A Gaussian adds a family with its own covariance.
    """
    given = _several(source, net)
    paths = find_head(joint, net.params, inputs, head)
    found: list[Family] = []
    reference, reused = None, ()
    for name, one in given.items():
        prefix = "source" if len(given) == 1 else f"source {name}"
        mean, gaussian = _as_source(one, net)
        match = sources.match(mean, net.params, new=list(new), verbose=False)
        if not match.reused:
            raise ValueError(
                f"{prefix} and the network share no parameter: all of the network's are named as new ({list(new)}); "
                "name only those that the source does not have"
            )
        reused = match.reused
        without = zeroed(match.params, match.new)
        is_whole = not match.new or (paths is not None and not set(paths) & set(match.new))
        if is_whole or paths is None:
            found.append(isotropic_family(prefix, without))
            reference = without if reference is None and is_whole else reference
        if paths is not None:
            found.append(isotropic_family(f"{prefix}, head at zero", zeroed(without, paths)))
        if gaussian is not None:
            found.append(Family(f"{prefix}, its own covariance", _spread(gaussian, without, match)))
    kinds = [SOURCE] * len(found)
    fresh = _fresh(key, net.params, reused, found[0].prior.mean)
    name = "fresh" if paths is None else "fresh, head at zero"
    found.append(isotropic_family(name, fresh if paths is None else zeroed(fresh, paths)))
    return Families(tuple(found), (*kinds, SCRATCH), paths, reference, reused)


def _several(source: Any, net: Net) -> dict[str, Any]:
    """Sources by name: one, or those of a list."""
    if not isinstance(source, list) or set(_tree.paths(source)) & set(_tree.paths(net.params)):
        return {"": source}
    if not source:
        raise ValueError("source is an empty list; give at least one source")
    return {str(number): one for number, one in enumerate(source, 1)}


def _as_source(source: Any, net: Net) -> tuple[Params, Gaussian | None]:
    """A source's weights, and its Gaussian where it has one."""
    if isinstance(source, str | os.PathLike):
        source = posteriors.load(source).posterior
    if isinstance(source, Iterates):
        typical = float(jnp.mean(jnp.stack([jnp.mean(v) for v in jax.tree.leaves(source.variance)])))
        count = min(int(source.count), source.last.capacity)
        source = sources.from_iterates(source, rank=count, eps=max(0.1 * typical, 1e-12))
    if isinstance(source, Gaussian):
        return source.mean, source
    # Networks, results of `fit`, points.
    return getattr(source, "params", source) if not isinstance(source, dict) else source, None


def _spread(gaussian: Gaussian, mean: Params, match: sources.Match) -> Gaussian:
    """A source's Gaussian over the target's parameters; new ones get the mean of its variances."""
    if not match.new:
        return (
            gaussian.realign(mean).around(mean) if not match.unused else gaussians.by_path({"**": gaussian}, like=mean)
        )
    variances = jax.tree.leaves(gaussian.variance)
    typical = float(sum(float(jnp.sum(v)) for v in variances) / sum(v.size for v in variances))
    whole = gaussians.isotropic(mean, typical**0.5)
    return gaussians.by_path(
        {**{path: gaussian for path in match.reused}, **{path: whole for path in match.new}}, like=mean
    )


def _fresh(key: Key, params: Params, reused: Sequence[str], source: Params) -> Params:
    """A fresh network: the target's initialisation; where it *is* the source, arrays of the same spread at random."""
    own, theirs = _tree.by_paths(params), _tree.by_paths(source)
    if not all(np.array_equal(own[path], theirs[path]) for path in reused):
        return params
    fresh = {}
    for number, (path, x) in enumerate(own.items()):
        noise = jax.random.normal(jax.random.fold_in(key, number), jnp.shape(x), jnp.result_type(x))
        # Vectors are biases and scales of normalisations, whose values are no matter of chance.
        fresh[path] = jnp.std(x) * noise if jnp.ndim(x) > 1 else x
    return _tree.restructure(fresh, params)
