"""The predictive distribution: a mixture over parameter samples."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float

from bayestl import _tree, likelihoods
from bayestl._arguments import check_arguments
from bayestl._types import Key, Likelihood, Numbers, Outputs, Scalar, Targets
from bayestl.likelihoods import base
from bayestl.predict._average import average
from bayestl.predict._quantile import mixture_quantile
from bayestl.predict._uncertainty import entropy, information, mixed


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

    outputs: Outputs
    likelihood: Likelihood
    log_weights: Float[Array, " S"]

    def log_prob(self, targets: Targets) -> Float[Array, " B"]:
        """``log sum_s w_s p(y_b | f_sb)`` in nats; ``targets`` (B, ...).

        Traced targets, of which there are no values to look at, give NaN where a label is outside the classes.

        Raises:
            ValueError, TypeError: what :meth:`check_targets` raises; targets of another shape.
        """
        check_arguments(Predictive.log_prob, locals())
        targets = self._checked(targets)
        each = self._each(lambda d: d.log_prob(targets))
        return logsumexp(self.log_weights[:, None] + each, axis=0)

    def check_targets(self, targets: Targets, mask: Any = None) -> None:
        """Raise on targets (B, ...) that the likelihood cannot give; rows with mask 0 may hold anything.

        Traced targets, of which there are no values to look at, are let through.

        Raises:
            ValueError: labels outside the classes, values outside the support, non-finite ones; another shape.
            TypeError: float labels.
        """
        likelihoods.check_values(self._distribution, self._outputs_shape, _tree.with_arrays(targets), mask)

    def joint_log_prob(self, targets: Targets) -> Float[Array, ""]:
        """``log sum_s w_s prod_b p(y_b | f_sb)`` in nats, a scalar: of all B targets together.

        Not the sum of :meth:`log_prob`: the examples share their parameters, so one target is informative about
        another. For draws that do share them, as :func:`monte_carlo` and :meth:`JointPredictive.sampled` give.

        Raises:
            ValueError, TypeError: what :meth:`check_targets` raises; targets of another shape.
        """
        check_arguments(Predictive.joint_log_prob, locals())
        targets = self._checked(targets)
        each = self._each(lambda d: d.log_prob(targets))
        return logsumexp(self.log_weights + jnp.sum(each, axis=1))

    @property
    def probs(self) -> Float[Array, "B ..."]:
        """Class probabilities averaged over samples: (B, C), or (B,) of class 1 for a Bernoulli likelihood.

        Raises:
            TypeError: the targets are not one class per example.
        """
        if not self.is_classification:
            raise TypeError(f"probs are for classification, but {self._in_words()}; use log_prob, mean or quantile")
        self._check_normalised("probs")
        probs = self._average(self._each(likelihoods.class_probs))
        return probs[..., 1] if self._description.is_binary else probs

    @property
    def mean(self) -> Float[Array, "B ..."]:
        """Expected target.

        Raises:
            TypeError: class labels have no mean.
        """
        return self._average(self._means())

    @property
    def variance(self) -> Float[Array, "B ..."]:
        """Variance of the target, observation noise included: ``E_s[var_s] + Var_s[mean_s]``, per output.

        Raises:
            TypeError: class labels have no variance.
        """
        return self.function_variance() + self.expected_variance()

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
        self._check_inherited("variance")
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

    def sample(self, key: Key, num_samples: int) -> Array:
        """Draws of the targets, (num_samples, B, ...). All examples of one draw share one parameter sample."""
        check_arguments(Predictive.sample, locals())
        self._check_inherited("sample")
        pick, noise = jax.random.split(key)
        rows = jax.random.categorical(pick, self.log_weights, shape=(num_samples,))

        def draw(key: Key, row: jax.Array) -> jax.Array:
            return self._distribution(jax.tree.map(lambda x: x[row], self.outputs)).sample(key)

        return jax.vmap(draw)(jax.random.split(noise, num_samples), rows)

    def cdf(self, values: Numbers) -> Float[Array, "B ..."]:
        """``P(y <= value)``, per output (the marginal one); ``values`` (B, ...).

        Raises:
            TypeError: the targets are not real numbers, independent given the parameters.
            ValueError: values of another shape.
        """
        check_arguments(Predictive.cdf, locals())
        self._check_scalars("cdf")
        values = _tree.with_arrays(values)
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
        check_arguments(Predictive.quantile, locals())
        self._check_scalars("quantile")
        self._check_inherited("icdf")
        return mixture_quantile(lambda outputs: base(self._distribution(outputs)), self.outputs, self.log_weights, q)

    def normal_components(self) -> tuple[Float[Array, "S B ..."], Float[Array, "S B ..."]]:
        """Means and standard deviations of the mixture's normals, each (S, B, ...).

        Raises:
            TypeError: not a mixture of normals.
        """
        if not self.is_normal:
            raise TypeError(
                f"a mixture of normals is needed, but this predictive is one of {self._description.family.__name__}; "
                "the nll applies to every likelihood"
            )
        location = self._each(lambda d: base(d).loc)
        return location, jnp.broadcast_to(self._each(lambda d: base(d).scale), location.shape)

    @property
    def is_classification(self) -> bool:
        """Whether a target is one class, so that ``probs`` are defined."""
        return self._description.is_class

    @property
    def is_normal(self) -> bool:
        """Whether this is a mixture of normals, independent over the outputs of an example."""
        return self._description.is_normal

    @property
    def _outputs_shape(self) -> Any:
        """The outputs of one sample, as shapes."""
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), self.outputs)

    @property
    def _description(self) -> likelihoods.Description:
        return likelihoods.describe_predictive(self.likelihood, self._outputs_shape)

    def _distribution(self, outputs: Outputs) -> Any:
        return likelihoods.predictive_distribution(self.likelihood, outputs)

    def _each(self, fn: Callable[[Any], Any]) -> Array:
        """``fn`` of every sample's distribution, (S, B, ...)."""
        return jax.vmap(lambda outputs: fn(self._distribution(outputs)))(self.outputs)

    def _average(self, values: Array) -> Array:
        return average(self.log_weights, values)

    def _class_log_probs(self) -> Array:
        if not self.is_classification:
            raise TypeError(
                f"entropies are those of classes, but {self._in_words()}; use variance, function_variance (epistemic) "
                "and expected_variance (aleatoric)"
            )
        self._check_normalised("an entropy")
        return self._each(likelihoods.class_log_probs)

    def _means(self) -> Array:
        if self._description.is_categorical:
            raise TypeError("class labels have no mean or variance; use probs")
        self._check_inherited("mean")
        return self._each(lambda d: d.mean)

    def _checked(self, targets: Targets) -> Any:
        """Targets as arrays, which the likelihood can give."""
        targets = _tree.with_arrays(targets)
        self._check_shape(targets)
        self.check_targets(targets)
        return targets

    def _check_shape(self, values: Any) -> None:
        if isinstance(values, dict | tuple | list):  # several heads, of which the distribution knows the shapes
            return
        description = self._description
        shape = description.batch_shape + description.event_shape
        likelihoods.check_targets_shape(tuple(jnp.shape(values)), shape)

    def _check_scalars(self, name: str) -> None:
        description = self._description
        if description.is_discrete or not description.is_independent:
            raise TypeError(
                f"{name} is for real targets that are independent given the parameters, but {self._in_words()}"
            )
        self._check_inherited("cdf")

    def _in_words(self) -> str:
        description = self._description
        return (
            f"this predictive is a mixture of {description.family.__name__} over targets of shape "
            f"{description.event_shape}"
        )

    def _check_inherited(self, name: str) -> None:
        likelihoods.check_inherited(self._description.family, name, f"a predictive's {name}")

    def _check_normalised(self, use: str) -> None:
        likelihoods.check_normalised(self.likelihood, self._outputs_shape, use)
