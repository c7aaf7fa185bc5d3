"""Kullback-Leibler divergence between Gaussians."""

from __future__ import annotations

import jax

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl.gaussians._base import Gaussian
from bayestl.gaussians._matrices import Dual


def kl_divergence(q: Gaussian, p: Gaussian) -> jax.Array:
    """KL(q || p) in nats, in closed form for every pair of structures.

    ``1/2 [tr(Sp^-1 Sq) + (mq - mp)^T Sp^-1 (mq - mp) - D + log det Sp - log det Sq]``

    The trace needs only the diagonal of ``Sp^-1`` and its quadratic form along the columns of ``Sq``: for two low-rank
    Gaussians, O(D k1 k2) time and O(D (k1 + k2)) memory. A Kronecker-factored q has a column for every parameter; the
    columns of ``Sp^-1`` are used instead, none for a diagonal p and k for a p of rank k.

    Args:
        q: the approximation, over the same tree as ``p``.
        p: the prior.

    Raises:
        ValueError: trees that differ.

    Example:
        >>> q = btl.gaussians.isotropic({"w": jnp.ones(2)}, scale=1.0)
        >>> p = btl.gaussians.isotropic({"w": jnp.zeros(2)}, scale=1.0)
        >>> print(btl.gaussians.kl_divergence(q, p))
        1.0
    """
    check_arguments(kl_divergence, locals(), skip=("q",))
    if not hasattr(q, "log_det_covariance"):  # any object with these methods, while it is being learned
        raise TypeError(f"kl_divergence: q is a {type(q).__name__}; give a Gaussian from bayestl.gaussians")
    _tree.check_same_structure("q", q.mean, "p", p.mean, "both must be over the same parameters")
    trace = q.trace(p.precision_diagonal(), p.precision_quadratic, Dual(p.precision_trace, p.num_directions))
    log_dets = p.log_det_covariance() - q.log_det_covariance()
    return 0.5 * (trace + p.squared_mahalanobis(q.mean) - _tree.size(q.mean) + log_dets)
