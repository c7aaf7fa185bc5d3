"""SGLD against its own exact law, full-batch and in discrete time, from numpy in float64."""

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
STEPS, CHAINS = 40, 10_000


def _check(structure: Any, variant: laws.Variant) -> tuple[np.ndarray, laws.Target]:
    problem, joint, target, P = laws.case(structure, variant)
    # At eps h = 2 the stationary variance along the stiffest direction is twice that of the target.
    eps = 2 / laws.largest(target, P)
    preconditioner = btl.infer.prior_preconditioner(joint.prior) if variant.preconditioned else None
    sampler = btl.infer.sgld(joint, eps, num_samples=1, preconditioner=preconditioner)
    draws, info = laws.run(sampler, problem, STEPS, CHAINS)
    step = laws.sgld_step(target, eps, P)
    laws.assert_law(draws, laws.after(laws.known(np.zeros(laws.SIZE)), [step] * STEPS))

    before = laws.after(laws.known(np.zeros(laws.SIZE)), [step] * (STEPS - 1))
    moment = before.covariance + np.outer(before.mean - target.mean, before.mean - target.mean)
    squared_gradient = np.trace(target.hessian @ (P[:, None] * target.hessian) @ moment)
    ratio = eps / 4 * squared_gradient / laws.SIZE
    assert abs(info.step_to_noise.mean() - ratio) < 5 * info.step_to_noise.std() / np.sqrt(CHAINS)
    np.testing.assert_allclose(info.temperature, 1 + info.step_to_noise, rtol=1e-12)
    return draws, target


@pytest.mark.x64
@pytest.mark.representative("blocks", "low rank, negative")
@each_structure
def test_law_under_every_prior(structure):
    draws, target = _check(structure, laws.Variant("plain"))
    # And it is the biased law that was met, not the posterior.
    assert laws.covariance_error(draws, np.linalg.inv(target.hessian)) > 20


@pytest.mark.x64
@pytest.mark.representative("preconditioned", "cold", "no data")
@each_variant
def test_law_tempered_and_preconditioned(variant):
    _check(lg.BY_NAME["low rank"], variant)


@pytest.mark.x64
def test_temperature_is_that_of_the_stationary_law():
    # T_eff = tr(H S) / D, here from the Lyapunov equation, where the infos take it from the gradients' lengths.
    steps, chains = 150, 5000
    problem, joint, target, _ = laws.case(lg.BY_NAME["dense"], laws.Variant("plain"))
    P = np.diag(np.linalg.inv(target.hessian))
    eps = 2 / laws.largest(target, P)
    step = laws.sgld_step(target, eps, P)
    law = laws.stationary(step)
    assert np.abs(np.linalg.eigvals(step.A)).max() ** steps < 1e-3, "the chains are not stationary yet"
    sampler = btl.infer.sgld(joint, eps, num_samples=1, preconditioner=lg.tree(jnp.asarray(P)))
    _, info = laws.run(sampler, problem, steps, chains)
    error = info.temperature.std() / np.sqrt(chains)
    assert abs(info.temperature.mean() - np.trace(target.hessian @ law.covariance) / laws.SIZE) < 5 * error
    assert info.temperature.mean() - 1 > 20 * error


def _one_direction(precision: float) -> tuple[Any, Any]:
    """U = precision/2 theta^2: the prior alone."""
    net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(1)})
    prior = btl.gaussians.isotropic(net.params, precision**-0.5)
    joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), prior, num_data=2, kappa=0.0)
    return joint, btl.Batch(jnp.ones((2, 1)), jnp.ones(2))


@pytest.mark.x64
def test_stationary_variance_of_the_fixture():
    known = lg.FIXTURE["sgld_stationary_variance"]
    h, eps = known["precision"], known["eps"]
    np.testing.assert_allclose(known["variance"], 1 / (h * (1 - eps * h / 4)), rtol=1e-12)
    target = laws.Target(np.zeros(1), np.array([[h]]))
    np.testing.assert_allclose(laws.stationary(laws.sgld_step(target, eps)).covariance, known["variance"], rtol=1e-12)

    joint, batch = _one_direction(h)
    sampler = btl.infer.sgld(joint, eps, num_samples=1)

    def chain(key):
        keys = jax.random.split(key, 81)
        state = sampler.init(keys[0], {"w": jnp.zeros(1)})
        return jax.lax.scan(lambda s, k: (sampler.step(k, s, batch)[0], None), state, keys[1:])[0].params["w"]

    draws = jax.jit(jax.vmap(chain))(jax.random.split(jax.random.key(0), 40_000))
    # 80 steps leave 0.8^160 of the way; the variance of n draws has relative standard deviation sqrt(2 / n), 0.7 %.
    np.testing.assert_allclose(draws.var(), known["variance"], rtol=5 * np.sqrt(2 / 40_000))


