"""How published work turns SGD iterates into a covariance: the same statistics, other factors.

Each function takes the number c by which the covariance is scaled, the floor eps, and the number k of deviations kept,
and returns :class:`Coefficients`. The source: the tables and released code of the papers named.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Coefficients(NamedTuple):
    """``diag(variance * v + floor) + (deviations * Dev)^T (deviations * Dev)``.

    Attributes:
        variance: multiplies the iterates' variance v.
        floor: added to the diagonal.
        deviations: multiplies the raw deviations Dev, (k, D), of the last k iterates from the mean.
    """

    variance: Any
    floor: Any
    deviations: Any


def swag(c: Any, eps: Any, k: int) -> Coefficients:
    """The package's own: ``c/2 (diag(v) + Dev^T Dev / (k - 1)) + eps I``.

    At c = 1, eps = 0 that of Maddox et al. 2019, "A Simple Baseline for Bayesian Uncertainty in Deep Learning".
    """
    return Coefficients(c / 2, eps, (c / (2 * (k - 1))) ** 0.5)


def harvey_2024(c: Any, eps: Any, k: int) -> Coefficients:
    """Harvey et al. 2024, released code: eps outside c, default 0.1. The same as :func:`swag`."""
    return swag(c, eps, k)


def harvey_2025(c: Any, eps: Any, k: int) -> Coefficients:
    """Harvey et al. 2025 (arXiv 2502.01861), released code: eps is scaled by c too."""
    return swag(c, eps, k)._replace(floor=c * eps)


def shwartz_ziv_2022(c: Any, eps: Any, k: int) -> Coefficients:
    """Shwartz-Ziv et al. 2022, "Pre-Train Your Loss", released code.

    Without the 1/2 and the 1/(k - 1), and with c on the factor, so that the low-rank part of the covariance grows with
    c squared; defaults there are c = 1e10, eps = 0.1, k = 5.
    """
    return Coefficients(c, eps, c)
