"""Which examples to label together."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bayestl._arguments import check_arguments
from bayestl._generator import generator
from bayestl._types import Key
from bayestl.predict._predictive import Predictive
from bayestl.predict.acquisition._draws import class_draws, entropy


class Chosen(NamedTuple):
    """Examples to label. Made by :func:`batch_bald`.

    Attributes:
        rows: (K,), their numbers, in the order in which they were chosen.
        information: (K,), what the labels of the first 1, ..., K tell of the parameters together, nats.
    """

    rows: np.ndarray
    information: np.ndarray


def batch_bald(key: Key, predictive: Predictive, num: int, *, num_outcomes: int = 2000) -> Chosen:
    """The examples whose labels together tell most of the parameters, one after another (greedily).

    Examples that are alike tell the same twice, which :func:`bald` does not see. The joint entropy of the labels is
    exact as long as they have at most ``num_outcomes`` outcomes together, C^k for k examples; after that it is
    estimated from so many outcomes, drawn from the predictive.

    Args:
        key: of the drawn outcomes.
        predictive: of classes, with its draws; all S x B x C probabilities are held.
        num: K, 1 to B.
        num_outcomes: that are held.

    Raises:
        TypeError: another kind of predictive.
        ValueError: a number out of range.

    Reference:
        Kirsch, van Amersfoort and Gal 2019, "BatchBALD: Efficient and Diverse Batch Acquisition for Deep Bayesian
        Active Learning".

    Example:
        >>> logits = 50.0 * jnp.array([[[1, 0], [1, 0], [1, 0]], [[0, 1], [0, 1], [1, 0]]])  # the first two are alike
        >>> given = btl.predict.Predictive(logits, btl.likelihoods.categorical(), jnp.log(jnp.array([0.5, 0.5])))
        >>> btl.predict.acquisition.batch_bald(jax.random.key(0), given, 2).information.round(3).tolist()
        [0.693, 0.693]
    """
    check_arguments(batch_bald, locals())
    probs, weights = class_draws("predictive", predictive)
    num_draws, size, num_classes = probs.shape
    if not 1 <= num <= size:
        raise ValueError(f"num is {num}; give 1 to {size}, the number of examples")
    if num_outcomes < num_classes:
        raise ValueError(f"num_outcomes is {num_outcomes}; give at least {num_classes}, the number of classes")
    rng = generator(key)
    given = weights @ entropy(probs)  # (B,), what is left when the parameters are known
    rows: list[int] = []
    information: list[float] = []
    # Outcomes of the chosen examples: their probability under each draw, (O, S), and how often each counts, (O,). None
    # counts when all outcomes are there, each by its own probability.
    outcomes, counts = np.ones((1, num_draws)), None
    for _ in range(num):
        joint = np.einsum("os,s,sbc->boc", outcomes, weights, probs)  # (B, O, C)
        if counts is None:
            together = entropy(joint.reshape(size, -1))
        else:
            # The mean over drawn outcomes o of -sum_c p(c | o) log p(o, c).
            whole = outcomes @ weights
            logs = np.log(np.maximum(joint, 1e-300))
            together = -np.einsum("o,boc,boc->b", counts / whole, joint, logs)
        scores = together - given - given[rows].sum()
        scores[rows] = -np.inf
        best = int(np.argmax(scores))
        rows.append(best)
        information.append(max(float(scores[best]), 0.0))
        outcomes, counts = _extended(rng, outcomes, counts, probs, weights, rows, num_outcomes)
    return Chosen(np.array(rows), np.array(information))


def _extended(
    rng: np.random.Generator,
    outcomes: np.ndarray,
    counts: np.ndarray | None,
    probs: np.ndarray,
    weights: np.ndarray,
    rows: list[int],
    num_outcomes: int,
) -> tuple[np.ndarray, np.ndarray | None]:
    """The outcomes with those of the example that was chosen last."""
    new = probs[:, rows[-1]]  # (S, C)
    if counts is None and len(outcomes) * new.shape[1] <= num_outcomes:
        return (outcomes[:, None] * new.T[None]).reshape(-1, len(weights)), None
    # Draw parameters, then a label of every chosen example under them.
    draws = rng.choice(len(weights), num_outcomes, p=weights)
    result = np.ones((num_outcomes, len(weights)))
    for row in rows:
        below = probs[draws, row].cumsum(-1)
        labels = (below > rng.random((num_outcomes, 1)) * below[:, -1:]).argmax(-1)
        result *= probs[:, row, labels].T
    return result, np.full(num_outcomes, 1 / num_outcomes)
