"""Posteriors that are no Gaussians: a point, draws, mixtures."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayestl as btl

KEY = jax.random.key(0)


def test_point_repeats_its_parameters():
    params = {"w": jnp.arange(3.0), "b": jnp.float32(2.0)}
    draws = btl.Point(params).sample(KEY, 4)
    np.testing.assert_array_equal(draws["w"], np.tile(np.arange(3.0), (4, 1)))
    np.testing.assert_array_equal(draws["b"], np.full(4, 2.0))


def test_samples_are_drawn_by_weight_and_whole():
    draws = {"w": jnp.array([[0.0, 0.0], [1.0, 10.0], [2.0, 20.0]]), "b": jnp.array([0.0, 1.0, 2.0])}
    # Weights 1 : 3 : 0, not normalised.
    posterior = btl.Samples(draws, jnp.log(jnp.array([2.0, 6.0, 0.0])))
    found = jax.jit(lambda key: posterior.sample(key, 4000))(KEY)
    np.testing.assert_array_equal(found["w"][:, 0], found["b"])
    np.testing.assert_array_equal(found["w"][:, 1], 10 * found["b"])
    share = np.bincount(np.asarray(found["b"], int), minlength=3) / 4000
    # Standard error sqrt(3 / 16 / 4000) = 0.007
    np.testing.assert_allclose(share, [0.25, 0.75, 0.0], atol=4 * 0.007)
    assert share[2] == 0


def test_mixture_has_the_moments_of_a_mixture():
    components = (
        btl.gaussians.isotropic({"w": jnp.zeros(2)}, 1.0),
        btl.gaussians.isotropic({"w": jnp.full(2, 5.0)}, 0.5),
        btl.Point({"w": jnp.full(2, -3.0)}),
    )
    weights = np.array([0.5, 0.3, 0.2])
    posterior = btl.Mixture(components, jnp.log(7 * jnp.asarray(weights)))
    found = np.asarray(jax.jit(lambda key: posterior.sample(key, 5000))(KEY)["w"])
    means, variances = np.array([0.0, 5.0, -3.0]), np.array([1.0, 0.25, 0.0])
    mean = weights @ means
    variance = weights @ (variances + means**2) - mean**2
    # Four standard errors of the mean, of the share of the point, and (kurtosis below 3) of the variance.
    np.testing.assert_allclose(found.mean(axis=0), mean, atol=4 * np.sqrt(variance / 5000))
    np.testing.assert_allclose(found.var(axis=0), variance, rtol=4 * np.sqrt(2 / 5000))
    both = found == -3.0
    assert np.array_equal(both[:, 0], both[:, 1]), "one draw comes from one component"
    np.testing.assert_allclose(both[:, 0].mean(), 0.2, atol=4 * np.sqrt(0.16 / 5000))


@pytest.mark.parametrize(
    "posterior",
    [
        btl.Point({"w": np.zeros(2)}),
        btl.Samples({"w": np.zeros((3, 2))}, jnp.zeros(3)),
        btl.Mixture((btl.Point({"w": np.zeros(2)}), btl.Point({"w": np.ones(2)})), jnp.zeros(2)),
    ],
    ids=lambda posterior: type(posterior).__name__,
)
def test_is_a_posterior_and_a_pytree(posterior):
    assert isinstance(posterior, btl.Posterior)
    again = jax.tree.map(jnp.asarray, posterior)
    assert type(again) is type(posterior)
    first, second = (again.sample(key, 6)["w"] for key in (KEY, KEY))
    assert first.shape == (6, 2)
    np.testing.assert_array_equal(first, second)
