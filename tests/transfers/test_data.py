"""How the target's examples decide what is left out, and how dear a step may be."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

import bayestl as btl
from bayestl.transfers._data import plan_for

NET = btl.nets.mlp(jax.random.key(0), (4, 3))
INPUTS = np.asarray(jax.random.normal(jax.random.key(1), (150, 4)))


def plan(num: int, num_parameters: int) -> object:
    joint = btl.LogJoint(NET, btl.likelihoods.categorical(), None, num_data=num)
    batch = btl.Batch(jnp.asarray(INPUTS[:num]), jnp.arange(num) % 3)
    return plan_for(jax.random.key(2), joint, NET(NET.params, batch.inputs), batch, num_parameters)


def test_many_parameters_and_examples_are_seen_in_batches_and_a_fifth_is_left_out():
    large = plan(150, 2_000_000)
    assert (large.batch_size, large.num_scales) == (64, 7)
    groups = large.criterion.groups
    assert np.bincount(groups + 1).tolist() == [120, 30]
    np.testing.assert_array_equal(np.bincount((np.arange(150) % 3)[groups == 0]), [10, 10, 10])
    assert "A fifth of the examples, 30, left out once" in large.name


def test_few_of_one_are_seen_whole():
    for few in (plan(150, 15), plan(60, 2_000_000)):
        assert few.batch_size is None
    assert plan(60, 2_000_000).num_scales == 7
    assert plan(150, 15).num_scales == 13


def test_a_transfer_whose_steps_see_batches():
    net = btl.nets.mlp(jax.random.key(5), (4, 8, 3))
    source = btl.nets.mlp(jax.random.key(6), (4, 8, 3))
    train = btl.Batch(jnp.asarray(INPUTS), jnp.argmax(source(source.params, INPUTS), -1))
    result = btl.transfer(
        *(jax.random.key(7), net, source, train, btl.likelihoods.categorical()),
        criterion=btl.tune.k_fold(np.where(np.arange(150) < 30, 0, -1)),
        num_scales=3,
        steps=20,
        batch_size=32,
    )
    assert sum(row.weight for row in result.trust if row.kind == "source") > 0.9, result
    assert result.steps == len(result.trust) * 3 * 20 * 2
