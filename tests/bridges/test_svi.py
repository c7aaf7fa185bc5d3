"""NumPyro's guides through ``fit``, against the exact posteriors of linear-Gaussian problems."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import linear_gaussian as lg
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro import handlers
from numpyro.infer import autoguide
from scipy import stats

import bayestl as btl

SIZE, NUM = 6, 20
COMPILED: list[str] = []


@jax.monitoring.register_event_duration_secs_listener
def _note(event: str, duration: float, **_: Any) -> None:
    if event.endswith("backend_compile_duration"):
        COMPILED.append(event)


def random_blocks(**changes: Any) -> tuple[btl.LogJoint, lg.Problem, np.ndarray]:
    """A problem whose two blocks do not follow the order of the tree, and the prior's covariance."""
    structure = lg.BY_NAME["blocks"]
    problem = lg.draw(structure, SIZE, NUM, seed=0)
    joint = lg.joint(structure, problem, **changes)
    prior: Any = joint.prior
    prior = btl.gaussians.Blocks(prior.blocks()[::-1])
    return joint.replace(prior=prior), problem, structure.covariance(problem.prior[1])


def fixture(**changes: Any) -> tuple[btl.LogJoint, lg.Problem, np.ndarray]:
    structure, problem = lg.fixture_problem("low rank")
    return lg.joint(structure, problem, **changes), problem, structure.covariance(problem.prior[1])


