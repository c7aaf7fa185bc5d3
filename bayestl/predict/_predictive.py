"""The predictive distribution: a mixture over parameter samples."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float

from bayestl._types import Key, Scalar
from bayestl.likelihoods import Description, base, check_targets_shape, describe
from bayestl.predict._average import average
from bayestl.predict._given import GivenProbabilities
from bayestl.predict._quantile import mixture_quantile
from bayestl.predict._uncertainty import class_log_probs, entropy, information, mixed

_BERNOULLI = (dist.BernoulliLogits, dist.BernoulliProbs)


def is_categorical(family: type[dist.Distribution]) -> bool:
    """Whether a target is one of several classes, with probabilities in ``probs``."""
    return issubclass(family, (dist.CategoricalLogits, dist.CategoricalProbs, GivenProbabilities))


def is_one_class(found: Description) -> bool:
    """Whether a target is one class per example, yes or no included."""
    return (is_categorical(found.family) or issubclass(found.family, _BERNOULLI)) and not found.event_shape


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Predictive:
    """What is believed about the targets of B examples: ``p(y_b) = sum_s w_s p(y_b | f_sb)``.

    The outputs of one example are one event: with several outputs it is a mixture of joint densities, not a product of
    mixtures, since all outputs come from the same parameters.

    Attributes:
        outputs: raw outputs, leaves (S, B, ...), S parameter samples.
        likelihood: outputs to a numpyro distribution.
        log_weights: (S,), log w, normalised.

    Example:
        >>> logits = jnp.log(jnp.array([[[0.9, 0.1]], [[0.5, 0.5]]]))
        >>> two = btl.predict.Predictive(logits, btl.likelihoods.categorical(), jnp.log(jnp.array([0.5, 0.5])))
        >>> print(f"{two.probs[0, 0]:.2f}")
        0.70
    """

    outputs: Any
    likelihood: Any
    log_weights: Float[Array, " S"]

    def log_prob(self, targets: Any) -> Float[Array, " B"]:
        """``log sum_s w_s p(y_b | f_sb)`` in nats; ``targets`` (B, ...).

        Raises:
            ValueError: targets of another shape.
        """
        self._check_shape(targets)
        each = self._each(lambda d: d.log_prob(targets))
        return logsumexp(self.log_weights[:, None] + each, axis=0)

    def joint_log_prob(self, targets: Any) -> Float[Array, ""]:
        """``log sum_s w_s prod_b p(y_b | f_sb)`` in nats, a scalar: of all B targets together.

        Not the sum of :meth:`log_prob`: the examples share their parameters, so that one target tells about another.
        For draws that do share them, as :func:`monte_carlo` and :meth:`JointPredictive.sampled` give.

        Raises:
            ValueError: targets of another shape.
        """
        self._check_shape(targets)
        each = self._each(lambda d: d.log_prob(targets))
        return logsumexp(self.log_weights + jnp.sum(each, axis=1))

    @property
    def probs(self) -> Float[Array, "B ..."]:
        """Class probabilities averaged over samples: (B, C), or (B,) of class 1 for a Bernoulli likelihood.

        Raises:
            TypeError: the targets are not one class per example.
        """
        if not self.is_classification:
            raise TypeError(
                f"probs are for classification, but this predictive is a mixture of {self._found.family.__name__} over "
                f"targets of shape {self._found.event_shape}; use log_prob, mean or quantile"
            )
        return self._average(self._each(lambda d: d.probs))

    def mean(self) -> Float[Array, "B ..."]:
        """Expected target.

        Raises:
            TypeError: class labels have no mean.
        """
        return self._average(self._means())

    def variance(self) -> Float[Array, "B ..."]:
        """Variance of the target, observation noise included: ``E_s[var_s] + Var_s[mean_s]``, per output.

        Raises:
            TypeError: class labels have no variance.
        """
        return self.function_variance() + self._average(self._each(lambda d: d.variance))

    def function_variance(self) -> Float[Array, "B ..."]:
        """Variance over samples of the expected target, without observation noise, per output.

        Raises:
            TypeError: class labels have no variance.
        """
        means = self._means()
        return self._average((means - self._average(means)) ** 2)

    def expected_variance(self) -> Float[Array, "B ..."]:
        """Variance of the observation noise, ``E_s[var_s]``, per output: the aleatoric part of :meth:`variance`.

        Raises:
            TypeError: class labels have no variance.
        """
        self._means()
        return self._average(self._each(lambda d: d.variance))

    def predictive_entropy(self) -> Float[Array, " B"]:
        """Entropy of the averaged class probabilities in nats: all the uncertainty there is about the class.

        Raises:
            TypeError: the targets are not one class per example.
        """
        return entropy(mixed(self.log_weights, self._class_log_probs()))

    def expected_entropy(self) -> Float[Array, " B"]:
        """Average over samples of the entropy of the class probabilities in nats: the aleatoric part.

        Raises:
            TypeError: the targets are not one class per example.
        """
        return self._average(entropy(self._class_log_probs()))

    def mutual_information(self) -> Float[Array, " B"]:
        """Mutual information of class and parameters in nats: the epistemic part of :meth:`predictive_entropy`.

        ``I[y; theta] = H[sum_s w_s p_s] - sum_s w_s H[p_s] = sum_s w_s KL(p_s || sum_t w_t p_t) >= 0``

        Computed by the last form, which does not cancel where the samples nearly agree.

        Raises:
            TypeError: the targets are not one class per example.

        Reference:
            Houlsby et al. 2011, "Bayesian Active Learning for Classification and Preference Learning", equation 2.
        """
        return information(self.log_weights, self._class_log_probs())

    def sample(self, key: Key, num: int) -> Array:
        """Draws of the targets, (num, B, ...). All examples of one draw share one parameter sample."""
        pick, noise = jax.random.split(key)
        rows = jax.random.categorical(pick, self.log_weights, shape=(num,))

        def draw(key: Key, row: jax.Array) -> jax.Array:
            return self.likelihood(jax.tree.map(lambda x: x[row], self.outputs)).sample(key)

        return jax.vmap(draw)(jax.random.split(noise, num), rows)

    def cdf(self, values: Any) -> Float[Array, "B ..."]:
        """``P(y <= value)``, per output (the marginal one); ``values`` (B, ...).

        Raises:
            TypeError: the targets are not real numbers, independent given the parameters.
            ValueError: values of another shape.
        """
        self._check_scalars("cdf")
        self._check_shape(values)
        return self._average(self._each(lambda d: base(d).cdf(values)))

    def quantile(self, q: Scalar) -> Float[Array, "B ..."]:
        """The value below which a target falls with probability ``q``, per output (the marginal one).

        By bisection between the smallest and the largest quantile of the samples, which hold it between them.

        Args:
            q: a number between 0 and 1, both excluded.

        Raises:
            TypeError: the targets are not real numbers, independent given the parameters.
            ValueError: ``q`` out of range.
        """
        self._check_scalars("quantile")
        return mixture_quantile(lambda outputs: base(self.likelihood(outputs)), self.outputs, self.log_weights, q)

    def normal_components(self) -> tuple[Float[Array, "S B ..."], Float[Array, "S B ..."]]:
        """Means and standard deviations of the mixture's normals, each (S, B, ...).

        Raises:
            TypeError: not a mixture of normals.
        """
        if not self.is_normal:
            raise TypeError(
                f"a mixture of normals is needed, but this predictive is one of {self._found.family.__name__}; "
                "the nll applies to every likelihood"
            )
        location = self._each(lambda d: base(d).loc)
        return location, jnp.broadcast_to(self._each(lambda d: base(d).scale), location.shape)

    @property
    def is_classification(self) -> bool:
        """Whether a target is one class, so that ``probs`` are defined."""
        return is_one_class(self._found)

    @property
    def is_normal(self) -> bool:
        """Whether this is a mixture of normals, independent over the outputs of an example."""
        return issubclass(self._found.family, dist.Normal)

    @property
    def _found(self) -> Description:
        one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), self.outputs)
        return describe(self.likelihood, one)

    def _each(self, fn: Callable[[Any], Any]) -> Array:
        """``fn`` of every sample's distribution, (S, B, ...)."""
        return jax.vmap(lambda outputs: fn(self.likelihood(outputs)))(self.outputs)

    def _average(self, values: Array) -> Array:
        return average(self.log_weights, values)

    def _class_log_probs(self) -> Array:
        if not self.is_classification:
            raise TypeError(
                f"entropies are those of classes, but this predictive is a mixture of {self._found.family.__name__} "
                f"over targets of shape {self._found.event_shape}; use variance, function_variance (epistemic) and "
                "expected_variance (aleatoric)"
            )
        return self._each(class_log_probs)

    def _means(self) -> Array:
        if is_categorical(self._found.family):
            raise TypeError("class labels have no mean or variance; use probs")
        return self._each(lambda d: d.mean)

    def _check_shape(self, values: Any) -> None:
        found = self._found
        check_targets_shape(tuple(jnp.shape(values)), found.batch_shape + found.event_shape)

    def _check_scalars(self, name: str) -> None:
        found = self._found
        if found.is_discrete or not found.is_independent:
            raise TypeError(
                f"{name} is for real targets that are independent given the parameters, but this predictive is a "
                f"mixture of {found.family.__name__} over targets of shape {found.event_shape}"
            )
