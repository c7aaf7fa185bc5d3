"""How the mixture predicts the examples that were left out: what stands in for held-out data."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bayestl import likelihoods
from bayestl._log_joint import LogJoint
from bayestl._types import Batch
from bayestl.predict import AveragedMoments, from_probabilities
from bayestl.transfers._held_out import heaviest
from bayestl.tune import Path


class LeftOutPredictions(NamedTuple):
    """Predictions of training examples by fits, and with weights of the mixture, that have not seen them.

    Attributes:
        rows: (M,), which of the training examples.
        predictive: of these examples: class probabilities, or mean and variances of real targets.
        targets: (M, ...), theirs.
    """

    rows: np.ndarray
    predictive: Any
    targets: Any


def left_out_predictions(
    joint: LogJoint, path: Path, weights: np.ndarray, keep: int, batch: Batch
) -> LeftOutPredictions | None:
    """The mixture's predictions of what was left out; None for targets that are neither classes nor normal.

    Args:
        joint: network and likelihood.
        path: F families at K scales, with its predictions.
        weights: (M, F K), of the members for each example.
        keep: only so many of the heaviest predict.
        batch: the training data.
    """
    if path.left_out is None:
        return None
    rows = path.left_out.rows
    targets = jax.tree.map(lambda x: np.asarray(x)[rows], batch.targets)
    shares = heaviest(weights, keep).T  # (F K, M)
    outputs = path.left_out.outputs.reshape(len(shares), len(rows), -1)
    like = jax.eval_shape(lambda params: joint.outputs(params, batch.inputs)[0], path.families[0].prior.mean)
    description = likelihoods.describe(joint.likelihood, like)
    if description.is_class:
        each = np.asarray(_probabilities(joint.likelihood, _shaped(like, outputs)), np.float64)
        return LeftOutPredictions(rows, from_probabilities(np.einsum("mn,mnc->nc", shares, each)), targets)
    if path.left_out.deviations is None:
        return None
    deviations = path.left_out.deviations.reshape(outputs.shape)
    noises = np.array([float(jnp.reshape(one.scale, ())) for of_family in path.likelihoods for one in of_family]) ** 2
    means = np.einsum("mn,mnf->nf", shares, outputs)
    own = deviations**2 - noises[:, None, None] + (outputs - means) ** 2
    moments = (means, np.einsum("mn,mnf->nf", shares, own), np.tile((noises @ shares)[:, None], means.shape[1]))
    shaped = [jnp.asarray(x.reshape(np.shape(targets)), jnp.result_type(float)) for x in moments]
    return LeftOutPredictions(rows, AveragedMoments(*shaped), targets)


def _shaped(like: Any, values: np.ndarray) -> Any:
    """Numbers (S, M, F) as outputs, leaves (S, M, ...)."""
    leaves, treedef = jax.tree.flatten(like)
    ends = np.cumsum([math.prod(x.shape[1:]) for x in leaves])[:-1]
    parts = np.split(values, ends, -1)
    return jax.tree.unflatten(
        treedef, [part.reshape(*values.shape[:2], *x.shape[1:]) for part, x in zip(parts, leaves, strict=True)]
    )


@jax.jit
def _probabilities(likelihood: Any, outputs: Any) -> jax.Array:
    """Class probabilities (S, M, C)."""
    return jax.vmap(lambda one: likelihoods.class_probs(likelihoods.predictive_distribution(likelihood, one)))(outputs)
