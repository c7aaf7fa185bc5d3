"""Cutting, splitting, new heads, and what a backbone is as a network."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from originals import outputs, pictures, skeleton

from bayestl import nets, pretrained, tree

KEY = jax.random.key(0)
ALL = [
    pretrained.cifar_resnet20,
    pretrained.cifar_resnet56,
    pretrained.mobilenet,
    pretrained.resnet18,
    pretrained.resnet50,
    pretrained.vgg16,
    pretrained.vit_b16,
    pretrained.vit_ti16,
]
SIZES = {"vit_b16": (224, 224), "vit_ti16": (224, 224)}
EVERY = pytest.mark.parametrize("make", ALL, ids=lambda make: make.__name__)


@pytest.fixture(scope="module")
def net():
    """A small network with statistics that are not neutral."""
    module = pretrained.cifar_resnet20(KEY, num_classes=4)
    rng = np.random.default_rng(0)

    def drawn(path, leaf):
        value = rng.normal(size=leaf.shape) if "mean" in tree.path_string(path) else rng.uniform(0.5, 2, leaf.shape)
        return jnp.asarray(value, jnp.float32)

    nnx.update(module, jax.tree_util.tree_map_with_path(drawn, nnx.state(module, nnx.BatchStat)))
    return module


def test_features_are_what_a_cut_network_gives(net):
    inputs = pictures(16)
    for stage in net.stages:
        body = pretrained.cifar_resnet20(KEY, num_classes=4, cut=stage)
        nnx.update(body, nnx.state(net.split(stage)[0] if stage != "head" else net, (nnx.Param, nnx.BatchStat)))
        np.testing.assert_allclose(net.features(inputs, until=stage), body(inputs), rtol=1e-5)
    np.testing.assert_array_equal(net.features(inputs, until="head"), net(inputs))


@pytest.mark.parametrize("at", ["stem", "layer2", "pool"])
def test_a_split_network_gives_the_same(net, at):
    inputs = pictures(16)
    body, rest = net.split(at)
    assert body.stages + rest.stages == net.stages
    assert (body.stages[-1], "head" in rest.stages) == (at, True)
    np.testing.assert_allclose(rest(body(inputs)), net(inputs), rtol=1e-5, atol=1e-5)  # two programs, float32


def test_parts_of_a_split_have_the_paths_of_the_whole(net):
    body, rest = net.split("layer2")
    parts = [tree.paths(nets.from_nnx(part).params) for part in (body, rest)]
    assert sorted(parts[0] + parts[1]) == sorted(tree.paths(nets.from_nnx(net).params))


def test_a_new_head_replaces_the_old_one_or_follows_the_last_stage(net):
    head = nnx.Linear(64, 1, rngs=nnx.Rngs(1))
    for body in (net, net.split("pool")[0]):
        both = body.with_head(head)
        assert both.stages == net.stages
        features = net.features(pictures(16), until="pool")
        np.testing.assert_allclose(both(pictures(16)), head(features), rtol=1e-5, atol=1e-5)
    pooled = net.split("layer1")[0].with_head(pretrained.global_average)
    np.testing.assert_allclose(pooled(pictures(16)), net.features(pictures(16), until="layer1").mean(axis=(1, 2)))
    assert net.head is not head


@EVERY
def test_top_and_heads(make):
    whole, body = skeleton(make, num_classes=7), skeleton(make, include_top=False)
    inputs = jnp.zeros((2, *SIZES.get(make.__name__, (64, 64)), 3))
    assert nnx.eval_shape(lambda net: net(inputs), whole).shape == (2, 7)
    assert "head" not in body.stages
    assert body.stages == whole.stages[: len(body.stages)]
    features = nnx.eval_shape(lambda net: net.features(inputs, until=body.stages[-1]), whole)
    assert nnx.eval_shape(lambda net: net(inputs), body).shape == features.shape


@EVERY
def test_half_precision_leaves_parameters_and_outputs_in_float32(make):
    module = skeleton(make, dtype=jnp.bfloat16)
    inputs = jnp.zeros((2, *SIZES.get(make.__name__, (64, 64)), 3))
    leaves = tree.by_paths(nnx.state(module, (nnx.Param, nnx.BatchStat))).values()
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}
    assert nnx.eval_shape(lambda net: net(inputs), module).dtype == jnp.float32


@pytest.mark.x64
def test_float64_inputs_are_computed_in_float64(net):
    body = net.split("stem")[0]
    assert body(jnp.asarray(pictures(8), jnp.float64)).dtype == jnp.float64


def test_as_a_net_running_statistics_are_frozen_until_asked_otherwise(net):
    lifted = nets.from_nnx(net)
    inputs = pictures(16)
    np.testing.assert_allclose(outputs(net, inputs), net(inputs), rtol=1e-5, atol=1e-5)  # two programs, float32
    frozen, state = lifted.apply(lifted.params, lifted.state, inputs, KEY)
    np.testing.assert_array_equal(frozen, net(inputs))
    jax.tree.map(np.testing.assert_array_equal, state, lifted.state)
    training = nets.trained_state(lifted)
    trained, state = training.apply(training.params, training.state, inputs, KEY)
    assert not np.allclose(trained, frozen, rtol=1e-2)
    old, new = tree.by_paths(lifted.state), tree.by_paths(state)
    # The first convolution's output is what its statistics are of; the share of the old ones is 0.9.
    first = net.stem.conv1(jnp.asarray(inputs))
    expected = 0.9 * old["stem/bn1/mean"] + 0.1 * first.mean(axis=(0, 1, 2))
    np.testing.assert_allclose(new["stem/bn1/mean"], expected, rtol=1e-4, atol=1e-5)  # means of 512 numbers, float32


def test_gradients_reach_every_parameter(net):
    lifted = nets.from_nnx(net)
    gradient = jax.grad(lambda params: (lifted(params, pictures(16)) ** 2).sum())(lifted.params)
    assert [path for path, leaf in tree.by_paths(gradient).items() if not np.abs(leaf).max() > 0] == []


def test_the_key_decides_the_initialisation():
    one, same, other = (
        np.asarray(pretrained.cifar_resnet20(jax.random.key(seed), cut="stem").stem.conv1.kernel[...])
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other)


def test_refusals(net):
    with pytest.raises(ValueError, match=r"cut is 'layer9'; the stages are 'stem', 'layer1', .*'head'"):
        pretrained.resnet18(KEY, cut="layer9")
    with pytest.raises(ValueError, match="num_classes is 0; give an integer >= 1"):
        pretrained.resnet50(KEY, num_classes=0)
    with pytest.raises(ValueError, match=r"num_classes is 2\.0; give an integer"):
        pretrained.mobilenet(KEY, num_classes=2.0)
    with pytest.raises(ValueError, match="until is 'fc'; the stages are"):
        net.features(pictures(16), until="fc")
    with pytest.raises(ValueError, match="at is 'head', the last stage, so that nothing is left after it"):
        net.split("head")
    with pytest.raises(ValueError, match="stages is empty"):
        pretrained.Backbone({})
    for name in ("split", "1x", "stages"):
        with pytest.raises(ValueError, match=f"stages has the name '{name}'"):
            pretrained.Backbone({name: pretrained.global_average})
