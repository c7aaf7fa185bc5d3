"""How the target's examples decide what is left out, and how dear a step may be."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import bayestl as btl
from bayestl.transfers._data import Plan, plan_for

LINEAR = btl.nets.mlp(jax.random.key(0), (4, 3))
INPUTS = np.asarray(jax.random.normal(jax.random.key(1), (150, 4)))


def plan(num: int, net: btl.Net = LINEAR, unused: int = 0) -> Plan:
    """Of a network with ``unused`` parameters more than it needs, on 3 classes."""
    params = {"net": net.params, "unused": jnp.zeros(unused)}
    whole = btl.nets.from_function(lambda p, x: net(p["net"], x), params)
    joint = btl.LogJoint(whole, btl.likelihoods.categorical(), None, num_data=num)
    batch = btl.Batch(jnp.asarray(INPUTS[:num]), jnp.arange(num) % 3)
    return plan_for(jax.random.key(2), joint, whole(params, batch.inputs), batch, params)


def test_many_parameters_and_examples_are_seen_in_batches_and_a_fifth_is_left_out():
    large = plan(150, unused=2_000_000)
    assert (large.batch_size, large.num_scales) == (64, 7)
    groups = large.criterion.groups
    assert np.bincount(groups + 1).tolist() == [120, 30]
    np.testing.assert_array_equal(np.bincount((np.arange(150) % 3)[groups == 0]), [10, 10, 10])
    assert "A fifth of the examples, 30, left out once" in large.name


def test_few_of_one_are_seen_whole():
    for few in (plan(150), plan(60, unused=2_000_000)):
        assert few.batch_size is None
    assert plan(60, unused=2_000_000).num_scales == 7
    assert plan(150).num_scales == 13


def smooth(params: Any, x: Any) -> Any:
    """A convolution over the inputs, and a head."""
    return jnp.tanh(jax.vmap(lambda row: jnp.convolve(row, params["kernel"], "same"))(x)) @ params["head"]


def test_the_closed_form_is_for_outputs_linear_in_the_parameters_and_for_convolutions():
    hidden = btl.nets.mlp(jax.random.key(0), (4, 5, 3))
    convolution = btl.nets.from_function(smooth, {"kernel": jnp.ones(3), "head": jnp.ones((4, 3))})
    # Linear in the parameters, though not in the inputs.
    features = btl.nets.from_function(lambda p, x: jnp.tanh(x) @ p["w"] + p["b"], {"w": jnp.ones((4, 3)), "b": 1.0})
    for net in (LINEAR, features, convolution):
        assert isinstance(plan(45, net).criterion, btl.tune.LeaveOut)
    refitted, closed = plan(45, hidden).criterion, plan(45).criterion
    assert isinstance(refitted, btl.tune.KFold)
    np.testing.assert_array_equal(refitted.left_out, closed.left_out)
    assert closed.left_out.max() == 9
    # Each group costs a fit, and with more examples fewer do.
    assert plan(60, hidden).criterion.left_out.max() == 4
    assert plan(60).criterion.left_out.max() == 9
    # A pass over 45 examples takes 45 x 2 x 600 x 600 operations, and more.
    wide = btl.nets.mlp(jax.random.key(0), (4, 600, 600, 3))
    assert isinstance(plan(45, wide).criterion, btl.tune.LeaveOut)
    # Where its matrices would be large, fits are cheaper.
    assert isinstance(plan(150, unused=10).criterion, btl.tune.LeaveOut)
    many = btl.nets.mlp(jax.random.key(0), (4, 5))
    assert isinstance(plan(150, many).criterion, btl.tune.KFold)


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
