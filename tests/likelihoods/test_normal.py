import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from bayestl import likelihoods


@pytest.mark.x64
@pytest.mark.parametrize("shape", [(5,), (5, 3), (5, 2, 3)])
def test_log_prob_sums_over_the_outputs_of_an_example(shape):
    rng = np.random.default_rng(0)
    location, targets, scale = rng.normal(size=shape), rng.normal(size=shape), rng.uniform(0.5, 2, shape[1:])
    distribution = likelihoods.normal(scale)(jnp.asarray(location))
    assert distribution.batch_shape == (5,)
    assert distribution.event_shape == shape[1:]
    expected = norm.logpdf(targets, location, scale).reshape(5, -1).sum(axis=1)
    np.testing.assert_allclose(distribution.log_prob(jnp.asarray(targets)), expected, rtol=1e-12)  # float64 rounding


@pytest.mark.x64
@pytest.mark.parametrize("scale_shape", [(), (3,), (5, 3)])
def test_learned_noise_broadcasts_to_the_location(scale_shape):
    rng = np.random.default_rng(1)
    location, targets, log_scale = rng.normal(size=(5, 3)), rng.normal(size=(5, 3)), rng.normal(size=scale_shape)
    distribution = likelihoods.normal()((jnp.asarray(location), jnp.asarray(log_scale)))
    expected = norm.logpdf(targets, location, np.exp(log_scale)).sum(axis=1)
    np.testing.assert_allclose(distribution.log_prob(jnp.asarray(targets)), expected, rtol=1e-12)  # float64 rounding


def test_scale_is_a_leaf_that_may_be_traced():
    def log_density(scale):
        return likelihoods.normal(scale)(jnp.zeros(1)).log_prob(jnp.ones(1))[0]

    # d/ds [-log s - 1/(2 s^2)] = -1/s + 1/s^3, in float32
    np.testing.assert_allclose(jax.jit(jax.grad(log_density))(2.0), -0.5 + 0.125, rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(log_density)(jnp.array([1.0, 2.0])), norm.logpdf(1, 0, [1.0, 2.0]), rtol=1e-6)


def test_scale_is_a_strongly_typed_float_array():
    assert jax.tree.leaves(likelihoods.normal()) == []
    for given in (1, 1.0, np.float64(1), jnp.ones((), jnp.bfloat16)):
        (scale,) = jax.tree.leaves(likelihoods.normal(given))
        assert scale.dtype == jnp.float32
        assert not scale.weak_type


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf])
def test_a_scale_must_be_positive_and_finite(scale):
    with pytest.raises(ValueError, match=r"scale has 1 of 2 values that are not positive and finite"):
        likelihoods.normal(np.array([1.0, scale]))


def test_scale_must_not_broadcast_the_outputs():
    with pytest.raises(ValueError, match=r"scale of shape \(5,\) does not broadcast to the event shape \(\)"):
        likelihoods.normal(jnp.ones(5))(jnp.zeros(5))
    with pytest.raises(ValueError, match=r"scale of shape \(3,\) does not broadcast to the event shape \(1,\)"):
        likelihoods.normal(jnp.ones(3))(jnp.zeros((5, 1)))
    with pytest.raises(
        ValueError, match=r"log_scale of shape \(5,\) does not broadcast to the location shape \(5, 1\)"
    ):
        likelihoods.normal()((jnp.zeros((5, 1)), jnp.zeros(5)))


def test_outputs_of_the_wrong_kind():
    with pytest.raises(
        TypeError, match=r"takes outputs \(location, log_scale\).*array of shape \(5,\).*with_log_scale"
    ):
        likelihoods.normal()(jnp.zeros(5))
    with pytest.raises(TypeError, match=r"takes one array of locations.*a tuple.*normal\(\) without a scale"):
        likelihoods.normal(1.0)((jnp.zeros(5), jnp.zeros(())))
