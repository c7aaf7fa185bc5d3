"""Flax NNX modules as networks: the same numbers as the module itself, which stays as it is."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bayestl import nets, tree

pytestmark = pytest.mark.filterwarnings("ignore:Using 'Module.sow:DeprecationWarning")

INPUTS = jax.random.normal(jax.random.key(9), (6, 3))


class Noisy(nnx.Module):
    """Batch statistics, dropout, and an activation that is recorded on the way."""

    def __init__(self, rngs: nnx.Rngs, rate: float = 0.5, width: int = 8):
        self.dense = nnx.Linear(3, width, rngs=rngs)
        self.norm = nnx.BatchNorm(width, rngs=rngs)
        self.dropout = nnx.Dropout(rate, rngs=rngs)
        self.head = nnx.Linear(width, 2, rngs=rngs)

    def __call__(self, x, shift: float = 0.0):
        x = self.dropout(nnx.relu(self.norm(self.dense(x))))
        self.sow(nnx.Intermediate, "features", x)
        return self.head(x) + shift


def snapshot(module: nnx.Module) -> list[np.ndarray]:
    return [np.asarray(x) for x in jax.tree.leaves(nnx.state(module, nnx.Not(nnx.RngKey)))]


def modes(module: Noisy) -> tuple[bool, bool]:
    return module.dropout.deterministic, module.norm.use_running_average


def batch_statistics(state: nnx.State) -> list[np.ndarray]:
    return [np.asarray(x) for x in jax.tree.leaves(state)]


def trained(module: nnx.Module) -> nets.Net:
    return nets.trained_state(nets.from_nnx(module))


def test_without_a_key_outputs_are_those_of_eval_mode_and_the_state_is_frozen():
    module = Noisy(nnx.Rngs(0))
    net = nets.from_nnx(module)
    outputs, state = net.apply(net.params, net.state, INPUTS, None)
    assert state is net.state
    module.eval()
    np.testing.assert_array_equal(outputs, module(INPUTS))


def test_with_a_key_batch_statistics_follow_train_mode():
    module = Noisy(nnx.Rngs(0), rate=0.0)
    net = trained(module)
    module.train()
    state = net.state
    for step in range(3):
        outputs, state = net.apply(net.params, state, INPUTS, jax.random.key(step))
        np.testing.assert_array_equal(outputs, module(INPUTS))
        expected = [np.asarray(x) for x in (module.norm.mean.get_value(), module.norm.var.get_value())]
        jax.tree.map(np.testing.assert_array_equal, batch_statistics(state), expected)
        assert jax.tree.structure(state) == jax.tree.structure(net.state)
    assert not np.allclose(batch_statistics(state)[0], 0)


def test_the_key_alone_decides_the_noise():
    """Dropout drops about half of 8 x 6 features and doubles the rest; the mask depends on the key and nothing else."""
    net = trained(Noisy(nnx.Rngs(0)))
    advanced = net.apply(net.params, net.state, INPUTS, jax.random.key(5))[1]
    one, again, later, other = (
        net.apply(net.params, state, INPUTS, jax.random.key(seed))[0]
        for seed, state in ((0, net.state), (0, net.state), (0, advanced), (1, net.state))
    )
    np.testing.assert_array_equal(one, again)
    np.testing.assert_array_equal(one, later)  # training outputs use the batch's own statistics, not the running ones
    assert not np.allclose(one, other)


def test_the_key_and_not_the_modules_own_mode_decides():
    training, evaluating = Noisy(nnx.Rngs(0)), Noisy(nnx.Rngs(0))
    training.train()
    evaluating.eval()
    for key in (None, jax.random.key(0)):
        one, other = (n.apply(n.params, n.state, INPUTS, key) for n in map(trained, (training, evaluating)))
        jax.tree.map(np.testing.assert_array_equal, one, other)


class TwoDropouts(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.scale = nnx.Param(jnp.ones(()))
        self.left, self.right = nnx.Dropout(0.5, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.scale * self.left(x), self.scale * self.right(x)


def test_dropout_keeps_the_mean_and_layers_have_noise_of_their_own():
    net = nets.from_nnx(TwoDropouts(nnx.Rngs(0)))
    (left, right), _ = net.apply(net.params, net.state, jnp.ones((100, 100)), jax.random.key(0))
    for kept in (left, right):
        assert set(np.unique(kept)) == {0.0, 2.0}
        assert abs(float(kept.mean()) - 1) < 0.05  # five standard errors: 5 / sqrt(10000)
    agreement = float((left == right).mean())
    assert abs(agreement - 0.5) < 0.025  # five standard errors: 5 x 0.5 / sqrt(10000)


def test_a_raw_key_gives_the_same_noise():
    net = nets.from_nnx(TwoDropouts(nnx.Rngs(0)))
    typed, raw = (
        net.apply(net.params, net.state, jnp.ones((4, 5)), key)[0] for key in (jax.random.key(3), jax.random.PRNGKey(3))
    )
    jax.tree.map(np.testing.assert_array_equal, typed, raw)


@pytest.mark.parametrize("jit", [False, True])
def test_the_users_module_and_the_net_are_left_alone(jit):
    module = Noisy(nnx.Rngs(0))
    module.dropout.deterministic = True
    before, mode = snapshot(module), modes(module)
    net = trained(module)

    def run(key):  # params and state as constants of the program, where in-place updates would leak
        return net.apply(net.params, net.state, INPUTS, key)

    run = jax.jit(run) if jit else run
    first = run(jax.random.key(0))[1]
    second = run(jax.random.key(0))[1]
    jax.tree.map(np.testing.assert_array_equal, batch_statistics(first), batch_statistics(second))
    jax.tree.map(np.testing.assert_array_equal, snapshot(module), before)
    assert modes(module) == mode
    module.head.bias.set_value(jnp.ones(2))
    np.testing.assert_array_equal(tree.by_paths(net.params)["head/bias"], [0, 0])


def test_paths_and_gradients():
    net = nets.from_nnx(Noisy(nnx.Rngs(0)))
    assert tree.paths(net.params) == [
        f"{layer}/{name}"
        for layer, names in (("dense", ("bias", "kernel")), ("head", ("bias", "kernel")), ("norm", ("bias", "scale")))
        for name in names
    ]
    assert tree.paths(net.state) == ["norm/mean", "norm/var"]
    gradient = jax.jit(jax.grad(lambda p: net.apply(p, net.state, INPUTS, jax.random.key(0))[0].sum()))(net.params)
    assert jax.tree.structure(gradient) == jax.tree.structure(net.params)
    np.testing.assert_array_equal(tree.by_paths(gradient)["head/bias"], [6.0, 6.0])  # counts the examples


def test_scans_and_vmaps():
    net = trained(Noisy(nnx.Rngs(0)))

    def run(key):
        def step(state, key):
            outputs, state = net.apply(net.params, state, INPUTS, key)
            return state, outputs

        return jax.lax.scan(step, net.state, jax.random.split(key, 3))

    keys = jax.random.split(jax.random.key(0), 2)
    state, outputs = jax.jit(jax.vmap(run))(keys)
    assert outputs.shape == (2, 3, 6, 2)
    alone = net.state
    for key in jax.random.split(keys[1], 3):
        alone = net.apply(net.params, alone, INPUTS, key)[1]
    for many, one in zip(jax.tree.leaves(state), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(many[1], one, rtol=1e-5, atol=1e-6)  # sums of six float32 terms in another order


def test_a_net_made_again_does_not_compile_again():
    traces = []

    @jax.jit
    def step(net, key):
        traces.append(1)
        return net.apply(net.params, net.state, INPUTS, key)

    for seed in (0, 1):
        step(nets.from_nnx(Noisy(nnx.Rngs(seed))), jax.random.key(seed))
    assert len(traces) == 1
    step(nets.from_nnx(Noisy(nnx.Rngs(0), width=4)), jax.random.key(0))
    assert len(traces) == 2


def test_call_arguments():
    net = nets.from_nnx(Noisy(nnx.Rngs(0), rate=0.0), train={"shift": 2.0}, evaluate={"shift": 1.0})
    plain = nets.from_nnx(Noisy(nnx.Rngs(0), rate=0.0))
    for key, shift in ((None, 1.0), (jax.random.key(0), 2.0)):
        shifted, unshifted = (n.apply(n.params, n.state, INPUTS, key)[0] for n in (net, plain))
        np.testing.assert_array_equal(shifted, unshifted + shift)


class Insisting(nnx.Module):
    """Its calls say what the layer is to do."""

    def __init__(self, rngs: nnx.Rngs):
        self.norm = nnx.BatchNorm(3, momentum=0.5, rngs=rngs)

    def __call__(self, x, train: bool):
        return self.norm(x, use_running_average=not train)


def test_the_policy_holds_against_the_modules_own_call_arguments():
    net = nets.from_nnx(Insisting(nnx.Rngs(0)), train={"train": True}, evaluate={"train": False})
    frozen, state = net.apply(net.params, net.state, INPUTS, jax.random.key(0))
    np.testing.assert_array_equal(frozen, net(net.params, INPUTS))
    jax.tree.map(np.testing.assert_array_equal, state, net.state)
    net = nets.trained_state(net)
    _, state = net.apply(net.params, net.state, INPUTS, jax.random.key(0))
    np.testing.assert_allclose(batch_statistics(state)[0], INPUTS.mean(0) / 2, rtol=1e-5, atol=1e-7)  # six terms


def test_refusals():
    with pytest.raises(TypeError, match=r"module is dict; give an nnx\.Module"):
        nets.from_nnx({})
    module = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    module.count = nnx.Param(jnp.zeros((), int))
    with pytest.raises(TypeError, match="params at 'count' has dtype int32; parameters must be floating point"):
        nets.from_nnx(module)
    with pytest.raises(ValueError, match="params holds no parameters"):
        nets.from_nnx(nnx.Dropout(0.5, rngs=nnx.Rngs(0)))
