"""Regression with one noise: the linearised network of each mode, weighed by what it leaves out and by its evidence."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import softmax

from bayestl import infer, likelihoods, tune
from bayestl._applied import call_network
from bayestl._log_joint import LogJoint
from bayestl._types import Batch, Key, Likelihood, Net
from bayestl.curvature import dual
from bayestl.posteriors import Mixture
from bayestl.transfers._data import Plan
from bayestl.transfers._held_out import weights_without_each
from bayestl.transfers._result import TransferResult
from bayestl.tune import Path, Weights

PLAN = Plan(
    tune.linear_leave_one_out(),
    "Left out one by one in closed form, of the linearised network, and the evidence",
    (),
    False,
)
# Numbers of targets up to which matrices of that many a side are cheap enough for every mode.
MOST_TARGETS = 2000


def is_regression(likelihood: Likelihood, net: Net, batch: Batch) -> bool:
    """Whether targets are normal around one array of outputs, with one noise, given or to be learned."""
    outputs = call_network(lambda: jax.eval_shape(lambda: net(net.params, batch.inputs)), net.params, batch.inputs)
    if not (hasattr(likelihood, "scale") and hasattr(outputs, "shape")):
        return False
    scale: Any = getattr(likelihood, "scale")  # noqa: B009  a likelihood is a function, most of which have none
    if np.size(np.asarray(batch.targets)) > MOST_TARGETS or (scale is not None and jnp.size(scale) != 1):
        return False
    example = (outputs, outputs) if scale is None else outputs
    return jax.eval_shape(lambda x: likelihoods.gaussian_noise(likelihood, x), example) is not None


def with_start(likelihood: Any, batch: Batch) -> Likelihood:
    """The likelihood, with half of the targets' standard deviation where its noise is to be learned."""
    if likelihood.scale is not None:
        return likelihood
    spread = float(np.sqrt(np.var(np.asarray(batch.targets, np.float64), axis=0).mean()))
    return likelihoods.normal(0.5 * spread if spread > 0 else 1.0)


def weigh(key: Key, joint: LogJoint, path: Path, log_prior: np.ndarray, batch: Batch) -> tuple[Weights, np.ndarray]:
    """Half by leave-one-out, half by the evidence: both are good guides once averaged, and seldom wrong together.

    Returns:
        The weights; and those without each example, (N, M). The evidence of the others is that of all less what they
        predict of it, since ``p(y) = p(y_i | others) p(others)``.
    """
    scores = path.scores.reshape(-1, path.scores.shape[-1])
    by_left_out = tune.average(key, scores, log_prior.ravel())
    evidence = np.empty(path.log_scales.shape)
    for place in np.ndindex(evidence.shape):
        one = member(joint, path, place)
        model = tune.linear_model(one, path.params[place[0]][place[1]], batch)
        evidence[place] = model.log_evidence(tune.noise_variance(one))
    posterior = evidence.reshape(-1, 1) + log_prior.reshape(-1, 1)
    by_evidence, without_each = softmax(posterior, axis=0)[:, 0], softmax(posterior - scores, axis=0).T
    weights = by_left_out._replace(weights=0.5 * (by_left_out.weights + by_evidence), errors=0.5 * by_left_out.errors)
    return weights, 0.5 * (weights_without_each(key, scores, log_prior.ravel()) + without_each)


def member(joint: LogJoint, path: Path, place: Sequence[int]) -> LogJoint:
    """The log joint of one family at one scale."""
    family, scale = int(place[0]), int(place[1])
    return joint.replace(prior=path.prior(family, scale), likelihood=path.likelihoods[family][scale])


def around_modes(key: Key, result: TransferResult, path: Path, batch: Batch) -> TransferResult:
    """The result with Laplace posteriors around its modes, each with the noise of its member."""
    samples: Any = result.posterior
    components, noises = [], []
    for place in result.places:
        one = member(result.joint, path, place)
        mode = jax.tree.map(jnp.asarray, path.params[place[0]][place[1]])
        components.append(infer.laplace(key, one, mode, batch, curvature=dual(), batch_size=None))
        noises.append(float(np.sqrt(tune.noise_variance(one))))
    mixture = Mixture(tuple(components), samples.log_weights)
    return dataclasses.replace(result, posterior=mixture, noises=tuple(noises))
