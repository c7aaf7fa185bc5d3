"""A new last layer on a source's features: what it predicts of examples it has not seen, and its evidence."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from bayestl._arguments import check_arguments
from bayestl._types import Numbers
from bayestl.transferability import _ridge, _softmax_process
from bayestl.transferability._checks import checked_features, checked_labels, is_classes, one_hot

_VARIANCES = tuple(float(v) for v in np.exp(np.arange(-4.0, 9.0)))


class Modes(NamedTuple):
    """The layer of every prior variance, in its dual form.

    Attributes:
        features: of the training inputs, (N, D).
        dual: logits are those of the prior mean and ``variance * kernel @ dual``, (V, N, C).
        has_outputs: whether the prior mean is the source's own head.
    """

    features: np.ndarray
    dual: np.ndarray
    has_outputs: bool

    def log_probs(self, features: np.ndarray, outputs: Any, variances: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """See :meth:`LastLayer.log_probs`."""
        if features.ndim != 2 or features.shape[1] != self.features.shape[1]:
            raise ValueError(f"features has shape {features.shape}; give (N', {self.features.shape[1]})")
        if (outputs is not None) != self.has_outputs:
            raise ValueError("outputs go with a last layer that was made with outputs, and only with one")
        kernel = _kernel(self.features, features)
        offset = _offset(outputs, len(features), self.dual.shape[-1])
        each = np.stack(
            [
                _softmax_process.log_softmax(offset + variance * kernel @ dual)
                for variance, dual in zip(variances, self.dual, strict=True)
            ]
        )
        largest = each.max(axis=0)
        return largest + np.log(np.tensordot(weights, np.exp(each - largest), axes=1))


@dataclasses.dataclass(frozen=True)
class LastLayer:
    """What a new last layer says of the features below it.

    Attributes:
        log_predictive: of each example by layers that had not seen it, averaged over prior variances, (N,), nats.
        variances: v, prior variances of the outputs, averaged over the examples, (V,).
        curve: mean held-out log predictive at each of them, (V,).
        log_evidence: log marginal likelihood at each of them, per example, (V,).
        weights: of the average, (V,).
        modes: of each variance, for :meth:`log_probs`; None for numbers.
    """

    log_predictive: np.ndarray
    variances: np.ndarray
    curve: np.ndarray
    log_evidence: np.ndarray
    weights: np.ndarray
    modes: Modes | None = dataclasses.field(default=None, repr=False)

    def log_probs(self, features: Any, outputs: Any = None) -> np.ndarray:
        """Log probabilities of the classes for other inputs, averaged over prior variances, (N', C).

        Args:
            features: of the other inputs, (N', D).
            outputs: the source's raw outputs there, (N', C), where :func:`last_layer` was given them.

        Raises:
            TypeError: a last layer for numbers.
            ValueError: shapes that differ from those of the training inputs.
        """
        if self.modes is None:
            raise TypeError("log_probs is for classes; this last layer is for numbers")
        return self.modes.log_probs(np.asarray(features, np.float64), outputs, self.variances, self.weights)

    @property
    def held_out(self) -> float:
        """Mean held-out log predictive, nats per example: the score :func:`held_out`."""
        return float(np.mean(self.log_predictive))

    @property
    def evidence(self) -> float:
        """The best log evidence per example: the score :func:`evidence`."""
        return float(np.max(self.log_evidence))


def last_layer(
    features: Numbers, targets: Numbers, *, outputs: Numbers | None = None, variances: Numbers = _VARIANCES
) -> LastLayer:
    """A Bayesian last layer on features: held-out predictions in closed form, and the evidence, over prior variances.

    The layer is linear with a bias, its weights are N(0, tau I) around zero (or around the source's own head, where
    ``outputs`` are given), and tau is such that the outputs have the variance v on average. For classes the likelihood
    is categorical: the mode by Newton's method, each group of examples left out by one Newton step from it, one example
    of every class at a time, and the evidence by Laplace's method. A class's only example, and the only group there is,
    are predicted by the prior mean. For numbers everything is exact, with the noise at its best for each v.

    The prior variances are averaged with weights proportional to exp(sum of held-out log predictives).

    Args:
        features: of the target's inputs, (N, D).
        targets: classes, whole numbers (N,); or numbers, (N,) or (N, M), which are standardised.
        outputs: the source's raw outputs on the same inputs, (N, C), where its head is of the target's classes (in
            their ascending order).
        variances: v, positive numbers.

    Returns:
        A :class:`LastLayer`. Time is O(V C N^3); a few seconds at N = 500, C = 10.

    Raises:
        ValueError: shapes that differ, one class alone, constant numbers, non-finite values.
        TypeError: outputs beside numbers.

    Reference:
        The step is the approximate leave-one-out of Rad and Maleki 2020, "A scalable estimate of the out-of-sample
        prediction error via approximate leave-one-out cross-validation", for groups.

    Example:
        >>> features = np.concatenate([np.full((5, 1), -1.0), np.full((5, 1), 1.0)])
        >>> useful = btl.transferability.last_layer(features, np.repeat([0, 1], 5))
        >>> useless = btl.transferability.last_layer(features, np.tile([0, 1], 5))
        >>> print(useful.held_out > -0.1, useless.held_out < -0.69)
        True True
    """
    check_arguments(last_layer, locals())
    features = checked_features(features)
    variances = np.asarray(variances, np.float64)
    if variances.ndim != 1 or not variances.size or not np.all(np.isfinite(variances) & (variances > 0)):
        raise ValueError(f"variances is {variances}; give a list of positive numbers")
    kernel, modes = _kernel(features, features), None
    if is_classes(targets):
        places, classes = checked_labels(targets, len(features))
        offset = _offset(outputs, len(places), len(classes))
        predictive, log_evidence, dual = _classes(kernel, places, offset, variances)
        modes = Modes(features, dual, outputs is not None)
    else:
        if outputs is not None:
            raise TypeError("outputs is for targets that are classes; subtract them from targets that are numbers")
        predictive, log_evidence = _ridge.held_out(kernel, targets, variances)
    totals = predictive.sum(axis=1)
    weights = np.exp(totals - totals.max())
    weights /= weights.sum()
    largest = predictive.max(axis=0)
    average = largest + np.log(weights @ np.exp(predictive - largest))
    return LastLayer(average, variances, predictive.mean(axis=1), log_evidence / len(features), weights, modes)


def held_out(features: Numbers, targets: Numbers) -> float:
    """The mean held-out log predictive of a new last layer on these features, nats per example; larger is better.

    :attr:`LastLayer.held_out` of :func:`last_layer`, which says what it is.

    Args:
        features: of the target's inputs, (N, D).
        targets: classes, whole numbers (N,); or numbers, (N,) or (N, M).
    """
    check_arguments(held_out, locals())
    return last_layer(features, targets).held_out


def evidence(features: Numbers, targets: Numbers) -> float:
    """The log evidence of a new last layer on these features at its best prior variance, nats per example.

    :attr:`LastLayer.evidence` of :func:`last_layer`, which says what it is. Larger is better.

    Args:
        features: of the target's inputs, (N, D).
        targets: classes, whole numbers (N,); or numbers, (N,) or (N, M).
    """
    check_arguments(evidence, locals())
    return last_layer(features, targets).evidence


def _kernel(features: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Inner products of features less the mean of the first ones, and a constant, (number of others, number of first).

    Among the first the mean diagonal is 1, of which the constant has half.
    """
    mean = features.mean(axis=0)
    size = np.mean(np.sum((features - mean) ** 2, axis=1))
    return 0.5 * (others - mean) @ (features - mean).T / (size if size > 0 else 1.0) + 0.5


def _offset(outputs: Any, num: int, num_classes: int) -> np.ndarray:
    if outputs is None:
        return np.zeros((num, num_classes))
    outputs = np.asarray(outputs, np.float64)
    if outputs.shape != (num, num_classes) or not np.all(np.isfinite(outputs)):
        raise ValueError(
            f"outputs has shape {outputs.shape}; give finite raw outputs, one per example and class that occurs, "
            f"({num}, {num_classes})"
        )
    return outputs


def _classes(
    kernel: np.ndarray, places: np.ndarray, offset: np.ndarray, variances: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Held-out log predictives (V, N), log evidences (V,), and the dual weights of the modes (V, N, C)."""
    targets, groups = one_hot(places), one_of_each(places)
    predictive, log_evidence = np.empty((len(variances), len(places))), np.empty(len(variances))
    dual, start = np.empty((len(variances), *targets.shape)), None
    for k in np.argsort(variances):
        fitted = _softmax_process.mode(variances[k] * kernel, targets, offset, start)
        start, log_evidence[k], dual[k] = fitted.weights, fitted.log_evidence, fitted.weights
        for members in groups:
            logits = (
                offset[members]
                if len(members) == len(places)
                else _softmax_process.left_out(variances[k] * kernel, fitted, targets, members)
            )
            predictive[k, members] = _softmax_process.log_softmax(logits)[np.arange(len(members)), places[members]]
    return np.maximum(predictive, np.log(1e-14)), log_evidence, dual


def one_of_each(places: np.ndarray) -> list[np.ndarray]:
    """Groups of examples: the k-th example of every class that has one."""
    rank = np.empty(len(places), int)
    for c in range(int(places.max()) + 1):
        rank[places == c] = np.arange(np.sum(places == c))
    return [np.flatnonzero(rank == k) for k in range(int(rank.max()) + 1)]