@pytest.mark.x64
def test_step_size_follows_a_schedule():
    problem, joint, target, _ = laws.case(lg.BY_NAME["isotropic"], laws.Variant("plain"))
    peak = 2 / laws.largest(target, 1.0)

    def schedule(count):
        return peak / (1 + count / 5)

    draws, info = laws.run(btl.infer.sgld(joint, schedule, num_samples=1), problem, 20, CHAINS)
    steps = [laws.sgld_step(target, peak / (1 + count / 5)) for count in range(20)]
    laws.assert_law(draws, laws.after(laws.known(np.zeros(laws.SIZE)), steps))
    np.testing.assert_allclose(info.step_size, peak / (1 + 19 / 5), rtol=1e-6)


# ---------------------------------------------------------------- draws

NUM, SIZE = 12, 3


def _linear(fails_at: Any = 0, scale: Any = 1.0) -> tuple[btl.LogJoint, Any]:
    """A linear network that counts its steps, from 1, and gives NaN at one of them."""

    def apply(params, state, inputs, key):
        outputs = jnp.where(state["count"] == state["fails_at"], jnp.nan, inputs @ params["w"])
        return outputs, {**state, "count": state["count"] + 1}

    state = {"count": jnp.int32(1), "fails_at": jnp.asarray(fails_at, jnp.int32)}
    net = btl.Net({"w": jnp.zeros(SIZE)}, state, apply)
    prior = btl.gaussians.isotropic(net.params, scale)
    return btl.LogJoint(net, btl.likelihoods.normal(1.0), prior, num_data=NUM), net.params


def _data() -> Any:
    rng = np.random.default_rng(0)
    return btl.data.arrays(rng.normal(size=(NUM, SIZE)), rng.normal(size=NUM))


def _fit(
    fails_at: int = 0, steps: int = 20, num_samples: int = 30, chunk_size: int = 6, eps: Any = 0.05, **changes: Any
):
    joint, params = _linear(fails_at)
    inner = {name: changes.pop(name) for name in ("every", "start") if name in changes}
    sampler = btl.infer.sgld(joint, eps, num_samples=num_samples, **inner)
    settings = {"steps": steps, "batch_size": 5, "chunk_size": chunk_size, "progress": False, **changes}
    return btl.fit(jax.random.key(3), sampler, params, _data(), **settings)


def test_keeps_every_nth_draw_after_the_start_and_of_them_the_last():
    path = []
    _fit(chunk_size=1, callbacks=[lambda event: path.append(np.asarray(event.state.params["w"]))])
    everything = _fit()
    np.testing.assert_array_equal(everything.posterior.draws["w"], path)
    np.testing.assert_array_equal(everything.params["w"], path[-1])
    np.testing.assert_array_equal(everything.posterior.log_weights, np.zeros(20))
    # Steps are counted from 1: after 4 steps the draws of steps 7, 10, 13, 16, 19.
    thinned = _fit(every=3, start=4)
    np.testing.assert_array_equal(thinned.posterior.draws["w"], path[6::3])
    last = _fit(every=3, start=4, num_samples=3)
    np.testing.assert_array_equal(last.posterior.draws["w"], path[6::3][-3:])
    assert int(last.state.collected.count) == 5


def test_predicts_from_all_draws():
    fitted = _fit()
    joint, _ = _linear()
    predict = btl.predict.monte_carlo(jax.random.key(0), joint, fitted.posterior)
    inputs = _data().inputs
    outputs = np.asarray(fitted.posterior.draws["w"]) @ np.asarray(inputs).T
    np.testing.assert_allclose(predict(inputs).mean, outputs.mean(0), rtol=1e-4, atol=1e-5)


def test_a_chain_without_draws_says_so():
    with pytest.warns(RuntimeWarning, match="the chain holds no draws"):
        fitted = _fit(start=100)
    assert np.isnan(fitted.posterior.sample(jax.random.key(0), 2)["w"]).all()


