"""Averages over samples that are kept up to date, chunk of samples by chunk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bayestl.likelihoods import Description, class_log_probs
from bayestl.passes import joined
from bayestl.predict._average import average
from bayestl.predict._averages import AveragedClasses, AveragedMoments
from bayestl.predict._uncertainty import entropy, mixed


class _Classes(NamedTuple):
    """Sums so far: ``log sum_s w_s p_s``, (b, C), and ``sum_s w_s H_s``, (b,)."""

    log_probs: jax.Array
    entropies: jax.Array


class _Moments(NamedTuple):
    """So far: the sum of the weights, the mean, ``sum_s w_s (mean_s - mean)^2`` and ``sum_s w_s noise_s``."""

    weight: jax.Array
    mean: jax.Array
    squares: jax.Array
    noise: jax.Array


class RunningAverage(NamedTuple):
    """What is averaged: of one sample, of a chunk of them, of two chunks, and what becomes of it at the end."""

    values: Callable[[Any], Any]
    sums: Callable[[jax.Array, Any], Any]
    add: Callable[[Any, Any], Any]
    empty: Callable[[Any], Any]
    result: Callable[[Any, int, Any], Any]


def _class_sums(log_weights: jax.Array, log_probs: jax.Array) -> _Classes:
    return _Classes(mixed(log_weights, log_probs), average(log_weights, entropy(log_probs)))


def _add_classes(x: _Classes, y: _Classes) -> _Classes:
    return _Classes(jnp.logaddexp(x.log_probs, y.log_probs), x.entropies + y.entropies)


def _no_classes(like: _Classes) -> _Classes:
    log_probs = jnp.full(like.log_probs.shape, -jnp.inf, like.log_probs.dtype)
    return _Classes(log_probs, jnp.zeros(like.entropies.shape, like.entropies.dtype))


def _class_result(total: _Classes, num: int, description: Description) -> AveragedClasses:
    total = joined(total, num)
    return AveragedClasses(total.log_probs, total.entropies, description.is_binary)


def _moment_values(distribution: Any) -> tuple[jax.Array, jax.Array]:
    mean = jnp.asarray(distribution.mean)
    return mean, jnp.broadcast_to(distribution.variance, mean.shape)


def _moment_sums(log_weights: jax.Array, values: tuple[jax.Array, jax.Array]) -> _Moments:
    means, variances = values
    weight = jnp.sum(jnp.exp(log_weights))
    mean = average(log_weights, means) / jnp.where(weight > 0, weight, 1)
    return _Moments(weight, mean, average(log_weights, (means - mean) ** 2), average(log_weights, variances))


def _add_moments(x: _Moments, y: _Moments) -> _Moments:
    # Deviations from the mean of each part, since E[f^2] - E[f]^2 cancels (Chan, Golub and LeVeque 1983).
    weight = x.weight + y.weight
    share = y.weight / jnp.where(weight > 0, weight, 1)
    apart = y.mean - x.mean
    squares = x.squares + y.squares + x.weight * share * apart**2
    return _Moments(weight, x.mean + share * apart, squares, x.noise + y.noise)


def _no_moments(like: _Moments) -> _Moments:
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)


def _moment_result(total: _Moments, num: int, description: Description) -> AveragedMoments:
    return AveragedMoments(*(joined(x, num) for x in (total.mean, total.squares, total.noise)))


CLASSES = RunningAverage(class_log_probs, _class_sums, _add_classes, _no_classes, _class_result)
MOMENTS = RunningAverage(_moment_values, _moment_sums, _add_moments, _no_moments, _moment_result)
