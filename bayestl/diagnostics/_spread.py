"""How much of the prior's spread a posterior keeps."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._types import Key, Params, Posterior
from bayestl.posteriors import Part, Samples


def spread(key: Key, posterior: Posterior, prior: Any, *, num_samples: int = 100) -> dict[str, float]:
    """Posterior variance over prior variance, for each leaf of the parameters.

    ``1/D_b sum_i Var[theta_i | D] / Var[theta_i]`` over the D_b parameters of leaf b: 1 where the data say little, 0
    where the posterior does not vary. In networks, most parameters keep much of their prior's spread. If little is
    left in every leaf, the method has not explored the posterior.

    Args:
        key: for posteriors that have to be drawn from.
        posterior: any. For a Gaussian the variances are exact, for :class:`~bayestl.Samples` they are those of its
            draws, and for all others those of ``num_samples`` draws with ``key``.
        prior: a Gaussian, or anything else with ``variance``.
        num_samples: how many draws, >= 2.

    Returns:
        From paths to ratios. Several chains count as one sample.

    Raises:
        TypeError: a prior without variances.
        ValueError: a prior of other parameters.

    Example:
        >>> prior = btl.gaussians.isotropic({"w": jnp.zeros(3), "b": jnp.zeros(1)}, scale=2.0)
        >>> posterior = btl.gaussians.isotropic(prior.mean, {"w": 2.0, "b": 0.2})
        >>> ratios = btl.diagnostics.spread(jax.random.key(0), posterior, prior)
        >>> {path: round(value, 2) for path, value in ratios.items()}
        {'b': 0.01, 'w': 1.0}
    """
    check_arguments(spread, locals())
    if not hasattr(type(prior), "variance"):
        raise TypeError(
            f"spread is relative to the prior's variance, and a {type(prior).__name__} has none; give a Gaussian prior"
        )
    posterior, prior = (x.part if isinstance(x, Part) else x for x in (posterior, prior))
    after, before = _tree.by_paths(_variance(key, posterior, num_samples)), _tree.by_paths(prior.variance)
    missing = [path for path in after if path not in before]
    if missing:
        raise ValueError(
            f"the prior does not cover {_tree.shown(missing, 4)}, which vary in the posterior; give the prior of "
            "these, or the posterior of a part (posteriors.Part)"
        )
    return {path: float(jnp.mean(variance / before[path])) for path, variance in after.items()}


def _variance(key: Key, posterior: Any, num_samples: int) -> Params:
    if hasattr(type(posterior), "variance"):
        return posterior.variance
    if isinstance(posterior, Samples):
        axes = posterior.log_weights.ndim
        filled = np.flatnonzero(np.isfinite(np.asarray(posterior.log_weights).reshape(-1)))
        weights = jax.nn.softmax(posterior.log_weights.reshape(-1)[filled])
        draws = jax.tree.map(lambda x: x.reshape(-1, *x.shape[axes:])[filled], posterior.draws)
    else:
        draws, weights = posterior.sample(key, num_samples), jnp.full(num_samples, 1 / num_samples)
    # 1 - sum w^2 is 1 - 1/S for equal weights; a single draw has no spread.
    left = 1 - jnp.sum(weights**2)

    def variance(x: jax.Array) -> jax.Array:
        w = weights.reshape(-1, *[1] * (x.ndim - 1))
        return jnp.sum(w * (x - jnp.sum(w * x, axis=0)) ** 2, axis=0) / jnp.where(left > 0, left, 1.0)

    return jax.tree.map(variance, draws)
