"""A source whose head is less sure of itself: one number, from the labels of the target's examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bayestl import _tree
from bayestl._log_joint import LogJoint
from bayestl._types import Batch, Outputs, Params

# The factor on the logits is log-normal around 1 / 1.5 before the labels, and at most 1. Networks are too sure on new
# examples of their own task (Guo et al. 2017), and more so on a task that is only like it.
_CENTRE, _WIDTH = float(np.log(1 / 1.5)), 0.7
_LOG_FACTORS = np.linspace(-5.0, 0.0, 101)
_LOG_PRIOR = -0.5 * ((_LOG_FACTORS - _CENTRE) / _WIDTH) ** 2
_LOG_PRIOR -= np.logaddexp.reduce(_LOG_PRIOR)
# A larger factor is that of the source itself, a smaller one that of a head at zero.
_LARGEST, _SMALLEST = 0.8, 0.05


class Softened(NamedTuple):
    """A source with its head times a factor.

    Attributes:
        params: the source's parameters, with the head's scaled.
        factor: on the head, and so on the logits: exp of the posterior mean of its logarithm.
        log_occam: log evidence of an unknown factor less the log likelihood of this one, nats. The factor has seen the
            examples, and its family is to be believed so much less.
    """

    params: Params
    factor: float
    log_occam: float


def softened(joint: LogJoint, params: Params, head: Sequence[str], batch: Batch) -> Softened | None:
    """The source with logits times a factor below 1, whose posterior given the examples' labels is found on a grid.

    The inverse of the factor is a temperature.

    Args:
        joint: network and likelihood, of classes.
        params: the source's.
        head: paths of the last layer.
        batch: the examples.

    Returns:
        None where the factor is hardly less than 1, or hardly more than 0, or where scaling the head does not scale
        the logits.

    Reference:
        Guo, Pleiss, Sun and Weinberger 2017, "On Calibration of Modern Neural Networks".
    """
    outputs = joint.outputs(params, batch.inputs)[0]
    log_likelihoods = _log_likelihoods(joint, outputs, batch)
    log_joint = np.where(np.isfinite(log_likelihoods), log_likelihoods + _LOG_PRIOR, -np.inf)
    log_evidence = np.logaddexp.reduce(log_joint)
    mean = float(np.exp(log_joint - log_evidence) @ _LOG_FACTORS)
    if not np.log(_SMALLEST) < mean < np.log(_LARGEST):
        return None
    factor = float(np.exp(mean))
    leaves = _tree.by_paths(params)
    scaled = _tree.restructure({path: factor * x if path in head else x for path, x in leaves.items()}, params)
    if not _are_scaled(outputs, joint.outputs(scaled, batch.inputs)[0], factor):
        return None
    at_mean = float(np.interp(mean, _LOG_FACTORS, log_likelihoods))
    return Softened(scaled, factor, float(log_evidence) - at_mean)


def _log_likelihoods(joint: LogJoint, outputs: Outputs, batch: Batch) -> np.ndarray:
    """Of all examples with the logits times each factor of the grid."""

    def one(factor: jax.Array) -> jax.Array:
        each = joint.likelihood(jax.tree.map(lambda z: factor * z, outputs)).log_prob(batch.targets)
        return jnp.sum(each if batch.weights is None else batch.weights * each)

    return np.asarray(jax.lax.map(one, jnp.asarray(np.exp(_LOG_FACTORS), jnp.float32)), np.float64)


def _are_scaled(outputs: Outputs, after: Outputs, factor: float) -> bool:
    pairs = zip(jax.tree.leaves(outputs), jax.tree.leaves(after), strict=True)
    return all(bool(jnp.allclose(factor * x, y, rtol=1e-3, atol=1e-4 * float(jnp.max(jnp.abs(x))))) for x, y in pairs)
