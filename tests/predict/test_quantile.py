import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from bayestl import likelihoods
from bayestl.predict import Predictive

LOCATION = np.array([[-2.0, 0.0, 1e3], [3.0, 0.1, 1e3 + 5]])
SCALE = np.array([[0.5, 1.0, 0.01], [1.0, 2.0, 0.01]])
WEIGHTS = np.array([0.3, 0.7])


def predictive(location=LOCATION, scale=SCALE):
    outputs = (jnp.asarray(location), jnp.log(jnp.asarray(scale)))
    return Predictive(outputs, likelihoods.normal(), jnp.log(jnp.asarray(WEIGHTS)))


def exact(q, b):
    def excess(x):
        return WEIGHTS @ norm.cdf(x, LOCATION[:, b], SCALE[:, b]) - q

    return brentq(excess, LOCATION[:, b].min() - 50, LOCATION[:, b].max() + 50, xtol=1e-13)


@pytest.mark.x64
@pytest.mark.parametrize("q", [0.001, 0.05, 0.31, 0.5, 0.975])
def test_is_the_root_of_the_mixture_cdf(q):
    found = predictive().quantile(q)
    # brentq's tolerance; at 1e3 a float64 resolves 1e-13
    np.testing.assert_allclose(found, [exact(q, b) for b in range(3)], rtol=1e-12, atol=1e-11)


def test_one_component_is_the_normal_quantile_in_float32():
    one = Predictive(jnp.array([[1.0]]), likelihoods.normal(2.0), jnp.zeros(1))
    np.testing.assert_allclose(one.quantile(0.9), norm.ppf(0.9, 1, 2), rtol=1e-6)  # float32 rounding


def test_of_each_output_alone():
    outputs = jnp.array([[[0.0, 10.0]]])
    one = Predictive(outputs, likelihoods.normal(jnp.array([1.0, 2.0])), jnp.zeros(1))
    np.testing.assert_allclose(one.quantile(0.8), [norm.ppf(0.8, [0, 10], [1, 2])], rtol=1e-6)  # float32 rounding


@pytest.mark.x64
def test_gradients_are_those_of_the_exact_quantile():
    q, step = 0.31, 1e-5
    by_q = jax.jit(jax.jacobian(lambda q: predictive().quantile(q)))(q)
    differences = [(exact(q + step, b) - exact(q - step, b)) / (2 * step) for b in range(3)]
    # central differences: step^2 times a third derivative, which the gap between the modes makes large
    np.testing.assert_allclose(by_q, differences, rtol=1e-3)
    shift = jax.grad(lambda shift: predictive(LOCATION + shift).quantile(q)[0])(0.0)
    np.testing.assert_allclose(shift, 1.0, rtol=1e-9)  # moving all components moves the quantile along


def test_jit_and_traced_q():
    compiled = jax.jit(lambda p, q: p.quantile(q))
    np.testing.assert_allclose(compiled(predictive(), 0.05), [exact(0.05, b) for b in range(3)], rtol=1e-5)


@pytest.mark.parametrize("q", [0.0, 1.0, -0.1, np.nan])
def test_q_out_of_range(q):
    with pytest.raises(ValueError, match=r"q is .*between 0 and 1, both excluded"):
        predictive().quantile(q)
