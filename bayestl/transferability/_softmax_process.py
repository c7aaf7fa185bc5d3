"""Multinomial regression on features in its dual form: the mode, the evidence, predictions with examples left out.

With features as they are, a softmax layer whose weights are N(0, tau I) is a Gaussian process of kernel ``tau F F^T``,
one for each class. N examples of C classes are N C logits, and the kernel is the same for all classes, so that
everything costs C N^3 and not (C N)^3.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Curvature(NamedTuple):
    """The Hessian W of the negative log likelihood seen through the kernel, at some probabilities.

    Attributes:
        blocks: ``E_c = (K + D_c^-1)^-1``, (C, N, N).
        between: ``sum_c E_c``, (N, N).
        log_det: ``log det (I + K W)``.
    """

    blocks: np.ndarray
    between: np.ndarray
    log_det: float


class Mode(NamedTuple):
    """The most probable logits.

    Attributes:
        logits: (N, C).
        weights: a, (N, C), with logits = offset + K a.
        log_evidence: by Laplace's method, nats.
        curvature: there.
    """

    logits: np.ndarray
    weights: np.ndarray
    log_evidence: float
    curvature: Curvature


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Along the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=-1, keepdims=True))


def curvature(kernel: np.ndarray, probs: np.ndarray) -> Curvature:
    """At probabilities (N, C), all of which are above 0."""
    # By numpy's stacked solvers: scipy's triangular ones cost far more than the arithmetic at the sizes of few labels.
    half = np.sqrt(probs.T)
    inner = np.eye(len(probs)) + half[:, :, None] * kernel * half[:, None, :]
    blocks = half[:, :, None] * np.linalg.inv(inner) * half[:, None, :]
    blocks = 0.5 * (blocks + blocks.transpose(0, 2, 1))
    between = blocks.sum(axis=0)
    log_det = np.sum(np.linalg.slogdet(inner)[1]) + np.linalg.slogdet(between)[1]
    return Curvature(blocks, between, float(log_det))


def mode(
    kernel: np.ndarray,
    targets: np.ndarray,
    offset: np.ndarray,
    start: np.ndarray | None = None,
    tolerance: float = 1e-8,
) -> Mode:
    """The mode by Newton's method with halved steps, and the evidence there.

    Args:
        kernel: K, (N, N), positive semi-definite.
        targets: (N, C) of 0 and 1.
        offset: logits of the prior mean, (N, C).
        start: weights to start from, (N, C); None for 0.
        tolerance: nats by which the last step may still change the log joint.

    Reference:
        Rasmussen and Williams 2006, "Gaussian Processes for Machine Learning", section 3.5 and algorithm 3.3, with the
        determinant of equation 3.44 in full: ``det (I + K W) = prod_c det B_c det sum_c E_c``.
    """
    weights = np.zeros_like(offset) if start is None else start
    value = _log_joint(kernel, weights, targets, offset)
    for _ in range(100):
        probs = _probabilities(offset + kernel @ weights)
        there = curvature(kernel, probs)
        step = _newton(kernel, weights, probs, targets, there) - weights
        size = 1.0
        while True:
            new = weights + size * step
            new_value = _log_joint(kernel, new, targets, offset)
            if new_value >= value or size < 1e-6:
                break
            size *= 0.5
        improvement, weights, value = new_value - value, new, new_value
        if improvement < tolerance:
            break
    there = curvature(kernel, _probabilities(offset + kernel @ weights))
    return Mode(offset + kernel @ weights, weights, float(value - 0.5 * there.log_det), there)


def covariance(kernel: np.ndarray, there: Curvature, members: np.ndarray) -> np.ndarray:
    """The posterior covariance of the logits of some examples, (M C, M C), example by example.

    ``V = (K^-1 + W)^-1``; block of classes c, d: ``[c = d] (K - K E_c K) + K E_c (sum E)^-1 E_d K``.
    """
    rows, num_classes = kernel[:, members], len(there.blocks)
    through = there.blocks @ rows
    flat = through.transpose(1, 2, 0).reshape(len(kernel), -1)
    result = (flat.T @ np.linalg.solve(there.between, flat)).reshape(len(members), num_classes, len(members), -1)
    for c in range(num_classes):
        result[:, c, :, c] += kernel[np.ix_(members, members)] - rows.T @ through[c]
    size = len(members) * num_classes
    return result.reshape(size, size)


def left_out(kernel: np.ndarray, fitted: Mode, targets: np.ndarray, members: np.ndarray) -> np.ndarray:
    """The logits of some examples after one Newton step from the mode without them, (M, C).

    ``z + (V^-1 - H)^-1 (p - y)``, V their posterior covariance and H their Hessian: exact where the log likelihood of
    the others is quadratic.
    """
    logits = fitted.logits[members]
    probs = _probabilities(logits)
    spread = covariance(kernel, fitted.curvature, members)
    num, num_classes = probs.shape
    hessian = np.zeros((num, num_classes, num, num_classes))
    hessian[np.arange(num), :, np.arange(num), :] = probs[:, :, None] * (np.eye(num_classes) - probs[:, None, :])
    hessian = hessian.reshape(spread.shape)
    residual = (probs - targets[members]).ravel()
    step = spread @ np.linalg.solve(np.eye(len(spread)) - hessian @ spread, residual)
    return logits + step.reshape(logits.shape)


def _probabilities(logits: np.ndarray) -> np.ndarray:
    return np.clip(np.exp(log_softmax(logits)), 1e-14, 1.0)


def _log_joint(kernel: np.ndarray, weights: np.ndarray, targets: np.ndarray, offset: np.ndarray) -> float:
    change = kernel @ weights
    return float(np.sum(targets * log_softmax(offset + change)) - 0.5 * np.sum(weights * change))


def _newton(
    kernel: np.ndarray, weights: np.ndarray, probs: np.ndarray, targets: np.ndarray, there: Curvature
) -> np.ndarray:
    """The weights after a full Newton step."""
    change = kernel @ weights
    gradient = probs * change - probs * np.sum(probs * change, axis=1, keepdims=True) + targets - probs
    through = np.matmul(there.blocks, (kernel @ gradient).T[:, :, None])[:, :, 0].T
    middle = np.linalg.solve(there.between, through.sum(axis=1))
    return gradient - through + (there.blocks @ middle).T
