"""Advantages and weights against sums written out."""

import jax.numpy as jnp
import numpy as np
import pytest

from bayestl import control
from bayestl.control._advantages import advantages_of


def by_hand(rewards, values, later, terminated, truncated, discount, trace):
    """The definition: a sum over all later surprises of the same episode."""
    num = len(rewards)
    result = np.zeros(num)
    for t in range(num):
        weight = 1.0
        for s in range(t, num):
            after = 0.0 if terminated[s] else later[s]
            result[t] += weight * (rewards[s] + discount * after - values[s])
            weight *= discount * trace
            if terminated[s] or truncated[s]:
                break
    return result


@pytest.mark.parametrize("trace", [0.0, 0.7, 1.0])
def test_advantages_are_the_sum_of_later_surprises(trace):
    rng = np.random.default_rng(0)
    rewards, values, later = rng.normal(size=(3, 9))
    terminated = np.array([0, 0, 1, 0, 0, 0, 0, 0, 0], bool)
    truncated = np.array([0, 0, 0, 0, 0, 1, 0, 0, 0], bool)
    columns = [x[:, None] for x in (rewards, values, later, terminated, truncated)]
    got = advantages_of(*(jnp.asarray(x) for x in columns), 0.9, trace)[:, 0]
    np.testing.assert_allclose(got, by_hand(rewards, values, later, terminated, truncated, 0.9, trace), atol=1e-5)


def test_truncation_counts_what_is_beyond_it_and_termination_does_not():
    ones, no, yes = jnp.ones((1, 1)), jnp.zeros((1, 1), bool), jnp.ones((1, 1), bool)
    cut = advantages_of(ones, 0 * ones, 10 * ones, no, yes, 0.5, 1.0)
    ended = advantages_of(ones, 0 * ones, 10 * ones, yes, no, 0.5, 1.0)
    assert (float(cut[0, 0]), float(ended[0, 0])) == (6.0, 1.0)


def test_weights_have_the_ratios_of_the_formula():
    advantages = jnp.array([0.0, 1.0, -2.0])
    weights = control.advantage_weights(0.5, standardize=False)(advantages)
    np.testing.assert_allclose(weights / weights[0], np.exp(np.array([0.0, 2.0, -4.0])), rtol=1e-5)
    assert float(weights.mean()) == pytest.approx(1.0)
    standardized = control.advantage_weights(0.5)(advantages)
    np.testing.assert_allclose(standardized, control.advantage_weights(0.5)(1000 * advantages), rtol=1e-4)
    np.testing.assert_allclose(standardized[1] / standardized[0], np.exp(2 / np.std([0.0, 1.0, -2.0])), rtol=1e-5)


def test_an_infinite_temperature_and_equal_advantages_count_all_alike():
    np.testing.assert_array_equal(control.advantage_weights(jnp.inf)(jnp.array([0.0, 1.0, -2.0])), 1.0)
    np.testing.assert_array_equal(control.advantage_weights(0.1)(jnp.full(3, 7.0)), 1.0)


def test_huge_advantages_do_not_overflow():
    weights = control.advantage_weights(1e-3, standardize=False)(jnp.array([1e6, 0.0]))
    np.testing.assert_array_equal(weights, [2.0, 0.0])


def test_a_temperature_that_is_not_positive_is_refused():
    with pytest.raises(ValueError, match="temperature is 0; it must be above 0"):
        control.advantage_weights(0)
