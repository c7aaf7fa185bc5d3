"""What is gained by not answering where one is not sure."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from bayestl._arguments import check_arguments
from bayestl._types import Numbers, Scalar
from bayestl.metrics._answered import (
    COVERAGE,
    RISK,
    Answered,
    answered,
    area,
    coverage_at,
    excess,
    generalized_area,
    ranked,
    risk_at,
)
from bayestl.metrics._numbers import probability, vector


class RiskCoverage(NamedTuple):
    """The mean loss of the examples that are answered, the surest ones first. Made by :func:`risk_coverage`.

    Attributes:
        coverage: (N,), the share that is answered, 1/N, ..., 1.
        risk: (N,), the mean loss of these.
        threshold: (N,), the lowest confidence that is answered.
    """

    coverage: Float[np.ndarray, " N"]
    risk: Float[np.ndarray, " N"]
    threshold: Float[np.ndarray, " N"]


def risk_coverage(confidence: Numbers, losses: Numbers) -> RiskCoverage:
    """The mean loss of the k examples of highest confidence, for every k.

    Examples of the same confidence share their mean loss, so that their order does not matter. To judge abstaining
    among unknown examples too (SCOD), append these with the loss of an answer there, 1 for errors; ``evaluate`` with
    ``selective=True`` does so for its ``ood/`` data sets.

    Args:
        confidence: (N,), higher is surer, such as the largest probability.
        losses: (N,), 0 or 1 for errors, or any loss.

    Raises:
        ValueError: NaN, or numbers that do not belong to the same examples.

    References:
        Geifman and El-Yaniv, Selective classification for deep neural networks, 2017.

    Example:
        >>> curve = btl.metrics.risk_coverage([0.9, 0.6, 0.8, 0.7], [0, 1, 0, 0])
        >>> print(curve.coverage, curve.risk)
        [0.25 0.5  0.75 1.  ] [0.   0.   0.   0.25]
    """
    check_arguments(risk_coverage, locals())
    each = _answered(confidence, losses).losses
    numbers = np.arange(1, len(each) + 1)
    ordered = -np.sort(-vector("confidence", confidence))
    return RiskCoverage(numbers / len(each), np.cumsum(each) / numbers, ordered)


def aurc(confidence: Numbers, losses: Numbers) -> float:
    """The area under the risk-coverage curve, its mean over k = 1 .. N; lower is better.

    Args:
        confidence: (N,), higher is surer.
        losses: (N,).

    Raises:
        ValueError: NaN, or numbers that do not belong to the same examples.

    References:
        Geifman, Uziel and El-Yaniv, Bias-reduced uncertainty estimation for deep neural classifiers, 2019, equation 5.

    Example:
        >>> btl.metrics.aurc([0.9, 0.6, 0.8, 0.7], [0, 1, 0, 0])
        0.0625
    """
    check_arguments(aurc, locals())
    return area(_answered(confidence, losses))


def excess_aurc(confidence: Numbers, losses: Numbers) -> float:
    """The area under the risk-coverage curve less that of the best order, which answers small losses first.

    0 where confidence ranks the examples as their losses do. It judges the order alone, :func:`aurc` the answers too.

    Args:
        confidence: (N,), higher is surer.
        losses: (N,).

    Raises:
        ValueError: NaN, or numbers that do not belong to the same examples.

    Example:
        >>> btl.metrics.excess_aurc([0.9, 0.6, 0.8, 0.7], [0, 1, 0, 0])
        0.0
    """
    check_arguments(excess_aurc, locals())
    return excess(_answered(confidence, losses))


def augrc(confidence: Numbers, losses: Numbers) -> float:
    """The area under the curve of losses that go through unnoticed, ``coverage * risk``, by the trapezoidal rule.

    For errors it is ``(1 - AUROC) a (1 - a) + (1 - a)^2 / 2``, a being the accuracy and AUROC that of confidence for
    right against wrong answers. No example counts more than another, as the surest ones do in :func:`aurc`.

    Args:
        confidence: (N,), higher is surer.
        losses: (N,).

    Raises:
        ValueError: NaN, or numbers that do not belong to the same examples.

    References:
        Traub et al., Overcoming common flaws in the evaluation of selective classification systems, 2024, equation 8.

    Example:
        >>> btl.metrics.augrc([0.9, 0.6, 0.8, 0.7], [0, 1, 0, 0])
        0.03125
    """
    check_arguments(augrc, locals())
    return generalized_area(_answered(confidence, losses))


def risk_at_coverage(confidence: Numbers, losses: Numbers, *, coverage: Scalar = COVERAGE) -> float:
    """The mean loss when this share of the examples is answered, the surest ones; the share rounded up to one that is.

    Args:
        confidence: (N,), higher is surer.
        losses: (N,).
        coverage: between 0 and 1.

    Raises:
        ValueError: NaN, numbers that do not belong to the same examples, or a coverage out of range.

    Example:
        >>> btl.metrics.risk_at_coverage([0.9, 0.6, 0.8, 0.7], [0, 1, 0, 1], coverage=0.7)
        0.3333333333333333
    """
    check_arguments(risk_at_coverage, locals())
    return risk_at(_answered(confidence, losses), probability("coverage", coverage))


def coverage_at_risk(confidence: Numbers, losses: Numbers, *, risk: Scalar = RISK) -> float:
    """The largest share of the examples that can be answered at a mean loss of at most ``risk``; 0 where none can.

    Args:
        confidence: (N,), higher is surer.
        losses: (N,).
        risk: at least 0.

    Raises:
        ValueError: NaN, numbers that do not belong to the same examples, or a negative risk.

    Example:
        >>> btl.metrics.coverage_at_risk([0.9, 0.6, 0.8, 0.7], [0, 1, 0, 0], risk=0.05)
        0.75
    """
    check_arguments(coverage_at_risk, locals())
    if not float(risk) >= 0:
        raise ValueError(f"risk is {risk}; it must be at least 0")
    return coverage_at(_answered(confidence, losses), float(risk))


def ause(uncertainty: Numbers, errors: Numbers) -> float:
    """How much slower the mean error falls when the most uncertain examples are left out than when the worst are.

    The area between the two sparsification curves, each the mean error of the N - k examples that are left over that of
    all, k = 0 .. N - 1. 0 where uncertainty ranks the examples as their errors do.

    Args:
        uncertainty: (N,), higher is less sure, such as a predictive standard deviation.
        errors: (N,), at least 0, such as absolute errors; not all 0.

    Raises:
        ValueError: NaN, numbers that do not belong to the same examples, or errors that are negative or all 0.

    References:
        Ilg et al., Uncertainty estimates and multi-hypotheses networks for optical flow, 2018.

    Example:
        >>> btl.metrics.ause([0.1, 0.2, 0.3], [1.0, 2.0, 3.0])
        0.0
    """
    check_arguments(ause, locals())
    values = vector("errors", errors)
    if values.min() < 0 or values.max() == 0:
        raise ValueError("errors must be at least 0, and not all 0; give absolute or squared ones")
    return excess_aurc(-vector("uncertainty", uncertainty), values) / float(values.mean())


def _answered(confidence: Numbers, losses: Numbers) -> Answered:
    """Losses from the highest confidence on, shared among equal confidences."""
    confidence, losses = vector("confidence", confidence), vector("losses", losses)
    if len(confidence) != len(losses):
        raise ValueError(
            f"confidence is of {len(confidence)} examples and losses of {len(losses)}; give both of the same examples"
        )
    return answered(ranked(confidence, losses))
