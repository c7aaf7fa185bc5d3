"""Targets that a stream reads are checked in every block, whoever passes over them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import bayestl as btl
from bayestl.training._loop import check_of_blocks

KEY = jax.random.key(0)
NUM, BAD = 90, 83
LABELS = np.arange(NUM) % 3
LABELS[BAD] = -1  # far beyond the first 64, which are looked at before a run
STREAM = btl.data.stream([*zip(np.ones((NUM, 2), np.float32), LABELS, strict=True)], lambda record: record)
NET = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros((2, 3))})
JOINT = btl.LogJoint(NET, btl.likelihoods.categorical(), btl.gaussians.isotropic(NET.params, 1.0), num_data=NUM)
MESSAGE = rf"1 of \d+ targets lie outside .* from -1 to 2, valid is 0 to 2; .*the first is in row {BAD}\)"


def test_a_run_ends_where_it_reads_a_label_outside_the_classes():
    method = btl.infer.map_estimate(JOINT, optax.sgd(0.1))
    with pytest.raises(ValueError, match=MESSAGE):
        btl.fit(KEY, method, NET.params, STREAM, epochs=1, batch_size=30, progress=False)
    data = btl.data.arrays(jnp.ones((NUM, 2)), jnp.zeros(NUM, int))
    with pytest.raises(ValueError, match=MESSAGE):
        btl.fit(KEY, method, NET.params, data, steps=1, batch_size=30, validate=STREAM, every=1, progress=False)


def test_a_pass_ends_where_it_reads_a_label_outside_the_classes():
    for kind in (btl.curvature.ggn, btl.curvature.empirical_fisher):
        with pytest.raises(ValueError, match=MESSAGE):
            btl.infer.laplace(KEY, JOINT, NET.params, STREAM, kind=kind, batch_size=30)
    # The check belongs to that call: other targets may be meant for another likelihood.
    passes = btl.passes.batches(STREAM, 45)
    total = jax.jit(lambda passes: passes.sum(KEY, lambda key, batch: jnp.sum(batch.targets)))
    assert passes.run(total, passes) == LABELS.sum()


def test_only_targets_that_reach_the_likelihood_as_they_are_read_are_checked():
    def check(targets, rows):
        raise AssertionError

    def relabelled(key, batch):
        return batch._replace(targets=jnp.maximum(batch.targets, 0))

    def brighter(key, batch):
        return batch._replace(inputs=2 * batch.inputs)

    assert check_of_blocks(check, STREAM, None) is check
    assert check_of_blocks(check, STREAM, brighter) is check
    assert check_of_blocks(check, STREAM, relabelled) is None
    assert check_of_blocks(check, btl.data.arrays(jnp.ones((3, 2)), jnp.arange(3)), None) is None
