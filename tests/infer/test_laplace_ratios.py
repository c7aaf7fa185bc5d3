"""Laplace in float32 where the data outweigh the prior by far, against closed forms in numpy's float64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayestl as btl
from bayestl import curvature

KEY, NOISE = jax.random.key(0), 0.125
MORE_DATA, MORE_PARAMETERS = (6, 20), (10, 4)
slow = pytest.mark.slow
CASES = [
    pytest.param(curvature.dual(), MORE_DATA, id="dual, more data"),
    pytest.param(curvature.low_rank(6), MORE_DATA, marks=slow, id="low rank, more data"),
    pytest.param(curvature.dense(), MORE_PARAMETERS, id="dense, more parameters"),
    pytest.param(curvature.kronecker(), MORE_PARAMETERS, id="kronecker, more parameters"),
    pytest.param(curvature.dense(), MORE_DATA, marks=slow, id="dense, more data"),
    pytest.param(curvature.kronecker(), MORE_DATA, marks=slow, id="kronecker, more data"),
    pytest.param(curvature.dual(), MORE_PARAMETERS, marks=slow, id="dual, more parameters"),
    pytest.param(curvature.low_rank(4), MORE_PARAMETERS, marks=slow, id="low rank, more parameters"),
    pytest.param(curvature.diagonal(), MORE_DATA, marks=slow, id="diagonal, more data"),
]


def _problem(shape, ratio):
    """A log joint of ``y = X w + noise``, its mode and data; X and the prior's scale such that the data outweigh it by
    ``ratio`` in one direction, and by 1e-3 of that in another."""
    size, num = shape
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(num, size)) * np.logspace(0, -1, size)).astype(np.float32)
    y = rng.normal(size=num).astype(np.float32)
    wide = x.astype(np.float64)
    scale = float(np.float32(NOISE * np.sqrt(ratio) / np.linalg.norm(wide, 2)))
    net = btl.nets.from_function(lambda p, x: (x @ p["w"])[:, 0], {"w": jnp.zeros((size, 1))})
    prior = btl.gaussians.isotropic(net.params, scale=scale)
    joint = btl.LogJoint(net, btl.likelihoods.normal(NOISE), prior, num_data=num)
    precision = wide.T @ wide / NOISE**2 + np.eye(size) / scale**2
    mode = np.linalg.solve(precision, wide.T @ y / NOISE**2)
    total = NOISE**2 * np.eye(num) + scale**2 * wide @ wide.T
    evidence = -0.5 * (num * np.log(2 * np.pi) + np.linalg.slogdet(total)[1] + y @ np.linalg.solve(total, y))
    return joint, {"w": jnp.asarray(mode, jnp.float32)[:, None]}, btl.data.arrays(x, y), precision, evidence


@pytest.mark.parametrize(("builder", "shape"), CASES)
def test_variances_and_evidence_keep_their_digits(builder, shape):
    for ratio in (1e2, 1e6, 1e9):
        joint, mode, data, precision, evidence = _problem(shape, ratio)
        posterior = btl.infer.laplace(KEY, joint, mode, data, curvature=builder)
        is_diagonal = builder == curvature.diagonal()
        variances = 1 / np.diag(precision) if is_diagonal else np.diag(np.linalg.inv(precision))
        # Singular values are off by 1e-7 of the largest, which is 30 times the least, so variances by 2e-6 of 30^2.
        np.testing.assert_allclose(posterior.variance["w"][:, 0], variances, rtol=2e-3)
        sign, log_det = np.linalg.slogdet(precision)
        log_det = np.sum(np.log(np.diag(precision))) if is_diagonal else sign * log_det
        np.testing.assert_allclose(posterior.log_det_covariance(), -log_det, atol=2e-3)
        if not is_diagonal:
            # The log likelihood at the mode is itself of the order of 100 nats, in float32.
            found = btl.infer.log_evidence(KEY, joint, mode, data, curvature=builder)
            np.testing.assert_allclose(found, evidence, atol=1e-2)


def test_a_ratio_beyond_all_digits_is_refused_by_name():
    joint, mode, data, _, _ = _problem(MORE_PARAMETERS, 1e17)
    with pytest.raises(ValueError, match=r"the data outweigh the prior by 1\.\de\+17"):
        btl.infer.laplace(KEY, joint, mode, data)


def test_evidence_in_float32_has_its_gradient():
    joint, mode, data, _, _ = _problem(MORE_PARAMETERS, 1e2)

    def evidence(log_factor):
        tuned = joint.replace(prior=joint.prior.rescale(jnp.exp(log_factor)))
        return btl.infer.log_evidence(KEY, tuned, mode, data)

    found = jax.vmap(jax.grad(evidence))(jnp.zeros(2))
    x, _ = (np.asarray(z, np.float64) for z in (data.resident().inputs, data.resident().targets))
    scale2 = float(joint.prior.variance["w"][0, 0])
    gained = np.linalg.eigvalsh(x @ x.T) * scale2 / NOISE**2
    quadratic = float(np.sum(np.asarray(mode["w"], np.float64) ** 2)) / scale2
    np.testing.assert_allclose(found, 0.5 * quadratic - 0.5 * np.sum(gained / (1 + gained)), rtol=1e-4)


def test_the_evidence_of_all_scales_keeps_its_digits():
    """The data outweigh the prior 1e10-fold in one direction and 100-fold in another: of a Gram matrix in float32
    nothing of the second would be left."""
    rng = np.random.default_rng(0)
    x = (np.linalg.qr(rng.normal(size=(20, 6)))[0] * np.logspace(0, -4, 6)).astype(np.float32)
    y = rng.normal(size=20).astype(np.float32)
    scale = NOISE * 1e5
    params = {"a": jnp.zeros(3), "b": jnp.zeros(3)}
    net = btl.nets.from_function(lambda p, x: x @ jnp.concatenate([p["a"], p["b"]]), params)
    prior = btl.gaussians.isotropic(net.params, scale=scale)
    joint = btl.LogJoint(net, btl.likelihoods.normal(NOISE), prior, num_data=20)
    evidence = btl.infer.scale_evidence(KEY, joint, params, btl.data.arrays(x, y))

    def log_det(log_factors):
        variances = scale**2 * np.exp(np.repeat(log_factors, 3))
        return np.linalg.slogdet(np.eye(20) + (x.astype(np.float64) * variances) @ x.T / NOISE**2)[1]

    at, other = np.zeros(2), np.array([2.0, -3.0])
    # At zero parameters the prior's quadratic is 0, so what changes is the determinant. Singular values are off by some
    # 1e-7 of 1e5, where the least of 1 + s^2 is 100: 0.01 in s of 10, so 0.002 of a nat.
    change = float(evidence(jnp.asarray(other)) - evidence(jnp.asarray(at)))
    np.testing.assert_allclose(change, -0.5 * (log_det(other) - log_det(at)), atol=4e-3)
    # Half a nat of evidence for every direction that the data determine.
    np.testing.assert_allclose(jax.grad(evidence)(jnp.zeros(2)), [-1.5, -1.5], atol=2e-2)
