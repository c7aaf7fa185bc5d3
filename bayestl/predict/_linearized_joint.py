"""The predictive of several examples together, of the network linearised around the posterior's mean."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._log_joint import LogJoint
from bayestl._types import Inputs, Likelihood, Outputs, Params, Posterior
from bayestl.likelihoods import gaussian_noise
from bayestl.passes import looped, num_inputs, scanned
from bayestl.predict._inputs import check_inputs
from bayestl.predict._jacobian import (
    Linearization,
    check_batch_size,
    checked_outputs_shape,
    held_batch_size,
    is_faster_alone,
    linearization,
    rows_of_chunk,
)
from bayestl.predict._joint import JointPredictive
from bayestl.predict._nan import warn_of_nan


def linearized_joint(
    joint: LogJoint, posterior: Posterior, *, batch_size: int | None = None
) -> Callable[[Any], JointPredictive]:
    """A function from inputs to what is believed about all of them together, under the linearised network.

    The outputs of all B inputs are one Gaussian with covariance ``J Sigma J^T``, J the (B C) x D Jacobian, which is
    never formed: blocks of ``batch_size`` examples meet each other, at the price of computing rows more than once.
    For a network linear in its parameters, under a normal likelihood, it is exact. See :func:`linearized`.

    Args:
        joint: a :class:`~bayestl.LogJoint`; its network, state and likelihood are used, its prior is not.
        posterior: a Gaussian, of all parameters or of a part, as for :func:`linearized`.
        batch_size: examples in a block, whose C x D rows are held; None for as many as fit into 64 MiB.

    Raises:
        TypeError: a posterior that is not a Gaussian.
        ValueError: a batch_size below 1; outputs without a batch axis.

    Warns:
        RuntimeWarning: at the call, predictions that are NaN.

    Example:
        >>> net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(2)})
        >>> joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), None, num_data=10)
        >>> posterior = btl.gaussians.isotropic(net.params, scale=2.0)
        >>> together = btl.predict.linearized_joint(joint, posterior)(jnp.array([[1.0, 0.0], [1.0, 1.0]]))
        >>> print(together.covariance())
        [[5. 4.]
         [4. 9.]]
    """
    check_arguments(linearized_joint, locals())
    check_batch_size(batch_size)
    apply, linear = linearization(joint, posterior)

    def predict(inputs: Inputs) -> JointPredictive:
        check_inputs(inputs)
        outputs = linear.outputs(apply, linear.gaussian.mean, inputs)
        warn_of_nan(outputs, inputs, 0)
        shapes = checked_outputs_shape(apply, linear, inputs)
        size = held_batch_size(linear, shapes) if batch_size is None else batch_size
        return _joint_predictive(outputs, _covariance(apply, linear, inputs, size), joint.likelihood)

    return predict


def _joint_predictive(outputs: Outputs, covariance: jax.Array, likelihood: Likelihood) -> JointPredictive:
    gaussian = gaussian_noise(likelihood, outputs)
    return JointPredictive(outputs, covariance, likelihood, None if gaussian is None else gaussian.variance)


def _covariance(apply: Any, linear: Linearization, inputs: Inputs, batch_size: int) -> jax.Array:
    """``J Sigma J^T`` of all inputs, (B F, B F), block by block."""
    num = num_inputs(inputs)
    concrete = _tree.is_concrete((linear, inputs))
    one_by_one = concrete and is_faster_alone(apply, linear, inputs)

    def rows(inputs: Inputs) -> Params:
        return looped(partial(rows_of_chunk, linear, apply=apply), inputs, 1 if one_by_one else num_inputs(inputs))

    if batch_size >= num:
        everything = rows(inputs)
        return _matrix(_gram(everything, everything))
    loop = looped if concrete else scanned

    def against_all(chunk: Any) -> jax.Array:
        held = rows(chunk)
        blocks = loop(lambda other: _gram(rows(other), held), inputs, batch_size)
        return jnp.transpose(blocks, (2, 3, 0, 1))  # the chunk's examples come first, (b, F, B, F)

    return _matrix(loop(against_all, inputs, batch_size))


def _matrix(blocks: jax.Array) -> jax.Array:
    """(B, F, B, F) as a symmetric matrix: products in another order differ in the last bit."""
    size = blocks.shape[0] * blocks.shape[1]
    matrix = blocks.reshape(size, size)
    return 0.5 * (matrix + matrix.T)


@jax.jit
def _gram(x: Params, y: Params) -> jax.Array:
    """Products of rows (b, F, *shape) and (c, F, *shape): (b, F, c, F)."""
    merged = [jax.tree.map(lambda r: r.reshape(-1, *r.shape[2:]), rows) for rows in (x, y)]
    (b, f), (c, _) = (jax.tree.leaves(rows)[0].shape[:2] for rows in (x, y))
    return _tree.columns_gram(*merged).reshape(b, f, c, f)
