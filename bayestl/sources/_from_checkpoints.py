"""The source as several sets of published weights, or the members of an ensemble."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._types import Params
from bayestl.gaussians import LowRank, low_rank


def from_checkpoints(
    checkpoints: Sequence[Params], *, low_rank_share: float = 0.5, covariance_scale: float = 1.0, eps: float = 0.0
) -> LowRank:
    """The Gaussian with the mean of a few checkpoints and their spread: what they agree on is held firmly.

    ``N(mean, c ((1 - s) diag(v) + s Dev^T Dev / (M - 1)) + eps I)``, Dev the deviations of the M checkpoints from their
    mean and v their sample variance, averaged over each array: from a handful of checkpoints the variance of a single
    weight is little more than noise, that of an array is not. At eps = 0 and c = 1 the total variance of each array is
    that of the sample, whatever s.

    Checkpoints must be of one basin, as those fine-tuned from one ancestor or along one run are. Networks trained from
    different starts have their units in different orders, and the mean of these is no network.

    Args:
        checkpoints: M >= 2 trees of parameters of one structure.
        low_rank_share: s, 0 <= s < 1, how much of the variance lies along the deviations themselves.
        covariance_scale: c > 0, the number that multiplies the covariance.
        eps: floor of the variances, >= 0; needed where an array is the same in all checkpoints.

    Raises:
        ValueError: fewer than 2 checkpoints, structures that differ, numbers out of range, an array that never differs
            without a floor.

    Example:
        >>> checkpoints = [{"w": jnp.array([0.0, 0.0])}, {"w": jnp.array([2.0, 0.0])}]
        >>> prior = btl.sources.from_checkpoints(checkpoints)
        >>> print(prior.mean["w"], np.asarray(prior.variance["w"]).round(3))
        [1. 0.] [1.5 0.5]
    """
    check_arguments(from_checkpoints, locals())
    trees = list(checkpoints)
    if len(trees) < 2:
        raise ValueError(f"from_checkpoints got {len(trees)} checkpoint; give 2 or more, or use sources.point for one")
    if not 0 <= low_rank_share < 1:
        raise ValueError(f"low_rank_share is {low_rank_share}; give a number from 0 to below 1")
    if not covariance_scale > 0:
        raise ValueError(f"covariance_scale is {covariance_scale}; it multiplies the covariance and must be above 0")
    if not eps >= 0:
        raise ValueError(f"eps is {eps}; the floor of the variances must be 0 or more")
    for number, tree in enumerate(trees):
        name = f"checkpoints[{number}]"
        _tree.check_floating(name, tree)
        _tree.check_same_structure(name, tree, "checkpoints[0]", trees[0], "give checkpoints of one network")
        _tree.check_finite(name, tree)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(_tree.at_least_float32, trees))
    mean = jax.tree.map(lambda x: jnp.mean(x, axis=0), stacked)
    deviations = jax.tree.map(lambda x, m: x - m, stacked, mean)
    variances = jax.tree.map(lambda d: jnp.sum(d**2) / (len(trees) - 1) / d[0].size, deviations)
    diagonal = jax.tree.map(
        lambda v, m: jnp.full((1,) * m.ndim, covariance_scale * (1 - low_rank_share) * v + eps), variances, mean
    )
    root = (covariance_scale * low_rank_share / (len(trees) - 1)) ** 0.5
    factor = _tree.scale(root, deviations)
    if len(trees) > _tree.size(mean):
        raise ValueError(f"{len(trees)} checkpoints of {_tree.size(mean)} parameters; use sources.from_samples")
    return low_rank(mean, diagonal, factor)
