"""How much of the output Hessians a GGN leaves out, because they are not positive semi-definite."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from bayestl import likelihoods
from bayestl._arguments import check_arguments
from bayestl._log_joint import LogJoint
from bayestl._static import Static, partition
from bayestl._types import Batch, Data, Key, Params
from bayestl.curvature._products import outputs_of
from bayestl.passes import Batches, batches


def clipped_share(joint: LogJoint, params: Params, data: Data | Batch | Batches, batch_size: int | None = 64) -> float:
    """The share of negative eigenvalues in the output Hessians of all examples, which :func:`ggn` sets to 0.

    ``sum max(-lambda, 0) / sum |lambda|``, between 0 and 1. It is 0 for likelihoods that know their expected Hessian,
    and for every density that is log-concave in the outputs. Where it is large, the GGN is not the curvature at these
    parameters; ``fisher(num_samples)`` clips nothing.

    Args:
        joint: its network (deterministic) and likelihood.
        params: the parameters at which to evaluate it.
        data: all of the data.
        batch_size: examples at a time.

    Example:
        >>> import numpyro.distributions as dist
        >>> net = btl.nets.from_function(lambda params, x: x @ params, jnp.zeros(1))
        >>> tails = btl.likelihoods.from_function(lambda f: dist.StudentT(1.0, f, 1.0))
        >>> joint = btl.LogJoint(net, tails, None, num_data=2)
        >>> data = btl.data.arrays(jnp.ones((2, 1)), jnp.array([0.0, 2.0]))
        >>> print(f"{btl.curvature.clipped_share(joint, net.params, data):.3f}")  # eigenvalues 2 and -6/25
        0.107
    """
    check_arguments(clipped_share, locals())
    passes = batches(data, batch_size)
    joint.check_paths("params", params)
    shapes = jax.eval_shape(outputs_of(joint, passes.inputs), params)
    if likelihoods.knows_hessian(joint.likelihood, shapes):
        return 0.0
    arrays, static = partition(joint)
    negative, absolute = passes.run(_sums, static, arrays, params, passes)
    return float(negative) / float(absolute) if float(absolute) > 0 else 0.0


@partial(jax.jit, static_argnums=0)
def _sums(static: Static, arrays: list[Any], params: Params, passes: Batches) -> tuple[jax.Array, jax.Array]:
    joint: LogJoint = static.combine(arrays)

    def one(key: Key, batch: Batch) -> tuple[jax.Array, jax.Array]:
        outputs = outputs_of(joint, batch.inputs)(params)
        sums = likelihoods.negative_and_absolute(joint.likelihood, outputs, batch.targets)
        weights = jnp.ones(()) if batch.weights is None else batch.weights
        return jnp.sum(weights * sums[0]), jnp.sum(weights * sums[1])

    return passes.sum(jax.random.key(0), one)
