"""Linear regression on features in its dual form: leave-one-out predictions and the evidence, exactly."""

from __future__ import annotations

from typing import Any

import numpy as np

from bayestl.transferability._checks import checked_columns


def held_out(kernel: np.ndarray, targets: Any, variances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Leave-one-out log predictives (V, N) and log evidences (V,), sums over the columns of the targets.

    ``y ~ N(0, s^2 (v K + I))`` for each standardised column; with A the inverse of the bracket, example i given the
    others is ``N(y_i - (A y)_i / A_ii, s^2 / A_ii)``; s^2 at its best, ``y^T A y / N``.

    Args:
        kernel: K, (N, N), positive semi-definite.
        targets: (N,) or (N, M).
        variances: v, of the outputs in units of the noise's, (V,).

    Raises:
        ValueError: shapes that differ, non-finite values, a constant column.

    Reference:
        Rasmussen and Williams 2006, "Gaussian Processes for Machine Learning", equations 5.10 to 5.12.
    """
    columns, scales = _standardised(targets, len(kernel))
    values, vectors = np.linalg.eigh(kernel)
    along, num = vectors.T @ columns, len(kernel)
    predictive, log_evidence = np.empty((len(variances), num)), np.empty(len(variances))
    for k, v in enumerate(variances):
        shrunk = 1 / (1 + v * np.maximum(values, 0))
        noise = np.sum(along**2 * shrunk[:, None], axis=0) / num
        noise = np.maximum(noise, 1e-14)
        diagonal = (vectors**2) @ shrunk
        residual = (vectors @ (along * shrunk[:, None])) / diagonal[:, None]
        spread = noise / diagonal[:, None]
        predictive[k] = np.sum(-0.5 * (np.log(2 * np.pi * spread) + residual**2 / spread) - np.log(scales), axis=1)
        energy = np.sum(along**2 * shrunk[:, None], axis=0) / noise
        each = -0.5 * (energy + num * np.log(2 * np.pi * noise) - np.sum(np.log(shrunk))) - num * np.log(scales)
        log_evidence[k] = np.sum(each)
    return predictive, log_evidence


def _standardised(targets: Any, num: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns (N, M) of mean 0 and variance 1, and their standard deviations before that."""
    columns = checked_columns(targets, num)
    centred = columns - columns.mean(axis=0)
    scales = np.sqrt(np.mean(centred**2, axis=0))
    constant = np.flatnonzero(scales <= 1e-12 * np.maximum(1, np.abs(columns.mean(axis=0))))
    if len(constant):
        raise ValueError(
            f"column {constant[0]} of targets is the same number throughout: there is nothing to predict, and every "
            "source would do; leave it out"
        )
    return centred / scales, scales
