"""The source as its weights and the curvature of its own task there: EWC, and Laplace's method."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._log_joint import LogJoint
from bayestl._static import Static, partition
from bayestl._types import Batch, Data, Key, Likelihood, Net, Params, Scalar
from bayestl.curvature import Builder, Kind, diagonal, ggn
from bayestl.gaussians import Gaussian, isotropic
from bayestl.passes import Batches, batches

_DIAGONAL = diagonal()


def fisher(
    key: Key,
    net: Net,
    likelihood: Likelihood,
    data: Data | Batch,
    *,
    scale: Scalar | Params,
    params: Params | None = None,
    strength: float = 1.0,
    curvature: Builder = _DIAGONAL,
    kind: Kind = ggn,
    batch_size: int | None = 64,
) -> Gaussian:
    """The source's weights, held more firmly in the directions that mattered to the source: EWC.

    ``N(theta_source, (strength H + scale^-2 I)^-1)``, H the curvature of the source's ``-log p(D | theta)`` at its
    weights, a sum over the source data. With diagonal curvature its log density is, up to constants, the penalty
    ``strength N / 2 sum_j F_j (theta_j - theta_source_j)^2`` of elastic weight consolidation, F the Fisher information
    per example, plus an L2-SP term; with Kronecker or low-rank curvature it is Laplace's method at the source.

    A Laplace posterior of the source under its own prior (:func:`bayestl.infer.laplace`) is a prior already. This is
    for published weights, whose prior nobody knows: whatever ``data`` of the source there are will do.

    Args:
        key: of sampled labels and of Lanczos' start.
        net: the source's network.
        likelihood: of the source's task.
        data: of the source's task, all or some of it.
        scale: standard deviation > 0 of directions that did not matter to the source; one number, or one per leaf.
        params: the source's weights; by default those of ``net``.
        strength: power of the source's likelihood, >= 0: how many times each example of ``data`` counts. N_source / N
            where ``data`` are N of N_source examples; less to forget, since sharp sources are rarely worth as much to
            the target as to themselves.
        curvature: the structure of H, from ``bayestl.curvature``; diagonal for EWC.
        kind: which curvature: ``curvature.ggn``, the exact Fisher of classes and normal noise; for EWC with the labels
            given ``curvature.empirical_fisher``, with sampled labels ``curvature.fisher(num_samples)``.
        batch_size: examples seen at once; None for all.

    Returns:
        A Gaussian of the structure that ``curvature`` has: diagonal, by layer Kronecker, low rank or dense.

    Raises:
        ValueError: data that do not fit the network, a strength below 0, a scale that is not positive.

    Reference:
        Kirkpatrick et al. 2017, "Overcoming catastrophic forgetting in neural networks", equation 3, with their lambda
        as ``strength N``; Ritter, Botev and Barber 2018, "Online Structured Laplace Approximations for Overcoming
        Catastrophic Forgetting".

    Example:
        >>> net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.array([1.0, 1.0])})
        >>> data = btl.data.arrays(jnp.array([[1.0, 0.0], [2.0, 0.0]]), jnp.array([1.0, 2.0]))
        >>> prior = btl.sources.fisher(jax.random.key(0), net, btl.likelihoods.normal(1.0), data, scale=1.0)
        >>> print(prior.mean["w"], np.asarray(prior.variance["w"]).round(3))    # the first: 1 / (1 + 1^2 + 2^2)
        [1. 1.] [0.167 1.   ]
    """
    check_arguments(fisher, locals())
    params = net.params if params is None else params
    _tree.check_floating("params", params)
    params = _tree.at_least_float32(params)
    passes = batches(data, batch_size)
    if _tree.is_concrete(strength) and not float(strength) >= 0:
        raise ValueError(f"strength is {strength}; it counts the source's examples and must be 0 or more")
    base = isotropic(params, scale)
    joint = LogJoint(net, likelihood, base, num_data=passes.num_examples)
    joint.check(params, passes.inputs, passes.targets, passes.weights)
    arrays, static = partition((joint, curvature, kind))
    return passes.run(_updated, static, arrays, key, params, passes, strength)


@partial(jax.jit, static_argnums=0)
def _updated(static: Static, arrays: list[Any], key: Key, params: Params, passes: Batches, strength: Any) -> Gaussian:
    joint, curvature, kind = static.combine(arrays)
    structure = curvature(key, joint, params, passes, kind, passes.batch_size)
    return structure.precision_update(joint.prior, params, strength, 1.0)
