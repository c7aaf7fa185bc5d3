"""Classes that count more, or less, than others."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._types import Likelihood, Numbers, Outputs
from bayestl.likelihoods._class_density import ClassDensity, class_densities
from bayestl.likelihoods._methods import has_logits, own, predictive_distribution


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ClassWeighted:
    """A likelihood whose log density is multiplied by the weight of the label. Made by :func:`class_weighted`.

    Attributes:
        likelihood: of classes.
        weights: of the classes, (C,).
    """

    likelihood: Likelihood
    weights: Float[Array, " C"]

    def __call__(self, outputs: Outputs) -> dist.Distribution:
        """``w_y log p(y | f)``, batch shape (B,); not normalised.

        Raises:
            ValueError: another number of classes than of weights.
        """
        densities = class_densities("class_weighted", self.likelihood, outputs)
        if densities.shape[-1] != self.weights.shape[0]:
            raise ValueError(
                f"weights hold {self.weights.shape[0]} numbers, but the likelihood is over {densities.shape[-1]} "
                "classes; give one weight per class"
            )
        weights = self.weights.astype(densities.dtype)
        # A class of weight 0 counts nothing, however improbable.
        return ClassDensity(jnp.where(weights > 0, weights * densities, 0))

    def predictive(self, outputs: Outputs) -> dist.Distribution:
        """That of the likelihood itself: probabilities where each class is as frequent as its weight makes it."""
        return predictive_distribution(self.likelihood, outputs)

    def moderated(self, mean: Any, covariance: Any) -> Any:
        """Those of the likelihood itself, None where it has none."""
        method = own(self.likelihood, "moderated")
        return None if method is None else method(mean, covariance)

    @property
    def outputs_are_logits(self) -> bool:
        """Whether those of the likelihood itself are."""
        return has_logits(self.likelihood)


def class_weighted(likelihood: Likelihood, weights: Numbers) -> ClassWeighted:
    """A likelihood of classes in which an example counts by the weight of its class: ``w_y log p(y | f)``.

    What is minimised is the cross entropy with class weights of other libraries, except that nothing is divided by the
    weights that occur: an example of weight 2 counts as the row twice. Weights whose mean over the training examples
    is 1, such as ``N / (C n_c)`` for a class of n_c examples, keep the size of the data set as it is, and with it the
    balance of data and prior.

    Predictions are those of the likelihood itself: probabilities in a population in which class c is ``w_c`` times as
    frequent as among the examples. Those among the examples are ``p_c / w_c``, normalised. Curvature is the weighted
    one of the labels (``curvature.ggn``, by automatic differentiation); ``curvature.fisher`` and evidence need a
    normalised density, and this is none.

    Args:
        likelihood: of one class per example: :func:`categorical`, :func:`bernoulli`, or another one on top of these.
        weights: of the classes, (C,), in the order of the labels, 0 first; finite and not negative. A leaf, which may
            be traced.

    Raises:
        ValueError: not one axis, negative or non-finite weights, or all of them 0.

    Example:
        >>> likelihood = btl.likelihoods.class_weighted(btl.likelihoods.categorical(), jnp.array([1.0, 1.0, 5.0]))
        >>> (likelihood(jnp.zeros((2, 3))).log_prob(jnp.array([0, 2])) / jnp.log(3)).tolist()
        [-1.0, -5.0]
    """
    check_arguments(class_weighted, locals())
    weights = jnp.asarray(weights, jnp.result_type(float))
    if weights.ndim != 1:
        raise ValueError(f"weights have shape {weights.shape}; give one number per class, (C,)")
    if _tree.is_concrete(weights) and not bool(jnp.all(jnp.isfinite(weights) & (weights >= 0)) & jnp.any(weights > 0)):
        raise ValueError(f"weights are {weights}; they must be finite and 0 or more, and not all of them 0")
    return ClassWeighted(likelihood, weights)
