"""Convolutions as products against the originals."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest
from flax import nnx

import bayestl as btl


@pytest.mark.parametrize(
    "conv",
    [
        functools.partial(nnx.Conv, 6, 5, (1, 1)),
        functools.partial(nnx.Conv, 6, 5, (3, 3), 2, padding="SAME"),
        functools.partial(nnx.Conv, 6, 5, (3, 3), padding=((1, 1), (1, 1)), use_bias=False),
        functools.partial(nnx.Conv, 6, 5, (5, 3), (2, 1), padding="VALID"),
        functools.partial(nnx.Conv, 6, 6, (3, 3), 2, padding=((0, 1), (0, 1)), feature_group_count=6),
    ],
)
def test_products_are_the_convolutions(conv):
    class Module(nnx.Module):
        def __init__(self):
            self.conv = conv(rngs=nnx.Rngs(0))

        def __call__(self, x):
            return self.conv(x)

    module, x = Module(), jax.random.normal(jax.random.key(1), (2, 9, 8, 6))
    products = btl.pretrained.as_products(module)
    # Sums of at most 90 products in another order: some tens of roundings of float32.
    np.testing.assert_allclose(products(x), module(x), rtol=1e-4, atol=1e-5)
    nets = [btl.nets.from_nnx(each) for each in (module, products)]
    assert btl.tree.paths(nets[0].params) == btl.tree.paths(nets[1].params)


def test_products_refuse_what_they_do_not_do():
    grouped = btl.pretrained.Backbone({"a": nnx.Conv(6, 6, (3, 3), feature_group_count=2, rngs=nnx.Rngs(0))})
    with pytest.raises(ValueError, match=r"kernel \(3, 3, 3, 6\) is dilated or in groups.*keep the module"):
        btl.pretrained.as_products(grouped)