def test_a_failing_chain_keeps_the_draws_before():
    with pytest.warns(
        RuntimeWarning, match="objective is nan at step 15; the run stops and keeps the state after step 13"
    ):
        failed = _fit(fails_at=15)
    good = _fit(steps=13)
    assert failed.posterior.draws["w"].shape == (13, SIZE)
    np.testing.assert_array_equal(failed.posterior.draws["w"], good.posterior.draws["w"])


def test_a_diverging_chain_stops_and_keeps_the_draws_before():
    # Curvature is at most N plus 1 or so times the largest squared input: eps h is far above 4.
    with pytest.warns(RuntimeWarning, match="the objective is .* keeps the state after step"):
        failed = _fit(steps=200, num_samples=200, eps=3.0)
    assert 0 < failed.steps < 200
    assert failed.posterior.draws["w"].shape == (failed.steps, SIZE)
    assert np.isfinite(failed.posterior.draws["w"]).all()


def test_goes_on_from_a_checkpoint_with_the_same_bits(tmp_path):
    def stop(event):
        return event.step >= 12

    arguments = {"every": 2, "num_samples": 7, "checkpoint": btl.Checkpoint(tmp_path, every=6)}
    stopped = _fit(callbacks=[stop], **arguments)
    assert stopped.steps == 12
    resumed = _fit(**arguments)
    straight = _fit(every=2, num_samples=7)
    same = jax.tree.map(np.array_equal, (resumed.state, resumed.posterior), (straight.state, straight.posterior))
    assert all(jax.tree.leaves(same))
    assert all(np.array_equal(resumed.history[name], straight.history[name]) for name in straight.history)


def test_several_chains_at_once():
    def make(setting):
        joint, _ = _linear(setting["fails_at"], setting["scale"])
        return btl.infer.sgld(joint, setting["eps"], num_samples=8, every=2)

    settings = {
        "fails_at": jnp.array([0, 0, 6], jnp.int32), "scale": jnp.array([1.0, 2.0, 1.0]), "eps": jnp.full(3, 0.05),
    }  # fmt: skip
    keys = jax.random.split(jax.random.key(0), 3)
    _, params = _linear()
    run = {"steps": 12, "batch_size": NUM, "progress": False}
    with pytest.warns(RuntimeWarning, match=r"1 of 3 members became non-finite .* 2 \(step 6\)"):
        many = btl.fit_many(keys, make, settings, params, _data(), **run)
    assert many.posterior.draws["w"].shape == (3, 8, SIZE)
    assert many.params["w"].shape == (3, SIZE)
    # Each chain as it would be alone; six draws of those that went on, two of the one that failed.
    for m, num in enumerate((6, 6, 2)):
        np.testing.assert_array_equal(np.isfinite(many.posterior.log_weights[m]), np.arange(8) < num)
        if m < 2:
            alone = btl.fit(keys[m], make(jax.tree.map(lambda x, m=m: x[m], settings)), params, _data(), **run)
            np.testing.assert_allclose(
                many.posterior.draws["w"][m, :6], alone.posterior.draws["w"], rtol=1e-4, atol=1e-5
            )
    together = btl.posteriors.pooled(many.posterior)
    assert together.draws["w"].shape == (14, SIZE)
    np.testing.assert_array_equal(together.draws["w"][6:12], many.posterior.draws["w"][1, :6])
    np.testing.assert_array_equal(together.draws["w"][12:], many.posterior.draws["w"][2, :2])
    assert np.isfinite(together.log_weights).all()


