"""SGHMC against its own exact law, full-batch and in discrete time, from numpy in float64."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import linear_gaussian as lg
import numpy as np
import pytest
import sampler_laws as laws

import bayestl as btl

each_structure = pytest.mark.parametrize("structure", lg.STRUCTURES, ids=lambda structure: structure.name)
each_variant = pytest.mark.parametrize("variant", laws.VARIANTS, ids=lambda variant: variant.name)
STEPS, CHAINS, FRICTION = 40, 10_000, 0.25


def _check(structure: Any, variant: laws.Variant) -> tuple[np.ndarray, laws.Target]:
    problem, joint, target, P = laws.case(structure, variant)
    # Half of what is stable along the stiffest direction: lr h < 2 (2 - alpha).
    rate = (2 - FRICTION) / laws.largest(target, P)
    preconditioner = btl.infer.prior_preconditioner(joint.prior) if variant.preconditioned else None
    sampler = btl.infer.sghmc(joint, rate, friction=FRICTION, num_samples=1, preconditioner=preconditioner)
    draws, info = laws.run(sampler, problem, STEPS, CHAINS)
    step = laws.sghmc_step(target, rate, FRICTION, P)
    start = laws.sghmc_start(np.zeros(laws.SIZE), rate, P)
    law = laws.after(start, [step] * STEPS)
    laws.assert_law(draws, law.theta(laws.SIZE))

    # The infos are of v after the step, and of the gradient before it.
    velocity = np.diag(law.covariance)[laws.SIZE :] + law.mean[laws.SIZE :] ** 2
    kinetic = np.mean(velocity / P) / rate
    assert abs(info.temperature.mean() - kinetic) < 5 * info.temperature.std() / np.sqrt(CHAINS)
    before = laws.after(start, [step] * (STEPS - 1)).theta(laws.SIZE)
    moment = before.covariance + np.outer(before.mean - target.mean, before.mean - target.mean)
    squared_gradient = np.trace(target.hessian @ (P[:, None] * target.hessian) @ moment)
    ratio = rate / (2 * FRICTION) * squared_gradient / laws.SIZE
    assert abs(info.step_to_noise.mean() - ratio) < 5 * info.step_to_noise.std() / np.sqrt(CHAINS)
    return draws, target


@pytest.mark.representative("dense", "blocks")
@pytest.mark.x64
@each_structure
def test_law_under_every_prior(structure):
    draws, target = _check(structure, laws.Variant("plain"))
    # And it is the biased law that was met, not the posterior.
    assert laws.covariance_error(draws, np.linalg.inv(target.hessian)) > 10


@pytest.mark.x64
@each_variant
def test_law_tempered_and_preconditioned(variant):
    _check(lg.BY_NAME["low rank"], variant)


@pytest.mark.x64
def test_starts_with_the_velocities_of_its_temperature():
    # Two steps from the start, where v0 ~ N(0, lr P) is most of what moves.
    variant = laws.Variant("preconditioned", preconditioned=True)
    problem, joint, target, P = laws.case(lg.BY_NAME["low rank"], variant)
    rate = 1 / laws.largest(target, P)
    sampler = btl.infer.sghmc(
        joint, rate, friction=FRICTION, num_samples=1, preconditioner=btl.infer.prior_preconditioner(joint.prior)
    )
    draws, _ = laws.run(sampler, problem, 2, CHAINS)
    step = laws.sghmc_step(target, rate, FRICTION, P)
    law = laws.after(laws.sghmc_start(np.zeros(laws.SIZE), rate, P), [step] * 2)
    laws.assert_law(draws, law.theta(laws.SIZE))


@pytest.mark.x64
def test_stationary_law_of_the_fixture():
    known = lg.FIXTURE["sghmc_stationary"]
    h, rate, friction = known["precision"], known["lr"], known["alpha"]
    covariance = np.array(known["cov_theta_v"])
    step = laws.sghmc_step(laws.Target(np.zeros(1), np.array([[h]])), rate, friction)
    np.testing.assert_allclose(laws.stationary(step).covariance, covariance, rtol=1e-10)

    net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(1)})
    prior = btl.gaussians.isotropic(net.params, h**-0.5)
    joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), prior, num_data=2, kappa=0.0)
    batch = btl.Batch(jnp.ones((2, 1)), jnp.ones(2))
    sampler = btl.infer.sghmc(joint, rate, friction=friction, num_samples=1)

    def chain(key):
        keys = jax.random.split(key, 151)
        state = sampler.init(keys[0], {"w": jnp.zeros(1)})
        state = jax.lax.scan(lambda s, k: (sampler.step(k, s, batch)[0], None), state, keys[1:])[0]
        return jnp.concatenate([state.params["w"], state.velocity["w"]])

    draws = jax.jit(jax.vmap(chain))(jax.random.split(jax.random.key(0), 20_000))
    # The modes fall as sqrt(1 - alpha) = 0.949 a step: 150 steps leave 4e-4 of the way, and 1.5e-7 of the variance.
    laws.assert_law(draws, laws.Law(np.zeros(2), covariance))


@pytest.mark.x64
def test_at_full_friction_it_is_sgld_with_twice_the_step():
    problem, joint, target, _ = laws.case(lg.BY_NAME["dense"], laws.Variant("plain"))
    rate = 1 / laws.largest(target, 1.0)
    full, _ = laws.run(btl.infer.sghmc(joint, rate, friction=1, num_samples=1), problem, 5, 3)
    plain, _ = laws.run(btl.infer.sgld(joint, 2 * rate, num_samples=1), problem, 5, 3)
    np.testing.assert_allclose(full, plain, rtol=1e-10)


@pytest.mark.x64
def test_learning_rate_follows_a_schedule():
    problem, joint, target, _ = laws.case(lg.BY_NAME["isotropic"], laws.Variant("plain"))
    peak = 1 / laws.largest(target, 1.0)
    sampler = btl.infer.sghmc(joint, lambda count: peak / (1 + count / 5), friction=FRICTION, num_samples=1)
    draws, info = laws.run(sampler, problem, 20, CHAINS)
    steps = [laws.sghmc_step(target, peak / (1 + count / 5), FRICTION) for count in range(20)]
    law = laws.after(laws.sghmc_start(np.zeros(laws.SIZE), peak), steps)
    laws.assert_law(draws, law.theta(laws.SIZE))
    np.testing.assert_allclose(info.step_size, peak / (1 + 19 / 5), rtol=1e-6)


def _small() -> tuple[btl.LogJoint, Any, Any]:
    net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(3)})
    prior = btl.gaussians.isotropic(net.params, 1.0)
    rng = np.random.default_rng(0)
    data = btl.data.arrays(rng.normal(size=(12, 3)), rng.normal(size=12))
    return btl.LogJoint(net, btl.likelihoods.normal(1.0), prior, num_data=12), net.params, data


def test_goes_on_from_a_checkpoint_with_the_same_bits(tmp_path):
    joint, params, data = _small()
    sampler = btl.infer.sghmc(joint, 0.01, num_samples=7, every=2)

    def run(**changes):
        settings = {"steps": 20, "batch_size": 5, "chunk_size": 6, "progress": False, **changes}
        return btl.fit(jax.random.key(3), sampler, params, data, **settings)

    checkpoint = btl.Checkpoint(tmp_path, every=6)
    run(checkpoint=checkpoint, callbacks=[lambda event: event.step >= 12])
    resumed, straight = run(checkpoint=checkpoint), run()
    same = jax.tree.map(np.array_equal, (resumed.state, resumed.posterior), (straight.state, straight.posterior))
    assert all(jax.tree.leaves(same))


def test_several_chains_with_frictions_of_their_own():
    joint, params, data = _small()

    def make(friction):
        return btl.infer.sghmc(joint, 0.01, friction=friction, num_samples=5, every=2)

    keys, frictions = jax.random.split(jax.random.key(0), 2), jnp.array([0.1, 0.5])
    run = {"steps": 10, "batch_size": 12, "progress": False}
    many = btl.fit_many(keys, make, frictions, params, data, **run)
    for m in range(2):
        alone = btl.fit(keys[m], make(frictions[m]), params, data, **run).posterior.draws["w"]
        # The same operations in another order, over 10 steps in float32.
        np.testing.assert_allclose(many.posterior.draws["w"][m], alone, rtol=1e-4, atol=1e-5)


def test_warns_beyond_the_stability_bound():
    joint, _, _ = _small()
    # The prior's curvature is 1: stable below 2 (2 - alpha).
    with pytest.warns(UserWarning, match=r"learning_rate is 3\.9, beyond the bound 3\.8 of stability"):
        btl.infer.sghmc(joint, 3.9, friction=0.1, num_samples=1)
    with pytest.warns(UserWarning, match=r"beyond the bound 2 of stability"):
        btl.infer.sghmc(joint, 2.1, friction=1, num_samples=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        btl.infer.sghmc(joint, 3.7, friction=0.1, num_samples=1)


@pytest.mark.parametrize("friction", [0.0, 1.5, np.nan])
def test_refuses_frictions(friction):
    joint, _, _ = _small()
    with pytest.raises(ValueError, match=r"friction is .*; it must lie in \(0, 1\], where 1 is SGLD"):
        btl.infer.sghmc(joint, 0.01, friction=friction, num_samples=1)


def test_refuses():
    joint, _, _ = _small()
    with pytest.raises(ValueError, match=r"learning_rate is -0\.1; give a positive number"):
        btl.infer.sghmc(joint, -0.1, num_samples=1)
    with pytest.raises(ValueError, match="num_samples is 0; give a whole number, at least 1"):
        btl.infer.sghmc(joint, 0.01, num_samples=0)
