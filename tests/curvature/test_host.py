"""Curvature of data that are read, not held: the same as of the same examples in memory."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from functools import partial
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

import bayestl as btl
from bayestl import curvature

KEY = jax.random.key(0)
NUM = 75  # more than the examples that are looked at first, and no multiple of the batch size
BUILDERS = {
    "dense": curvature.dense(),
    "dual": curvature.dual(),
    "low rank": curvature.low_rank(4),
    "kronecker": curvature.kronecker(),
    "diagonal": curvature.diagonal(),
}
INPUTS = np.random.default_rng(0).normal(size=(NUM, 3)).astype(np.float32)
TARGETS = np.random.default_rng(1).integers(0, 3, NUM)
RESIDENT = btl.data.arrays(INPUTS, TARGETS)


class Records:
    """Examples that count how often they are read; some of them can be broken."""

    def __init__(self):
        self.read: list[int] = []
        self.broken: set[int] = set()

    def __len__(self) -> int:
        return NUM

    def __getitem__(self, row: int) -> tuple:
        if row in self.broken:
            raise OSError("bad block")
        self.read.append(row)
        return INPUTS[row], TARGETS[row]


def streamed(source: Any = None) -> Any:
    return btl.data.stream(Records() if source is None else source, lambda record: record, num_threads=3)


def problem(apply: Any = None) -> tuple[btl.LogJoint, Any]:
    net = btl.nets.mlp(jax.random.key(3), (3, 4, 3))
    net = net if apply is None else btl.nets.from_function(apply, net.params)
    prior = btl.gaussians.isotropic(net.params, 1.0)
    return btl.LogJoint(net, btl.likelihoods.categorical(), prior, num_data=NUM), net.params


def _directions(like: Any) -> Any:
    """Every parameter by itself, leaves (D, *shape)."""
    flat, unravel = jax.flatten_util.ravel_pytree(like)
    return jax.vmap(unravel)(jnp.eye(flat.size, dtype=flat.dtype))


def assert_close(found: Any, wanted: Any):
    """The same sums in the same order, by two programs: equal up to rounding, and up to the signs of eigenvectors."""
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    if isinstance(found, btl.gaussians.LowRank):
        found, wanted = ((g.mean, jax.vmap(g.covariance_mv)(_directions(g.mean))) for g in (found, wanted))
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5 * np.max(np.abs(y)))


@pytest.mark.representative("low rank-ggn", "dual-ggn", "kronecker-ggn", "dense-empirical", "diagonal-empirical")
@pytest.mark.parametrize("kind", [curvature.ggn, curvature.empirical_fisher], ids=["ggn", "empirical"])
@pytest.mark.parametrize("name", BUILDERS)
def test_the_posterior_is_that_of_the_same_examples_in_memory(name, kind):
    joint, params = problem()
    settings = {"curvature": BUILDERS[name], "kind": kind, "batch_size": 16}
    found = btl.infer.laplace(KEY, joint, params, streamed(), **settings)
    assert_close(found, btl.infer.laplace(KEY, joint, params, RESIDENT, **settings))


@pytest.mark.parametrize("name", ["dense", "kronecker"])
def test_the_evidence_and_its_gradient_are_too(name):
    joint, params = problem()

    def evidence(scale, data):
        scaled = joint.replace(prior=joint.prior.rescale(scale))
        return btl.infer.log_evidence(KEY, scaled, params, data, curvature=BUILDERS[name], batch_size=16)

    assert_close(jax.value_and_grad(evidence)(2.0, streamed()), jax.value_and_grad(evidence)(2.0, RESIDENT))


def test_the_evidence_of_all_scales_is_too():
    joint, params = problem()
    found, wanted = (
        btl.infer.scale_evidence(KEY, joint, params, data, batch_size=16)(jnp.ones(4))
        for data in (streamed(), RESIDENT)
    )
    assert_close(found, wanted)


def test_sampled_labels_and_a_part_of_the_parameters():
    joint, params = problem()
    settings: Any = {"kind": curvature.fisher(2), "selection": "head/**", "batch_size": 16}
    found = btl.infer.laplace(KEY, joint, params, streamed(), **settings)
    assert_close(found, btl.infer.laplace(KEY, joint, params, RESIDENT, **settings))


def test_one_program_serves_all_calls_with_a_stream():
    traced = []

    def apply(params, inputs):
        traced.append(None)
        hidden = jnp.tanh(inputs @ params["dense_0"]["kernel"] + params["dense_0"]["bias"])
        return hidden @ params["head"]["kernel"] + params["head"]["bias"]

    joint, params = problem(apply)
    data = streamed()

    def run(params):
        return btl.infer.laplace(KEY, joint, params, data, curvature=curvature.kronecker(), batch_size=16)

    before = run(params)
    first = len(traced)
    after = run(jax.tree.map(lambda x: 1.1 * x, params))
    # The shapes of the outputs are looked at anew, before any program runs.
    assert len(traced) - first < 3 < first
    assert np.any(jax.tree.leaves(before.variance)[0] != jax.tree.leaves(after.variance)[0])
    assert_close(jax.jit(lambda params: run(params).variance)(params), before.variance)


def test_it_passes_over_the_data_once_where_that_is_enough():
    source = Records()
    data, (joint, params) = streamed(source), problem()
    looked_at = 64
    for builder in (curvature.dense(), curvature.diagonal()):
        source.read.clear()
        btl.infer.laplace(KEY, joint, params, data, curvature=builder, batch_size=16)
        assert len(source.read) == NUM + looked_at
        assert set(source.read) == set(range(NUM))


@pytest.mark.parametrize("kind", [curvature.ggn, curvature.empirical_fisher], ids=["ggn", "empirical"])
def test_products_read_the_data_again_only_where_the_linearised_network_does_not_fit(kind):
    source = Records()
    data, (joint, params) = streamed(source), problem()

    @partial(jax.jit, static_argnums=2)
    def twice(params, passes, max_bytes):
        product = curvature.product(joint, kind, params, KEY, passes, max_bytes)
        return product(product(params))

    found = []
    for max_bytes, times in ((10**6, 1), (0, 2)):
        passes = btl.passes.batches(data, 16)
        source.read.clear()
        found.append(jax.block_until_ready(twice(params, passes, max_bytes)))
        assert len(source.read) == times * NUM
    assert_close(*found)


def test_an_example_that_draws_is_the_same_in_every_pass():
    def example(record, rng):
        return record[0] + rng.normal(size=3).astype(np.float32), record[1]

    data = btl.data.stream(Records(), example)
    inputs, targets = data.rows(np.arange(NUM))
    np.testing.assert_array_equal(data.rows(np.arange(20, 30))[0], inputs[20:30])
    assert len(np.unique(inputs - INPUTS)) > NUM
    joint, params = problem()
    found = btl.infer.laplace(KEY, joint, params, data, batch_size=16)
    assert_close(found, btl.infer.laplace(KEY, joint, params, btl.data.arrays(inputs, targets), batch_size=16))


def test_what_cannot_be_read_is_named_and_a_later_call_starts_anew():
    source = Records()
    data, (joint, params) = streamed(source), problem()
    runs = {
        "laplace": lambda: btl.infer.laplace(KEY, joint, params, data, curvature=curvature.diagonal(), batch_size=16),
        "log_evidence": lambda: btl.infer.log_evidence(KEY, joint, params, data, batch_size=16),
        "scale_evidence": lambda: btl.infer.scale_evidence(KEY, joint, params, data, batch_size=16),
    }
    for run in runs.values():
        source.broken = {70}
        with pytest.raises(ValueError, match=r"^row 70 of the source cannot be read: OSError: bad block$"):
            run()
        source.broken = set()
        run()
    # In a program of one's own it is XLA's error, with the same words in it.
    source.broken = {70}
    mine = jax.jit(lambda params: curvature.diagonal()(KEY, joint, params, data, curvature.ggn, 16).diagonal)
    with pytest.raises(Exception, match="row 70 of the source cannot be read: OSError: bad block"):
        jax.block_until_ready(mine(params))


def test_neither_programs_nor_threads_hold_on_to_a_stream():
    data, (joint, params) = streamed(), problem()
    btl.infer.laplace(KEY, joint, params, data, curvature=curvature.diagonal(), batch_size=16)
    alive, data = weakref.ref(data), None
    gc.collect()
    assert alive() is None
    end = time.monotonic() + 20
    while any(thread.name.startswith(("bayestl-ahead", "bayestl-rows")) for thread in threading.enumerate()):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_stream_that_is_gone_is_named():
    passes = btl.passes.batches(streamed(), 16)
    gc.collect()
    with pytest.raises(RuntimeError, match="the data set that this program reads has been deleted; keep a reference"):
        next(iter(passes))
