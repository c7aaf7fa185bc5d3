"""Whether chains have mixed: rank-normalised split R-hat, and effective sample sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.scipy.special import ndtri
from numpyro import diagnostics

from bayestl._arguments import check_arguments
from bayestl._types import Arrays


def r_hat(values: Arrays) -> Any:
    """Rank-normalised split R-hat: near 1 if all halves of all chains look alike, above 1.01 if they do not.

    The larger of two values: that of the ranks, which detects chains in different places, and that of the ranks of
    distances from the median, which detects chains of different widths. Because it uses ranks, it is meaningful even
    where variances are infinite.

    Args:
        values: pytree of arrays (C, n, ...): C chains of n >= 4 draws each, of functions such as the network's outputs;
            see :func:`by_chain`. The parameters of a network are a poor choice: a chain may mix well over functions,
            yet not over the many parameters that give the same function.

    Returns:
        Arrays (...); NaN for a value that never changes, or is not finite in some draw; inf where chains stand still at
            different places.

    Raises:
        ValueError: fewer than 4 draws per chain.

    Reference:
        Vehtari et al. 2021, "Rank-Normalization, Folding, and Localization: An Improved R-hat" (arXiv 1903.08008).

    Example:
        >>> chains = np.random.default_rng(0).normal(size=(4, 500))
        >>> print(f"{btl.diagnostics.r_hat(chains):.2f}", btl.diagnostics.r_hat(chains + np.arange(4)[:, None]) > 1.1)
        1.00 True
    """

    check_arguments(r_hat, locals())

    def one(x: np.ndarray) -> np.ndarray:
        folded = np.abs(x - np.median(x, axis=(0, 1)))
        # Distances from the median that are all alike have no R-hat, and say nothing against that of the ranks.
        return np.fmax(*(diagnostics.gelman_rubin(_normal_scores(y)) for y in (x, folded)))

    return _each(one, values)


def ess(values: Arrays) -> Any:
    """Bulk effective sample size: how many independent draws would locate the centre of the distribution as well.

    Args:
        values: pytree of arrays (C, n, ...), as for :func:`r_hat`.

    Returns:
        Arrays (...); NaN for a value that never changes, or is not finite in some draw. It should be above 100 per
            chain.

    Reference:
        Vehtari et al. 2021 (arXiv 1903.08008), with Geyer's initial monotone sequence.

    Example:
        >>> chains = np.random.default_rng(0).normal(size=(4, 500))
        >>> print(1500 < btl.diagnostics.ess(chains) < 2500, btl.diagnostics.ess(np.repeat(chains, 10, axis=1)) < 2500)
        True True
    """
    check_arguments(ess, locals())
    return _each(lambda x: _effective(_normal_scores(x)), values)


def ess_tail(values: Arrays) -> Any:
    """Tail effective sample size: the smaller of the two for the 5 % and the 95 % quantile.

    Args:
        values: pytree of arrays (C, n, ...), as for :func:`r_hat`.

    Reference:
        Vehtari et al. 2021 (arXiv 1903.08008).
    """

    check_arguments(ess_tail, locals())

    def one(x: np.ndarray) -> np.ndarray:
        quantiles = np.quantile(x, [0.05, 0.95], axis=(0, 1))
        # With ties no draw may lie beyond one of the two.
        return np.fmin(*(_effective((x <= q).astype(np.float64)) for q in quantiles))

    return _each(one, values)


def _each(diagnostic: Callable[[np.ndarray], np.ndarray], values: Any) -> Any:
    def one(x: Any) -> Any:
        halves = _split(np.asarray(x, np.float64))
        with np.errstate(invalid="ignore", divide="ignore"):
            result = np.asarray(diagnostic(halves))
            spread = np.ptp(halves, axis=(0, 1))
        # A value that never changes has no variance to compare; rounding alone would give a number. Likewise, ranks
        # would give a number for draws that are NaN.
        result = np.where((spread > 0) & np.isfinite(spread), result, np.nan)
        return result if result.ndim else float(result)

    return jax.tree.map(one, values)


def _split(x: np.ndarray) -> np.ndarray:
    """Chains (C, n, ...) cut in halves, (2 C, n // 2, ...); if n is odd, the middle draw is left out."""
    if x.ndim < 2 or x.shape[1] < 4 or 0 in x.shape:
        raise ValueError(f"values have shape {x.shape}; give chains of at least 4 draws each, (C, n, ...)")
    half = x.shape[1] // 2
    return np.concatenate([x[:, :half], x[:, -half:]])


def _normal_scores(x: np.ndarray) -> np.ndarray:
    """Ranks over all draws (ties share their mean rank), as quantiles of the standard normal."""
    flat = x.reshape(x.shape[0] * x.shape[1], -1)
    ranks = np.stack([_ranks(column) for column in flat.T], axis=1)
    scores = np.asarray(ndtri((ranks - 0.375) / (len(flat) + 0.25)), np.float64)
    return scores.reshape(x.shape)


def _ranks(column: np.ndarray) -> np.ndarray:
    _, place, counts = np.unique(column, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]


def _effective(x: np.ndarray) -> np.ndarray:
    effective = np.asarray(diagnostics.effective_sample_size(x))
    total = x.shape[0] * x.shape[1]
    # Antithetic chains can estimate a mean better than independent draws, but the estimate of by how much is itself
    # noisy. Where the autocorrelation time comes out below 1 / log10(total), or even negative, that floor replaces it.
    limit = total * np.log10(total)
    return np.where(effective <= 0, limit, np.minimum(effective, limit))
