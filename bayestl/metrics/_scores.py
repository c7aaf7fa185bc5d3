"""Proper scores of a predictive: smaller is better, and the truth scores best."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from bayestl._arguments import check_arguments
from bayestl._types import Numbers, Targets
from bayestl.metrics._examples import Predictive, class_probs, known_classes, weighted_mean
from bayestl.metrics._metric import Metric


def nll(predictive: Predictive, targets: Targets, weights: Numbers | None = None) -> jax.Array:
    """Negative log likelihood of the averaged predictive, ``-1/B sum_b log sum_s w_s p(y_b | f_sb)``, nats per example.

    This is the score of the average that is predicted, neither the average of the samples' scores nor that of the mean
    parameters. A target of probability zero makes it infinite.

    Args:
        predictive: of any kind.
        targets: (B, ...), or a pytree of such arrays; an example with several outputs counts as one.
        weights: None, or (B,), how often each example counts, 0 for padding; NaN comes out when none counts.

    Example:
        >>> given = btl.predict.from_probabilities(jnp.array([[0.25, 0.75], [0.5, 0.5]]))
        >>> print(f"{btl.metrics.nll(given, jnp.array([1, 0])):.4f}")
        0.4904
    """
    check_arguments(nll, locals())
    return NLL(predictive, targets, weights)


def brier(predictive: Predictive, targets: Targets, weights: Numbers | None = None) -> jax.Array:
    """Brier score, ``1/B sum_b sum_c (p_bc - [y_b = c])^2``, between 0 and 2.

    The sum is over all classes. A binary predictive is taken as one of two classes, so it scores ``2 (p - y)^2``: twice
    the definition for binary events alone.

    Args:
        predictive: of classes.
        targets: integer labels (B,).
        weights: None, or (B,), how often each example counts, 0 for padding; NaN comes out when none counts.

    References:
        Brier, Verification of forecasts expressed in terms of probability, 1950, equation 2.

    Example:
        >>> given = btl.predict.from_probabilities(jnp.array([[0.25, 0.75]]))
        >>> btl.metrics.brier(given, jnp.array([1])).item()
        0.125
    """
    check_arguments(brier, locals())
    return BRIER(predictive, targets, weights)


def _surprise(predictive: Predictive, targets: Targets) -> jax.Array:
    return -predictive.log_prob(targets)


def _squared_errors(predictive: Predictive, targets: Targets) -> jax.Array:
    probs, labels = class_probs(predictive, targets)
    errors = probs - jax.nn.one_hot(labels, probs.shape[1], dtype=probs.dtype)
    return known_classes(jnp.sum(errors**2, axis=-1), labels, probs.shape[1])


NLL = Metric("nll", _surprise, weighted_mean)
BRIER = Metric("brier", _squared_errors, weighted_mean)
