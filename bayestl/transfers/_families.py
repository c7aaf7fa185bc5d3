"""From what is called a source to families of priors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bayestl import _tree, gaussians, sources
from bayestl._log_joint import LogJoint
from bayestl._types import Batch, Key, Net, NetState, Params
from bayestl.gaussians import Gaussian
from bayestl.transfers._head import find_head, zeroed
from bayestl.transfers._softened import softened
from bayestl.transfers._sources import read_sources
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
        log_weights: how probable each family is held to be before the data, relative to equal ones.
        state: the network's state, with running statistics of the source where it has any.
        merged: families that are the same as the last one, and are left out: around a source of whose network only
            the last layer is a parameter, once that layer is zero.
    """

    families: tuple[Family, ...]
    kinds: tuple[str, ...]
    head: tuple[str, ...] | None
    reference: Params | None
    reused: tuple[str, ...]
    log_weights: tuple[float, ...]
    state: NetState
    merged: tuple[str, ...] = ()


def families_of(
    key: Key,
    joint: LogJoint,
    net: Net,
    source: Any,
    new: Sequence[str],
    head: Sequence[str] | None,
    batch: Batch,
    is_class: bool,
) -> Families:
    """The source; the source with its head at zero; a fresh network with its head at zero.

    A head at zero predicts the same for every input, whatever the body, and does not mislead. A new head leaves out the
    first. A Gaussian adds a family with its own covariance. Where the source's head is too sure of the examples'
    classes, there is one around the source with a head that is less so.
    """
    given = read_sources(source, net, list(new))
    state = _with_statistics(net.state, [read.state for read in given])
    joint = joint.replace(state=state)
    paths = find_head(joint, net.params, batch.inputs, head)
    families: list[Family] = []
    log_weights: list[float] = []
    reference, reused = None, ()
    for read in given:
        match = sources.match(read.params, net.params, new=list(new), verbose=False)
        if not match.reused:
            raise ValueError(
                f"{read.name} and the network share no parameter: all of the network's are named as new ({list(new)}); "
                "name only those that the source does not have"
            )
        reused = match.reused
        without = zeroed(match.params, match.new)
        is_whole = not match.new or (paths is not None and not set(paths) & set(match.new))
        silenced = None if paths is None else zeroed(without, paths)
        its_own: list[Family] = []
        if silenced is None or (is_whole and not _are_equal(without, silenced)):
            its_own.append(isotropic_family(read.name, without))
            reference = without if reference is None and is_whole else reference
        if silenced is not None:
            its_own.append(isotropic_family(f"{read.name}, head at zero", silenced))
        if read.gaussian is not None:
            own = _traceable(read.name, _spread(read.gaussian, without, match))
            its_own.append(Family(f"{read.name}, its own covariance", own))
        families += its_own
        log_weights += [read.log_weight] * len(its_own)
        softer = None
        if is_class and paths is not None and its_own[0].name == read.name:
            softer = softened(joint, without, paths, batch)
        if softer is not None:
            families.append(isotropic_family(f"{read.name}, head times {softer.factor:.2g}", softer.params))
            log_weights.append(read.log_weight + softer.log_occam)
    fresh = _fresh(key, net.params, reused, families[0].prior.mean)
    name = "fresh" if paths is None else "fresh, head at zero"
    scratch = isotropic_family(name, fresh if paths is None else zeroed(fresh, paths))
    merged = [_are_same(family, scratch) for family in families]
    different = [number for number, is_merged in enumerate(merged) if not is_merged]
    return Families(
        (*(families[number] for number in different), scratch),
        (*[SOURCE] * len(different), SCRATCH),
        paths,
        reference,
        reused,
        (*(log_weights[number] for number in different), 0.0),
        state,
        tuple(family.name for family, is_merged in zip(families, merged, strict=True) if is_merged),
    )


def _are_same(one: Family, other: Family) -> bool:
    """Whether both hold the same priors."""
    leaves, others = jax.tree.leaves(one.prior), jax.tree.leaves(other.prior)
    is_alike = jax.tree.structure(one.prior) == jax.tree.structure(other.prior)
    return is_alike and all(np.array_equal(x, y) for x, y in zip(leaves, others, strict=True))


def _are_equal(one: Params, other: Params) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))


def _with_statistics(state: NetState, given: Sequence[NetState]) -> NetState:
    """The network's state, with what is there under the same path in the first source that has any."""
    own = _tree.by_paths(state)
    for each in given:
        theirs = _tree.by_paths(each)
        shared = {
            path: jnp.asarray(theirs[path], x.dtype)
            for path, x in own.items()
            if path in theirs
            and jnp.issubdtype(jnp.result_type(x), jnp.floating)
            and jnp.shape(theirs[path]) == x.shape
        }
        if shared:
            return _tree.restructure({**own, **shared}, state)
    return state


def _traceable(name: str, gaussian: Gaussian) -> Gaussian:
    """The Gaussian in a form whose proximal step a compiled program can take.

    Raises:
        ValueError: none that has one.
    """
    try:
        jax.eval_shape(lambda g: g.inflate(1.0), gaussian)
    except ValueError:
        try:
            return gaussian.inflate(0.0)  # known numbers may tell what their tracers cannot
        except ValueError as error:
            raise ValueError(
                f"the covariance of {name} has no closed form when a multiple of the identity is added, as the modes "
                f"under it need: {error}; or give its mean alone"
            ) from None
    return gaussian


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