@pytest.mark.parametrize(
    "sampler",
    [
        lambda joint: btl.infer.sgld(joint, 0.05, num_samples=4),
        pytest.param(
            lambda joint: btl.infer.sghmc(joint, 0.02, num_samples=4, preconditioner=joint.prior.variance),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            lambda joint: btl.infer.cyclical_sghmc(joint, 0.02, cycle_length=3, exploration=0.5, num_samples=4),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["sgld", "sghmc", "cyclical_sghmc"],
)
def test_chains_that_differ_in_their_seeds_alone(sampler):
    """The sampler's own checks compute with constants, inside the traced function of a member."""
    joint, params = _linear()
    keys = jax.random.split(jax.random.key(0), 2)
    run = {"steps": 6, "batch_size": 3, "progress": False}
    many = btl.fit_many(keys, lambda _: sampler(joint), None, params, _data(), **run)
    for m, key in enumerate(keys):
        alone = btl.fit(key, sampler(joint), params, _data(), **run)
        draws = many.posterior.draws["w"][m, : len(alone.posterior.draws["w"])]
        np.testing.assert_allclose(draws, alone.posterior.draws["w"], rtol=1e-5, atol=1e-6)
    assert not np.allclose(*many.posterior.draws["w"][:, 0])


# ---------------------------------------------------------------- bad input


def test_warns_beyond_the_stability_bound():
    problem, joint, _, _ = laws.case(lg.BY_NAME["dense"], laws.Variant("plain"))
    curvature = np.linalg.eigvalsh(np.linalg.inv(lg.BY_NAME["dense"].covariance(problem.prior[1])))[-1]
    with pytest.warns(UserWarning, match="beyond the bound .* of stability") as caught:
        btl.infer.sgld(joint, 4.1 / curvature, num_samples=1)
    # The power method finds the curvature from below, here to 2 %.
    stated = float(str(caught[0].message).split("bound ")[1].split(" ")[0])
    np.testing.assert_allclose(stated, 4 / curvature, rtol=0.02)
    # T is inside U: the curvature of a warm target is lower.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        btl.infer.sgld(joint, 3.9 / curvature, num_samples=1)
        btl.infer.sgld(joint.replace(temperature=jnp.float32(2.0)), 7.8 / curvature, num_samples=1)
        btl.infer.sgld(joint.replace(prior=None), 1e9, num_samples=1)
    # A warm-up hides the rate at the first step only.
    with pytest.warns(UserWarning, match="beyond the bound"):
        btl.infer.sgld(joint, lambda count: jnp.where(count > 50, 10.0, 0.0) / curvature, num_samples=1)


def test_warns_of_the_preconditioned_curvature():
    params = {"w": jnp.zeros(2), "b": jnp.zeros(())}
    prior = btl.gaussians.diagonal(params, {"w": jnp.array([1e-4, 1.0]), "b": jnp.array(4.0)})
    net = btl.nets.from_function(lambda p, x: x @ p["w"] + p["b"], params)
    joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), prior, num_data=4)
    with pytest.warns(UserWarning, match=r"step_size is 0\.01, beyond the bound 0\.0004 .* curvature 1e\+04"):
        btl.infer.sgld(joint, 0.01, num_samples=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        btl.infer.sgld(joint, 3.9, num_samples=1, preconditioner=btl.infer.prior_preconditioner(prior))
    with pytest.warns(UserWarning, match=r"beyond the bound 4 of stability: the prior alone has curvature 1,"):
        btl.infer.sgld(joint, 4.1, num_samples=1, preconditioner=btl.infer.prior_preconditioner(prior))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"step_size": 0.0}, r"step_size is 0\.0; give a positive number, or a function of the step"),
        ({"step_size": np.nan}, "step_size is nan; give a positive number"),
        ({"num_samples": 0}, "num_samples is 0; give a whole number, at least 1"),
        ({"every": 0}, "every is 0; give a whole number, at least 1"),
        ({"every": 1.5}, r"every is 1\.5; give a whole number"),
        ({"start": -1}, "start is -1; give a whole number, at least 0"),
        (
            {"preconditioner": {"w": jnp.ones(2)}},
            r"preconditioner and prior differ at 'w': \(2,\) against \(3,\); give one",
        ),
        ({"preconditioner": {"w": jnp.zeros(3)}}, "preconditioner at 'w' has 3 of 3 values <= 0"),
        ({"preconditioner": {"v": jnp.ones(3)}}, "preconditioner and prior differ: 'w' of shape"),
    ],
)
def test_refuses(arguments, message):
    joint, _ = _linear()
    with pytest.raises(ValueError, match=message):
        btl.infer.sgld(joint, **{"step_size": 0.1, "num_samples": 5, **arguments})


def test_refuses_a_start_that_differs():
    joint, _ = _linear()
    flat = joint.replace(prior=None)
    sampler = btl.infer.sgld(flat, 0.1, num_samples=2, preconditioner={"w": jnp.ones(4)})
    with pytest.raises(ValueError, match=r"preconditioner and params differ at 'w': \(4,\) against \(3,\)"):
        sampler.init(jax.random.key(0), {"w": jnp.zeros(3)})
    with pytest.raises(ValueError, match="params and prior differ at 'w'"):
        btl.infer.sgld(joint, 0.1, num_samples=2).init(jax.random.key(0), {"w": jnp.zeros(4)})
    with pytest.raises(TypeError, match="a preconditioner from the prior needs a Gaussian and got NoneType"):
        btl.infer.prior_preconditioner(None)
