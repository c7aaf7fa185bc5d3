"""Examples that count less, the better they are predicted already."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._types import Likelihood, Outputs, Scalar
from bayestl.likelihoods._bernoulli import BernoulliLogits
from bayestl.likelihoods._categorical import CategoricalLogits
from bayestl.likelihoods._class_density import ClassDensity, class_densities
from bayestl.likelihoods._classes import class_log_probs, is_binary
from bayestl.likelihoods._methods import predictive_distribution


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Focal:
    """A likelihood whose log density shrinks where the label is probable already. Made by :func:`focal`.

    Attributes:
        likelihood: of classes.
        power: of ``1 - p``, a scalar.
    """

    likelihood: Likelihood
    power: jax.Array

    def __call__(self, outputs: Outputs) -> dist.Distribution:
        """``(1 - p_y)^power log p_y``, batch shape (B,); not normalised."""
        densities = class_densities("focal", self.likelihood, outputs)
        others = log_of_others(class_log_probs(predictive_distribution(self.likelihood, outputs)))
        power = self.power.astype(densities.dtype)
        certain = others == -jnp.inf
        factor = jnp.where(certain, jnp.where(power > 0, 0, 1), jnp.exp(power * jnp.where(certain, 0, others)))
        # An impossible label stays so; the product would have a derivative of 0 times infinity.
        impossible = densities == -jnp.inf
        return ClassDensity(jnp.where(impossible, densities, factor * jnp.where(impossible, 0, densities)))

    def predictive(self, outputs: Outputs) -> dist.Distribution:
        """``p_c / (-p l'(p))``, normalised, with l the focal loss: the class frequencies of which p is the minimum."""
        inner = predictive_distribution(self.likelihood, outputs)
        logits = _undone(class_log_probs(inner), self.power)
        if is_binary(type(inner)):
            return BernoulliLogits(logits[..., 1] - logits[..., 0], validate_args=False)
        return CategoricalLogits(logits, validate_args=False)


def log_of_others(log_probs: Float[Array, "... C"]) -> Float[Array, "... C"]:
    """``log(1 - p_c)`` of every class, from ``log p``; without cancellation where p is nearly 1."""
    probable = log_probs > -0.5  # p > .61: of one class at most
    improbable = jnp.log1p(-jnp.exp(jnp.where(probable, -1.0, log_probs)))
    # By its place: compared with the largest, a value that XLA computes twice need not be found (docs/compilers.md).
    top = jnp.arange(log_probs.shape[-1]) == jnp.argmax(log_probs, axis=-1, keepdims=True)
    rest = jnp.where(top, -jnp.inf, log_probs)
    certain = jnp.all(rest == -jnp.inf, axis=-1, keepdims=True)
    rest = logsumexp(jnp.where(certain, 0.0, rest), axis=-1, keepdims=True)
    return jnp.where(probable, jnp.where(certain, -jnp.inf, rest), improbable)


def _undone(log_probs: Float[Array, "B C"], power: jax.Array) -> Float[Array, "B C"]:
    """``log p - log((1 - p)^k - k (1 - p)^(k - 1) p log p)``, k the power: logits of the frequencies behind p."""
    power = power.astype(log_probs.dtype)
    others = log_of_others(log_probs)
    probable, possible = log_probs > -0.5, log_probs > -jnp.inf
    # -log(p) / (1 - p), which is 1 at p = 1
    rest = jnp.exp(jnp.where(probable, others, 0.0))
    small = rest < 1e-6
    near = jnp.where(
        small, 1 + rest / 2, -jnp.log1p(-jnp.where(small | ~probable, 0.5, rest)) / jnp.where(small, 1, rest)
    )
    far = -jnp.where(possible, log_probs, 0.0) / jnp.exp(jnp.where(probable, 0.0, others))
    ratio = jnp.where(probable, near, far)
    shrunk = jnp.where(power > 0, power * others, 0.0)
    return log_probs - shrunk - jnp.log1p(power * jnp.exp(log_probs) * ratio)


def focal(likelihood: Likelihood, power: Scalar = 2.0) -> Focal:
    """A likelihood of classes with the focal loss, ``(1 - p_y)^k log p_y``: what is well predicted counts little.

    For detectors and other tasks with very many easy examples; on top of :func:`class_weighted` it is the balanced
    focal loss, and :func:`label_smoothed` on top of it smooths its labels.

    Minimising this loss does not give the frequencies of the classes: where they are q the minimum p is less sure.
    Predictions undo that, ``q_c ~ p_c / ((1 - p_c)^k - k (1 - p_c)^(k-1) p_c log p_c)``, which leaves the order of the
    classes as it is and is p itself at k = 0. Under :func:`~bayestl.predict.linearized` an example of several classes
    needs ``link=predict.sampled(key, num_samples)``. The density is not concave far from the labels: its GGN clips
    the Hessian there (``curvature.clipped_share`` says how much). ``curvature.fisher`` and evidence need a normalised
    density, and this is none.

    Args:
        likelihood: of one class per example: :func:`categorical`, :func:`bernoulli`, or another one on top of these.
        power: k, at least 0; 0 is the likelihood itself. A leaf, which may be traced.

    Raises:
        ValueError: a number out of range.

    References:
        Lin et al. 2017, "Focal Loss for Dense Object Detection" (arXiv 1708.02002), equation 4; Charoenphakdee et al.
        2021, "On Focal Loss for Class-Posterior Probability Estimation" (arXiv 2011.09172), for the predictions.

    Example:
        >>> likelihood = btl.likelihoods.focal(btl.likelihoods.bernoulli(), 2.0)
        >>> for value in likelihood(jnp.array([0.0, 3.0])).log_prob(jnp.array([1, 1])):  # p = 0.5, 0.953
        ...     print(f"{value:.5f}")
        -0.17329
        -0.00011
    """
    check_arguments(focal, locals())
    power = jnp.asarray(power, jnp.result_type(float))
    if power.ndim or (_tree.is_concrete(power) and not 0 <= float(power) < float("inf")):
        raise ValueError(f"power is {power}; the power of 1 - p is one finite number, 0 or more")
    return Focal(likelihood, power)
