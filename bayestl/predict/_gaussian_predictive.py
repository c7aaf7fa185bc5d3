"""The predictive of a Gaussian belief about outputs under Gaussian noise: exact, a Gaussian again."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.linalg import solve_triangular
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._types import Key, Likelihood, Numbers, Outputs, Scalar, Targets
from bayestl.likelihoods import GaussianNoise, check_real_targets, check_targets_shape
from bayestl.likelihoods import gaussian_noise as noise_of
from bayestl.predict._average import average
from bayestl.predict._gaussian_outputs import GaussianOutputs
from bayestl.predict._quantile import mixture_quantile


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class GaussianPredictive:
    """What is believed about real targets of B examples: ``y_b ~ N(f_b, V_b + diag(noise_b))``. Made by links.

    The outputs of one example are one event, and its log density is that of the multivariate normal. ``cdf``,
    ``quantile`` and ``normal_components`` are of each output by itself. With a mixture posterior it is a mixture of S
    such Gaussians.

    Attributes:
        locations: f, (S, B, ...).
        function_covariances: V, (S, B, F, F), of the F numbers in an example's outputs, without noise.
        noise: variances of the observation noise, (S, B, ...).
        log_weights: (S,), log w, normalised.
    """

    locations: Float[Array, "S B ..."]
    function_covariances: Float[Array, "S B F F"]
    noise: Float[Array, "S B ..."]
    log_weights: Float[Array, " S"]

    def log_prob(self, targets: Targets) -> Float[Array, " B"]:
        """``log sum_s w_s N(y_b; f_sb, V_sb + diag(noise_sb))`` in nats; ``targets`` (B, ...).

        Raises:
            ValueError: targets of another shape, or not finite.
        """
        check_arguments(GaussianPredictive.log_prob, locals())
        targets = self._checked(targets)
        self.check_targets(targets)
        each = normal_log_prob(self._rows(targets - self.locations), self._covariances())
        return logsumexp(self.log_weights[:, None] + each, axis=0)

    def check_targets(self, targets: Targets, mask: Any = None) -> None:
        """Raise on targets of another shape and on non-finite ones; rows with mask 0 may hold anything.

        Raises:
            ValueError: in these cases.
        """
        check_real_targets(self.locations[0], _tree.with_arrays(targets), mask)

    @property
    def mean(self) -> Float[Array, "B ..."]:
        """Expected target."""
        return self._average(self.locations)

    @property
    def variance(self) -> Float[Array, "B ..."]:
        """Variance of the target, observation noise included, per output."""
        return self.function_variance() + self.expected_variance()

    def function_variance(self) -> Float[Array, "B ..."]:
        """Variance of the expected target, without observation noise, per output: the epistemic part."""
        own = jnp.diagonal(self.function_covariances, axis1=-2, axis2=-1).reshape(self.locations.shape)
        return self._average(own + (self.locations - self.mean) ** 2)

    def expected_variance(self) -> Float[Array, "B ..."]:
        """Variance of the observation noise, per output: the aleatoric part."""
        return self._average(self.noise)

    def function_covariance(self) -> Float[Array, "B F F"]:
        """Covariance of the outputs of each example, without observation noise."""
        apart = self._rows(self.locations - self.mean)
        return self._average(self.function_covariances + apart[..., :, None] * apart[..., None, :])

    def covariance(self) -> Float[Array, "B F F"]:
        """Covariance of the targets of each example, observation noise included."""
        return with_diagonal(self.function_covariance(), self._rows(self.noise, self.log_weights))

    def sample(self, key: Key, num_samples: int) -> Array:
        """Draws of the targets, (num_samples, B, ...); each example by itself, its outputs together."""
        check_arguments(GaussianPredictive.sample, locals())
        pick, noise = jax.random.split(key)
        chosen = jax.random.categorical(pick, self.log_weights, shape=(num_samples,))
        roots = jnp.linalg.cholesky(self._covariances())
        standard = jax.random.normal(noise, (num_samples, *roots.shape[1:-1]), roots.dtype)

        def draw(row: jax.Array, standard: jax.Array) -> jax.Array:
            deviations = jnp.einsum("bij,bj->bi", roots[row], standard, precision=jax.lax.Precision.HIGHEST)
            return self.locations[row] + deviations.reshape(self.locations.shape[1:])

        return jax.vmap(draw)(chosen, standard)

    def cdf(self, values: Numbers) -> Float[Array, "B ..."]:
        """``P(y <= value)``, per output (the marginal one); ``values`` (B, ...).

        Raises:
            ValueError: values of another shape.
        """
        check_arguments(GaussianPredictive.cdf, locals())
        location, scale = self.normal_components()
        return self._average(dist.Normal(location, scale).cdf(self._checked(values)))

    def quantile(self, q: Scalar) -> Float[Array, "B ..."]:
        """The value below which a target falls with probability ``q``, per output (the marginal one).

        Args:
            q: a number between 0 and 1, both excluded.

        Raises:
            ValueError: ``q`` out of range.
        """
        check_arguments(GaussianPredictive.quantile, locals())
        return mixture_quantile(lambda pair: dist.Normal(*pair), self.normal_components(), self.log_weights, q)

    def normal_components(self) -> tuple[Float[Array, "S B ..."], Float[Array, "S B ..."]]:
        """Means and standard deviations of the marginal normals, noise included, each (S, B, ...)."""
        variances = jnp.diagonal(self._covariances(), axis1=-2, axis2=-1).reshape(self.locations.shape)
        return self.locations, jnp.sqrt(variances)

    @property
    def probs(self) -> Array:
        """Class probabilities, which this predictive has not.

        Raises:
            TypeError: always.
        """
        raise TypeError("probs are for classification, but this predictive is of real targets; use mean or quantile")

    @property
    def is_classification(self) -> bool:
        """False."""
        return False

    @property
    def is_normal(self) -> bool:
        """Whether each output by itself is a mixture of normals: True."""
        return True

    def _average(self, values: jax.Array) -> jax.Array:
        return average(self.log_weights, values)

    def _rows(self, values: jax.Array, log_weights: jax.Array | None = None) -> jax.Array:
        """(S, B, ...) as (S, B, F), averaged over S where weights are given."""
        rows = values.reshape(*values.shape[:2], -1)
        return rows if log_weights is None else average(log_weights, rows)

    def _covariances(self) -> jax.Array:
        return with_diagonal(self.function_covariances, self._rows(self.noise))

    def _checked(self, values: Any) -> jax.Array:
        check_targets_shape(tuple(jnp.shape(values)), self.locations.shape[1:])
        return jnp.asarray(values)


def gaussian_noise(outputs: GaussianOutputs) -> GaussianPredictive:
    """Link for normal likelihoods, exact: adds the variance of the noise to that of the outputs.

    ``p(y) = N(y; f, V + diag(noise))``. A noise that is learned, so that outputs are (location, log_scale), is taken at
    the posterior's mean; :func:`sampled` carries its uncertainty too.

    Args:
        outputs: of a normal likelihood.

    Raises:
        TypeError: another likelihood.

    Example:
        >>> outputs = btl.predict.GaussianOutputs(
        ...     jnp.array([[1.0]]), jnp.array([[[[3.0]]]]), btl.likelihoods.normal(1.0), jnp.zeros(1)
        ... )
        >>> given = btl.predict.gaussian_noise(outputs)
        >>> given.variance.item(), given.function_variance().item()
        (4.0, 3.0)
    """
    check_arguments(gaussian_noise, locals())
    parts = gaussian_parts(outputs.likelihood, outputs.mean)
    if parts is None:
        raise TypeError(
            f"gaussian_noise is a link for normal likelihoods, but this one is a {type(outputs.likelihood).__name__}; "
            "give link=predict.probit for classes, or link=predict.sampled(key, num_samples), which is for all"
        )
    locations, noise = parts
    size = math.prod(locations.shape[2:])
    return GaussianPredictive(locations, outputs.covariance[..., :size, :size], noise, outputs.log_weights)


def gaussian_parts(likelihood: Likelihood, outputs: Outputs) -> GaussianNoise | None:
    """Locations and variances of Gaussian noise, each (S, B, ...), from outputs (S, B, ...); None for another
    likelihood."""
    outputs = _tree.at_least_float32(outputs)
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), outputs)
    if jax.eval_shape(lambda one: noise_of(likelihood, one), one) is None:
        return None
    return jax.vmap(lambda one: noise_of(likelihood, one))(outputs)


def normal_log_prob(deviations: jax.Array, covariances: jax.Array) -> jax.Array:
    """``log N(deviation; 0, covariance)``, (..., n) and (..., n, n) to (...)."""
    lower = jnp.linalg.cholesky(covariances)
    white = solve_triangular(lower, deviations[..., None], lower=True)[..., 0]
    log_det = 2 * jnp.sum(jnp.log(jnp.diagonal(lower, axis1=-2, axis2=-1)), axis=-1)
    return -0.5 * (deviations.shape[-1] * math.log(2 * math.pi) + log_det + jnp.sum(white * white, axis=-1))


def with_diagonal(matrices: jax.Array, diagonals: jax.Array) -> jax.Array:
    """``A + diag(d)``."""
    return matrices + diagonals[..., None] * jnp.eye(matrices.shape[-1], dtype=matrices.dtype)
