"""EWC and Laplace at the source on a linear-normal model, where everything has a closed form."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayestl as btl

RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(7, 3))
WEIGHTS = np.array([1.0, -2.0, 0.5])
NOISE, SCALE, STRENGTH = 0.5, 2.0, 3.0
KEY = jax.random.key(0)


def _net() -> btl.Net:
    return btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.asarray(WEIGHTS)})


def _prior(curvature=None, **options) -> btl.gaussians.Gaussian:
    data = btl.Batch(jnp.asarray(INPUTS), jnp.zeros(7))
    if curvature is not None:
        options["curvature"] = curvature
    return btl.sources.fisher(
        KEY, _net(), btl.likelihoods.normal(NOISE), data, scale=SCALE, strength=STRENGTH, **options
    )


HESSIAN = INPUTS.T @ INPUTS / NOISE**2


@pytest.mark.x64
def test_elastic_weight_consolidation_in_closed_form():
    """Precision strength sum_n x_nj^2 / noise^2 + 1 / scale^2; as a penalty the quadratic form of the paper."""
    prior = _prior()
    np.testing.assert_allclose(prior.mean["w"], WEIGHTS)
    expected = STRENGTH * np.diag(HESSIAN) + SCALE**-2
    np.testing.assert_allclose(1 / np.asarray(prior.variance["w"]), expected, rtol=1e-12)
    moved = WEIGHTS + np.array([0.1, 0.2, -0.3])
    fisher = np.diag(HESSIAN) / 7  # per example
    penalty = STRENGTH * 7 / 2 * np.sum(fisher * (moved - WEIGHTS) ** 2) + np.sum((moved - WEIGHTS) ** 2) / 8
    difference = prior.log_prob({"w": jnp.asarray(WEIGHTS)}) - prior.log_prob({"w": jnp.asarray(moved)})
    assert float(difference) == pytest.approx(penalty, rel=1e-12)


@pytest.mark.x64
@pytest.mark.parametrize(
    "curvature",
    [
        btl.curvature.kronecker(),
        pytest.param(btl.curvature.dense(), marks=pytest.mark.slow),
        pytest.param(btl.curvature.low_rank(3), marks=pytest.mark.slow),
    ],
    ids=["Kronecker", "dense", "low rank"],
)
def test_laplace_at_the_source_in_closed_form(curvature):
    """One layer of one output: its Kronecker product is the whole Hessian."""
    prior = _prior(curvature)
    precision = STRENGTH * HESSIAN + np.eye(3) / SCALE**2
    for row in np.eye(3):
        np.testing.assert_allclose(prior.precision_mv({"w": jnp.asarray(row)})["w"], precision @ row, rtol=1e-9)


@pytest.mark.x64
def test_strength_0_and_the_empirical_fisher():
    targets = jnp.asarray(RNG.normal(size=7))
    residuals = np.asarray(targets) - INPUTS @ WEIGHTS
    prior = btl.sources.fisher(
        KEY,
        _net(),
        btl.likelihoods.normal(NOISE),
        btl.Batch(jnp.asarray(INPUTS), targets),
        scale=SCALE,
        kind=btl.curvature.empirical_fisher,
    )
    gradients = INPUTS * residuals[:, None] / NOISE**2
    np.testing.assert_allclose(1 / np.asarray(prior.variance["w"]), np.sum(gradients**2, axis=0) + 0.25, rtol=1e-12)


def test_bad_input():
    with pytest.raises(ValueError, match="strength is -1"):
        btl.sources.fisher(
            KEY, _net(), btl.likelihoods.normal(1.0), btl.Batch(INPUTS, jnp.zeros(7)), scale=1.0, strength=-1
        )
    with pytest.raises(TypeError, match="random key"):
        btl.sources.fisher(_net(), _net(), btl.likelihoods.normal(1.0), btl.Batch(INPUTS, jnp.zeros(7)), scale=1.0)
