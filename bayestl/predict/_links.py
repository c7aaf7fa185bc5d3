"""From Gaussian raw outputs to a predictive: what stands for the integral over the outputs."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from bayestl._arguments import check_key
from bayestl._types import Key
from bayestl.likelihoods import Bernoulli, Categorical
from bayestl.predict._gaussian_outputs import GaussianOutputs
from bayestl.predict._predictive import Predictive

Link = Callable[[GaussianOutputs], Any]
"""Gaussian raw outputs to a predictive."""

# The logistic function is nearest to the normal cdf of sqrt(pi / 8) times its argument, which has the same slope at 0.
_SLOPE = math.pi / 8


def probit(outputs: GaussianOutputs) -> Predictive:
    """Link for classes: every logit shrunk by its own variance, ``softmax(f_c / sqrt(1 + pi/8 V_cc))``.

    MacKay's approximation of ``E[sigmoid(f)]``, by at most 0.02 off, taken over to several classes logit by logit. Fast
    and the usual choice; covariances between logits are not looked at, of which :func:`mean_field_2` takes account.

    Args:
        outputs: of a categorical or Bernoulli likelihood.

    Raises:
        TypeError: another likelihood.

    Reference:
        MacKay 1992, "The Evidence Framework Applied to Classification Networks"; for several classes Gibbs 1997,
        "Bayesian Gaussian Processes for Regression and Classification".

    Example:
        >>> outputs = btl.predict.GaussianOutputs(
        ...     jnp.array([[2.0]]), jnp.array([[[[4.0]]]]), btl.likelihoods.bernoulli(), jnp.zeros(1)
        ... )
        >>> print(f"{btl.predict.probit(outputs).probs[0]:.3f}")
        0.777
    """
    _check_classes("probit", outputs)
    return _predictive(outputs, outputs.mean * jax.lax.rsqrt(1 + _SLOPE * outputs.variance()))


def mean_field_0(outputs: GaussianOutputs) -> Predictive:
    """Link for classes by the mean-field approximation of the softmax, where only the class's own variance counts.

    ``p_c ~ 1 / sum_j exp(-(f_c - f_j) / sqrt(1 + pi/8 V_cc))``, normalised here to sum to 1. For a Bernoulli likelihood
    the three mean-field links are :func:`probit`.

    Args:
        outputs: of a categorical or Bernoulli likelihood.

    Raises:
        TypeError: another likelihood.

    Reference:
        Lu, Ie and Sha 2020, "Mean-Field Approximation to Gaussian-Softmax Integral with Application to Uncertainty
        Estimation", arXiv 2006.07584 (mf0).
    """
    return _mean_field("mean_field_0", outputs, lambda v: jnp.diagonal(v, axis1=-2, axis2=-1)[..., :, None])


def mean_field_1(outputs: GaussianOutputs) -> Predictive:
    """Link for classes by the mean-field approximation of the softmax, logits taken as independent.

    ``p_c ~ 1 / sum_j exp(-(f_c - f_j) / sqrt(1 + pi/8 (V_cc + V_jj)))``, normalised to sum to 1.

    Args:
        outputs: of a categorical or Bernoulli likelihood.

    Raises:
        TypeError: another likelihood.

    Reference:
        Lu, Ie and Sha 2020, arXiv 2006.07584 (mf1).
    """

    def spread(covariance: jax.Array) -> jax.Array:
        variance = jnp.diagonal(covariance, axis1=-2, axis2=-1)
        # The difference of a logit and itself has no variance, but no mean either, so that none is needed.
        return variance[..., :, None] + variance[..., None, :]

    return _mean_field("mean_field_1", outputs, spread)


def mean_field_2(outputs: GaussianOutputs) -> Predictive:
    """Link for classes by the mean-field approximation of the softmax, covariances included.

    ``p_c ~ 1 / sum_j exp(-(f_c - f_j) / sqrt(1 + pi/8 (V_cc + V_jj - 2 V_cj)))``, normalised to sum to 1: only
    differences of logits count, as in the softmax itself. With two classes it is :func:`probit` of their difference.

    Args:
        outputs: of a categorical or Bernoulli likelihood.

    Raises:
        TypeError: another likelihood.

    Reference:
        Lu, Ie and Sha 2020, arXiv 2006.07584 (mf2).

    Example:
        >>> outputs = btl.predict.GaussianOutputs(
        ...     jnp.array([[[2.0, 0.0]]]), 2 * jnp.eye(2)[None, None], btl.likelihoods.categorical(), jnp.zeros(1)
        ... )
        >>> print(btl.predict.mean_field_2(outputs).probs.round(3))
        [[0.777 0.223]]
    """

    def spread(covariance: jax.Array) -> jax.Array:
        variance = jnp.diagonal(covariance, axis1=-2, axis2=-1)
        # Rounding must not take the variance of a difference below zero.
        return jnp.maximum(variance[..., :, None] + variance[..., None, :] - 2 * covariance, 0)

    return _mean_field("mean_field_2", outputs, spread)


def sampled(key: Key, num_samples: int) -> Link:
    """Link for any likelihood: ``p(y) ~ 1/S sum_s p(y | f_s), f_s ~ N(f, V)``, draws in output space.

    Exact as S grows, with all covariances between an example's outputs. Its entropies and mutual information are those
    of the linearised network. Examples are drawn one by one: for draws that share their parameters over examples, see
    :func:`linearized_joint`.

    Args:
        key: randomness of the draws; the same for every call of the link.
        num_samples: S >= 1, for each component of the posterior.

    Raises:
        ValueError: num_samples below 1.

    Example:
        >>> outputs = btl.predict.GaussianOutputs(
        ...     jnp.array([[2.0]]), jnp.array([[[[4.0]]]]), btl.likelihoods.bernoulli(), jnp.zeros(1)
        ... )
        >>> print(f"{btl.predict.sampled(jax.random.key(0), 100_000)(outputs).probs[0]:.2f}")
        0.77
    """
    check_key("sampled", key)
    if num_samples < 1:
        raise ValueError(f"num_samples is {num_samples}; at least 1 draw is needed")
    return partial(_sampled, key, num_samples)


def _sampled(key: Key, num_samples: int, outputs: GaussianOutputs) -> Predictive:
    draws = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), outputs.sample(key, num_samples))
    log_weights = jnp.tile(outputs.log_weights - math.log(num_samples), num_samples)
    return Predictive(draws, outputs.likelihood, log_weights)


def _mean_field(name: str, outputs: GaussianOutputs, spread: Callable[[jax.Array], jax.Array]) -> Predictive:
    _check_classes(name, outputs)
    if isinstance(outputs.likelihood, Bernoulli):
        return probit(outputs)
    f = outputs.mean
    shrunk = (f[..., :, None] - f[..., None, :]) * jax.lax.rsqrt(1 + _SLOPE * spread(outputs.covariance))
    # The softmax of these logits normalises them.
    return _predictive(outputs, -jax.scipy.special.logsumexp(-shrunk, axis=-1))


def _predictive(outputs: GaussianOutputs, logits: jax.Array) -> Predictive:
    return Predictive(logits, outputs.likelihood, outputs.log_weights)


def _check_classes(name: str, outputs: GaussianOutputs) -> None:
    if not isinstance(outputs.likelihood, Categorical | Bernoulli):
        raise TypeError(
            f"{name} is a link for categorical and bernoulli likelihoods, but this one is a "
            f"{type(outputs.likelihood).__name__}; give link=predict.sampled(key, num_samples), which is for all, or "
            "leave link out for normal ones"
        )
