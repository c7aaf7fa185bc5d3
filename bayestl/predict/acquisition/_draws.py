"""The class probabilities of every draw, as float64 on the host."""

from __future__ import annotations

import jax
import numpy as np

from bayestl import likelihoods
from bayestl.predict._predictive import Predictive


def check_draws(name: str, predictive: Predictive) -> None:
    """Raise unless a predictive is one of classes, with its draws.

    Raises:
        TypeError: another kind of predictive, or one without draws.
    """
    if not isinstance(predictive, Predictive):
        raise TypeError(
            f"{name} is a {type(predictive).__name__}; give a Predictive with its draws, as predict.monte_carlo, "
            "predict.mc_dropout or link=predict.sampled make it"
        )
    if not predictive.is_classification:
        raise TypeError(f"{name} is not of classes; the functions here are for one class per example")


def class_draws(name: str, predictive: Predictive) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (S, B, C) and weights (S,) of a predictive of classes.

    Raises:
        TypeError: another kind of predictive, or one without draws.
    """
    check_draws(name, predictive)

    def log_probs(outputs: object) -> jax.Array:
        return likelihoods.class_log_probs(likelihoods.predictive_distribution(predictive.likelihood, outputs))

    logs = np.asarray(jax.vmap(log_probs)(predictive.outputs), np.float64)
    probs = np.exp(logs)
    weights = np.exp(np.asarray(predictive.log_weights, np.float64))
    return probs / probs.sum(-1, keepdims=True), weights / weights.sum()


def entropy(probabilities: np.ndarray, axis: int = -1) -> np.ndarray:
    """``-sum p log p`` in nats, with ``0 log 0 = 0``."""
    safe = np.where(probabilities > 0, probabilities, 1.0)
    return -np.sum(probabilities * np.log(safe), axis)
