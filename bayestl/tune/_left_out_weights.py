"""Weights of candidates for each example, from all the others."""

from __future__ import annotations

import numpy as np

from bayestl._arguments import check_arguments
from bayestl._types import Key, Numbers
from bayestl.tune._average import bootstrap_shares, checked_scores, count_for, softmax, stacking

# Left out together where there are more examples than this.
_MOST_FOLDS = 64


def left_out_weights(
    key: Key,
    log_predictive: Numbers,
    log_prior: Numbers | None = None,
    *,
    num_draws: int = 200,
    num_iterations: int = 300,
    prior_count: float = 3.0,
) -> np.ndarray:
    """For every example, the weights that :func:`average` gives to the candidates without its column.

    A mixture whose weights have seen an example predicts it too well. ``logsumexp(log weights[i] + Q[:, i])`` is the
    mixture's prediction of example i with weights that have not. Of more than 64 examples every 64th are left out
    together. The draws of a Bayesian bootstrap without an example are those with it, its share taken out and the rest
    scaled to 1: so the draws are those of :func:`average`.

    Args:
        key: as for :func:`average`: with the same key, the same draws.
        log_predictive: Q, (M, N), N >= 2.
        log_prior: as for :func:`average`.
        num_draws: as for :func:`average`.
        num_iterations: likewise.
        prior_count: likewise.

    Returns:
        (N, M); each row sums to 1.

    Raises:
        ValueError: as :func:`average`; fewer than 2 examples.

    Example:
        >>> scores = jnp.log(jnp.array([[0.9, 0.1], [0.1, 0.9]]))
        >>> weights = btl.tune.left_out_weights(jax.random.key(0), scores, prior_count=0.0)
        >>> print(weights.round(2))                       # each example is left to the candidate that the other prefers
        [[0.05 0.95]
         [0.95 0.05]]
    """
    check_arguments(left_out_weights, locals())
    scores, prior = checked_scores(log_predictive, log_prior)
    num = scores.shape[1]
    if num < 2:
        raise ValueError(f"log_predictive has {num} example; without it there is nothing to weigh by")
    omega = bootstrap_shares(key, num, num_draws)
    together = omega @ scores.T  # (draws, M)
    fold = np.arange(num) % min(num, _MOST_FOLDS)
    is_left = fold == np.arange(fold.max() + 1)[:, None]  # (folds, N)
    pseudo_bma = np.empty((len(is_left), len(scores)))
    for number, left in enumerate(is_left):
        own = omega[:, left]
        without = (together - own @ scores[:, left].T) / (1 - own.sum(1, keepdims=True))
        pseudo_bma[number] = softmax((num - left.sum()) * without + prior).mean(0)
    remaining = np.sum(~is_left, 1)
    omega_of_others = ~is_left / remaining[:, None]
    stacked = stacking(scores, prior, omega_of_others, num_iterations, count_for(remaining, prior_count))
    return (0.5 * (pseudo_bma + stacked))[fold]
