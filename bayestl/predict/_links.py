"""From Gaussian raw outputs to a predictive: what stands for the integral over the outputs."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayestl import likelihoods
from bayestl._arguments import check_arguments
from bayestl._types import Key
from bayestl.predict._average import average
from bayestl.predict._gaussian_outputs import GaussianOutputs, flat, unflat
from bayestl.predict._gaussian_predictive import gaussian_noise, gaussian_parts
from bayestl.predict._predictive import Predictive

Link = Callable[[GaussianOutputs], Any]
"""Gaussian raw outputs to a predictive."""

# Enough for a smooth function of one Gaussian output: exact for polynomials of degree below 64.
_NUM_NODES = 32


def default_link(outputs: GaussianOutputs) -> Any:
    """The link of the likelihood itself: exact for Gaussian noise, its ``moderated`` outputs where it gives them, and
    :func:`quadrature` for any other likelihood of one output per example.

    Raises:
        TypeError: a likelihood of several outputs per example that gives neither.
    """
    likelihood = outputs.likelihood
    if gaussian_parts(likelihood, outputs.mean) is not None:
        return gaussian_noise(outputs)
    method = likelihoods.own(likelihood, "moderated")
    moderated = None if method is None else jax.vmap(method)(outputs.mean, outputs.covariance)
    if moderated is not None:
        return Predictive(moderated, likelihood, outputs.log_weights)
    if outputs.covariance.shape[-1] == 1:
        return quadrature(outputs)
    raise TypeError(
        f"link is needed for a {type(likelihood).__name__} likelihood of {outputs.covariance.shape[-1]} outputs, which "
        "has no closed form here; give link=predict.sampled(key, num_samples), or the likelihood a method moderated"
    )


def quadrature(outputs: GaussianOutputs, num_nodes: int = _NUM_NODES) -> Predictive:
    """Link for any likelihood of one output per example: ``p(y) ~ sum_i w_i p(y | f + sqrt(V) z_i)``, Gauss-Hermite.

    Args:
        outputs: one number per example.
        num_nodes: nodes z_i; exact where the density is a polynomial in f of degree below twice as many.

    Raises:
        ValueError: several outputs per example, or no node.

    Example:
        >>> outputs = btl.predict.GaussianOutputs(
        ...     jnp.array([[2.0]]), jnp.array([[[[4.0]]]]), btl.likelihoods.bernoulli(), jnp.zeros(1)
        ... )
        >>> print(f"{btl.predict.quadrature(outputs).probs[0]:.3f}")
        0.775
    """
    check_arguments(quadrature, locals())
    size = outputs.covariance.shape[-1]
    if size != 1 or num_nodes < 1:
        raise ValueError(
            f"quadrature takes one output per example and at least one node, but there are {size} outputs and "
            f"{num_nodes} nodes; predict.sampled(key, num_samples) is for several outputs"
        )
    nodes, weights = np.polynomial.hermite_e.hermegauss(num_nodes)
    deviations = jnp.sqrt(outputs.covariance[..., 0])  # (S, B, 1)
    apart = jnp.asarray(nodes, deviations.dtype).reshape(-1, 1, 1, 1) * deviations
    draws = jax.tree.map(jnp.add, outputs.mean, unflat(apart, outputs.mean, 2))  # (num_nodes, S, B, ...)
    log_weights = jnp.asarray(np.log(weights / weights.sum()), deviations.dtype)[:, None] + outputs.log_weights
    draws = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), draws)
    return Predictive(draws, outputs.likelihood, log_weights.reshape(-1))


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
    check_arguments(probit, locals())
    _check_classes("probit", outputs)
    return _predictive(outputs, likelihoods.probit_moderated(outputs.mean, outputs.variance))


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
    check_arguments(mean_field_0, locals())
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

    check_arguments(mean_field_1, locals())

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

    check_arguments(mean_field_2, locals())

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
    check_arguments(sampled, locals())
    if num_samples < 1:
        raise ValueError(f"num_samples is {num_samples}; at least 1 draw is needed")
    return partial(_sampled, key, num_samples)


def function_variance(outputs: GaussianOutputs) -> jax.Array:
    """Link to a score of how unsure the network's outputs are, (B,): their variance, summed over an example's outputs.

    It is high where the posterior leaves the function open, whatever the function says there: far from the training
    inputs as a rule, which makes it a score for examples from elsewhere. Of C logits those less their mean count,
    ``trace(P V P)`` with ``P = I - 1 1^T / C``, since a number added to all of them changes no probability; of
    :func:`likelihoods.normal` with a learned noise its locations alone. For a mixture, the variance of the means of its
    components is added.

    Args:
        outputs: of any likelihood.

    Example:
        >>> net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros((2, 3))})
        >>> joint = btl.LogJoint(net, btl.likelihoods.categorical(), None, num_data=10)
        >>> posterior = btl.gaussians.isotropic(net.params, scale=0.5)
        >>> score = btl.predict.linearized(joint, posterior, btl.predict.function_variance)
        >>> score(jnp.array([[1.0, 0.0], [3.0, 4.0]])).tolist()
        [0.5, 12.5]
    """
    check_arguments(function_variance, locals())
    parts = gaussian_parts(outputs.likelihood, outputs.mean)
    mean = flat(outputs.mean if parts is None else parts.location, 2)
    size = mean.shape[-1]
    variance = jnp.diagonal(outputs.covariance, axis1=-2, axis2=-1)[..., :size]
    apart = mean - average(outputs.log_weights, mean)
    total = variance + apart**2
    if likelihoods.has_logits(outputs.likelihood) and mean.ndim == 3 and size > 1:
        shared = jnp.sum(outputs.covariance, axis=(-2, -1)) + jnp.sum(apart, axis=-1) ** 2
        # Rounding must not take a variance below zero.
        return average(outputs.log_weights, jnp.maximum(jnp.sum(total, axis=-1) - shared / size, 0))
    return average(outputs.log_weights, jnp.sum(total, axis=-1))


def _sampled(key: Key, num_samples: int, outputs: GaussianOutputs) -> Predictive:
    draws = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), outputs.sample(key, num_samples))
    log_weights = jnp.tile(outputs.log_weights - math.log(num_samples), num_samples)
    return Predictive(draws, outputs.likelihood, log_weights)


def _mean_field(name: str, outputs: GaussianOutputs, spread: Callable[[jax.Array], jax.Array]) -> Predictive:
    _check_classes(name, outputs)
    if outputs.mean.ndim == 2:  # (S, B), one logit per example for yes or no
        return probit(outputs)
    return _predictive(outputs, likelihoods.mean_field_moderated(outputs.mean, spread(outputs.covariance)))


def _predictive(outputs: GaussianOutputs, logits: jax.Array) -> Predictive:
    return Predictive(logits, outputs.likelihood, outputs.log_weights)


def _check_classes(name: str, outputs: GaussianOutputs) -> None:
    if not likelihoods.has_logits(outputs.likelihood):
        raise TypeError(
            f"{name} is a link for categorical and bernoulli likelihoods, but this one is a "
            f"{type(outputs.likelihood).__name__}; give link=predict.sampled(key, num_samples), which is for all, or "
            "leave link out for normal ones"
        )
