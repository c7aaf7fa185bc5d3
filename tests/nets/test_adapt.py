"""Low-rank adapters: the source at the start, the merged network everywhere, and the chain rule."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import bayestl as btl
from tests.layers import layer_networks
from tests.nets import libraries

KEY = jax.random.key(0)
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def noisy(params: Any, size: float = 0.3) -> Any:
    """Parameters of which none is where it started, B above all."""
    return btl.tree.add(params, btl.tree.scale(size, btl.tree.normal_like(jax.random.key(7), params)))


def mlp() -> tuple[btl.Net, jax.Array]:
    return btl.nets.mlp(KEY, (3, 6, 5, 2), jnp.tanh), jax.random.normal(KEY, (4, 3))


def convolutions() -> tuple[btl.Net, jax.Array]:
    """One with strides, one in two groups with holes, and a head."""
    shapes = {"first": (3, 2, 1, 4), "groups": (3, 1, 2, 6), "head": (6, 2)}
    params = {name: jax.random.normal(jax.random.key(len(name)), shape) for name, shape in shapes.items()}
    return btl.nets.from_function(_convolve, params), jax.random.normal(KEY, (2, 7, 7, 1))


def _convolve(params: Any, x: Any) -> Any:
    x = jax.lax.conv_general_dilated(x, params["first"], (2, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    x = jax.lax.conv_general_dilated(
        jnp.tanh(x), params["groups"], (1, 2), [(1, 0), (0, 2)], rhs_dilation=(2, 1), feature_group_count=2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip
    return jnp.tanh(x).mean((1, 2)) @ params["head"]


@pytest.mark.representative("nnx")
@pytest.mark.parametrize("library", libraries.LIBRARIES, ids=lambda library: library.__name__)
def test_the_start_is_the_source_in_every_library(library):
    net = library(0.5).net
    adapted = btl.nets.adapt(KEY, net, libraries.INPUTS, 2)
    np.testing.assert_allclose(
        adapted(adapted.params, libraries.INPUTS), net(net.params, libraries.INPUTS), rtol=1e-6, atol=1e-6
    )
    assert {path.rsplit("/", 1)[1] for path in btl.tree.paths(adapted.params)} == {"a", "b"}
    # Noise is drawn from the key as before, and running statistics follow as before.
    one, other = btl.nets.trained_state(adapted), btl.nets.trained_state(net)
    outputs, state = one.apply(one.params, one.state, libraries.INPUTS, KEY)
    expected, own = other.apply(other.params, other.state, libraries.INPUTS, KEY)
    np.testing.assert_allclose(outputs, expected, **CLOSE)
    for x, y in zip(jax.tree.leaves(state["net"]), jax.tree.leaves(own), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6)


@pytest.mark.representative("scans", "convolutions")
@pytest.mark.parametrize("name", ["convolutions", "pictures", "sequence", "tokens", "scans"])
def test_merged_weights_give_the_adapted_outputs_and_gradients(name):
    """Convolutions of all kinds, attention, shared layers, loops with shared and with stacked weights."""
    if name == "convolutions":
        net, inputs = convolutions()
    else:
        problem = getattr(layer_networks, name)()
        net, inputs = btl.Net(problem.params, problem.joint.state, problem.joint.apply), problem.data.inputs
    adapted = btl.nets.adapt(KEY, net, jax.tree.map(lambda x: x[:1], inputs), 2, where="**", scale=0.7)
    params = noisy(adapted.params)

    def both(params: Any) -> Any:
        merged = btl.nets.merge(adapted, params)
        return adapted(params, inputs), merged(merged.params, inputs)

    def weighted(outputs: jax.Array) -> jax.Array:
        return jnp.sum(outputs * jnp.cos(jnp.arange(outputs.size).reshape(outputs.shape)))

    def gradients(params: Any) -> Any:
        (ours, merged), pull_back = jax.vjp(lambda p: both(p), params)
        seeds = [jax.grad(weighted)(outputs) for outputs in (ours, merged)]
        zeros = jnp.zeros_like(ours)
        return (ours, merged), pull_back((seeds[0], zeros))[0], pull_back((zeros, seeds[1]))[0]

    (ours, merged), of_ours, of_merged = jax.jit(gradients)(params)
    np.testing.assert_allclose(ours, merged, **CLOSE)
    assert np.abs(ours - net(net.params, inputs)).max() > 1e-2
    for path, leaf in btl.tree.by_paths(of_ours).items():
        expected = btl.tree.by_paths(of_merged)[path]
        np.testing.assert_allclose(leaf, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max(), err_msg=path)
        assert np.abs(expected).max() > 0, path


def test_gradients_by_the_chain_rule():
    """``dA = s dW B^T`` and ``dB = s A^T dW``, with dW that of the merged weights."""
    net, x = mlp()
    adapted = btl.nets.adapt(KEY, net, x, 2, scale=0.5)
    params = noisy(adapted.params)
    merged = btl.nets.merge(adapted, params).params
    ours = jax.grad(lambda p: jnp.sum(jnp.sin(adapted(p, x))))(params)
    of_weights = jax.grad(lambda p: jnp.sum(jnp.sin(net(p, x))))(merged)
    for layer in ("dense_0", "dense_1", "head"):
        a, b = (np.asarray(params[layer]["kernel"][name], np.float64) for name in "ab")
        np.testing.assert_allclose(
            merged[layer]["kernel"], np.asarray(net.params[layer]["kernel"], np.float64) + 0.5 * a @ b, rtol=1e-6
        )
        dw = np.asarray(of_weights[layer]["kernel"], np.float64)
        np.testing.assert_allclose(ours[layer]["kernel"]["a"], 0.5 * dw @ b.T, **CLOSE)
        np.testing.assert_allclose(ours[layer]["kernel"]["b"], 0.5 * a.T @ dw, **CLOSE)


def test_the_source_is_the_prior_mean_of_the_weights():
    net, x = mlp()
    adapted = btl.nets.adapt(KEY, net, x, 2)
    draws = btl.gaussians.isotropic(adapted.params, 0.5).sample(jax.random.key(1), 2000)
    kernels = jax.vmap(lambda p: btl.nets.merge(adapted, p).params["head"]["kernel"])(draws)
    error = (kernels.mean(0) - net.params["head"]["kernel"]) / (kernels.std(0) / np.sqrt(2000))
    assert np.abs(error).max() < 4.5  # ten normal numbers: once in 15,000
    # Of variance s^2 sum_r t^2 (A_ir^2 + t^2) at every input i, with t = 0.5.
    a = np.asarray(adapted.params["head"]["kernel"]["a"], np.float64)
    variance = (0.25 * (a**2 + 0.25)).sum(1)[:, None] * np.ones((1, 2))
    np.testing.assert_allclose(kernels.var(0), variance, rtol=0.25)  # the error of 2000 draws with heavy tails: 5%


def test_patterns_choose_weights_and_what_is_trained_beside_them():
    net, x = mlp()
    adapted = btl.nets.adapt(KEY, net, x, 3, where=["dense_1/**"], trained=["head/kernel", "dense_0/bias"])
    shapes = {path: leaf.shape for path, leaf in btl.tree.by_paths(adapted.params).items()}
    assert shapes == {
        "dense_0/bias": (6,),
        "dense_1/kernel/a": (6, 3),
        "dense_1/kernel/b": (3, 5),
        "head/kernel": (5, 2),
    }
    params = noisy(adapted.params)
    merged = btl.nets.merge(adapted, params)
    np.testing.assert_array_equal(merged.params["head"]["kernel"], params["head"]["kernel"])
    np.testing.assert_array_equal(merged.params["head"]["bias"], net.params["head"]["bias"])
    np.testing.assert_allclose(merged(merged.params, x), adapted(params, x), **CLOSE)
    # A layer with fewer outputs than the rank has no more than it has outputs; convolutions only where they are named.
    assert btl.nets.adapt(KEY, net, x, 3).params["head"]["kernel"]["a"].shape == (5, 2)
    net, x = convolutions()
    assert btl.tree.paths(btl.nets.adapt(KEY, net, x, 2).params) == ["head/a", "head/b"]
    assert btl.nets.adapt(KEY, net, x, 2, where="**").params["groups"]["a"].shape == (2, 3 * 2, 2)


def test_keys_that_hold_slashes():
    params = {"block/~/w": jnp.ones((3, 2)), "block": {"~/w": jnp.zeros(2)}}
    net = btl.nets.from_function(_slashes, params)
    adapted = btl.nets.adapt(KEY, net, jnp.ones((1, 3)), 1)
    assert list(adapted.params) == ["block/~/w"]
    moved = noisy(adapted.params)
    merged = btl.nets.merge(adapted, moved).params
    np.testing.assert_allclose(merged["block/~/w"] - 1, moved["block/~/w"]["a"] @ moved["block/~/w"]["b"], atol=1e-6)


def _slashes(params: Any, x: Any) -> Any:
    return x @ params["block/~/w"] + params["block"]["~/w"]


def test_inputs_of_other_lengths_and_lower_precision():
    problem = layer_networks.sequence()
    net = btl.Net(problem.params, problem.joint.state, problem.joint.apply)
    x = jnp.asarray(problem.data.inputs, jnp.float32)
    adapted = btl.nets.adapt(KEY, net, x[:, :4], 2)
    params = noisy(adapted.params)
    merged = btl.nets.merge(adapted, params)
    expected = np.asarray(merged(merged.params, x))
    np.testing.assert_allclose(adapted(params, x), expected, **CLOSE)
    half = btl.nets.adapt(KEY, btl.nets.cast(net, jnp.bfloat16), x, 2)
    error = np.abs(half(params, x) - expected).max() / np.abs(expected).max()
    assert 1e-5 < error < 0.05  # bfloat16 keeps 8 bits


# ---------------------------------------------------------------- posteriors


@functools.cache
def task() -> tuple[btl.LogJoint, Any, Any]:
    net, _ = mlp()
    rng = np.random.default_rng(0)
    data = btl.data.arrays(rng.normal(size=(12, 3)).astype(np.float32), rng.integers(0, 2, 12))
    adapted = btl.nets.adapt(KEY, net, data.inputs, 2, scale=0.8)
    prior = btl.gaussians.isotropic(adapted.params, 0.7)
    return btl.LogJoint(adapted, btl.likelihoods.categorical(), prior, num_data=12), adapted, data


def test_curvature_at_the_source_in_closed_form():
    """At B = 0 a linear network depends on B alone: (xA)^T xA / sigma^2 for each output, Kronecker and dense alike."""
    x = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.ones((3, 2))})
    adapted = btl.nets.adapt(KEY, net, x, 2, scale=0.8)
    prior = btl.gaussians.isotropic(adapted.params, 0.7)
    joint = btl.LogJoint(adapted, btl.likelihoods.normal(0.5), prior, num_data=7)
    data = btl.data.arrays(x, x[:, :2])
    inner = 0.8 * x.astype(np.float64) @ np.asarray(adapted.params["w"]["a"], np.float64)
    block = np.linalg.inv(inner.T @ inner / 0.25 + np.eye(2) / 0.49)
    for structure in (btl.curvature.dense(), btl.curvature.kronecker()):
        posterior = btl.infer.laplace(KEY, joint, adapted.params, data, curvature=structure)
        np.testing.assert_allclose(posterior.variance["w"]["a"], np.full((3, 2), 0.49), rtol=1e-5)
        unit = jax.tree.map(jnp.zeros_like, adapted.params)
        for r in range(2):
            unit["w"]["b"] = jnp.zeros((2, 2)).at[r, 1].set(1.0)
            column = np.asarray(posterior.covariance_mv(unit)["w"]["b"])
            np.testing.assert_allclose(column[:, 1], block[r], rtol=1e-4)
            np.testing.assert_allclose(column[:, 0], 0, atol=1e-6)


def test_kronecker_is_dense_for_one_example():
    """Of one example the curvature of each factor by itself is a Kronecker product, away from B = 0 too."""
    joint, adapted, data = task()
    params, first = noisy(adapted.params), btl.data.arrays(data.inputs[:1], data.targets[:1])
    # Counted a thousand times, so that it is felt beside the prior.
    joint = btl.LogJoint(adapted, joint.likelihood, joint.prior, num_data=1000, allow_other_size=True)
    for path in ("dense_1/kernel/a", "dense_1/kernel/b"):
        both = [
            btl.infer.laplace(KEY, joint, params, first, curvature=structure, selection=path).part
            for structure in (btl.curvature.dense(), btl.curvature.kronecker())
        ]
        direction = btl.tree.normal_like(KEY, both[0].mean)
        products = [jax.tree.leaves(posterior.covariance_mv(direction))[0] for posterior in both]
        np.testing.assert_allclose(products[0], products[1], rtol=1e-4, atol=1e-5)
        assert np.abs(products[0] - 0.49 * jax.tree.leaves(direction)[0]).max() > 1e-3  # the example is felt


@pytest.mark.representative("kronecker")
@pytest.mark.parametrize("structure", ["kronecker", "low_rank", "dual"])
def test_laplace_on_adapters(structure):
    joint, adapted, data = task()
    builder = btl.curvature.low_rank(4) if structure == "low_rank" else getattr(btl.curvature, structure)()
    posterior = btl.infer.laplace(KEY, joint, noisy(adapted.params), data, curvature=builder)
    variance = btl.tree.by_paths(posterior.variance)
    assert set(variance) == set(btl.tree.paths(adapted.params))
    assert all((leaf < 0.49 * 1.00001).all() and (leaf > 0).all() for leaf in variance.values())
    assert min(leaf.min() for leaf in variance.values()) < 0.48
    probabilities = btl.predict.linearized(joint, posterior)(data.inputs).probs
    np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-5)


def _methods() -> dict[str, Any]:
    return {
        "vi": lambda joint: btl.infer.mean_field_vi(joint, optax.adam(1e-2), initial_scale=0.1),
        "ivon": lambda joint: btl.infer.ivon(joint, 1e-2),
        "swag": lambda joint: btl.infer.swag(joint, optax.sgd(1e-2), rank=2, start=2, every=1, eps=1e-4),
    }


@pytest.mark.representative("vi")
@pytest.mark.parametrize("name", ["vi", "ivon", "swag"])
def test_methods_on_adapters_carry_no_frozen_weights(name):
    joint, adapted, data = task()
    inference = _methods()[name](joint)
    fitted = btl.fit(KEY, inference, adapted.params, data, steps=8, batch_size=6, progress=False)
    assert jax.tree.leaves(fitted.net_state) == []
    draws = fitted.posterior.sample(KEY, 3)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(draws))
    moved = jax.tree.map(lambda x, y: float(jnp.abs(x - y).max()), fitted.params, adapted.params)
    assert min(jax.tree.leaves(moved)) > 0
    outputs = btl.predict.monte_carlo(KEY, joint, fitted.posterior, num_samples=3)(data.inputs).outputs
    assert outputs.shape == (3, 12, 2)


def test_members_of_an_ensemble_share_the_frozen_weights():
    joint, _, data = task()
    net, x = mlp()
    starts = jax.vmap(lambda key: btl.nets.adapt(key, net, x, 2, scale=0.8).params)(jax.random.split(KEY, 3))
    result = btl.fit_many(
        jax.random.split(KEY, 3),
        lambda _: btl.infer.map_estimate(joint, optax.adam(1e-2)),
        None,
        starts,
        data,
        params_axis=0,
        steps=5,
        batch_size=12,
        progress=False,
    )
    assert jax.tree.leaves(result.net_state) == []
    # The batches are the whole data, so that every member is what a run by itself would be.
    alone = btl.fit(
        KEY,
        btl.infer.map_estimate(joint, optax.adam(1e-2)),
        jax.tree.map(lambda x: x[1], starts),
        data,
        steps=5,
        batch_size=12,
        progress=False,
    )
    for path, leaf in btl.tree.by_paths(alone.params).items():
        np.testing.assert_allclose(btl.tree.by_paths(result.params)[path][1], leaf, rtol=1e-4, atol=1e-5)


def test_frozen_weights_travel_once():
    """Those of adapters and of frozen parts: with the method, and not in the three states that a run holds."""
    net = btl.nets.mlp(KEY, (30, 200, 2))
    data = btl.data.arrays(np.zeros((4, 30), np.float32), np.zeros(4, int))
    size = net.params["dense_0"]["kernel"].nbytes
    adapted = btl.nets.adapt(KEY, net, data.inputs, 1, where="dense_0/**")
    for part in (adapted, btl.nets.freeze(net, "dense_0/**")):
        joint = btl.LogJoint(part, btl.likelihoods.categorical(), None, num_data=4)
        method = btl.infer.map_estimate(joint, optax.sgd(0.1))
        memory = btl.estimate_memory(method, part.params, data, batch_size=4)
        assert size < memory.method < 1.2 * size
        assert memory.states < 0.5 * size
        assert memory.scratch < size


def test_refusals():
    net, x = mlp()
    with pytest.raises(ValueError, match="rank is 0; give a whole number, at least 1"):
        btl.nets.adapt(KEY, net, x, 0)
    with pytest.raises(ValueError, match=r"scale is -1.0; give a finite number above 0"):
        btl.nets.adapt(KEY, net, x, 2, scale=-1.0)
    with pytest.raises(ValueError, match=r"pattern '\*\*/bias' matches no weights that can be adapted; .* 'dense_0"):
        btl.nets.adapt(KEY, net, x, 2, where="**/bias")
    with pytest.raises(ValueError, match=r"pattern 'body/\*\*' matches no parameter"):
        btl.nets.adapt(KEY, net, x, 2, trained="body/**")
    with pytest.raises(TypeError, match=r"net has no adapters; give the Net that nets\.adapt made"):
        btl.nets.merge(net)
    adapted = btl.nets.adapt(KEY, net, x, 2)
    with pytest.raises(ValueError, match=r"params and net\.params differ"):
        btl.nets.merge(adapted, net.params)
    tied = layer_networks.tied()
    both = btl.Net(tied.params, tied.joint.state, tied.joint.apply)
    with pytest.raises(ValueError, match="pattern 'table' matches no weights that can be adapted"):
        btl.nets.adapt(KEY, both, tied.data.inputs, 2, where="table")
    short = btl.nets.from_function(_only_for_long, {"w": jnp.ones((3, 2))})
    adapted = btl.nets.adapt(KEY, short, x, 2)
    with pytest.raises(ValueError, match=r"for inputs of shapes \[\(1, 3\)\] the network has no matrix product .* 'w'"):
        adapted(adapted.params, x[:1])


def _only_for_long(params: Any, x: Any) -> Any:
    return x @ params["w"] if len(x) > 1 else x[:, :2]
