"""A source of a part of the target's network."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._types import Params, Scalar
from bayestl.gaussians import Blocks, Gaussian, isotropic


def extend(source: Gaussian, params: Params, *, scale: Scalar | Params, new: str | Sequence[str] = ()) -> Gaussian:
    """A prior over all of a target's parameters from a source that has only some of them.

    What both have, under the same path, takes the source's marginal, with all its correlations; what is new is
    N(0, scale^2), independent of the rest; what the source has alone is marginalised out.

    Args:
        source: a Gaussian over the source's parameters.
        params: the target's (their shapes count, not their values).
        scale: standard deviation > 0 of new parameters: one number, or the tree of ``params`` with one per leaf.
        new: patterns of target paths that do not come from the source although it has them.

    Raises:
        ValueError: nothing shared; a shape that differs where it is not named in ``new``; a pattern that matches
            nothing.

    Example:
        >>> source = btl.sources.point({"body": jnp.ones(3), "head": jnp.ones(10)}, scale=0.1)
        >>> target = {"body": jnp.zeros(3), "head": jnp.zeros(2)}
        >>> prior = btl.sources.extend(source, target, scale=1.0, new=["head"])
        >>> print(prior.mean["body"], prior.mean["head"], prior.variance["head"])
        [1. 1. 1.] [0. 0.] [1. 1.]
    """
    check_arguments(extend, locals())
    new = [new] if isinstance(new, str) else list(new)
    have, target = _tree.by_paths(source.mean), _tree.by_paths(params)
    for pattern in new:
        if not any(_tree.matches(pattern, path) for path in target):
            raise ValueError(f"new pattern {pattern!r} matches no parameter; the paths are {_tree.shown(list(target))}")
    shared = {path for path in target if path in have and not any(_tree.matches(pattern, path) for pattern in new)}
    for path in sorted(shared):
        if jnp.shape(have[path]) != jnp.shape(target[path]):
            raise ValueError(
                f"source and params differ at {path!r}: {jnp.shape(have[path])} against {jnp.shape(target[path])}; "
                f"name it in new, as new=[{path!r}], for a prior of its own"
            )
    if not shared:
        raise ValueError(
            f"the source and the target share no parameter: the source has {_tree.shown(list(have))}, the target "
            f"{_tree.shown(list(target))}; rename one of them (sources.match has rename)"
        )
    kept = source.restrict(_tree.select_where(source.mean, shared.__contains__)).realign(params)
    rest = _tree.select_where(params, lambda path: path not in shared)
    if not jax.tree.leaves(rest):
        return kept
    scales = scale if jax.tree.structure(scale) == jax.tree.structure(0) else _tree.like_selection(scale, rest)
    return Blocks((kept, isotropic(_tree.zeros_like(_tree.at_least_float32(rest)), scales)))
