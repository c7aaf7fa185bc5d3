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
from bayestl.posteriors import Mixture, Point
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
# Below any noise that is to be believed, in units of the noise of the steps.
_LEAST_NOISE = 1e-6


def is_regression(likelihood: Likelihood, net: Net, batch: Batch) -> bool:
    """Whether targets are normal around one array of outputs, with one noise, given or to be learned."""
    outputs = call_network(lambda: jax.eval_shape(lambda: net(net.params, batch.inputs)), net.params, batch.inputs)
    if not (hasattr(likelihood, "scale") and hasattr(outputs, "shape")):
        return False
    scale: Any = getattr(likelihood, "scale")  # noqa: B009  a likelihood is a function, most of which have none
    if scale is not None and jnp.size(scale) != 1:
        return False
    example = (outputs, outputs) if scale is None else outputs
    return jax.eval_shape(lambda x: likelihoods.gaussian_noise(likelihood, x), example) is not None


def is_small(batch: Batch) -> bool:
    """Whether matrices with a row for each target are cheap enough for every mode."""
    return np.size(np.asarray(batch.targets)) <= MOST_TARGETS


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


def with_noise_of_left_out(path: Path, start: Any, batch: Batch, is_learned: bool) -> Path:
    """The path of many examples, whose noise is learned from how far left-out targets lie from their predictions.

    The steps had the noise s. The mode under it and a prior variance v is that under a noise t and v t^2 / s^2, so each
    scale is that factor wider than it was. One number from thousands of residuals is hardly flattered by them.

    Args:
        path: with the predictions of a criterion.
        start: the likelihood of the steps, with its noise.
        batch: the examples.
        is_learned: whether the noise is; else it stays that of ``start``.
    """
    left_out = path.left_out
    assert left_out is not None
    rows, outputs = left_out.rows, left_out.outputs
    targets = np.asarray(batch.targets, np.float64)[rows].reshape(outputs.shape[-2:])
    powers = np.ones(len(rows)) if batch.weights is None else np.asarray(batch.weights, np.float64)[rows]
    residuals = targets - outputs
    given = float(jnp.reshape(start.scale, ())) ** 2
    variances = np.full(path.log_scales.shape, given)
    if is_learned:
        variances = np.average(np.mean(residuals**2, -1), axis=-1, weights=powers)
        variances = np.maximum(variances, _LEAST_NOISE**2 * given)
    deviations = np.broadcast_to(np.sqrt(variances)[..., None, None], outputs.shape)
    log_probs = -np.sum(0.5 * (residuals / deviations) ** 2 + np.log(deviations) + 0.5 * np.log(2 * np.pi), -1)
    return path._replace(
        log_scales=path.log_scales + np.log(variances / given),
        scores=log_probs,
        likelihoods=tuple([likelihoods.normal(float(np.sqrt(v))) for v in of_family] for of_family in variances),
        left_out=left_out._replace(deviations=deviations, log_probs=log_probs),
    )


def with_own_noise(result: TransferResult, path: Path) -> TransferResult:
    """The result with the noise that each of its modes has."""
    samples: Any = result.posterior
    points = tuple(Point(jax.tree.map(lambda x, m=m: x[m], samples.draws)) for m in range(len(result.places)))
    each: list[Any] = [path.likelihoods[family][scale] for family, scale in result.places]
    noises = tuple(float(jnp.reshape(one.scale, ())) for one in each)
    return dataclasses.replace(result, posterior=Mixture(points, samples.log_weights), noises=noises)
