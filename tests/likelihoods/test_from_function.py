import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy.stats import poisson

from bayestl import likelihoods


def test_any_distribution_of_any_outputs():
    likelihood = likelihoods.from_function(lambda outputs: dist.Poisson(jnp.exp(outputs["log_rate"])))
    log_rate = np.array([0.1, 0.5], np.float32)
    found = likelihood({"log_rate": jnp.asarray(log_rate)}).log_prob(jnp.array([1, 4]))
    np.testing.assert_allclose(found, poisson.logpmf([1, 4], np.exp(log_rate)), rtol=1e-5)  # float32, log-gamma


def test_floats_are_lifted_to_float32_and_the_rest_is_left():
    seen = {}

    def record(outputs):
        seen.update(jax.tree.map(lambda x: x.dtype, outputs))
        return dist.Normal(outputs["location"], 1.0)

    likelihoods.from_function(record)({"location": jnp.zeros(3, jnp.float16), "count": jnp.ones(3, int)})
    assert seen == {"location": jnp.float32, "count": jnp.int32}


def test_the_function_is_static():
    likelihood = likelihoods.from_function(dist.Normal)
    assert jax.tree.leaves(likelihood) == []
    assert jax.jit(lambda lik, x: lik(x).log_prob(x))(likelihood, jnp.zeros(2)).shape == (2,)


def test_fn_must_be_callable():
    with pytest.raises(TypeError, match=r"fn must be a function.*is int"):
        likelihoods.from_function(3)
