import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayestl import likelihoods

OUTPUTS = jax.ShapeDtypeStruct((3, 4), jnp.float32)


def test_shapes_and_values_are_both_checked():
    likelihoods.check(likelihoods.categorical(), OUTPUTS, jnp.array([0, 3, 1]), jnp.ones(3))
    with pytest.raises(ValueError, match="targets have shape"):
        likelihoods.check(likelihoods.categorical(), OUTPUTS, jnp.array([0, 3]))
    with pytest.raises(ValueError, match="1 of 3 targets lie outside"):
        likelihoods.check(likelihoods.categorical(), OUTPUTS, jnp.array([0, 4, 1]))


def test_padding_may_hold_anything():
    likelihoods.check(likelihoods.categorical(), OUTPUTS, np.array([0, 3, -1]), np.array([1, 1, 0]))
    with pytest.raises(ValueError, match="1 of 2 targets lie outside"):
        likelihoods.check(likelihoods.categorical(), OUTPUTS, np.array([0, 4, -1]), np.array([1, 1, 0]))
    location = jax.ShapeDtypeStruct((2,), jnp.float32)
    likelihoods.check(likelihoods.normal(1.0), location, np.array([0.5, np.nan]), np.array([True, False]))
