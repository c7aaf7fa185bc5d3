"""Scales where nothing is left out to choose them by: one example of every class."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayestl import tune
from bayestl._log_joint import LogJoint
from bayestl._types import Batch, Params
from bayestl.tune import Path


def logit_variance(joint: LogJoint, params: Params, batch: Batch) -> float:
    """The variance of the centred logits over the examples; a single logit is its own centre."""
    logits = np.asarray(joint.outputs(params, batch.inputs)[0], np.float64)
    centred = logits - logits.mean(-1, keepdims=True) if logits.ndim > 1 else logits
    return float(np.mean(centred**2))


def scale_prior_at_modes(
    joint: LogJoint, path: Path, batch: Batch, typical: float, log_prior: np.ndarray
) -> np.ndarray:
    """The weak prior over scales, asked of trained outputs where a family's mean predicts the same for all.

    The typical variance is that of a trained network's logits. A network whose head begins at zero reaches it, with one
    example of each class, only under a prior far wider than one whose draws have that variance: its modes are what is
    to be compared, not its prior. A family whose mean has outputs of its own keeps the prior it has.

    Args:
        joint: network and likelihood.
        path: the modes, F families at K scales.
        batch: the examples.
        typical: variance of logits that one expects.
        log_prior: (F, K), of the prior's draws.
    """
    result = np.array(log_prior)
    for number, family in enumerate(path.families):
        mean: Any = family.prior.mean
        if logit_variance(joint, mean, batch) > 1e-6 * typical:
            continue
        modes = [jax.tree.map(jnp.asarray, params) for params in path.params[number]]
        variances = [max(logit_variance(joint, mode, batch), 1e-12 * typical) for mode in modes]
        share = np.log(np.sum(np.exp(log_prior[number])))
        result[number] = tune.scale_prior(np.log(variances)[None], np.ones(1), typical)[0] + share
    return result
