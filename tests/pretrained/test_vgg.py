"""VGG-16 against torchvision, timm and Keras."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from originals import (
    assert_same,
    keras_applications,
    keras_arrays,
    loaded,
    outputs,
    pictures,
    skeleton,
    torch_arrays,
    torch_outputs,
    torchvision,
)

from bayestl import nets, pretrained, tree
from bayestl.pretrained import tables
from bayestl.pretrained._vgg import averaged_to


def test_outputs_are_those_of_torchvision():
    """With the dense layers, whose kernels depend on the order in which the map before them is flattened."""
    original = torchvision().models.vgg16(weights=None)
    arrays = torch_arrays(original)
    inputs = pictures(71)
    net = loaded(pretrained.vgg16, arrays, tables.VGG16)
    assert_same(outputs(net, inputs), torch_outputs(original, inputs))


def test_timms_names_and_convolutions_are_the_same_dense_layers():
    rng = np.random.default_rng(0)
    kernels = {"classifier.0.weight": (3, 2 * 49), "classifier.3.weight": (3, 3)}
    arrays = {name: rng.normal(size=shape) for name, shape in kernels.items()}
    timms = {"pre_logits.fc1.weight": (3, 2, 7, 7), "pre_logits.fc2.weight": (3, 3, 1, 1)}
    for (name, array), (other, shape) in zip(arrays.items(), timms.items(), strict=True):
        one, two = tables.VGG16[name], tables.VGG16[other]
        assert one.path == two.path
        np.testing.assert_array_equal(one.layout.apply(array), two.layout.apply(array.reshape(shape)))


def test_features_are_those_of_keras(monkeypatch):
    original = keras_applications(monkeypatch).VGG16(include_top=False, weights=None, input_shape=(70, 70, 3))
    arrays = keras_arrays(original)
    inputs = pictures(70)
    net = loaded(pretrained.vgg16, arrays, tables.VGG16_KERAS, include_top=False)
    assert_same(outputs(net, inputs), np.asarray(original(inputs)))


def test_size():
    net = skeleton(pretrained.vgg16)
    params = tree.by_paths(nnx.state(net, nnx.Param))
    assert sum(np.prod(leaf.shape) for leaf in params.values()) == 138_357_544  # as torchvision publishes it
    for table in (tables.VGG16, tables.VGG16_KERAS):
        assert {entry.path for entry in table.values() if entry} == set(params)
    assert skeleton(pretrained.vgg16, include_top=False).stages[-1] == "block5"


@pytest.mark.parametrize("size", [(2, 2), (7, 7), (10, 5), (14, 23)])
def test_averaging_covers_the_map_as_torch_does(size):
    torch = pytest.importorskip("torch")
    maps = np.random.default_rng(0).normal(size=(2, 3, *size)).astype(np.float32)
    expected = torch.nn.functional.adaptive_avg_pool2d(torch.tensor(maps), 7).numpy()
    ours = averaged_to(jnp.asarray(maps.transpose(0, 2, 3, 1)), 7)
    np.testing.assert_allclose(ours, expected.transpose(0, 2, 3, 1), atol=1e-6)  # means of at most 9 float32 numbers


def test_averaging_of_a_map_that_divides_evenly():
    maps = np.random.default_rng(0).normal(size=(2, 14, 21, 3)).astype(np.float32)
    expected = maps.reshape(2, 7, 2, 7, 3, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(averaged_to(jnp.asarray(maps), 7), expected, atol=1e-6)  # means of six float32 numbers


@pytest.mark.slow
def test_dropout_between_the_dense_layers_is_drawn_from_the_key():
    rest = pretrained.Backbone({"dense": _small_dense(), "head": nnx.Linear(4096, 2, rngs=nnx.Rngs(0))})
    net = nets.from_nnx(rest)
    maps = jnp.ones((1, 1, 1, 512))

    def run(key):
        return np.asarray(net.apply(net.params, net.state, maps, key)[0])

    np.testing.assert_array_equal(run(None), run(None))
    np.testing.assert_array_equal(run(jax.random.key(1)), run(jax.random.key(1)))
    assert not np.allclose(run(jax.random.key(1)), run(jax.random.key(2)))


def _small_dense():
    """The dense layers, all 512 x 49 inputs of which are the same for a map of one pixel."""
    from bayestl.pretrained._layers import Layers
    from bayestl.pretrained._vgg import Dense

    return Dense(Layers(nnx.Rngs(0), None), nnx.Rngs(1))
