"""One Newton step away from each group of examples, with any structure of curvature.

Without a group the log joint has the gradient of the others, and their curvature: ``theta + Sigma grad`` with Sigma the
covariance of the Laplace posterior without the group. The curvature is that of the others, and not that of all less
the group's, which under an approximate structure would be a difference of large numbers that do not fit each other.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from bayestl import _tree, infer
from bayestl._log_joint import LogJoint
from bayestl._static import partition
from bayestl._types import Batch, Key, Params
from bayestl.curvature import Builder
from bayestl.tune._linear_network import moved
from bayestl.tune._output_space import OutputSpace, flattened, output_space
from bayestl.tune._remaining_gain import gradient


def outputs_without(
    key: Key,
    joint: LogJoint,
    params: Params,
    batch: Batch,
    groups: np.ndarray,
    curvature: Builder,
    batch_size: int | None,
) -> tuple[OutputSpace, np.ndarray]:
    """The likelihood at the outputs, and the outputs of each example without its group, (N, F); float64 on the host."""
    params, num = _tree.at_least_float32(params), len(groups)
    counts = jnp.ones(num) if batch.weights is None else jnp.asarray(batch.weights)
    arrays, static = partition(joint)
    steps, outputs = np.zeros(0), None
    for group in range(groups.max() + 1):
        is_left_out = groups == group
        weights = jnp.where(jnp.asarray(is_left_out), 0, counts)
        others = Batch(batch.inputs, batch.targets, weights)
        # Every example counts as often as its weight says, at temperature 1, which moves no mode.
        own = joint.replace(num_data=float(jnp.sum(weights)), temperature=1.0)
        posterior = infer.laplace(key, own, params, others, curvature=curvature, batch_size=batch_size)
        towards = posterior.covariance_mv(gradient(static, arrays, params, others))
        outputs, change = moved(joint.replace(prior=None), params, towards, batch)
        steps = np.where(is_left_out[:, None], flattened(change), steps if group else 0.0)
    space = output_space(joint.likelihood, outputs, batch.targets)
    return space, space.outputs + steps
