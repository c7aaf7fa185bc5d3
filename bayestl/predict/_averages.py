"""Predictives of which averages over parameter samples are kept, and not the samples."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._types import Key, Targets
from bayestl.likelihoods import at_labels, categorical, check_real_targets, check_targets_shape, check_values
from bayestl.predict._uncertainty import entropy

_KEEP = "averages over samples do not hold it; keep the samples' outputs with predict.monte_carlo"


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AveragedClasses:
    """Class probabilities averaged over samples, and the average of the samples' entropies: all that scores need.

    Attributes:
        log_probs: log of the averaged probabilities, (B, C); for a Bernoulli likelihood of the classes 0 and 1, (B, 2).
        entropies: averaged entropies, (B,), nats.
        is_binary: whether the likelihood is one of yes or no, static.
    """

    log_probs: Float[Array, "B C"]
    entropies: Float[Array, " B"]
    is_binary: bool = dataclasses.field(metadata={"static": True})

    def log_prob(self, targets: Targets) -> Float[Array, " B"]:
        """Log of the averaged probability of each target, nats; ``targets`` are labels (B,).

        Traced targets, of which there are no values to look at, give NaN where a label is outside the classes.

        Raises:
            ValueError, TypeError: what :meth:`check_targets` raises; targets of another shape.
        """
        check_arguments(AveragedClasses.log_prob, locals())
        check_targets_shape(tuple(jnp.shape(targets)), self.entropies.shape)
        self.check_targets(targets)
        return at_labels(self.log_probs, jnp.asarray(targets).astype(int))

    def check_targets(self, targets: Targets, mask: Any = None) -> None:
        """Raise on labels (B,) outside the classes; rows with mask 0 may hold anything.

        Raises:
            ValueError: labels outside the classes, or of another shape.
            TypeError: float labels.
        """
        check_values(categorical(), self.log_probs, _tree.with_arrays(targets), mask)

    @property
    def probs(self) -> Float[Array, "B ..."]:
        """Averaged class probabilities: (B, C), or (B,) of class 1 for a Bernoulli likelihood."""
        probs = jnp.exp(self.log_probs)
        return probs[..., 1] if self.is_binary else probs

    def predictive_entropy(self) -> Float[Array, " B"]:
        """Entropy of the averaged class probabilities in nats: all the uncertainty there is about the class."""
        return entropy(self.log_probs)

    def expected_entropy(self) -> Float[Array, " B"]:
        """Average over samples of the entropy of the class probabilities in nats: the aleatoric part."""
        return self.entropies

    def mutual_information(self) -> Float[Array, " B"]:
        """Mutual information of class and parameters in nats, the epistemic part; see :class:`Predictive`.

        The difference of the two entropies, and never below 0; what it resolves is the rounding of these.
        """
        return jnp.maximum(self.predictive_entropy() - self.expected_entropy(), 0)

    def sample(self, key: Key, num_samples: int) -> Array:
        """Draws of labels, (num_samples, B), each example by itself."""
        check_arguments(AveragedClasses.sample, locals())
        return jax.random.categorical(key, self.log_probs, shape=(num_samples, *self.entropies.shape))

    @property
    def is_classification(self) -> bool:
        """True."""
        return True

    @property
    def is_normal(self) -> bool:
        """False."""
        return False


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AveragedMoments:
    """Mean and variances of real targets over samples.

    Attributes:
        means: expected targets, (B, ...).
        function_variances: variances over samples of the expected target, (B, ...).
        noise: variances of the observation noise, averaged over samples, (B, ...).
    """

    means: Float[Array, "B ..."]
    function_variances: Float[Array, "B ..."]
    noise: Float[Array, "B ..."]

    @property
    def mean(self) -> Float[Array, "B ..."]:
        """Expected target."""
        return self.means

    @property
    def variance(self) -> Float[Array, "B ..."]:
        """Variance of the target, observation noise included, per output."""
        return self.function_variances + self.noise

    def check_targets(self, targets: Targets, mask: Any = None) -> None:
        """Raise on targets of another shape and on non-finite ones; rows with mask 0 may hold anything.

        Raises:
            ValueError: in these cases.
        """
        check_real_targets(self.means, _tree.with_arrays(targets), mask)

    def function_variance(self) -> Float[Array, "B ..."]:
        """Variance over samples of the expected target, without observation noise, per output: the epistemic part."""
        return self.function_variances

    def expected_variance(self) -> Float[Array, "B ..."]:
        """Variance of the observation noise, per output: the aleatoric part."""
        return self.noise

    def log_prob(self, targets: Targets) -> Array:
        """The density of the mixture, which two moments do not tell.

        Raises:
            TypeError: always.
        """
        check_arguments(AveragedMoments.log_prob, locals())
        raise TypeError(f"a mixture's density needs every sample's outputs, and {_KEEP}")

    @property
    def probs(self) -> Array:
        """Class probabilities, which this predictive has not.

        Raises:
            TypeError: always.
        """
        raise TypeError("probs are for classification, but this predictive is of real targets; use mean and variance")

    @property
    def has_density(self) -> bool:
        """False: ``log_prob`` is not known."""
        return False

    @property
    def is_classification(self) -> bool:
        """False."""
        return False

    @property
    def is_normal(self) -> bool:
        """False: a mixture of normals has more than two moments."""
        return False
