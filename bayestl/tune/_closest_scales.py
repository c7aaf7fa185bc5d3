"""The scales at which a prior is closest to a posterior, in closed form."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl.gaussians import Blocks, Dual, Gaussian


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ClosestScales:
    """A prior whose blocks have the scales closest to a posterior. Made by :func:`closest_scales`.

    Attributes:
        prior: with these factors on the covariances of its blocks.
        factors: c_b > 0, (B,). Of a block that was isotropic with scale 1, c_b is its variance.
        divergence: KL(posterior || prior), nats.
        names: of the blocks: their paths, static.
    """

    prior: Gaussian
    factors: Float[Array, " B"]
    divergence: jax.Array
    names: tuple[str, ...] = dataclasses.field(metadata={"static": True})


def closest_scales(posterior: Gaussian, prior: Gaussian) -> ClosestScales:
    """The factors on the covariances of a prior's blocks that minimise KL(posterior || prior).

    ``c_b = (tr(S_b^-1 Sq_b) + r_b^T S_b^-1 r_b) / D_b`` for a block of D_b parameters with covariance S_b, where r is
    the posterior's mean less the prior's and Sq_b the posterior's covariance in the block. For N(m, s^2 I) and a block
    N(mu, tau I) that is ``tau = s^2 + |m_b - mu_b|^2 / D_b``. Works under ``jit`` and ``grad``.

    Args:
        posterior: such as that of :func:`data_emphasized_elbo`, over the same tree as the prior.
        prior: its blocks are those of ``gaussians.by_path``; any other Gaussian is one block.

    Raises:
        ValueError: trees that differ.

    Example:
        >>> mean = {"body": jnp.array([2.0, 4.0]), "head": jnp.array([3.0])}
        >>> posterior = btl.gaussians.isotropic(mean, scale=1.0)
        >>> unit = btl.gaussians.isotropic(btl.tree.zeros_like(mean), scale=1.0)
        >>> closest = btl.tune.closest_scales(posterior, btl.gaussians.by_path({"head": unit, "**": unit}))
        >>> print(dict(zip(closest.names, closest.factors.tolist())))  # 1 + 3^2, 1 + (2^2 + 4^2) / 2
        {'head': 10.0, 'body': 11.0}
        >>> print(closest.prior.variance["body"])
        [11. 11.]
    """
    check_arguments(closest_scales, locals())
    _tree.check_same_structure("posterior", posterior.mean, "prior", prior.mean, "both are over the same parameters")
    blocks = prior.blocks()
    factors, halves = [], []
    for block in blocks:
        own, size = posterior.restrict(block.mean), _tree.size(block.mean)
        dual = Dual(block.precision_trace, block.num_directions)
        trace = own.trace(block.precision_diagonal(), block.precision_quadratic, dual)
        distance = block.squared_mahalanobis(own.mean)
        factors.append((trace + distance) / size)
        # log c_b in two terms: a small distance keeps its digits.
        halves.append(0.5 * size * (jnp.log1p(distance / trace) + jnp.log(trace / size)))
    divergence = _tree.total(halves) + 0.5 * (prior.log_det_covariance() - posterior.log_det_covariance())
    rescaled = tuple(block.rescale(c) for block, c in zip(blocks, factors, strict=True))
    names = tuple(", ".join(_tree.paths(block.mean)) for block in blocks)
    return ClosestScales(rescaled[0] if len(rescaled) == 1 else Blocks(rescaled), jnp.stack(factors), divergence, names)
