"""What is believed about the targets of several examples together."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._types import Key, Likelihood, Outputs, Targets
from bayestl.likelihoods import check_real_targets, check_targets_shape, gaussian_noise
from bayestl.predict._average import average
from bayestl.predict._gaussian_outputs import flat, unflat
from bayestl.predict._gaussian_predictive import normal_log_prob, with_diagonal
from bayestl.predict._predictive import Predictive
from bayestl.predict._root import symmetric_root


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class JointPredictive:
    """Raw outputs of B examples as one Gaussian ``N(f, V)``, with the covariance V between examples.

    Batch active learning, correlated decisions and out-of-sample evidence need the covariance between examples; a
    :class:`Predictive` describes each example by itself.

    Attributes:
        outputs: f, raw outputs, leaves (B, ...).
        output_covariance: V, (B F, B F) for F numbers in an example's outputs, example by example.
        likelihood: outputs to a numpyro distribution.
        noise: variances of the observation noise, (B, ...), for normal likelihoods; else None.
    """

    outputs: Outputs
    output_covariance: Float[Array, "N N"]
    likelihood: Likelihood
    noise: Any

    def log_prob(self, targets: Targets) -> Float[Array, ""]:
        """``log N(y; f, V + diag(noise))`` of all targets (B, ...) together, in nats, a scalar.

        Raises:
            TypeError: a likelihood that is not normal; :meth:`sampled` is for all.
            ValueError: targets of another shape, or not finite.
        """
        check_arguments(JointPredictive.log_prob, locals())
        targets = _tree.with_arrays(targets)
        mean = self.mean
        check_real_targets(mean, targets)
        check_targets_shape(jnp.shape(targets), mean.shape)
        return normal_log_prob((jnp.asarray(targets) - mean).reshape(-1), self.covariance())

    @property
    def mean(self) -> Float[Array, "B ..."]:
        """Expected targets.

        Raises:
            TypeError: a likelihood that is not normal.
        """
        gaussian = gaussian_noise(self.likelihood, self.outputs)
        if gaussian is None:
            raise TypeError(
                f"targets have a joint normal density under normal likelihoods, but this one is a "
                f"{type(self.likelihood).__name__}; use sampled(key, num).joint_log_prob(targets)"
            )
        return gaussian.location

    def covariance(self) -> Float[Array, "N N"]:
        """Covariance of all targets, observation noise included: N numbers in (B, ...), in row-major order.

        Raises:
            TypeError: a likelihood that is not normal.
        """
        return with_diagonal(self.function_covariance(), jnp.reshape(self.noise, -1))

    def function_covariance(self) -> Float[Array, "N N"]:
        """Covariance of all expected targets, without observation noise.

        Raises:
            TypeError: a likelihood that is not normal.
        """
        mean = self.mean
        num, size = mean.shape[0], math.prod(mean.shape[1:])
        all_outputs = self.output_covariance.shape[0] // num
        blocks = self.output_covariance.reshape(num, all_outputs, num, all_outputs)
        return blocks[:, :size, :, :size].reshape(num * size, num * size)

    def sampled(self, key: Key, num_samples: int) -> Predictive:
        """A mixture over ``num_samples`` draws of all outputs together: ``joint_log_prob`` is then that of all targets.

        Raises:
            ValueError: num_samples below 1.
        """
        check_arguments(JointPredictive.sampled, locals())
        if num_samples < 1:
            raise ValueError(f"num_samples is {num_samples}; at least 1 draw is needed")
        root = symmetric_root(self.output_covariance)
        noise = jax.random.normal(key, (num_samples, len(root)), root.dtype)
        deviations = jnp.matmul(noise, root, precision=jax.lax.Precision.HIGHEST)
        num_examples = jax.tree.leaves(self.outputs)[0].shape[0]
        deviations = unflat(deviations.reshape(num_samples, num_examples, -1), self.outputs, 1)
        draws = jax.tree.map(jnp.add, self.outputs, deviations)
        return Predictive(draws, self.likelihood, jnp.full(num_samples, -math.log(num_samples)))


def joint_from_samples(predictive: Predictive) -> JointPredictive:
    """What a predictive's samples say about all its examples together: the Gaussian with their mean and covariance.

    ``f = sum_s w_s f_s``, ``V = sum_s w_s (f_s - f)(f_s - f)^T``, of rank below S; the noise is averaged. The exact
    joint density of the mixture itself is :meth:`Predictive.joint_log_prob`.

    Args:
        predictive: whose draws share their parameters over the examples, as :func:`monte_carlo` gives.

    Example:
        >>> two = btl.predict.Predictive(
        ...     jnp.array([[1.0, 2.0], [-1.0, -2.0]]), btl.likelihoods.normal(1.0), jnp.log(jnp.array([0.5, 0.5]))
        ... )
        >>> print(btl.predict.joint_from_samples(two).covariance().round(4))
        [[2. 2.]
         [2. 5.]]
    """
    check_arguments(joint_from_samples, locals())
    outputs = _tree.at_least_float32(predictive.outputs)
    mean = jax.tree.map(lambda x: average(predictive.log_weights, x), outputs)
    deviations = flat(jax.tree.map(jnp.subtract, outputs, mean), 2)
    rows = deviations.reshape(deviations.shape[0], -1) * jnp.exp(0.5 * predictive.log_weights)[:, None]
    covariance = jnp.matmul(rows.T, rows, precision=jax.lax.Precision.HIGHEST)
    is_gaussian = gaussian_noise(predictive.likelihood, mean) is not None
    noise = predictive.expected_variance() if is_gaussian else None
    return JointPredictive(mean, covariance, predictive.likelihood, noise)
