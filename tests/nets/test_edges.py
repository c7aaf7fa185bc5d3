"""Laws of networks from every library: nnx, linen, Keras, Equinox."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import bayestl as btl
from bayestl import nets, tree
from tests.nets import libraries

INPUTS, VALUES = libraries.INPUTS, libraries.VALUES
KEY = jax.random.key(3)
CLOSE = {"rtol": 1e-5, "atol": 1e-5}  # sums of eight float32 terms of size 1, after a division
cached = functools.cache(lambda library, rate: library(rate))


@pytest.fixture(params=libraries.LIBRARIES, ids=lambda library: library.__name__)
def library(request):
    return request.param


@pytest.fixture
def noisy(library):
    return cached(library, 0.5)


@pytest.fixture
def plain(library):
    return cached(library, 0.0)


def applied(net, key, inputs=INPUTS, state=None):
    return net.apply(net.params, net.state if state is None else state, inputs, key)


def assert_same(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


def of_batch(inputs):
    x = libraries.hidden(inputs)
    return x.mean(0), x.var(0)


def test_without_a_key_it_is_the_librarys_own_evaluation(noisy):
    outputs, state = applied(noisy.net, None)
    np.testing.assert_allclose(outputs, noisy.own(INPUTS), **CLOSE)
    np.testing.assert_allclose(outputs, libraries.expected(INPUTS, VALUES["norm/mean"], VALUES["norm/var"]), **CLOSE)
    assert_same(outputs, applied(noisy.net, None)[0])
    assert_same(state, noisy.net.state)


def test_frozen_is_the_default_and_normalises_by_running_statistics(plain):
    assert nets.state_policy(plain.net) == "frozen"
    outputs, state = applied(plain.net, KEY)
    np.testing.assert_allclose(outputs, libraries.expected(INPUTS, VALUES["norm/mean"], VALUES["norm/var"]), **CLOSE)
    assert_same(state, plain.net.state)


def test_frozen_noise_is_dropout_and_comes_from_the_key_alone(noisy):
    (one, _), (again, _), (other, _) = (applied(noisy.net, jax.random.key(seed)) for seed in (0, 0, 1))
    assert_same(one, again)
    assert not np.allclose(one, other)
    # Dropout at rate 1/2 adds the variance sum_j (w_j r_j)^2 to the sum over features r and keeps its mean.
    many = np.asarray(jax.jit(jax.vmap(lambda key: applied(noisy.net, key)[0]))(jax.random.split(KEY, 400)))
    features = libraries.features(INPUTS, VALUES["norm/mean"], VALUES["norm/var"])
    variance = features**2 @ VALUES["head/kernel"].astype(float) ** 2
    assert np.all(np.abs(many.mean(0) - applied(noisy.net, None)[0]) < 5 * np.sqrt(variance / 400))
    # Relative error of a variance from 400 draws: at most sqrt(2 / 400) for sums of such coins; five of them.
    np.testing.assert_allclose(many.var(0), variance, rtol=5 * np.sqrt(2 / 400))


def test_examples_have_noise_of_their_own(noisy):
    outputs, _ = applied(noisy.net, KEY, jnp.broadcast_to(INPUTS[0], (6, 3)))
    assert len(np.unique(np.asarray(outputs)[:, 0])) > 1


def test_trained_statistics_follow_the_batches(plain):
    net = nets.trained_state(plain.net)
    assert nets.state_policy(net) == "trained"
    state, (mean, var) = net.state, (VALUES["norm/mean"].astype(float), VALUES["norm/var"].astype(float))
    for step in range(3):
        inputs = INPUTS + step
        outputs, state = applied(net, KEY, inputs, state)
        batch_mean, batch_var = of_batch(inputs)
        mean, var = 0.9 * mean + 0.1 * batch_mean, 0.9 * var + 0.1 * batch_var
        np.testing.assert_allclose(outputs, libraries.expected(inputs, batch_mean, batch_var), rtol=1e-4, atol=1e-4)
        found = libraries.statistics(state)
        np.testing.assert_allclose(found[0], mean, **CLOSE)
        np.testing.assert_allclose(found[1], var, **CLOSE)
        assert jax.tree.structure(state) == jax.tree.structure(net.state)
    assert_same(applied(nets.frozen_state(net), KEY), applied(plain.net, KEY))


def test_gradients_flow_to_parameters(noisy):
    def total(params):
        return noisy.net.apply(params, noisy.net.state, INPUTS, KEY)[0].sum()

    gradient = jax.jit(jax.grad(total))(noisy.net.params)
    assert jax.tree.structure(gradient) == jax.tree.structure(noisy.net.params)
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(gradient))
    np.testing.assert_allclose(libraries.leaf(gradient, "head/bias"), [6.0, 6.0], rtol=1e-6)  # counts the examples


def test_paths_allow_patterns(noisy):
    head = tree.select(noisy.net.params, "head/**")
    assert tree.size(head) == libraries.WIDTH * libraries.OUTPUTS + libraries.OUTPUTS
    assert {path.split("/")[0] for path in tree.paths(noisy.net.params)} == {"dense", "norm", "head"}
    assert tree.size(noisy.net.params) == sum(v.size for n, v in VALUES.items() if n not in ("norm/mean", "norm/var"))


def test_compiles_once_and_leaves_the_library_alone(noisy):
    before, traces = noisy.left(), []

    @jax.jit
    def step(net, key):
        traces.append(1)
        return applied(nets.trained_state(net), key), applied(net, key)

    (_, state), frozen = step(noisy.net, KEY)
    assert_same(frozen[1], noisy.net.state)
    step(noisy.again(), jax.random.key(4))
    assert len(traces) == 1
    assert not np.allclose(libraries.statistics(state)[0], VALUES["norm/mean"])
    jax.tree.map(np.testing.assert_array_equal, noisy.left(), before)


def test_reestimated_statistics_are_those_of_all_the_data(plain):
    data = btl.data.arrays(INPUTS, jnp.zeros(6))
    before = plain.left()
    state = nets.reestimate_state(KEY, plain.net, plain.net.params, data, batch_size=6)
    for found, wanted in zip(libraries.statistics(state), of_batch(INPUTS), strict=True):
        np.testing.assert_allclose(found, wanted, **CLOSE)
    assert jax.tree.structure(state) == jax.tree.structure(plain.net.state)
    # In use the new statistics are those that normalise.
    np.testing.assert_allclose(
        applied(plain.net, None, state=state)[0], libraries.expected(INPUTS, *of_batch(INPUTS)), rtol=1e-4, atol=1e-4
    )
    jax.tree.map(np.testing.assert_array_equal, plain.left(), before)


@pytest.mark.parametrize("batch_size", [2, 3, 4, 5])
def test_reestimated_statistics_are_pooled_by_the_law_of_total_variance(plain, batch_size):
    # The features that are normalised depend on no other example, so that the pooled statistics are those of all six.
    joint = btl.LogJoint(plain.net, btl.likelihoods.normal(1.0), None, num_data=6)
    data = btl.data.arrays(INPUTS, jnp.zeros(6))
    state = nets.reestimate_state(KEY, joint, plain.net.params, data, batch_size=batch_size)
    for ours, expected in zip(libraries.statistics(state), of_batch(INPUTS), strict=True):
        np.testing.assert_allclose(ours, expected, **CLOSE)


def test_policies_reach_through_wrappers(plain):
    wrapped = nets.cast(nets.with_log_scale(plain.net), jnp.float32)
    assert nets.state_policy(wrapped) == "frozen"
    trained = nets.trained_state(wrapped)
    assert nets.state_policy(trained) == "trained"
    (outputs, _), state = applied(trained, KEY)
    expected, expected_state = applied(nets.trained_state(plain.net), KEY)
    np.testing.assert_allclose(outputs, expected, **CLOSE)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **CLOSE), state, expected_state)


def test_goes_into_a_log_joint_and_through_a_fit(noisy):
    data = btl.data.arrays(INPUTS, jnp.arange(6) % 2)
    prior = btl.gaussians.by_path(
        {pattern: btl.gaussians.isotropic(noisy.net.params, 1.0) for pattern in ("head/**", "**")}
    )
    joint = btl.LogJoint(noisy.net, btl.likelihoods.categorical(), prior, num_data=6)
    method = btl.infer.map_estimate(joint, optax.sgd(1e-2))
    fitted = btl.fit(KEY, method, noisy.net.params, data, steps=3, batch_size=6, progress=False)
    assert_same(fitted.net_state, noisy.net.state)
    assert jax.tree.structure(fitted.params) == jax.tree.structure(noisy.net.params)
    assert not np.allclose(libraries.leaf(fitted.params, "head/bias"), VALUES["head/bias"])
