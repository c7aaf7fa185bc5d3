"""How far parameters are from the mode of a linear network, against the closed form."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayestl as btl

RNG = np.random.default_rng(2)


@pytest.mark.x64
def test_it_is_the_difference_of_log_joints_for_a_linear_network():
    """Ridge regression with weights and kappa in numpy: the loss at some parameters less its least value. The prior's
    variances differ by a factor of 1e4; three parameters are three iterations."""
    design, targets, weights = RNG.normal(size=(8, 3)), RNG.normal(size=8), RNG.uniform(0.5, 2.0, 8)
    variances, noise, kappa = np.array([1e-2, 1.0, 1e2]), 0.5, 1.7
    net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(3)})
    prior = btl.gaussians.diagonal({"w": jnp.asarray(RNG.normal(size=3))}, {"w": jnp.asarray(variances)})
    joint = btl.LogJoint(net, btl.likelihoods.normal(noise), prior, num_data=8, kappa=kappa)
    batch = btl.Batch(jnp.asarray(design), jnp.asarray(targets), jnp.asarray(weights))
    at, mean = RNG.normal(size=3), np.asarray(prior.mean["w"])
    weighted = kappa * design.T * weights / noise**2

    def loss(w: np.ndarray) -> float:
        residual = targets - design @ w
        return 0.5 * (kappa * weights @ residual**2 / noise**2 + (w - mean) @ ((w - mean) / variances))

    mode = np.linalg.solve(weighted @ design + np.diag(1 / variances), weighted @ targets + mean / variances)
    gain = btl.tune.remaining_gain(joint, {"w": jnp.asarray(at)}, batch)
    assert gain == pytest.approx(loss(at) - loss(mode), rel=1e-9)
    assert btl.tune.remaining_gain(joint, {"w": jnp.asarray(mode)}, batch) < 1e-20
    # From below, with fewer iterations.
    few = [btl.tune.remaining_gain(joint, {"w": jnp.asarray(at)}, batch, iterations=n) for n in (1, 2)]
    assert few[0] < few[1] < gain


def test_a_path_says_where_its_steps_end_before_the_mode():
    design = jnp.asarray(RNG.normal(size=(8, 3)), jnp.float32)
    net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(3)})
    joint = btl.LogJoint(net, btl.likelihoods.normal(0.1), None, num_data=8)
    batch = btl.Batch(design, design @ jnp.ones(3))
    family = btl.tune.isotropic_family("decay", net.params)
    notes = [
        btl.tune.path(
            jax.random.key(0), joint, [family], batch, [0.0], btl.tune.validation(batch), steps=steps
        ).unfinished
        for steps in (1, 200)
    ]
    assert "'decay' has not come to its mode" in notes[0][0]
    assert notes[1] == ()


def test_priors_that_are_no_gaussians_are_refused():
    net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(3)})
    joint = btl.LogJoint(net, btl.likelihoods.normal(0.1), None, num_data=8)
    with pytest.raises(TypeError, match="in units of a Gaussian prior"):
        btl.tune.remaining_gain(joint, net.params, btl.Batch(jnp.ones((8, 3)), jnp.ones(8)))
