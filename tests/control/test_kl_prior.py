"""A prior over what a policy does."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special

import bayestl as btl
from bayestl import control

KEY = jax.random.key(0)
NET = btl.nets.mlp(KEY, (3, 4))
OTHER = btl.nets.mlp(jax.random.key(1), (3, 4)).params
SEEN = jax.random.normal(jax.random.key(2), (6, 3))


def test_it_is_the_mean_divergence_of_the_actions():
    prior = control.kl_prior(NET, NET.params, SEEN, strength=50.0)
    source, policy = (np.asarray(NET(params, SEEN), np.float64) for params in (NET.params, OTHER))
    p, q = scipy.special.softmax(source, -1), scipy.special.softmax(policy, -1)
    expected = -50.0 * scipy.special.rel_entr(p, q).sum(-1).mean()
    assert float(prior.log_prob(OTHER)) == pytest.approx(expected, rel=1e-5)


def test_it_is_flat_at_the_source_and_curved_as_its_fisher_information_says():
    prior = control.kl_prior(NET, NET.params, SEEN, strength=50.0)
    gradient = jax.grad(prior.log_prob)(NET.params)
    assert max(float(jnp.abs(x).max()) for x in jax.tree.leaves(gradient)) < 1e-4
    direction = jax.tree.map(lambda x: jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape), NET.params)
    along = jax.jvp(jax.grad(prior.log_prob), (NET.params,), (direction,))[1]
    outputs, moved = jax.jvp(lambda params: NET(params, SEEN), (NET.params,), (direction,))
    p, moved = scipy.special.softmax(np.asarray(outputs, np.float64), -1), np.asarray(moved, np.float64)
    fisher = np.mean((p * moved**2).sum(-1) - (p * moved).sum(-1) ** 2)
    assert float(btl.tree.vdot(direction, along)) == pytest.approx(-50.0 * fisher, rel=1e-3)


def test_real_actions_have_the_divergence_of_normals():
    prior = control.kl_prior(NET, NET.params, SEEN, 2.0, btl.likelihoods.normal(0.5))
    distance = np.asarray(NET(NET.params, SEEN) - NET(OTHER, SEEN), np.float64)
    expected = -2.0 * np.mean((distance**2).sum(-1) / (2 * 0.5**2))
    assert float(prior.log_prob(OTHER)) == pytest.approx(expected, rel=1e-5)


def test_a_strong_one_keeps_the_actions_under_map():
    prior = control.kl_prior(NET, NET.params, SEEN, strength=1e4)
    data = btl.data.arrays(SEEN, jnp.zeros(6, jnp.int32))

    def moved(prior):
        joint = btl.LogJoint(NET, btl.likelihoods.categorical(), prior)
        params = btl.fit(
            KEY, btl.infer.map_estimate(joint, optax.adam(1e-3)), NET.params, data, steps=50, progress=False
        ).params
        return float(jnp.abs(jax.nn.softmax(NET(params, SEEN)) - jax.nn.softmax(NET(NET.params, SEEN))).max())

    assert moved(prior) < 0.2 * moved(None)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="strength is 0"):
        control.kl_prior(NET, NET.params, SEEN, 0)
    with pytest.raises(ValueError, match="number of observations is 0"):
        control.kl_prior(NET, NET.params, SEEN[:0], 1.0)
    with pytest.raises(TypeError, match="cannot be drawn from"):
        control.kl_prior(NET, NET.params, SEEN, 1.0).sample(KEY, 2)
