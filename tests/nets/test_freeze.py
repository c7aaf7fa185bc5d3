"""A frozen part: the same function, nothing that moves, nothing that a prior or an optimizer sees."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import bayestl as btl


class Small(nnx.Module):
    def __init__(self, rngs):
        self.stem, self.norm = nnx.Linear(3, 4, rngs=rngs), nnx.BatchNorm(4, momentum=0.5, rngs=rngs)
        self.head = nnx.Linear(4, 1, rngs=rngs)

    def __call__(self, x):
        return self.head(nnx.relu(self.norm(self.stem(x))))[..., 0]


def net() -> btl.Net:
    return btl.nets.from_nnx(Small(nnx.Rngs(0)))


INPUTS = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)


def test_the_function_stays_and_only_the_rest_has_gradients():
    whole = net()
    frozen = btl.nets.freeze(whole, ["stem/**", "norm/**"])
    np.testing.assert_array_equal(frozen(frozen.params, INPUTS), whole(whole.params, INPUTS))
    assert btl.tree.paths(frozen.params) == ["head/bias", "head/kernel"]
    gradient = jax.grad(lambda params: frozen(params, INPUTS).sum())(frozen.params)
    expected = jax.grad(lambda params: whole(params, INPUTS).sum())(whole.params)
    for path, leaf in btl.tree.by_paths(gradient).items():
        np.testing.assert_allclose(leaf, btl.tree.by_paths(expected)[path], rtol=1e-6)


def test_a_fit_moves_the_rest_and_keeps_state_for_nothing_else(tmp_path):
    frozen = btl.nets.freeze(net(), "stem/**")
    prior = btl.gaussians.by_path(
        {
            "head/**": btl.gaussians.isotropic(btl.tree.zeros_like(frozen.params), 1.0),
            "**": btl.sources.point(frozen.params, 0.1),
        }
    )
    joint = btl.LogJoint(frozen, btl.likelihoods.normal(1.0), prior, num_data=20)
    fitted = btl.fit(
        jax.random.key(0),
        btl.infer.map_estimate(joint, optax.adam(0.1)),
        frozen.params,
        btl.data.arrays(INPUTS, np.ones(20)),
        steps=5,
        batch_size=10,
        progress=False,
    )
    momenta = fitted.state.opt_state[0].mu
    assert jax.tree.structure(momenta) == jax.tree.structure(frozen.params)
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), fitted.params, frozen.params)
    assert min(btl.tree.by_paths(moved).values()) > 0
    # What is frozen stays with the log joint, which takes the state of the run as it is.
    assert fitted.net_state["frozen"] is None
    completed = joint.replace(state=fitted.net_state)
    unmoved = jax.tree.map(np.array_equal, completed.state["frozen"], frozen.state["frozen"])
    assert jax.tree.leaves(unmoved) == [True] * 2
    assert jax.tree.structure(completed.state) == jax.tree.structure(joint.state)
    fitted.save(tmp_path / "frozen.bayestl")
    loaded = btl.load(tmp_path / "frozen.bayestl", frozen)
    completed = joint.replace(state=loaded.net_state)
    assert jax.tree.structure(completed.state) == jax.tree.structure(joint.state)
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, completed.state, joint.state)))


def test_state_policies_reach_through():
    frozen = btl.nets.freeze(net(), "stem/**")
    assert btl.nets.state_policy(frozen) == "frozen"
    trained = btl.nets.trained_state(frozen)
    assert btl.nets.state_policy(trained) == "trained"
    _, state = trained.apply(trained.params, trained.state, jnp.asarray(INPUTS), jax.random.key(0))
    before, after = (btl.tree.by_paths(s["net"])["norm/mean"] for s in (trained.state, state))
    assert np.abs(after - before).min() > 0
    found = btl.nets.reestimate_state(
        jax.random.key(1), frozen, frozen.params, btl.data.arrays(INPUTS, np.ones(20)), batch_size=20
    )
    whole = net()
    pre = INPUTS @ whole.params["stem"]["kernel"] + whole.params["stem"]["bias"]
    np.testing.assert_allclose(btl.tree.by_paths(found["net"])["norm/mean"], pre.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found["frozen"]["stem"]["kernel"], whole.params["stem"]["kernel"])
    # Without running statistics there is no policy, though the state holds constants.
    plain = btl.nets.freeze(btl.nets.mlp(jax.random.key(0), (3, 4, 1)), "dense_0/**")
    assert btl.nets.state_policy(plain) == "none"
    assert btl.nets.trained_state(plain) is plain
    with pytest.raises(ValueError, match="the network has no state"):
        btl.nets.reestimate_state(
            jax.random.key(1), plain, plain.params, btl.data.arrays(INPUTS, np.ones(20)), batch_size=20
        )


def test_a_part_by_inference_has_the_policy_of_the_whole():
    """``infer.condition`` holds parameters fixed in the same way."""
    for whole, policy in ((net(), "frozen"), (btl.nets.mlp(jax.random.key(0), (3, 4, 1)), "none")):
        joint = btl.LogJoint(whole, btl.likelihoods.normal(1.0), None, num_data=20)
        assert btl.nets.state_policy(btl.infer.condition(joint, whole.params, "head/**").joint) == policy


def test_learning_rates_by_depth():
    """Discriminative learning rates are optax's own: labels by path, one transformation each."""
    whole = btl.nets.mlp(jax.random.key(0), (3, 4, 4, 1))
    rates = {"dense_0": 0.0, "dense_1": 0.01, "head": 0.1}
    labels = jax.tree_util.tree_map_with_path(lambda path, _: path[0].key, whole.params)
    optimizer = optax.multi_transform({name: optax.sgd(rate) for name, rate in rates.items()}, labels)
    joint = btl.LogJoint(whole, btl.likelihoods.normal(1.0), None, num_data=20)
    data = btl.data.arrays(INPUTS, np.ones((20, 1)))
    fitted = btl.fit(
        jax.random.key(0), btl.infer.map_estimate(joint, optimizer), whole.params, data, steps=1, progress=False
    )
    batch = btl.Batch(data.inputs, data.targets)
    gradient = jax.grad(lambda params: joint.loss(params, batch)[0])(whole.params)
    for name, rate in rates.items():
        for leaf in ("kernel", "bias"):
            moved = fitted.params[name][leaf] - whole.params[name][leaf]
            np.testing.assert_allclose(moved, -rate * gradient[name][leaf], rtol=1e-4, atol=1e-7)


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"pattern 'body/\*\*' matches no parameter; the paths are 'head/bias'"):
        btl.nets.freeze(net(), "body/**")
    with pytest.raises(ValueError, match=r"patterns is '\*\*', which freezes all of 'head/bias'.*leave something"):
        btl.nets.freeze(net(), "**")
    with pytest.raises(TypeError, match="net is a dict; give a Net"):
        btl.nets.freeze({}, "**")  # pyright: ignore[reportArgumentType]
