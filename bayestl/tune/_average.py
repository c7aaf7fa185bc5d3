"""Weights of candidates from how each predicted held-out examples."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from bayestl._arguments import check_arguments, check_at_least
from bayestl._types import Key, Numbers


class Weights(NamedTuple):
    """How far each of M candidates is trusted.

    Attributes:
        weights: (M,), the mean of the two below; they sum to 1.
        pseudo_bma: (M,).
        stacking: (M,).
        errors: (M,), standard deviations of ``weights`` over which examples there happen to be.
    """

    weights: np.ndarray
    pseudo_bma: np.ndarray
    stacking: np.ndarray
    errors: np.ndarray


def average(
    key: Key,
    log_predictive: Numbers,
    log_prior: Numbers | None = None,
    *,
    num_draws: int = 200,
    num_iterations: int = 300,
    prior_count: float = 3.0,
) -> Weights:
    """Weights for a mixture of candidates: half pseudo-BMA+, half stacking.

    Pseudo-BMA+ is what one believes about which single candidate predicts best, ``mean over omega of softmax_k (N
    sum_i omega_i Q_ki + h_k)`` with omega drawn from Dirichlet(1, ..., 1): the Bayesian bootstrap over the examples.
    Stacking is the mixture that predicts best, ``argmax_w sum_i log sum_k w_k exp Q_ki + c sum_k p_k log w_k`` with p =
    softmax(h), by EM from p. The last term is a Dirichlet prior on the weights, which counts as c examples: without it
    stacking gives a few examples to whichever candidate was lucky with them. Candidates that end below half of their
    prior weight, which the examples speak against, get none of it. The mean of both does better than either: the first
    never mixes candidates that complement each other, the second overfits.

    Args:
        key: of the draws of omega.
        log_predictive: Q, (M, N): log probabilities in nats of N examples under M candidates that have not seen them.
        log_prior: h, (M,), up to a constant; None for equal ones.
        num_draws: of omega.
        num_iterations: of EM.
        prior_count: c, >= 0, examples that the prior counts as in stacking. 0 for the published form, and always where
            there is one number for each candidate, which is about all examples. 3 was chosen on digits and
            sentences, where 5 does much the same.

    Raises:
        ValueError: a negative ``prior_count``, shapes that differ, NaN, an example to which no candidate gives any
            probability.

    Reference:
        Yao, Vehtari, Simpson and Gelman 2018, "Using Stacking to Average Bayesian Predictive Distributions",
        sections 3.1 and 3.4.

    Example:
        >>> scores = jnp.log(jnp.array([[0.9, 0.1], [0.1, 0.9], [0.4, 0.4]]))
        >>> print(btl.tune.average(jax.random.key(0), scores, prior_count=0.0).stacking.round(2))
        [0.5 0.5 0. ]
    """
    check_arguments(average, locals())
    check_at_least(1, num_draws=num_draws)
    check_at_least(0, num_iterations=num_iterations)
    scores, prior = checked_scores(log_predictive, log_prior)
    num = scores.shape[1]
    omega = bootstrap_shares(key, num, num_draws)
    drawn = softmax(num * omega @ scores.T + prior)
    stacked = stacking(scores, prior, np.full((1, num), 1 / num), num_iterations, count_for(num, prior_count))[0]
    # The same draws for both, so that their errors are those of one set of examples; fewer, since EM is dearer.
    few = min(num_draws, 50)
    each = 0.5 * drawn[:few] + 0.5 * stacking(scores, prior, omega[:few], num_iterations, count_for(num, prior_count))
    pseudo_bma = drawn.mean(0)
    return Weights(0.5 * (pseudo_bma + stacked), pseudo_bma, stacked, each.std(0))


def bootstrap_shares(key: Key, num: int, num_draws: int) -> np.ndarray:
    """How much each example counts in each draw of the Bayesian bootstrap, (draws, N); the rows sum to 1."""
    seed = np.asarray(jax.random.bits(key, (4,), np.uint32))
    return np.random.default_rng(seed).dirichlet(np.ones(num), num_draws)


def count_for(num: int | np.ndarray, prior_count: float) -> Any:
    """The share that the prior has in the weights of a mixture of ``num`` examples.

    One number for each candidate, such as an evidence, is about all examples at once.

    Raises:
        ValueError: a negative count.
    """
    if not prior_count >= 0:
        raise ValueError(
            f"prior_count is {prior_count}; give the number of examples that the prior counts as, 0 or more"
        )
    num = np.asarray(num)
    return np.where(num > 1, prior_count / (num + prior_count), 0.0)


def stacking(
    scores: np.ndarray, prior: np.ndarray, omega: np.ndarray, num_iterations: int, share_of_prior: Any = 0.0
) -> np.ndarray:
    """EM for the weights of a mixture, for examples weighted by each row of ``omega``: (rows, M)."""
    likelihood = np.exp(scores - scores.max(0))  # (M, N)
    before = softmax(prior)
    own = np.reshape(share_of_prior, (-1, 1))
    weights = np.broadcast_to(before, (len(omega), len(prior)))
    for _ in range(num_iterations):
        share = omega / (weights @ likelihood)  # (rows, N)
        weights = (1 - own) * weights * (share @ likelihood.T) + own * before
    # The share of the prior is not for those against which the examples speak.
    weights = np.where((own > 0) & (weights < 0.5 * before), 0.0, weights)
    return weights / weights.sum(-1, keepdims=True)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def checked_scores(log_predictive: Any, log_prior: Any) -> tuple[np.ndarray, np.ndarray]:
    scores = np.asarray(log_predictive, np.float64)
    if scores.ndim != 2 or 0 in scores.shape:
        raise ValueError(f"log_predictive has shape {scores.shape}; give (candidates, examples)")
    prior = np.zeros(len(scores)) if log_prior is None else np.asarray(log_prior, np.float64)
    if prior.shape != (len(scores),):
        raise ValueError(f"log_prior has shape {prior.shape}; give one number for each of the {len(scores)} candidates")
    if np.isnan(scores).any() or np.isposinf(scores).any() or not np.all(np.isfinite(scores.max(0))):
        raise ValueError(
            "log_predictive holds NaN or infinity, or an example to which no candidate gives any probability; leave "
            "out what diverged"
        )
    return scores, prior
