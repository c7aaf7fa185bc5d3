"""How a mixture predicts examples that neither its members nor its weights have seen."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from bayestl import tune
from bayestl._types import Key

# Below any probability that a prediction is to be blamed for.
_FLOOR = float(np.log(1e-14))


class HeldOut(NamedTuple):
    """Held-out log predictives of each example, (N,), nats.

    Attributes:
        mixture: of the members together.
        single: of the best member by itself.
    """

    mixture: np.ndarray
    single: np.ndarray


def weights_without_each(key: Key, scores: np.ndarray, log_prior: np.ndarray) -> np.ndarray:
    """The weights of candidates, (M, N) scores, without each example: (N, M); one example is all there is to go by."""
    if scores.shape[1] > 1:
        return tune.left_out_weights(key, scores, log_prior)
    return tune.average(key, scores, log_prior).weights[None]


def mixture(scores: np.ndarray, weights: np.ndarray, keep: int | None = None) -> np.ndarray:
    """The mixture's held-out log predictives, each with its own weights.

    Args:
        scores: (M, N).
        weights: (N, M).
        keep: only so many of the heaviest predict; None for all.
    """
    with np.errstate(divide="ignore"):
        logarithms = np.log(heaviest(weights, keep)).T
    return np.maximum(np.asarray(logsumexp(logarithms + scores, axis=0), np.float64), _FLOOR)


def heaviest(weights: np.ndarray, keep: int | None) -> np.ndarray:
    """The weights (N, M) of the heaviest ``keep`` of each row alone, which sum to 1."""
    if keep is not None and keep < weights.shape[1]:
        least = np.partition(weights, -keep, axis=1)[:, -keep, None]
        weights = np.where(weights >= least, weights, 0.0)
    return weights / weights.sum(1, keepdims=True)


def held_out(scores: np.ndarray, weights: np.ndarray, log_prior: np.ndarray, keep: int) -> HeldOut:
    """Of the mixture, and of its best member: chosen for each example by the others, as the weights are.

    Args:
        scores: (M, N).
        weights: (N, M), without each example.
        log_prior: (M,).
        keep: members of the mixture.
    """
    alone = scores.sum(1, keepdims=True) + log_prior[:, None] - scores
    best = np.argmax(alone, axis=0)
    single = np.maximum(scores[best, np.arange(scores.shape[1])], _FLOOR)
    return HeldOut(mixture(scores, weights, keep), single)
