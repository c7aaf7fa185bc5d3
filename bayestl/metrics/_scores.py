"""Proper scores of a predictive: smaller is better, and the truth scores best."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from bayestl.metrics._examples import Predictive, class_probs, masked_mean


def nll(predictive: Predictive, targets: Any, mask: Any = None) -> jax.Array:
    """Negative log likelihood of the averaged predictive, ``-1/B sum_b log sum_s w_s p(y_b | f_sb)``, nats per example.

    This is the score of the average that is predicted, neither the average of the samples' scores nor that of the mean
    parameters. A target of probability zero makes it infinite.

    Args:
        predictive: of any kind.
        targets: (B, ...); an example with several outputs counts as one.
        mask: None, or (B,), 1 for a real example and 0 for padding; NaN comes out when all are padding.

    Example:
        >>> given = btl.predict.from_probabilities(jnp.array([[0.25, 0.75], [0.5, 0.5]]))
        >>> print(f"{btl.metrics.nll(given, jnp.array([1, 0])):.4f}")
        0.4904
    """
    return masked_mean(-predictive.log_prob(jnp.asarray(targets)), mask)


def brier(predictive: Predictive, targets: Any, mask: Any = None) -> jax.Array:
    """Brier score, ``1/B sum_b sum_c (p_bc - [y_b = c])^2``, between 0 and 2.

    The sum is over all classes. A binary predictive is taken as one of two classes, so it scores ``2 (p - y)^2``: twice
    the definition for binary events alone.

    Args:
        predictive: of classes.
        targets: integer labels (B,).
        mask: None, or (B,), 1 for a real example and 0 for padding; NaN comes out when all are padding.

    References:
        Brier, Verification of forecasts expressed in terms of probability, 1950, equation 2.

    Example:
        >>> given = btl.predict.from_probabilities(jnp.array([[0.25, 0.75]]))
        >>> btl.metrics.brier(given, jnp.array([1])).item()
        0.125
    """
    probs, labels = class_probs(predictive, targets)
    errors = probs - jax.nn.one_hot(labels, probs.shape[1], dtype=probs.dtype)
    return masked_mean(jnp.sum(errors**2, axis=-1), mask)
