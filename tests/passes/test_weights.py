"""Weight 2 is the row twice: in losses, log joints, curvature, evidence and importance weights."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayestl as btl
from bayestl import curvature

KEY = jax.random.key(0)
COUNTS = np.array([2, 1, 3, 0, 1])
TWICE = np.repeat(np.arange(len(COUNTS)), COUNTS)
INPUTS = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
TARGETS = np.array([0, 2, 1, 1, 2])
WEIGHTED = btl.Batch(jnp.asarray(INPUTS), jnp.asarray(TARGETS), jnp.asarray(COUNTS, jnp.float32))
REPEATED = btl.Batch(jnp.asarray(INPUTS[TWICE]), jnp.asarray(TARGETS[TWICE]))
NET = btl.nets.mlp(jax.random.key(3), (3, 4, 3))
JOINT = btl.LogJoint(NET, btl.likelihoods.categorical(), btl.gaussians.isotropic(NET.params, 1.0), num_data=len(TWICE))
RTOL = 2e-5  # the same float32 sums, of at most 7 terms, in another order


def assert_close(ours: Any, theirs: Any) -> None:
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(x, y, rtol=RTOL, atol=RTOL * np.max(np.abs(y)))


def test_the_variance_of_a_straight_line_is_that_of_the_closed_form():
    # One weight, inputs 1, 2, 3 of weights 2, 1, 3, noise 1, prior variance 1: 1 / (1 + 2 * 1 + 1 * 4 + 3 * 9).
    net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(1)})
    joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), btl.gaussians.isotropic(net.params, 1.0), num_data=6)
    batch = btl.Batch(jnp.array([[1.0], [2.0], [3.0]]), jnp.zeros(3), jnp.array([2.0, 1.0, 3.0]))
    posterior = btl.infer.laplace(KEY, joint, net.params, batch)
    np.testing.assert_allclose(posterior.variance["w"], [1 / 34], rtol=1e-6)


def test_losses_and_log_joints():
    for function in (lambda p, b: JOINT(p, b), lambda p, b: JOINT.loss(p, b)[0]):
        assert_close(*(jax.value_and_grad(function)(NET.params, batch) for batch in (WEIGHTED, REPEATED)))


@pytest.mark.representative(
    *("dense-ggn", "dual-ggn", "kronecker-empirical", "kronecker, bias apart-ggn", "diagonal-empirical", "low rank-ggn")
)
@pytest.mark.parametrize("kind", [curvature.ggn, curvature.empirical_fisher], ids=["ggn", "empirical"])
@pytest.mark.parametrize(
    "structure",
    [
        curvature.dense(),
        curvature.dual(),
        curvature.kronecker(),
        curvature.kronecker(bias=curvature.separate),
        curvature.diagonal(),
        curvature.low_rank(4),
    ],
    ids=["dense", "dual", "kronecker", "kronecker, bias apart", "diagonal", "low rank"],
)
def test_curvatures(structure, kind):
    settings: Any = {"curvature": structure, "kind": kind, "batch_size": 2}
    weighted, repeated = (
        btl.infer.laplace(KEY, JOINT, NET.params, batch, **settings).variance for batch in (WEIGHTED, REPEATED)
    )
    assert_close(weighted, repeated)


def test_evidence():
    settings: Any = {"batch_size": 2}
    for evidence in (
        lambda batch: btl.infer.log_evidence(KEY, JOINT, NET.params, batch, **settings),
        lambda batch: btl.infer.scale_evidence(KEY, JOINT, NET.params, batch, **settings)(jnp.ones(4)),
    ):
        assert_close(evidence(WEIGHTED), evidence(REPEATED))


def test_diagnostics():
    posterior = btl.infer.laplace(KEY, JOINT, NET.params, REPEATED, curvature=curvature.diagonal())
    draws = posterior.sample(KEY, 3)
    assert_close(
        *(
            btl.diagnostics.log_importance_weights(JOINT, posterior, draws, batch, batch_size=2)
            for batch in (WEIGHTED, REPEATED)
        )
    )
    weighted, repeated = (
        btl.diagnostics.left_out(KEY, JOINT, posterior, batch, batch_size=2) for batch in (WEIGHTED, REPEATED)
    )
    np.testing.assert_allclose(weighted, repeated, rtol=1e-4)  # eigenvalues by Lanczos in float32


def test_negative_weights_are_refused():
    bad = WEIGHTED._replace(weights=-jnp.asarray(COUNTS, jnp.float32))
    for call in (
        lambda: JOINT(NET.params, bad),
        lambda: JOINT.loss(NET.params, bad),
        lambda: JOINT.check(NET.params, *bad),
        lambda: btl.infer.laplace(KEY, JOINT, NET.params, bad),
        lambda: btl.infer.log_evidence(KEY, JOINT, NET.params, bad),
    ):
        with pytest.raises(ValueError, match=r"weights has negative or non-finite values \(4 of 5\)"):
            call()
