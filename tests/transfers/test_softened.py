"""A head that is less sure: its factor and what it is believed, against integrals; when there is none."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

import bayestl as btl
from bayestl.transfers._softened import softened

NET = btl.nets.mlp(jax.random.key(0), (4, 5, 3))
INPUTS = jax.random.normal(jax.random.key(1), (40, 4))
HEAD = ("head/bias", "head/kernel")
JOINT = btl.LogJoint(NET, btl.likelihoods.categorical(), None, num_data=40)


def sure(factor: float) -> btl.Batch:
    """Examples whose labels follow the network's logits times ``factor``."""
    return btl.Batch(INPUTS, jax.random.categorical(jax.random.key(2), factor * NET(NET.params, INPUTS)))


def loud(size: float) -> dict[str, dict[str, jax.Array]]:
    """The network, with a head that is ``size`` times as large."""
    return {**NET.params, "head": jax.tree.map(lambda x: size * x, NET.params["head"])}


@pytest.mark.parametrize("weighted", [False, True])
def test_the_factor_is_the_posterior_mean_and_its_belief_the_evidence(weighted: bool):
    batch = sure(4.0)
    counts = np.arange(40) % 3 if weighted else np.ones(40)
    given = batch._replace(weights=jnp.asarray(counts, jnp.float32)) if weighted else batch
    result = softened(JOINT, loud(16.0), HEAD, given)
    logits, labels = np.asarray(NET(loud(16.0), INPUTS), np.float64), np.asarray(batch.targets)

    def log_likelihood(log_factor: float) -> float:
        z = np.exp(log_factor) * logits
        return float(np.sum(counts * (z[np.arange(40), labels] - np.logaddexp.reduce(z, -1))))

    prior = norm(np.log(1 / 1.5), 0.7)
    inside = quad(prior.pdf, -5, 0)[0]
    top = log_likelihood(np.log(0.25))

    def density(log_factor: float) -> float:
        return np.exp(log_likelihood(log_factor) - top) * prior.pdf(log_factor) / inside

    whole = quad(density, -5, 0)[0]
    mean = quad(lambda log_factor: log_factor * density(log_factor), -5, 0)[0] / whole
    assert result.factor == pytest.approx(np.exp(mean), rel=2e-3)
    expected = np.log(whole) + top - log_likelihood(mean)
    assert result.log_occam == pytest.approx(expected, abs=0.02)
    assert expected < -0.2


def test_only_the_head_is_scaled_and_the_logits_with_it():
    result = softened(JOINT, loud(16.0), HEAD, sure(4.0))
    np.testing.assert_array_equal(result.params["dense_0"]["kernel"], NET.params["dense_0"]["kernel"])
    after = NET(result.params, INPUTS)
    np.testing.assert_allclose(after, result.factor * NET(loud(16.0), INPUTS), rtol=1e-5, atol=1e-5)


def test_there_is_none_where_the_source_is_as_sure_as_it_should_be_or_wrong():
    often = jnp.full(40, 100.0)
    right = sure(16.0)._replace(weights=often)
    assert softened(JOINT, loud(16.0), HEAD, right) is None
    wrong = right._replace(targets=(jnp.argmax(NET(NET.params, INPUTS), -1) + 1) % 3)
    assert softened(JOINT, loud(16.0), HEAD, wrong) is None


def test_there_is_none_where_the_head_does_not_scale_the_logits():
    squared = btl.nets.from_function(lambda params, x: NET(params, x) ** 2, NET.params)
    joint = btl.LogJoint(squared, btl.likelihoods.categorical(), None, num_data=40)
    assert softened(joint, loud(4.0), HEAD, sure(1.0)) is None
