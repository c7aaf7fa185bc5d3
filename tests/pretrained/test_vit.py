"""Vision transformers against timm."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from originals import assert_same, loaded, outputs, pictures, skeleton, timm, torch_arrays, torch_outputs

from bayestl import pretrained, tree
from bayestl.pretrained import tables

BOTH = pytest.mark.parametrize(
    ("make", "table", "original", "parameters"),
    [
        (pretrained.vit_ti16, tables.VIT_TI16, "vit_tiny_patch16_224", 5_717_416),
        (pretrained.vit_b16, tables.VIT_B16, "vit_base_patch16_224", 86_567_656),
    ],
    ids=["vit_ti16", "vit_b16"],
)


@BOTH
def test_outputs_are_those_of_timm(make, table, original, parameters):
    model = timm().create_model(original, pretrained=False, img_size=64)
    arrays = torch_arrays(model)
    inputs = pictures(64)
    net = loaded(make, arrays, table, image_size=64)
    assert_same(outputs(net, inputs), torch_outputs(model, inputs))
    body, _ = net.split("pool")
    features = torch_outputs(lambda x: model.forward_head(model.forward_features(x), pre_logits=True), inputs)
    assert_same(outputs(body, inputs), features)


@BOTH
def test_size(make, table, original, parameters):
    params = tree.by_paths(nnx.state(skeleton(make), nnx.Param))
    assert sum(np.prod(leaf.shape) for leaf in params.values()) == parameters  # as timm publishes it
    assert {entry.path for entry in table.values() if entry} == set(params)


def test_half_precision_computes_and_float32_comes_out():
    def run(dtype):
        net = pretrained.vit_ti16(jax.random.key(0), num_classes=3, image_size=32, cut="block1", dtype=dtype)
        return outputs(net, pictures(32))

    half, single = run(jnp.bfloat16), run(None)
    assert half.dtype == np.float32
    error = np.abs(half - single).max() / np.abs(single).max()
    assert 1e-4 < error < 0.05  # bfloat16 keeps 8 bits, and two blocks add up


def test_refusals():
    with pytest.raises(ValueError, match="image_size is 100; give a multiple of 16"):
        pretrained.vit_ti16(jax.random.key(0), image_size=100)
    with pytest.raises(ValueError, match=r"image_size is 0; give an integer >= 1"):
        pretrained.vit_b16(jax.random.key(0), image_size=0)
    net = skeleton(pretrained.vit_ti16, image_size=64)
    with pytest.raises(ValueError, match=r"inputs have shape \(2, 32, 64, 3\); this network takes .* 64 x 64 pixels"):
        jax.eval_shape(lambda: net(jnp.zeros((2, 32, 64, 3))))