@cache
def optimizer_for(steps: int) -> optax.GradientTransformation:
    """One object per number of steps, so that runs of one kind share a program."""
    return optax.adam(optax.exponential_decay(0.1, max(steps // 60, 1), 0.85))


def run(joint: Any, guide: Any, problem: Any, steps: int = 1, num_particles: int = 1, **settings: Any) -> btl.FitResult:
    """From zero, with a rate that decays so slowly that the last ones average over the noise of some 10^5 draws."""
    inference = btl.bridges.svi(joint, guide, optimizer_for(steps), num_particles=num_particles, data=lg.data(problem))
    start = lg.tree(jnp.zeros(len(problem.mean)))
    settings = {"batch_size": len(problem.targets), "chunk_size": steps, "progress": False, **settings}
    return btl.fit(jax.random.key(1), inference, start, lg.data(problem), steps=steps, **settings)


def covariance_of(gaussian: Any) -> np.ndarray:
    unit = np.eye(len(lg.flat(gaussian.mean)))
    return np.stack([lg.flat(gaussian.covariance_mv(lg.tree(jnp.asarray(row)))) for row in unit])


def assert_law(gaussian: Any, mean: np.ndarray, covariance: np.ndarray, atol: float) -> None:
    """Mean and covariance, in units of the true standard deviations along the true principal axes."""
    root = np.linalg.cholesky(covariance)
    np.testing.assert_allclose(np.linalg.solve(root, lg.flat(gaussian.mean) - mean), 0, atol=atol)
    white = np.linalg.solve(root, np.linalg.solve(root, covariance_of(gaussian)).T)
    np.testing.assert_allclose(white, np.eye(len(mean)), atol=atol)


# ---------------------------------------------------------------- laws


# Noise that the decay leaves: below 0.7% in seven runs with other seeds, so 2% lies beyond three of its deviations.
NOISE = 0.02
# One column fewer than parameters, and the diagonal, make any covariance.
ALL_BUT_ONE = partial(autoguide.AutoLowRankMultivariateNormal, rank=SIZE - 1)


@pytest.mark.x64
@pytest.mark.representative("full, fixture", "low rank, blocks")
@pytest.mark.parametrize(
    ("problem", "guide", "kind"),
    [
        (fixture, autoguide.AutoMultivariateNormal, btl.gaussians.Dense),
        (random_blocks, autoguide.AutoMultivariateNormal, btl.gaussians.Dense),
        (random_blocks, ALL_BUT_ONE, btl.gaussians.LowRank),
    ],
    ids=["full, fixture", "full, blocks", "low rank, blocks"],
)
def test_a_guide_with_all_covariances_finds_the_posterior(problem, guide, kind):
    joint, problem, _ = problem()
    result = run(joint, guide, problem, 6000, num_particles=64)
    assert type(result.posterior) is kind
    assert_law(result.posterior, problem.mean, problem.covariance, NOISE)


@pytest.mark.x64
def test_the_elbo_of_the_posterior_is_the_log_evidence():
    joint, problem, _ = fixture()
    elbo = run(joint, autoguide.AutoMultivariateNormal, problem, 6000, num_particles=64).history["elbo"][-500:]
    # At the posterior every draw gives the evidence itself. A covariance that is off by 1% costs some 1e-4 nats.
    error = 5 * elbo.std() / np.sqrt(500)
    np.testing.assert_allclose(elbo.mean(), lg.FIXTURE["low_rank_prior"]["log_evidence"], atol=error + 1e-4)
    assert error < 1e-3


@pytest.mark.x64
@pytest.mark.parametrize(
    ("problem", "guide"), [(fixture, autoguide.AutoNormal), (random_blocks, autoguide.AutoDiagonalNormal)]
)
def test_a_diagonal_guide_finds_the_inverse_diagonal_of_the_precision(problem, guide):
    joint, problem, _ = problem()
    result = run(joint, guide, problem, 6000, num_particles=64)
    assert type(result.posterior) is btl.gaussians.Diagonal
    variance = 1 / np.diag(np.linalg.inv(problem.covariance))
    assert_law(result.posterior, problem.mean, np.diag(variance), NOISE)
    if len(variance) == 3:
        optimum = lg.FIXTURE["mean_field_optimum"]
        np.testing.assert_allclose(variance, optimum["variance"], rtol=1e-9)
        elbo = result.history["elbo"][-2000:]
        np.testing.assert_allclose(elbo.mean(), optimum["elbo"], atol=5 * elbo.std() / np.sqrt(2000))


@pytest.mark.x64
@pytest.mark.parametrize(
    "guide", [autoguide.AutoMultivariateNormal, autoguide.AutoDiagonalNormal], ids=lambda g: g.__name__
)
def test_no_data_gives_back_the_prior(guide):
    joint, problem, covariance = random_blocks(kappa=0.0)
    result = run(joint, guide, problem, 6000, num_particles=64)
    full = guide is autoguide.AutoMultivariateNormal
    wanted = covariance if full else np.diag(1 / np.diag(np.linalg.inv(covariance)))
    assert_law(result.posterior, problem.prior[0], wanted, NOISE)


@pytest.mark.x64
@pytest.mark.parametrize(("kappa", "temperature"), [(1.0, 1.0), (3.0, 0.2), (0.5, 2.0)])
def test_delta_and_laplace_are_exact(kappa, temperature):
    joint, problem, covariance = random_blocks(kappa=kappa, temperature=temperature)
    mean, wanted, _ = lg.solve(
        problem.inputs, problem.targets, problem.noise, problem.prior[0], covariance, kappa=kappa
    )
    laplace = run(joint, autoguide.AutoLaplaceApproximation, problem, 2000)
    assert type(laplace.posterior) is btl.gaussians.Dense
    # Adam's last rates add up to some 1e-4 / (1 - 0.85), of which the gradient takes back all but about 1e-6.
    assert_law(laplace.posterior, mean, temperature * wanted, 1e-5)
    delta = run(joint, autoguide.AutoDelta, problem, 2000)
    assert type(delta.posterior) is btl.Point
    np.testing.assert_allclose(lg.flat(delta.posterior.params), mean, atol=1e-5)
    # The ELBO of a point is the log joint there; at a mode an error of 1e-5 shows in its square.
    likelihood = stats.norm(problem.inputs @ mean, problem.noise).logpdf(problem.targets).sum()
    prior = stats.multivariate_normal(problem.prior[0], temperature * covariance).logpdf(mean)
    np.testing.assert_allclose(delta.history["elbo"][-1], kappa * likelihood / temperature + prior, atol=1e-6)


@pytest.mark.x64
def test_under_the_flat_prior_laplace_is_least_squares():
    joint, problem, _ = fixture()
    result = run(joint.replace(prior=None), autoguide.AutoLaplaceApproximation, problem, 2000)
    inverse = np.linalg.inv(problem.inputs.T @ problem.inputs)
    assert_law(result.posterior, inverse @ problem.inputs.T @ problem.targets, problem.noise**2 * inverse, 1e-5)


# ---------------------------------------------------------------- other guides


def by_hand(model: btl.bridges.NumPyroModel) -> Any:
    def guide(batch: Any) -> None:
        for name, size in model.sites.sizes.items():
            location = numpyro.param(f"{name}_location", jnp.zeros(size))
            numpyro.sample(name, dist.Normal(location, 0.5).to_event(1))

    return guide


def several(model: btl.bridges.NumPyroModel) -> Any:
    guide = autoguide.AutoGuideList(model)
    guide.append(autoguide.AutoDelta(handlers.block(model, hide=["theta_1"])))
    guide.append(autoguide.AutoNormal(handlers.block(model, hide=["theta_0"]), init_scale=0.5))
    return guide


def flow(model: btl.bridges.NumPyroModel) -> Any:
    return autoguide.AutoIAFNormal(model, num_flows=1, hidden_dims=[8])


@pytest.mark.representative("flow")
@pytest.mark.x64
@pytest.mark.parametrize("guide", [by_hand, several, flow], ids=lambda g: g.__name__)
def test_any_other_guide_is_sampled(guide):
    joint, problem, _ = random_blocks()
    result = run(joint, guide, problem, 2000, num_particles=16)
    posterior = result.posterior
    assert type(posterior) is btl.bridges.GuidePosterior
    assert isinstance(posterior, btl.Posterior)
    num = 4000
    draws = posterior.sample(jax.random.key(2), num)
    assert jax.tree.map(jnp.shape, draws) == jax.tree.map(lambda x: (num, *x.shape), lg.tree(jnp.zeros(SIZE)))
    flat = np.concatenate([np.asarray(x).reshape(num, -1) for x in jax.tree.leaves(draws)], axis=1)
    # Independent (or, for the flow, richer) Gaussians have the posterior's mean; 5 standard errors of 4,000 draws with
    # a deviation of at most 0.5, and 3% of a deviation for the training.
    np.testing.assert_allclose(flat.mean(axis=0), problem.mean, atol=5 * 0.5 / np.sqrt(num) + 0.015)
    assert jax.tree.all(jax.tree.map(np.array_equal, draws, posterior.sample(jax.random.key(2), num)))
    if guide is by_hand:
        predict = btl.predict.monte_carlo(jax.random.key(0), joint, posterior, 5)
        assert predict(jnp.asarray(problem.inputs)).mean.shape == (NUM,)
        np.testing.assert_allclose(flat.std(axis=0), 0.5, rtol=5 / np.sqrt(2 * num))
    if guide is several:  # theta_0 is the body: the blocks are not in the order of the tree
        np.testing.assert_array_equal(flat[:, 2:].std(axis=0) < 1e-12, True)
        assert flat[:, :2].std(axis=0).min() > 0.1


# ---------------------------------------------------------------- as a method of fit


def test_the_start_is_where_the_guide_begins():
    joint, problem, _ = random_blocks()
    start = lg.tree(jnp.linspace(-3.0, 3.0, SIZE))
    for guide in (autoguide.AutoMultivariateNormal, autoguide.AutoDelta, several):
        inference = btl.bridges.svi(joint, guide, optax.sgd(0.0), data=lg.data(problem))
        posterior = inference.posterior(inference.init(jax.random.key(0), start))
        if isinstance(posterior, btl.bridges.GuidePosterior):
            draw = posterior.sample(jax.random.key(0), 1000)
            # 1,000 draws of deviation 0.5, five standard errors.
            jax.tree.map(lambda x, y: np.testing.assert_allclose(x.mean(0), y, atol=2.5 / np.sqrt(1000)), draw, start)
        else:
            found = posterior.params if isinstance(posterior, btl.Point) else posterior.mean
            jax.tree.map(np.testing.assert_array_equal, found, start)


def test_compiles_once_keeps_dtypes_and_reports_the_objective_per_datum():
    joint, problem, _ = random_blocks(kappa=2.0, temperature=0.5)
    seen: list[int] = []
    settings: Any = {"batch_size": 8, "chunk_size": 3, "callbacks": [lambda event: seen.append(len(COMPILED))]}
    result = run(joint, autoguide.AutoMultivariateNormal, problem, 7, **settings)
    assert len(seen) == 3
    assert seen[0] == seen[-1], "a later chunk compiled something"
    # A method made anew around other numbers of the same shapes is served by the same programs.
    other = joint.replace(kappa=jnp.float32(1.0))
    compiled = len(COMPILED)
    again = run(other, autoguide.AutoMultivariateNormal, problem, 7, **settings)
    assert len(COMPILED) == compiled
    assert not np.array_equal(again.history["elbo"], result.history["elbo"])

    draws = result.posterior.sample(jax.random.key(1), 5)
    like = lg.tree(jnp.zeros(SIZE))
    assert jax.tree.structure(draws) == jax.tree.structure(like)
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(draws))
    # -ELBO T / (kappa N), by two rounded products.
    per_datum = -result.history["elbo"] * 0.5 / (2.0 * NUM)
    np.testing.assert_allclose(result.history["objective"], per_datum, rtol=1e-6)


def test_batches_are_arguments_and_the_data_no_constants():
    structure, num = lg.BY_NAME["isotropic"], 1000
    problem = lg.draw(structure, SIZE, num, seed=0)
    joint = lg.joint(structure, problem)
    inference = btl.bridges.svi(joint, autoguide.AutoNormal, optax.adam(0.1), data=lg.data(problem))
    state = inference.init(jax.random.key(0), lg.tree(jnp.zeros(SIZE)))
    batch = btl.Batch(jnp.asarray(problem.inputs), jnp.asarray(problem.targets))
    jaxpr = jax.make_jaxpr(inference.step)(jax.random.key(0), state, batch)
    assert all(np.size(x) < num for x in jaxpr.consts), "a constant as large as the data"
    # The step function itself holds arrays of the joint, and none of the data.
    assert all(np.size(x) < num for x in jax.tree.leaves(inference.step) if hasattr(x, "shape"))


@pytest.mark.x64
def test_the_elbo_of_mini_batches_is_that_of_all_data_on_average():
    joint, problem, _ = random_blocks(kappa=1.5, temperature=2.0)
    inference = btl.bridges.svi(joint, autoguide.AutoNormal, optax.sgd(0.0))
    state = inference.init(jax.random.key(0), lg.tree(jnp.asarray(problem.mean)))

    def elbo(batch: btl.Batch) -> jax.Array:
        return inference.step(jax.random.key(1), state, batch)[1].elbo

    everything = btl.Batch(jnp.asarray(problem.inputs), jnp.asarray(problem.targets))
    parts = btl.Batch(everything.inputs.reshape(5, 4, SIZE), everything.targets.reshape(5, 4))
    # One key, so one draw: the batches differ in their data alone, and the rest is rounding.
    np.testing.assert_allclose(jax.jit(jax.vmap(elbo))(parts).mean(), jax.jit(elbo)(everything), rtol=1e-12)


def test_many_runs_at_once():
    structure = lg.BY_NAME["blocks"]
    problem = lg.draw(structure, SIZE, NUM, seed=0)
    covariance = structure.covariance(problem.prior[1])
    kappas = jnp.array([0.0, 0.3, 2.0])

    def make(kappa: Any) -> btl.Inference:
        optimizer = optax.adam(optax.exponential_decay(0.1, 50, 0.85))
        return btl.bridges.svi(lg.joint(structure, problem, kappa=kappa), autoguide.AutoDelta, optimizer)

    keys = jax.random.split(jax.random.key(0), 3)
    start = lg.tree(jnp.zeros(SIZE))
    many = btl.fit_many(keys, make, kappas, start, lg.data(problem), steps=2000, batch_size=NUM, progress=False)
    for i, kappa in enumerate(np.asarray(kappas, np.float64)):
        precision = kappa * problem.inputs.T @ problem.inputs / problem.noise**2 + np.linalg.inv(covariance)
        right = kappa * problem.inputs.T @ problem.targets / problem.noise**2
        mean = np.linalg.solve(precision, right + np.linalg.solve(covariance, problem.prior[0]))
        # Float32 gradients of curvatures up to 1e3.
        np.testing.assert_allclose(lg.flat(jax.tree.map(lambda x, i=i: x[i], many.params)), mean, atol=2e-4)


# ---------------------------------------------------------------- errors


def misses(model: Any) -> Any:
    return autoguide.AutoNormal(handlers.block(model, hide=["theta_1"]))


def misnamed(model: Any) -> Any:
    return lambda batch: numpyro.sample("weights", dist.Normal(jnp.zeros(SIZE), 1.0).to_event(1))


def misshapen(model: Any) -> Any:
    def guide(batch: Any) -> None:
        numpyro.sample("theta_0", dist.Normal(jnp.zeros((2, 2)), 1.0).to_event(2))
        numpyro.sample("theta_1", dist.Normal(jnp.zeros(2), 1.0).to_event(1))

    return guide


def mutable(model: Any) -> Any:
    def guide(batch: Any) -> None:
        numpyro.primitives.mutable("count", jnp.zeros(()))
        by_hand(model)(batch)

    return guide


@pytest.mark.parametrize(
    ("guide", "message"),
    [
        (
            misses,
            r"guide misses the site 'theta_1' \('a~1head'\); the model has 'theta_0' .*the guide samples .*theta_0",
        ),
        (misnamed, r"guide misses the site 'theta_0' \('body/kernel'\).* AutoGuideList"),
        (misshapen, r"guide samples the site 'theta_0' .* in shape \(2, 2\); the model has it in shape \(4,\)"),
        (mutable, r"guide has mutable sites \['count'\]"),
        (autoguide.AutoLaplaceApproximation, r"AutoLaplaceApproximation reads the data; pass all of them"),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_guides_that_do_not_fit_the_model(guide, message):
    joint, problem, _ = random_blocks()
    inference = btl.bridges.svi(joint, guide, optax.adam(0.1))
    with pytest.raises(ValueError, match=message):
        btl.fit(jax.random.key(0), inference, lg.tree(jnp.zeros(SIZE)), lg.data(problem), steps=1, progress=False)


def test_a_guide_that_was_used_before():
    joint, *_ = random_blocks()
    used = autoguide.AutoNormal(btl.bridges.numpyro_model(joint))
    used.prototype_trace = {}  # as its first call leaves it
    inference = btl.bridges.svi(joint, lambda model: used, optax.adam(0.1))
    with pytest.raises(ValueError, match="guide gave back AutoNormal that has been used before"):
        inference.init(jax.random.key(0), lg.tree(jnp.zeros(SIZE)))


def test_other_bad_arguments():
    joint, *_ = random_blocks()
    svi = btl.bridges.svi
    with pytest.raises(ValueError, match="num_particles is 0; at least 1"):
        svi(joint, autoguide.AutoNormal, optax.adam(0.1), num_particles=0)
    with pytest.raises(TypeError, match="guide is a str, which cannot be called"):
        svi(joint, "AutoNormal", optax.adam(0.1))  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="optimizer is a Adam; give an optax transformation, bare"):
        svi(joint, autoguide.AutoNormal, numpyro.optim.Adam(0.1))  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="data is a int, which neither holds its examples nor can be read"):
        svi(joint, autoguide.AutoNormal, optax.adam(0.1), data=3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="guide gave a NoneType for the model"):
        svi(joint, lambda model: None, optax.adam(0.1)).init(jax.random.key(0), lg.tree(jnp.zeros(SIZE)))
    inference = svi(joint, autoguide.AutoNormal, optax.adam(0.1))
    with pytest.raises(ValueError, match="params at 'body/kernel' has 4 non-finite of 4"):
        inference.init(jax.random.key(0), lg.tree(jnp.array([0.0, 0.0, *[jnp.nan] * 4])))
    with pytest.raises(ValueError, match="params and prior differ at 'body/kernel': "):
        inference.init(jax.random.key(0), lg.tree(jnp.zeros(SIZE + 2)))


def test_a_hessian_that_is_not_definite_is_told():
    structure, problem = lg.fixture_problem("low rank")
    inputs = problem.inputs * np.array([1.0, 1.0, 0.0])
    joint = lg.joint(structure, problem).replace(prior=None)
    data = btl.data.arrays(inputs, problem.targets)
    inference = btl.bridges.svi(joint, autoguide.AutoLaplaceApproximation, optax.sgd(0.1), data=data)
    state = inference.init(jax.random.key(0), lg.tree(jnp.zeros(3)))
    with pytest.warns(RuntimeWarning, match="Hessian at the guide's point is not positive definite"):
        inference.posterior(state)
