"""Maps of logits with few numbers: one for all, one per class, or a matrix."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import log_softmax, softmax

from bayestl._arguments import check_arguments
from bayestl._types import Numbers, Scalar
from bayestl.predict._given import Predictive, is_of_classes, labels_of, numbers_of, probabilities_of

_TINY = 1e-12


@dataclasses.dataclass(frozen=True)
class LogitMap:
    """``softmax(matrix f + offset)`` of logits f. Made by :func:`temperature`, :func:`vector` and :func:`dirichlet`.

    Attributes:
        matrix: (C, C).
        offset: (C,).
        of_probabilities: whether it is applied to log probabilities, and so given probabilities.
    """

    matrix: np.ndarray
    offset: np.ndarray
    of_probabilities: bool = False

    def __call__(self, outputs: Numbers | Predictive) -> np.ndarray:
        """Probabilities (B, C) of logits (B, C); of probabilities, or a predictive, where it was fitted to such."""
        logits = _logarithms(outputs) if self.of_probabilities else numbers_of("logits", outputs, 2)
        if logits.shape[1] != len(self.offset):
            raise ValueError(f"there are {logits.shape[1]} classes here, but {len(self.offset)} where it was fitted")
        return softmax(logits @ self.matrix.T + self.offset, axis=1)

    @property
    def temperature(self) -> float:
        """T, where all logits are divided by the same number; the mean of the diagonal's inverses otherwise."""
        return float(np.mean(1 / np.diag(self.matrix)))


def temperature(logits: Numbers | Predictive, labels: Numbers) -> LogitMap:
    """Logits divided by one number T > 0, the maximum likelihood of examples that the model has not seen.

    No prediction changes, only how sure they are.

    Args:
        logits: (N, C), raw outputs of held-out examples; or a predictive of them, whose log probabilities are then
            the logits, averaged over draws first. What it is fitted to it is to be called with.
        labels: (N,).

    Raises:
        ValueError: logits that are not finite, labels outside the classes.

    References:
        Guo et al., On calibration of modern neural networks, 2017.

    Example:
        >>> logits = np.log([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1]])
        >>> print(btl.predict.calibrate.temperature(logits, [0, 0, 1])(logits[:1]).round(3))
        [[0.667 0.333]]
    """
    check_arguments(temperature, locals())
    given, right, is_predictive = _fitted_to(logits, labels)
    size = given.shape[1]

    def unpack(free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.exp(free[0]) * np.eye(size), np.zeros(size)

    def pull(matrix: np.ndarray, offset: np.ndarray, free: np.ndarray) -> np.ndarray:
        return np.array([np.exp(free[0]) * np.trace(matrix)])

    return LogitMap(*_maximised(given, right, np.zeros(1), unpack, pull), is_predictive)


def vector(logits: Numbers | Predictive, labels: Numbers) -> LogitMap:
    """Logits multiplied by one number per class, and another one added: ``w_c f_c + b_c``, by maximum likelihood.

    Args:
        logits: (N, C), raw outputs of held-out examples, many more than classes; or a predictive, as for
            :func:`temperature`.
        labels: (N,).

    Raises:
        ValueError: logits that are not finite, labels outside the classes.

    References:
        Guo et al., On calibration of modern neural networks, 2017, section 4.2.

    Example:
        >>> logits = np.log([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8]])
        >>> btl.predict.calibrate.vector(logits, [0, 1, 1]).offset.shape
        (2,)
    """
    check_arguments(vector, locals())
    given, right, is_predictive = _fitted_to(logits, labels)
    size = given.shape[1]

    def unpack(free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.diag(free[:size]), free[size:]

    def pull(matrix: np.ndarray, offset: np.ndarray, free: np.ndarray) -> np.ndarray:
        return np.concatenate([np.diag(matrix), offset])

    start = np.concatenate([np.ones(size), np.zeros(size)])
    return LogitMap(*_maximised(given, right, start, unpack, pull), is_predictive)


def dirichlet(probabilities: Numbers | Predictive, labels: Numbers, *, penalty: Scalar = 1e-3) -> LogitMap:
    """A linear map of all log probabilities, ``softmax(W log p + b)``, with off-diagonal entries held small.

    Args:
        probabilities: (N, C), of held-out examples, or a predictive.
        labels: (N,).
        penalty: lambda >= 0 on the mean square of the off-diagonal entries of W, and of b (ODIR).

    Raises:
        ValueError: rows that are no probabilities, labels outside the classes, a negative penalty.

    References:
        Kull et al., Beyond temperature scaling: obtaining well-calibrated multi-class probabilities with Dirichlet
        calibration, 2019.

    Example:
        >>> probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8]])
        >>> btl.predict.calibrate.dirichlet(probabilities, [0, 1, 1])(probabilities).shape
        (3, 2)
    """
    check_arguments(dirichlet, locals())
    if not float(penalty) >= 0:
        raise ValueError(f"penalty is {penalty}; it must be at least 0")
    given = _logarithms(probabilities)
    right = labels_of("labels", labels, *given.shape)
    size = given.shape[1]
    off = ~np.eye(size, dtype=bool)

    def unpack(free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return free[: size**2].reshape(size, size), free[size**2 :]

    def pull(matrix: np.ndarray, offset: np.ndarray, free: np.ndarray) -> np.ndarray:
        return np.concatenate([matrix.ravel(), offset])

    def penalized(matrix: np.ndarray, offset: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        share, each = float(penalty) / max(size * (size - 1), 1), float(penalty) / size
        value = share * np.sum(matrix[off] ** 2) + each * np.sum(offset**2)
        return value, 2 * share * np.where(off, matrix, 0.0), 2 * each * offset

    start = np.concatenate([np.eye(size).ravel(), np.zeros(size)])
    return LogitMap(*_maximised(given, right, start, unpack, pull, penalized), of_probabilities=True)


def _maximised(
    logits: np.ndarray,
    labels: np.ndarray,
    start: np.ndarray,
    unpack: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    pull: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    penalized: Any = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Matrix and offset of least mean negative log likelihood, by L-BFGS with its own gradient."""
    # Imported here, since it takes a tenth of a second.
    from scipy.optimize import minimize

    hot = np.eye(logits.shape[1])[labels]

    def loss(free: np.ndarray) -> tuple[float, np.ndarray]:
        matrix, offset = unpack(free)
        logs = log_softmax(logits @ matrix.T + offset, axis=1)
        residual = (np.exp(logs) - hot) / len(logits)
        value = -float(np.mean(logs[np.arange(len(labels)), labels]))
        by_matrix, by_offset = residual.T @ logits, residual.sum(0)
        if penalized is not None:
            more, more_matrix, more_offset = penalized(matrix, offset)
            value, by_matrix, by_offset = value + more, by_matrix + more_matrix, by_offset + more_offset
        return value, pull(by_matrix, by_offset, free)

    # Labels that the logits separate have no maximum; then this many steps are enough to be sure.
    best = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 1000, "ftol": 1e-14, "gtol": 1e-10})
    return unpack(best.x)


def _fitted_to(logits: Any, labels: Numbers) -> tuple[np.ndarray, np.ndarray, bool]:
    """Logits, labels, and whether the logits are those of a predictive."""
    is_predictive = is_of_classes(logits)
    given = _logarithms(logits) if is_predictive else numbers_of("logits", logits, 2)
    return given, labels_of("labels", labels, *given.shape), is_predictive


def _logarithms(probabilities: Any) -> np.ndarray:
    return np.log(np.maximum(probabilities_of("probabilities", probabilities), _TINY))
