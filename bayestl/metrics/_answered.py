"""The numbers of a risk-coverage curve, of examples as they are and of resampled ones."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

COVERAGE, RISK = 0.8, 0.05


class Ranked(NamedTuple):
    """Examples by their confidence, however often each of them counts.

    Attributes:
        place: (N,), of each example's confidence among the distinct ones, 0 for the highest.
        losses: (N,).
        order: (N,), from the smallest loss on.
    """

    place: np.ndarray
    losses: np.ndarray
    order: np.ndarray


class Answered(NamedTuple):
    """Losses in the order in which examples are answered.

    Attributes:
        losses: (N,), the surest example first, shared among equal confidences.
        is_end: (N,), whether the next example has another confidence.
        best: (N,), the same losses in the best order, the smallest first.
    """

    losses: np.ndarray
    is_end: np.ndarray
    best: np.ndarray


def ranked(confidence: np.ndarray, losses: np.ndarray) -> Ranked:
    """Examples by their confidence."""
    return Ranked(np.unique(-confidence, return_inverse=True)[1], losses, np.argsort(losses, kind="stable"))


def answered(examples: Ranked, counts: np.ndarray | None = None) -> Answered:
    """The losses of examples that count so often each, (N,) whole numbers; once each where there are none."""
    place, losses, order = examples
    each = np.ones(len(losses), int) if counts is None else counts.astype(int)
    num = np.bincount(place, each).astype(int)
    total = np.bincount(place, each * losses)
    present = num > 0
    num = num[present]
    is_end = np.zeros(num.sum(), bool)
    is_end[np.cumsum(num) - 1] = True
    return Answered(np.repeat(total[present] / num, num), is_end, np.repeat(losses[order], each[order]))


def area(answers: Answered) -> float:
    """:func:`aurc`."""
    return float(np.mean(_risks(answers.losses)))


def excess(answers: Answered) -> float:
    """:func:`excess_aurc`."""
    return float(np.mean(_risks(answers.losses) - _risks(answers.best)))


def generalized_area(answers: Answered) -> float:
    """:func:`augrc`."""
    total = np.concatenate([[0.0], np.cumsum(answers.losses)])
    return float(np.sum(total[1:] + total[:-1]) / 2 / len(answers.losses) ** 2)


def risk_at(answers: Answered, coverage: float = COVERAGE) -> float:
    """:func:`risk_at_coverage`."""
    number = int(np.ceil(coverage * len(answers.losses) - 1e-9))
    return float(_risks(answers.losses)[number - 1])


def coverage_at(answers: Answered, risk: float = RISK) -> float:
    """:func:`coverage_at_risk`."""
    # Only at the end of a run of equal confidence is there a threshold that answers just these.
    allowed = answers.is_end & (_risks(answers.losses) <= risk + 1e-12)
    return float(np.flatnonzero(allowed).max(initial=-1) + 1) / len(allowed)


def _risks(losses: np.ndarray) -> np.ndarray:
    return np.cumsum(losses) / np.arange(1, len(losses) + 1)


SUMMARIES = {
    "aurc": area,
    "excess_aurc": excess,
    "augrc": generalized_area,
    "coverage_at_risk": coverage_at,
    "risk_at_coverage": risk_at,
}
"""Name in tables to the number."""
