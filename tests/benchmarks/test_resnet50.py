"""The accelerator benchmark, as far as a CPU can follow it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

import bayestl as btl
from benchmarks import resnet50


def test_operations_are_those_that_are_published():
    # 4.1e9 multiply-adds at 224 x 224 (torchvision's table of classification weights), two operations each.
    net = jax.eval_shape(resnet50.network)
    net = btl.Net(net.params, net.state, net.apply)
    assert btl.tree.size(net.params) == 25_557_032
    assert resnet50.forward_operations(net, 224) == pytest.approx(2 * 4.09e9, rel=0.03)


@pytest.mark.slow
def test_rows():
    (row,) = resnet50.rows(1, batch_size=2, size=32, steps=1)
    assert row["ratio"] > 0
    assert row["pictures_per_second"] > 0
    assert row["share_of_peak"] is None or row["share_of_peak"] < 1
    assert jnp.isfinite(row["operations_per_picture"])
