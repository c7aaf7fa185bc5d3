"""The source as draws from its posterior."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.lax import Precision

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._types import Params
from bayestl.gaussians import Dense, LowRank, dense, low_rank
from bayestl.posteriors import Samples


def from_samples(samples: Samples | Params, *, eps: float) -> LowRank | Dense:
    """The Gaussian with the mean and the covariance of draws: from a chain or an ensemble to a prior.

    ``N(mean, sum_s w_s (theta_s - mean)(theta_s - mean)^T / (1 - sum_s w_s^2) + eps I)``; with equal weights that is
    the sample covariance with divisor S - 1, all of it, without the 1/2 of SWAG.

    Args:
        samples: a :class:`~bayestl.Samples`, or one tree of draws with a leading axis S.
        eps: floor on the diagonal, a variance; above 0 unless there are more draws than parameters.

    Returns:
        Low rank plus diagonal with S columns; dense when there are more draws than parameters.

    Raises:
        ValueError: fewer than 2 draws, non-finite draws, eps < 0, or a covariance that is singular without a floor.

    Example:
        >>> draws = {"w": jnp.array([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0]])}
        >>> print(np.asarray(btl.sources.from_samples(draws, eps=1.0).variance["w"]).round(3))
        [3. 1. 1.]
    """
    check_arguments(from_samples, locals())
    draws = samples.draws if isinstance(samples, Samples) else samples
    _tree.check_floating("samples", draws)
    draws = _tree.at_least_float32(draws)
    lengths = {x.shape[0] if x.ndim else 0 for x in jax.tree.leaves(draws)}
    if len(lengths) != 1 or min(lengths) < 2:
        raise ValueError(
            f"samples need one leading axis S >= 2 on every leaf; the leading lengths are {sorted(lengths)}"
        )
    if _tree.is_concrete(eps) and not float(eps) >= 0:
        raise ValueError(f"eps is {eps}; the floor of the variances must be 0 or more")
    num = lengths.pop()
    log_weights = samples.log_weights if isinstance(samples, Samples) else jnp.zeros(num)
    weights = jax.nn.softmax(log_weights)
    mean = jax.tree.map(lambda x: jnp.tensordot(weights, x, axes=1, precision=Precision.HIGHEST), draws)
    roots = jnp.sqrt(weights / (1 - jnp.sum(weights**2)))
    factor = jax.tree.map(lambda x, m: (x - m) * roots.reshape(-1, *[1] * m.ndim), draws, mean)
    size = _tree.size(mean)
    if num <= size:
        return low_rank(mean, eps, factor)
    rows = jnp.concatenate([x.reshape(num, -1) for x in jax.tree.leaves(factor)], axis=1)
    covariance = jnp.matmul(rows.T, rows, precision=Precision.HIGHEST)
    return dense(mean, covariance + eps * jnp.eye(size))
