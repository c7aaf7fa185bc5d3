"""ResNet-18 and ResNet-50 against torchvision and timm."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from originals import assert_same, loaded, outputs, pictures, skeleton, timm, torch_arrays, torch_outputs, torchvision

from bayestl import nets, pretrained, tree
from bayestl.pretrained import tables

BOTH = pytest.mark.parametrize("name", ["resnet18", "resnet50"])
TABLES = {"resnet18": tables.RESNET18, "resnet50": tables.RESNET50}
PARAMETERS = {"resnet18": 11_689_512, "resnet50": 25_557_032}  # as torchvision publishes them


@BOTH
def test_outputs_are_those_of_torchvision(name):
    original = getattr(torchvision().models, name)(weights=None)
    arrays = torch_arrays(original)
    net = loaded(getattr(pretrained, name), arrays, TABLES[name])
    inputs = pictures(70)  # not a multiple of 32: every stride meets an odd size somewhere
    assert_same(outputs(net, inputs), torch_outputs(original, inputs))


@BOTH
def test_features_are_those_of_timm(name):
    original = timm().create_model(name, pretrained=False, num_classes=0)
    arrays = torch_arrays(original)
    inputs = pictures(64)
    net = loaded(getattr(pretrained, name), arrays, TABLES[name], include_top=False)
    assert_same(outputs(net, inputs), torch_outputs(original, inputs))
    maps, _ = net.split("layer4")
    assert_same(outputs(maps, inputs), torch_outputs(original.forward_features, inputs))


@BOTH
def test_size(name):
    net = skeleton(getattr(pretrained, name))
    assert sum(np.prod(shape) for shape in _shapes(net, "param")) == PARAMETERS[name]
    rows = [entry for entry in TABLES[name].values() if entry]
    assert len({entry.path for entry in rows}) == len(rows) == len(_shapes(net, "param")) + len(_shapes(net, "state"))


def _shapes(net, kind):
    from flax import nnx

    wanted = nnx.Param if kind == "param" else nnx.BatchStat
    return [leaf.shape for leaf in tree.by_paths(nnx.state(net, wanted)).values()]


def test_half_precision_computes_and_float32_comes_out():
    original = torchvision().models.resnet18(weights=None)
    arrays = torch_arrays(original)
    half = loaded(pretrained.resnet18, arrays, tables.RESNET18, dtype=jnp.bfloat16)
    inputs = pictures(64)
    ours, theirs = outputs(half, inputs), torch_outputs(original, inputs)
    assert ours.dtype == np.float32
    assert {leaf.dtype for leaf in tree.by_paths(nets.from_nnx(half).params).values()} == {jnp.dtype("float32")}
    error = np.abs(ours - theirs).max() / np.abs(theirs).max()
    assert 1e-4 < error < 0.1  # bfloat16 keeps 8 bits, and twenty layers add up
