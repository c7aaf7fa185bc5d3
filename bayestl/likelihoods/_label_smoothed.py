"""Labels that are taken for right with less than certainty."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._types import Likelihood, Outputs, Scalar
from bayestl.likelihoods._class_density import ClassDensity, class_densities
from bayestl.likelihoods._hessian import known_root
from bayestl.likelihoods._methods import has_logits, own, predictive_distribution


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LabelSmoothed:
    """A likelihood of which every label is spread over the classes. Made by :func:`label_smoothed`.

    Attributes:
        likelihood: of classes.
        amount: share that is spread, a scalar.
    """

    likelihood: Likelihood
    amount: jax.Array

    def __call__(self, outputs: Outputs) -> dist.Distribution:
        """``(1 - a) log p(y | f) + a / C sum_c log p(c | f)``, batch shape (B,); not normalised."""
        densities = class_densities("label_smoothed", self.likelihood, outputs)
        amount = self.amount.astype(densities.dtype)
        # 0 times the log probability of an impossible class would be NaN.
        spread = jnp.where(amount > 0, amount * jnp.mean(densities, axis=-1, keepdims=True), 0)
        return ClassDensity((1 - amount) * densities + spread)

    def hessian_root(self, outputs: Outputs) -> Any:
        """That of the likelihood itself, whose Hessian is the same for every label; None where it knows none."""
        return known_root(self.likelihood, outputs)

    def predictive(self, outputs: Outputs) -> dist.Distribution:
        """That of the likelihood itself."""
        return predictive_distribution(self.likelihood, outputs)

    def moderated(self, mean: Any, covariance: Any) -> Any:
        """Those of the likelihood itself, None where it has none."""
        method = own(self.likelihood, "moderated")
        return None if method is None else method(mean, covariance)

    @property
    def outputs_are_logits(self) -> bool:
        """Whether those of the likelihood itself are."""
        return has_logits(self.likelihood)


def label_smoothed(likelihood: Likelihood, amount: Scalar) -> LabelSmoothed:
    """A likelihood of classes in which a label is right with share ``1 - a``, and any class with share ``a / C``.

    The log density is ``(1 - a) log p(y | f) + a / C sum_c log p(c | f)``, the cross entropy against labels that are
    smoothed; on top of :func:`class_weighted` every class keeps its weight in both terms.

    Predictions are those of the likelihood itself. Trained to the end they are probabilities of smoothed labels, a
    share a of which is spread evenly, and so less sure than the labels by that much. Curvature is that of the
    likelihood itself, whichever label is smoothed; ``curvature.fisher`` and evidence need a normalised density, and
    this is none.

    Args:
        likelihood: of one class per example: :func:`categorical`, :func:`bernoulli`, or another one on top of these.
        amount: a, at least 0 and below 1. A leaf, which may be traced.

    Raises:
        ValueError: a number out of range.

    Reference:
        Szegedy et al. 2016, "Rethinking the Inception Architecture for Computer Vision", section 7.

    Example:
        >>> likelihood = btl.likelihoods.label_smoothed(btl.likelihoods.bernoulli(), 0.1)
        >>> for value in likelihood(jnp.array([3.0, 3.0])).log_prob(jnp.array([1, 0])):  # .95 of one, .05 of the other
        ...     print(f"{value:.3f}")
        -0.199
        -2.899
    """
    check_arguments(label_smoothed, locals())
    amount = jnp.asarray(amount, jnp.result_type(float))
    if amount.ndim or (_tree.is_concrete(amount) and not 0 <= float(amount) < 1):
        raise ValueError(
            f"amount is {amount}; the share of a label that is spread is one number, 0 or more and below 1"
        )
    return LabelSmoothed(likelihood, amount)
