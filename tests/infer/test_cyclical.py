"""Cyclical samplers: the exact law through whole cycles, which part of them is noisy, and which draws are kept."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import linear_gaussian as lg
import numpy as np
import pytest
import sampler_laws as laws

import bayestl as btl

LENGTH, EXPLORATION, CHAINS, FRICTION = 10, 0.6, 10_000, 0.25


def _cosine(peak: float, count: int) -> float:
    return peak / 2 * (np.cos(np.pi * (count % LENGTH) / LENGTH) + 1)


def _noisy(count: int) -> bool:
    return (count % LENGTH) / LENGTH >= EXPLORATION


# One cycle and a half, ended while exploring, and two whole ones.
@pytest.mark.x64
@pytest.mark.parametrize("steps", [15, 20])
def test_sgld_law(steps):
    problem, joint, target, _ = laws.case(lg.BY_NAME["low rank"], laws.Variant("plain"))
    # Below 2, where a noiseless step would leave no variance at all along the stiffest direction.
    peak = 1.5 / laws.largest(target, 1.0)
    sampler = btl.infer.cyclical_sgld(joint, peak, cycle_length=LENGTH, exploration=EXPLORATION, num_samples=1)
    draws, info = laws.run(sampler, problem, steps, CHAINS)
    path = [laws.sgld_step(target, _cosine(peak, count), noisy=_noisy(count)) for count in range(steps)]
    laws.assert_law(draws, laws.after(laws.known(np.zeros(laws.SIZE)), path))
    np.testing.assert_allclose(info.step_size, _cosine(peak, steps - 1), rtol=1e-6)


@pytest.mark.x64
def test_sghmc_law():
    problem, joint, target, P = laws.case(lg.BY_NAME["dense"], laws.Variant("preconditioned", preconditioned=True))
    peak = 1 / laws.largest(target, P)
    sampler = btl.infer.cyclical_sghmc(
        joint, peak, cycle_length=LENGTH, exploration=EXPLORATION, friction=FRICTION, num_samples=1,
        preconditioner=btl.infer.prior_preconditioner(joint.prior),
    )  # fmt: skip
    draws, _ = laws.run(sampler, problem, 20, CHAINS)
    path = [laws.sghmc_step(target, _cosine(peak, count), FRICTION, P, noisy=_noisy(count)) for count in range(20)]
    law = laws.after(laws.sghmc_start(np.zeros(laws.SIZE), peak, P), path)
    laws.assert_law(draws, law.theta(laws.SIZE))


@pytest.mark.x64
def test_exploring_is_gradient_descent_on_the_energy():
    # Without noise a step shows the energy's gradient, here from automatic differentiation of the log joint itself.
    problem, joint, _, _ = laws.case(lg.BY_NAME["low rank"], laws.Variant("", kappa=0.7, temperature=0.4))
    start = lg.tree(jnp.linspace(-1.0, 1.0, laws.SIZE))
    batch = btl.Batch(jnp.asarray(problem.inputs)[:5], jnp.asarray(problem.targets)[:5], jnp.array([1.0, 1, 0, 1, 1]))
    gradient = jax.grad(joint)(start, batch)
    sampler = btl.infer.cyclical_sgld(joint, 1e-3, cycle_length=10, num_samples=1)
    state, _ = sampler.step(jax.random.key(1), sampler.init(jax.random.key(0), start), batch)
    expected = jax.tree.map(lambda x, g: x + 0.5e-3 * g, start, gradient)
    np.testing.assert_allclose(lg.flat(state.params), lg.flat(expected), rtol=1e-12)


def _small() -> tuple[btl.LogJoint, Any, Any]:
    net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(3)})
    prior = btl.gaussians.isotropic(net.params, 1.0)
    rng = np.random.default_rng(0)
    data = btl.data.arrays(rng.normal(size=(12, 3)), rng.normal(size=12))
    return btl.LogJoint(net, btl.likelihoods.normal(1.0), prior, num_data=12), net.params, data


@pytest.mark.parametrize(
    ("exploration", "every", "kept"),
    [
        # Steps are counted from 1; a cycle is 1 to 10, the sampling part of 0.65 is steps 8 to 10.
        (0.65, 1, [8, 9, 10, 18, 19, 20]),
        (0.6, 2, [8, 10, 18, 20]),
        (0.0, 4, [2, 6, 10, 12, 16, 20]),
        (0.5, 7, [10, 20]),
    ],
)
def test_keeps_draws_of_the_sampling_part_alone(exploration, every, kept):
    joint, params, data = _small()
    sampler = btl.infer.cyclical_sgld(
        joint, 0.05, cycle_length=LENGTH, exploration=exploration, every=every, num_samples=9
    )
    path = []
    fitted = btl.fit(
        jax.random.key(0), sampler, params, data, steps=25, batch_size=5, chunk_size=1, progress=False,
        callbacks=[lambda event: path.append(np.asarray(event.state.params["w"]))],
    )  # fmt: skip
    # Steps 21 to 25 begin a third cycle, by exploring; without exploration it has a draw at 22.
    kept = kept if exploration else [*kept, 22]
    np.testing.assert_array_equal(fitted.posterior.draws["w"], [path[step - 1] for step in kept])
    np.testing.assert_array_equal(
        fitted.history["noisy"], [count % LENGTH >= exploration * LENGTH for count in range(25)]
    )


def test_refuses():
    joint, _, _ = _small()

    def make(**changes):
        return btl.infer.cyclical_sgld(joint, **{"step_size": 0.1, "cycle_length": 10, "num_samples": 1, **changes})

    with pytest.raises(ValueError, match="cycle_length is 1; give a whole number, at least 2"):
        make(cycle_length=1)
    with pytest.raises(ValueError, match=r"exploration is 1\.0; it is the part of a cycle without noise, in \[0, 1\)"):
        make(exploration=1.0)
    with pytest.raises(ValueError, match=r"exploration 0\.95 leaves none of the 10 steps of a cycle for sampling"):
        make(exploration=0.95)
    with pytest.raises(ValueError, match="every is 0; give a whole number"):
        make(every=0)
    with pytest.raises(TypeError, match="step_size is a function; a cyclical sampler makes its own schedule"):
        make(step_size=lambda count: 0.1)
    with pytest.raises(ValueError, match=r"step_size is -0\.1; give a positive number"):
        make(step_size=-0.1)
    with pytest.raises(ValueError, match=r"peak is 0\.0; give a positive number"):
        btl.infer.cosine_cycles(0.0, 10)
    with pytest.warns(UserWarning, match=r"learning_rate is 9, beyond the bound 3\.8 of stability"):
        btl.infer.cyclical_sghmc(joint, 9.0, cycle_length=10, num_samples=1)
