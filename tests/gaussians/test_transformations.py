"""Gaussians under jit, vmap and grad: as arguments, built inside, and differentiated by what they are built from."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussian_cases import BY_NAME, compiled, draw_problem, flat, flat_rows, full, stacked

from bayestl import gaussians

TREE = "nnx"
STRUCTURES = ["isotropic leaves", "broadcast", "low rank", "low rank negative", "dense", "blocks"]
RTOL = 1e-9


def _log_density(r: np.ndarray, cov: np.ndarray) -> float:
    return -0.5 * (len(r) * np.log(2 * np.pi) + np.linalg.slogdet(cov)[1] + r @ np.linalg.solve(cov, r))


def _problem(name: str):
    problem = draw_problem(BY_NAME[name], TREE, 11)
    return problem, flat(problem.params) - flat(problem.mean)


@pytest.mark.x64
@pytest.mark.parametrize("name", STRUCTURES)
def test_batched_gaussians_under_vmap(name):
    """One program over a batch of Gaussians built by vmap: pytrees whose leaves have one axis more."""
    problems = [draw_problem(BY_NAME[name], TREE, seed) for seed in range(3)]
    mean, ingredients, params = stacked(problems)

    def program(mean, ingredients, params):
        batch = jax.vmap(BY_NAME[name].build)(mean, ingredients)
        return jax.vmap(lambda g, at: g.log_prob(at))(batch, params)

    found = compiled(program, mean, ingredients, params)(mean, ingredients, params)
    truth = [_log_density(flat(p.params) - flat(p.mean), p.covariance) for p in problems]
    np.testing.assert_allclose(found, truth, rtol=RTOL)


@pytest.mark.x64
@pytest.mark.parametrize("name", STRUCTURES)
def test_scales_and_means_under_vmap_and_grad(name):
    """With c on the covariance: log density -1/2 [D log c + q / c] + const, its derivative -1/2 [D / c - q / c^2]."""
    problem, r = _problem(name)
    scales = np.array([0.3, 1.0, 4.0])

    def program(mean, ingredients, params, scales):
        def at(c, mean):
            return BY_NAME[name].build(mean, ingredients).rescale(c).log_prob(params)

        over_scales = jax.vmap(jax.value_and_grad(at), (0, None))(scales, mean)
        means = jax.tree.map(lambda m: jnp.stack([m, 2 * m]), mean)
        return over_scales, jax.vmap(at, (None, 0))(1.0, means)

    arguments = (*problem.arguments, scales)
    (values, slopes), over_means = compiled(program, *arguments)(*arguments)
    q = r @ np.linalg.solve(problem.covariance, r)
    np.testing.assert_allclose(values, [_log_density(r, c * problem.covariance) for c in scales], rtol=RTOL)
    np.testing.assert_allclose(slopes, -0.5 * (len(r) / scales - q / scales**2), rtol=RTOL)
    truth = [_log_density(r - shift, problem.covariance) for shift in (0, flat(problem.mean))]
    np.testing.assert_allclose(over_means, truth, rtol=RTOL)


@pytest.mark.x64
@pytest.mark.parametrize("name", STRUCTURES)
def test_second_derivatives_and_the_mode(name):
    """The Hessian is minus the precision, and the gradient at the mean is zero, not NaN."""
    problem, _ = _problem(name)

    def program(mean, ingredients, params):
        g = BY_NAME[name].build(mean, ingredients)
        along = jax.jvp(jax.grad(g.log_prob), (params,), (params,))[1]
        return along, jax.grad(g.log_prob)(mean)

    along, at_mode = compiled(program, *problem.arguments)(*problem.arguments)
    truth = -np.linalg.solve(problem.covariance, flat(problem.params))
    np.testing.assert_allclose(flat(along), truth, rtol=RTOL, atol=RTOL * np.abs(truth).max())
    np.testing.assert_array_equal(flat(at_mode), 0)


@pytest.mark.x64
def test_gradient_by_a_scale_per_leaf():
    """A learned scale s_l of leaf l: -D_l / s_l + |r_l|^2 / s_l^3."""
    problem, _ = _problem("isotropic leaves")
    _, scales, _ = problem.arguments

    def program(mean, scales, params):
        return jax.grad(lambda s: gaussians.isotropic(mean, s).log_prob(params))(scales)

    found = compiled(program, *problem.arguments)(*problem.arguments)
    for s, slope, m, x in zip(*map(jax.tree.leaves, (scales, found, problem.mean, problem.params)), strict=True):
        np.testing.assert_allclose(slope, -np.size(m) / s + np.sum((x - m) ** 2) / s**3, rtol=RTOL)


@pytest.mark.x64
def test_gradient_by_the_ingredients_of_low_rank():
    """With W = 1/2 (P r r^T P - P), P the precision: 2 F W by the factor F, the diagonal of W by the variances."""
    problem, r = _problem("low rank")
    diagonal, factor = problem.ingredients

    def program(mean, diagonal, factor, params):
        def log_prob(diagonal, factor, eps):
            return gaussians.low_rank(mean, diagonal, factor).inflate(eps).log_prob(params)

        return jax.grad(log_prob, (0, 1, 2))(diagonal, factor, 0.3)

    arguments = problem.mean, diagonal, factor, problem.params
    by_diagonal, by_factor, by_eps = compiled(program, *arguments)(*arguments)
    precision = np.linalg.inv(problem.covariance + 0.3 * np.eye(len(r)))
    w = 0.5 * (np.outer(precision @ r, precision @ r) - precision)
    # Four eigendecompositions deep; their gaps here are of order one.
    truth = 2 * flat_rows(factor) @ w
    np.testing.assert_allclose(flat_rows(by_factor), truth, rtol=1e-8, atol=1e-8 * np.abs(truth).max())
    np.testing.assert_allclose(flat(by_diagonal), np.diag(w), rtol=1e-8, atol=1e-8 * np.abs(w).max())
    np.testing.assert_allclose(by_eps, np.trace(w), rtol=1e-8)


@pytest.mark.x64
def test_gradient_with_a_singular_factor():
    """Columns that the factor repeats leave gradients finite and right: those by a scale of the factor, here."""
    problem, r = _problem("low rank collinear")
    diagonal, factor = problem.ingredients

    def program(mean, diagonal, factor, params):
        def log_prob(c):
            return gaussians.low_rank(mean, diagonal, jax.tree.map(lambda f: c * f, factor)).log_prob(params)

        return jax.grad(log_prob)(1.5)

    arguments = problem.mean, diagonal, factor, problem.params
    rows = flat_rows(factor)
    precision = np.linalg.inv(np.diag(full(diagonal, problem.mean)) + 1.5**2 * rows.T @ rows)
    w = 0.5 * (np.outer(precision @ r, precision @ r) - precision)
    np.testing.assert_allclose(compiled(program, *arguments)(*arguments), np.trace(3 * rows @ w @ rows.T), rtol=1e-8)


def test_gradient_with_equal_eigenvalues():
    """Orthogonal rows of equal length, whose eigenvectors are arbitrary: the derivative by a common scale is exact."""
    factor = jnp.eye(3)[:2]
    params = {"w": jnp.array([0.3, -0.2, 0.5])}

    def log_prob(c):
        return gaussians.low_rank({"w": jnp.zeros(3)}, 1.0, {"w": c * factor}).log_prob(params)

    # Two variances 1 + c^2: -c / (1 + c^2) + c r^2 / (1 + c^2)^2 each; float32 keeps six digits.
    np.testing.assert_allclose(jax.jit(jax.grad(log_prob))(1.0), -1.0 + (0.3**2 + 0.2**2) / 4, rtol=1e-5)


@pytest.mark.parametrize("name", STRUCTURES)
def test_built_inside_jit_from_constants(name):
    """Constructors check concrete values, and do so inside a traced function too, where operations would be traced."""
    problem = draw_problem(BY_NAME[name], TREE, 12)
    mean, ingredients, params = jax.tree.map(jnp.asarray, problem.arguments)
    found = compiled(lambda x: BY_NAME[name].build(mean, ingredients).rescale(2.0).log_prob(x), params)(params)
    truth = _log_density(flat(problem.params) - flat(problem.mean), 2 * problem.covariance)
    # float32 of a sum of D = 17 terms, through products of condition number below 1e3
    np.testing.assert_allclose(found, truth, rtol=1e-4)


def test_another_gaussian_does_not_compile_again():
    traces = []

    @jax.jit
    def log_prob(g, params):
        traces.append(1)
        return g.log_prob(params)

    params = {"w": jnp.ones(3), "b": jnp.zeros(2)}
    for scale in (1.0, 2.0):
        blocks = {"w": gaussians.isotropic(params, scale), "**": gaussians.diagonal(params, 3.0 * scale)}
        log_prob(gaussians.by_path(blocks), params)
    assert len(traces) == 1


@pytest.mark.x64
@pytest.mark.parametrize("name", BY_NAME)
def test_float32_stays_float32_among_float64(name):
    """A Gaussian over float32 parameters keeps that dtype in a session with 64-bit floats."""
    problem = draw_problem(BY_NAME[name], TREE, 13)
    mean, ingredients, params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), problem.arguments)

    def program(mean, ingredients, params):
        g = BY_NAME[name].build(mean, ingredients)
        part = g.condition(params, "layers/**")
        return g, g.inflate(0.1), part, g.covariance_mv(params), g.variance, g.sample(jax.random.key(0), 2)

    shapes = jax.eval_shape(program, mean, ingredients, params)
    assert {str(x.dtype) for x in jax.tree.leaves(shapes)} == {"float32"}
