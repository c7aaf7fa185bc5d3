"""CIFAR ResNets: what the published checkpoints are known to do, and the option A shortcut."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from originals import skeleton

from bayestl import nets, pretrained, tree
from bayestl.pretrained import tables
from bayestl.pretrained._cifar_resnet import Block
from bayestl.pretrained._layers import Layers

MEAN, STD = np.array((0.485, 0.456, 0.406)), np.array((0.229, 0.224, 0.225))
NETWORKS = {
    20: (pretrained.cifar_resnet20, tables.CIFAR_RESNET20, 269_722),
    56: (pretrained.cifar_resnet56, tables.CIFAR_RESNET56, 853_018),
}


@pytest.fixture(scope="module")
def fifth() -> list:
    """A place for the pictures, which are decoded once."""
    return []


def every_fifth_test_picture(archive: Path, place: list) -> tuple[np.ndarray, np.ndarray]:
    from PIL import Image

    if not place:
        with tarfile.open(archive) as tar:
            jpegs = {m.name: tar.extractfile(m).read() for m in tar if m.name.startswith("test/") and m.isfile()}
        classes = sorted({name.split("/")[1] for name in jpegs})
        names = [n for c in classes for n in sorted(n for n in jpegs if n.split("/")[1] == c)[::5]]
        pictures = np.stack([np.asarray(Image.open(io.BytesIO(jpegs[name])).convert("RGB")) for name in names])
        place.append(((pictures / 255 - MEAN) / STD).astype(np.float32))
        place.append(np.array([classes.index(name.split("/")[1]) for name in names]))
    return place[0], place[1]


@pytest.mark.representative("20-0.8045-0.887")
@pytest.mark.parametrize(("depth", "accuracy", "nll"), [(20, 0.8045, 0.887), (56, 0.8415, 0.916)])
def test_published_accuracy_and_nll(data_dir, fifth, depth, accuracy, nll):
    pictures, classes = every_fifth_test_picture(data_dir / "cifar10_jpeg.tar.gz", fifth)
    assert len(pictures) == 2000
    make, table, _ = NETWORKS[depth]
    arrays = pretrained.read(data_dir / f"resnet{depth}_cifar10.safetensors").arrays
    loaded, report = pretrained.load(skeleton(make), arrays, table)
    assert len(report.mapped) == len(arrays)
    net = nets.from_nnx(loaded)
    run = jax.jit(lambda x: jax.nn.log_softmax(net(net.params, x)))
    log_probabilities = np.concatenate([run(pictures[start : start + 250]) for start in range(0, 2000, 250)])
    assert abs((log_probabilities.argmax(axis=1) == classes).mean() - accuracy) <= 0.0005  # one picture of 2000
    found = -log_probabilities[np.arange(2000), classes].astype(float).mean()
    assert abs(found - nll) < 0.0006  # published to three digits


@pytest.mark.parametrize("depth", [20, 56])
def test_size(depth):
    make, table, parameters = NETWORKS[depth]
    net = skeleton(make)
    params, statistics = (tree.by_paths(nnx.state(net, kind)) for kind in (nnx.Param, nnx.BatchStat))
    assert sum(np.prod(leaf.shape) for leaf in params.values()) == parameters  # as published
    assert {entry.path for entry in table.values() if entry} == {*params, *statistics}


def test_shortcut_takes_every_other_pixel_and_new_channels_are_zero():
    block = Block(Layers(nnx.Rngs(0), None), 4, 8)
    block.conv2.kernel.set_value(jnp.zeros_like(block.conv2.kernel[...]))  # the shortcut alone is left
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 4)).astype(np.float32)
    expected = np.zeros((2, 3, 3, 8), np.float32)
    expected[..., 2:6] = np.maximum(x[:, [0, 2, 4]][:, :, [0, 2, 4]], 0)
    np.testing.assert_array_equal(block(jnp.asarray(x)), expected)
