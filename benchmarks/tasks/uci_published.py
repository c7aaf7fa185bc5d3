"""Numbers that others published for the same data sets, as they printed them. None is ours."""

from __future__ import annotations

from typing import NamedTuple


class Published(NamedTuple):
    """One printed line.

    Attributes:
        method: what it is, with the number of its source.
        log_likelihood: mean test log-likelihood, with what stands behind its ±.
        rmse: the same of the root mean squared error.
    """

    method: str
    log_likelihood: str
    rmse: str


PBP, DROPOUT, LONGER, ENSEMBLES = "PBP [1, 3]", "MC dropout [2, 3]", "MC dropout, 10 x epochs [2]", "deep ensembles [3]"

PUBLISHED = {
    "concrete": (
        Published(PBP, "-3.16 ± 0.02", "5.67 ± 0.09"),
        Published(DROPOUT, "-3.04 ± 0.09", "5.23 ± 0.53"),
        Published(LONGER, "-2.94 ± 0.10", "4.81 ± 0.64"),
        Published(ENSEMBLES, "-3.06 ± 0.18", "6.03 ± 0.58"),
    ),
    "energy": (
        Published(PBP, "-2.04 ± 0.02", "1.80 ± 0.05"),
        Published(DROPOUT, "-1.99 ± 0.09", "1.66 ± 0.19"),
        Published(LONGER, "-1.72 ± 0.07", "1.09 ± 0.21"),
        Published(ENSEMBLES, "-1.38 ± 0.22", "2.09 ± 0.29"),
    ),
    "yacht": (
        Published(PBP, "-1.63 ± 0.02", "1.02 ± 0.05"),
        Published(DROPOUT, "-1.55 ± 0.12", "1.11 ± 0.38"),
        Published(LONGER, "-1.38 ± 0.06", "0.72 ± 0.25"),
        Published(ENSEMBLES, "-1.18 ± 0.21", "1.58 ± 0.48"),
    ),
    "wine-quality-red": (
        Published(PBP, "-0.97 ± 0.01", "0.64 ± 0.01"),
        Published(DROPOUT, "-0.93 ± 0.06", "0.62 ± 0.04"),
        Published(LONGER, "-0.92 ± 0.06", "0.61 ± 0.04"),
        Published(ENSEMBLES, "-0.94 ± 0.12", "0.64 ± 0.04"),
    ),
}

SOURCES = """\
1. Hernandez-Lobato and Adams 2015, "Probabilistic Backpropagation for Scalable Learning of Bayesian Neural Networks",
   ICML; numbers as [3] reprints them in its table 1.
2. Gal and Ghahramani 2016, "Dropout as a Bayesian Approximation", ICML; numbers as [3] reprints them, and as the
   readme of the authors' repository, yaringal/DropoutUncertaintyExps, lists them, where "10 x epochs" is from.
3. Lakshminarayanan, Pritzel and Blundell 2017, "Simple and Scalable Predictive Uncertainty Estimation using Deep
   Ensembles", NeurIPS, table 1 (there NLL, here its negative)."""
