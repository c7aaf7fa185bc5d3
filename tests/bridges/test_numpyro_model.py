"""The model's density is the log joint; its sites are the prior's blocks."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import linear_gaussian as lg
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import Predictive
from numpyro.infer.util import log_density
from scipy import stats

import bayestl as btl
from bayestl.bridges._flat_gaussian import FlatGaussian

SIZE, NUM = 6, 8
STRUCTURES = pytest.mark.parametrize("structure", lg.STRUCTURES, ids=lambda s: s.name)


def batch_of(problem: lg.Problem, mask: Any = None) -> btl.Batch:
    mask = None if mask is None else jnp.asarray(mask)
    return btl.Batch(jnp.asarray(problem.inputs), jnp.asarray(problem.targets), mask)


def density(joint: btl.LogJoint, params: Any, batch: btl.Batch | None, like: Any = None) -> Any:
    model = btl.bridges.numpyro_model(joint, like)
    return log_density(model, (batch,), {}, model.to_values(params))[0]


# ---------------------------------------------------------------- density


@pytest.mark.x64
@STRUCTURES
@pytest.mark.parametrize(
    ("kappa", "temperature", "mask"),
    [
        (1.0, 1.0, None),
        (0.0, 1.0, None),
        (2.5, 0.4, [1, 0, 1, 1, 0, 0, 1, 0]),
        (0.5, 3.0, [0] * NUM),
    ],
    ids=["plain", "no data", "cold and masked", "hot and all masked"],
)
def test_density_is_that_of_scipy_and_of_the_log_joint(structure, kappa, temperature, mask):
    problem, num_data = lg.draw(structure, SIZE, NUM, seed=0), 50
    joint = lg.joint(structure, problem, num_data=num_data, kappa=kappa, temperature=temperature)
    params, batch = lg.tree(jnp.linspace(-1.0, 1.0, SIZE)), batch_of(problem, mask)
    found = jax.jit(density)(joint, params, batch)

    weights = np.ones(NUM) if mask is None else np.array(mask, float)
    noise = stats.norm(problem.inputs @ lg.flat(params), problem.noise)
    mean = np.sum(weights * noise.logpdf(problem.targets)) / max(weights.sum(), 1)
    covariance = structure.covariance(problem.prior[1])
    prior = stats.multivariate_normal(problem.prior[0], temperature * covariance).logpdf(lg.flat(params))
    # Rounding: densities of order 100 nats, covariances of condition number below 1e3.
    np.testing.assert_allclose(found, kappa * num_data * mean / temperature + prior, rtol=1e-12, atol=1e-11)

    constant = SIZE * np.log(2 * np.pi) + np.linalg.slogdet(covariance)[1]
    constant = (constant * (1 - temperature) / temperature - SIZE * np.log(temperature)) / 2
    np.testing.assert_allclose(found, joint(params, batch) + constant, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("name", ["low rank", "blocks"])
def test_density_is_the_log_joint_in_float32(name):
    structure = lg.BY_NAME[name]
    problem = lg.draw(structure, SIZE, NUM, seed=1)
    joint = lg.joint(structure, problem)
    params = lg.tree(jnp.linspace(-1.0, 1.0, SIZE, dtype=jnp.float32))
    # The same terms in the same order, and one sum of two or three: a few units in the last place.
    batch = batch_of(problem)
    found, wanted = jax.jit(density)(joint, params, batch), jax.jit(joint)(params, batch)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, wanted, rtol=4 * np.finfo(np.float32).eps * (1 + abs(float(wanted))))


class StudentT:
    """A prior that is no Gaussian, and no pytree either."""

    def log_prob(self, params: Any) -> jax.Array:
        flat = jnp.concatenate([x.ravel() for x in jax.tree.leaves(params)])
        return jnp.sum(dist.StudentT(3.0, 0.5, 2.0).log_prob(flat))

    def sample(self, key: Any, num_samples: int) -> Any:
        raise AssertionError("not needed")


@pytest.mark.x64
@pytest.mark.parametrize("prior", [StudentT(), None], ids=["student t", "flat"])
@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_density_with_a_prior_that_is_no_gaussian(prior, temperature):
    problem = lg.draw(lg.BY_NAME["isotropic"], SIZE, NUM, seed=2)
    joint = lg.joint(lg.BY_NAME["isotropic"], problem, kappa=1.5, temperature=temperature).replace(prior=prior)
    params = lg.tree(jnp.linspace(-1.0, 1.0, SIZE))
    log_prior = 0.0 if prior is None else stats.t(3.0, 0.5, 2.0).logpdf(lg.flat(params)).sum()
    likelihood = stats.norm(problem.inputs @ lg.flat(params), problem.noise).logpdf(problem.targets).sum()
    found = density(joint, params, batch_of(problem), like=params)
    np.testing.assert_allclose(found, (1.5 * likelihood + log_prior) / temperature, rtol=1e-12)
    np.testing.assert_allclose(found, joint(params, batch_of(problem)), rtol=1e-12)
    assert list(btl.bridges.numpyro_model(joint, params).sites.names) == ["theta"]


def test_without_a_batch_it_is_the_prior():
    structure = lg.BY_NAME["blocks"]
    problem = lg.draw(structure, SIZE, NUM, seed=3)
    joint = lg.joint(structure, problem)
    params = lg.tree(jnp.linspace(-1.0, 1.0, SIZE))
    np.testing.assert_allclose(density(joint, params, None), joint.prior.log_prob(params), rtol=1e-5)


def test_the_batch_is_an_argument_and_no_constant():
    problem = lg.draw(lg.BY_NAME["blocks"], SIZE, 1000, seed=0)
    joint = lg.joint(lg.BY_NAME["blocks"], problem)
    params = lg.tree(jnp.zeros(SIZE))
    jaxpr = jax.make_jaxpr(lambda joint, batch: density(joint, params, batch))(joint, batch_of(problem))
    assert all(np.size(x) <= SIZE**2 for x in jaxpr.consts)


# ---------------------------------------------------------------- sites


def _blocks(num: int) -> tuple[Any, Any]:
    params = {f"layer {i}": jnp.full((2, i + 1), float(i)) for i in range(num)}
    return params, btl.gaussians.by_path({path: btl.gaussians.isotropic(params, 1.0) for path in params})


def _joint(prior: Any, params: Any) -> btl.LogJoint:
    net = btl.nets.from_function(lambda p, x: x[:, 0] * jax.tree.leaves(p)[0].sum(), params)
    return btl.LogJoint(net, btl.likelihoods.normal(1.0), prior, num_data=5)


def test_one_site_for_each_block_in_an_order_that_sorting_keeps():
    params, prior = _blocks(11)
    sites = btl.bridges.numpyro_model(_joint(prior, params)).sites
    assert sites.names == [f"theta_{i:02}" for i in range(11)] == sorted(sites.names)
    assert list(sites.sizes.values()) == [2 * (i + 1) for i in range(11)]


def test_blocks_within_blocks_are_sites_of_their_own():
    params, prior = _blocks(3)
    inner = btl.gaussians.by_path({"layer 0": prior, "**": btl.gaussians.isotropic(params, 1.0)})
    outer = btl.gaussians.by_path({"layer 2": btl.gaussians.isotropic(params, 2.0), "**": inner})
    model = btl.bridges.numpyro_model(_joint(outer, params))
    assert model.sites.sizes == {"theta_0": 6, "theta_1": 2, "theta_2": 4}
    assert repr(model) == "NumPyroModel('theta_0' ('layer 2'), 'theta_1' ('layer 0'), 'theta_2' ('layer 1'))"


def test_a_low_rank_block_stays_one():
    structure = lg.BY_NAME["low rank"]
    joint = lg.joint(structure, lg.draw(structure, SIZE, NUM, seed=0))
    trace = numpyro.handlers.trace(numpyro.handlers.seed(btl.bridges.numpyro_model(joint), 0)).get_trace()
    assert isinstance(trace["theta"]["fn"].gaussian, btl.gaussians.LowRank)


@pytest.mark.parametrize("lead", [(), (4,), (2, 3)], ids=str)
def test_values_and_parameters_are_the_same_numbers(lead):
    tree = {"b": {"x": (2, 3), "y": ()}, "a": (4,), "none": (0, 2)}
    params = jax.tree.map(
        lambda s: jax.random.normal(jax.random.key(len(s)), s), tree, is_leaf=lambda x: isinstance(x, tuple)
    )
    prior = btl.gaussians.by_path(
        {"b/x": btl.gaussians.isotropic(params, 1.0), "**": btl.gaussians.isotropic(params, 1.0)}
    )
    model = btl.bridges.numpyro_model(_joint(prior, params))
    many = jax.tree.map(lambda x: jnp.broadcast_to(x, (*lead, *x.shape)) + 1.0, params)
    values = model.to_values(many)
    assert {name: x.shape for name, x in values.items()} == {"theta_0": (*lead, 6), "theta_1": (*lead, 5)}
    # Leaves in the order of the tree ("a" before "b/y"), each in row-major order.
    np.testing.assert_array_equal(values["theta_0"], many["b"]["x"].reshape(*lead, 6))
    np.testing.assert_array_equal(values["theta_1"][..., :4], many["a"])
    np.testing.assert_array_equal(values["theta_1"][..., 4], many["b"]["y"])
    jax.tree.map(np.testing.assert_array_equal, model.to_params(values), many)


def test_the_rows_of_the_sites_point_into_the_flat_tree():
    structure = lg.BY_NAME["blocks"]
    joint = lg.joint(structure, lg.draw(structure, SIZE, NUM, seed=0))
    prior = dataclasses.replace(joint.prior, parts=joint.prior.parts[::-1])
    model = btl.bridges.numpyro_model(joint.replace(prior=prior))
    params = lg.tree(jnp.arange(SIZE) + 10.0)
    in_order = np.concatenate([*model.to_values(params).values()])
    np.testing.assert_array_equal(lg.flat(params)[model.sites.rows()], in_order)
    assert not np.array_equal(model.sites.rows(), np.arange(SIZE))


# ---------------------------------------------------------------- the distribution of a site


def _flat(structure: Any) -> tuple[FlatGaussian, lg.Problem, np.ndarray]:
    problem = lg.draw(structure, SIZE, NUM, seed=4)
    prior: Any = lg.joint(structure, problem).prior
    return FlatGaussian(prior), problem, structure.covariance(problem.prior[1])


@pytest.mark.x64
@STRUCTURES
def test_a_site_has_the_gaussians_moments_and_density(structure):
    site, problem, covariance = _flat(structure)
    np.testing.assert_allclose(site.mean, problem.prior[0], rtol=1e-12)
    np.testing.assert_allclose(site.variance, np.diag(covariance), rtol=1e-10)
    values = np.random.default_rng(0).normal(size=(3, 2, SIZE))
    wanted = stats.multivariate_normal(problem.prior[0], covariance).logpdf(values)
    np.testing.assert_allclose(site.log_prob(jnp.asarray(values)), wanted, rtol=1e-10)
    np.testing.assert_allclose(jax.vmap(jax.vmap(site.log_prob))(values), wanted, rtol=1e-10)
    np.testing.assert_allclose(jax.jit(lambda d, x: d.log_prob(x))(site, values), wanted, rtol=1e-10)


@STRUCTURES
def test_a_site_is_sampled_from_the_gaussian(structure):
    site, problem, covariance = _flat(structure)
    draws = np.asarray(site.sample(jax.random.key(0), (4, 5000)), np.float64)
    assert draws.shape == (4, 5000, SIZE)
    white = np.linalg.solve(np.linalg.cholesky(covariance), (draws.reshape(-1, SIZE) - problem.prior[0]).T)
    # 20,000 draws: five standard errors of a mean, and of a covariance (sqrt 2 on its diagonal).
    np.testing.assert_allclose(white.mean(axis=1), 0, atol=5 / np.sqrt(20_000))
    np.testing.assert_allclose(white @ white.T / 20_000, np.eye(SIZE), atol=5 * np.sqrt(2 / 20_000))


def test_a_site_passes_through_numpyros_machinery():
    site, *_ = _flat(lg.BY_NAME["blocks"])
    assert site.has_rsample

    def program(site: Any, key: Any) -> Any:
        expanded = site.expand((3,))
        event = site.expand((2,)).to_event(1)
        looped = jax.lax.scan(lambda x, _: (x + site.log_prob(x.repeat(SIZE)), None), jnp.zeros(1), None, length=2)
        gradient = jax.grad(lambda d: d.log_prob(site.mean + 1.0))(site)
        draws = site.sample(key), expanded.sample(key, (2,)), event.sample(key)
        return site, draws, expanded.log_prob(draws[1]), event.log_prob(draws[2]), looped[0], gradient

    again, draws, expanded, event, looped, gradient = jax.jit(program)(site, jax.random.key(0))
    assert jax.tree.structure(again) == jax.tree.structure(gradient) == jax.tree.structure(site)
    assert again.event_shape == (SIZE,)
    assert [x.shape for x in draws] == [(SIZE,), (2, 3, SIZE), (2, SIZE)]
    assert (expanded.shape, event.shape, looped.shape) == ((2, 3), (), (1,))
    np.testing.assert_allclose(event, site.log_prob(draws[2]).sum(), rtol=1e-5)


def test_predictive_runs_the_model():
    structure = lg.BY_NAME["blocks"]
    problem = lg.draw(structure, SIZE, NUM, seed=0)
    joint = lg.joint(structure, problem)
    model = btl.bridges.numpyro_model(joint)
    prior = Predictive(model, num_samples=7)(jax.random.key(0))
    assert {name: x.shape for name, x in prior.items()} == {"theta_0": (7, 2), "theta_1": (7, 4)}
    draws = model.to_params(prior)
    assert jax.tree.map(jnp.shape, draws) == jax.tree.map(lambda x: (7, *x.shape), joint.prior.mean)
    again = Predictive(model, prior, return_sites=["theta_0"])(jax.random.key(1), batch_of(problem))
    np.testing.assert_array_equal(again["theta_0"], prior["theta_0"])


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("prior", "named"), [(None, "the flat prior"), (StudentT(), "a StudentT")], ids=["flat", "student t"]
)
def test_a_prior_without_a_tree_needs_like(prior, named):
    params = {"w": jnp.zeros(2)}
    with pytest.raises(ValueError, match=rf"prior is {named}, .* pass like=net\.params"):
        btl.bridges.numpyro_model(_joint(prior, params))


def test_like_must_be_what_the_prior_is_about():
    params, prior = _blocks(2)
    with pytest.raises(ValueError, match=r"like and prior differ at 'layer 0': .*give the parameters that the prior"):
        btl.bridges.numpyro_model(_joint(prior, params), {**params, "layer 0": jnp.zeros(3)})
    with pytest.raises(TypeError, match="like at 'w' has dtype int32"):
        btl.bridges.numpyro_model(_joint(None, params), {"w": jnp.arange(3)})
