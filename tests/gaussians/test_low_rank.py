"""What is particular to low rank plus diagonal: float32 at sharp priors, closure under conditioning, lost rank."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussian_cases import compiled, flat, flat_rows

from bayestl import gaussians
from bayestl.gaussians._canonical import canonical

# ---------------------------------------------------------------- float32


def _split(x: np.ndarray) -> dict:
    return {"a": x[..., :200_000], "b": x[..., 200_000:].reshape(*x.shape[:-1], 300, 1000)}


def _sharp_problem() -> tuple[float, np.ndarray, np.ndarray]:
    """D = 500,000 parameters, a = 1e-8 and twenty long columns: what a source trained to convergence gives."""
    rng = np.random.default_rng(0)
    a, (k, d) = 1e-8, (20, 500_000)
    factor = 0.1 * rng.normal(size=(k, d)).astype(np.float32)
    r = (np.sqrt(a) * rng.normal(size=d) + rng.normal(size=k) @ factor).astype(np.float32)
    return a, factor, r


def _woodbury(a: float, factor: np.ndarray, r: np.ndarray, dtype) -> tuple[float, np.ndarray, float]:
    """The quadratic form by Woodbury, ``rho`` and the log determinant: in float64 the oracle, in float32 a warning."""
    columns, rho = factor.astype(dtype) / np.sqrt(dtype(a)), r.astype(dtype) / np.sqrt(dtype(a))
    inner = np.eye(len(columns), dtype=dtype) + columns @ columns.T
    z = columns @ rho
    log_det = len(r) * np.log(dtype(a)) + np.linalg.slogdet(inner)[1]
    return float(rho @ rho - z @ np.linalg.solve(inner, z)), rho, float(log_det)


def test_float32_keeps_a_sharp_prior():
    a, factor, r = _sharp_problem()
    truth, rho, log_det = _woodbury(a, factor, r, np.float64)
    eps = np.finfo(np.float32).eps
    # Rounding moves every entry of rho by at most 2 eps |rho_i|. A sum of D terms in L lanes walks off by about
    # eps sqrt(D) / (6 L); twice that with L = 4 for the products with Q, an error along the columns, to which the
    # result u is orthogonal. So the quadratic form |u|^2 moves by 2 |u| |e1| + |e1 + e2|^2: here 0.3 per cent.
    everywhere = 2 * eps * np.linalg.norm(rho)
    along = eps * np.linalg.norm(rho) * np.sqrt(len(rho)) / 12
    tolerance = 2 * np.sqrt(truth) * everywhere + (everywhere + along) ** 2
    assert tolerance < 0.005 * truth
    g = jax.jit(gaussians.low_rank)(_split(np.zeros_like(r)), a, _split(factor))
    params = _split(jnp.asarray(r))
    assert abs(float(g.squared_mahalanobis(params)) - truth) < tolerance
    assert abs(float(g.log_det_covariance()) - log_det) < 2 * eps * abs(log_det)
    inner = np.eye(len(factor)) + factor.astype(np.float64) @ factor.T.astype(np.float64) / a
    exact = (rho - factor.T @ np.linalg.solve(inner, factor @ rho / np.sqrt(a)) / np.sqrt(a)) / np.sqrt(a)
    for found in (g.precision_mv(params), jax.grad(lambda x: -g.log_prob(x))(params)):
        assert np.linalg.norm(flat(found) - exact) < (everywhere + along) / np.sqrt(a)
    white = flat(g.whiten(params))
    assert abs(white @ white - truth) < tolerance


def test_woodbury_would_not_have_kept_it():
    """Why the canonical form: the same problem in float32 by the textbook formula, off by factors."""
    truth = _woodbury(*_sharp_problem(), np.float64)[0]
    assert abs(_woodbury(*_sharp_problem(), np.float32)[0] - truth) > truth


# ---------------------------------------------------------------- closure


@pytest.mark.x64
@pytest.mark.parametrize("negative", [False, True])
def test_the_posterior_under_a_linear_likelihood_is_low_rank_again(negative):
    """Precision ``P + X^T X / s2`` by dense algebra, and as LowRank with the directions of Q and of the rows of X."""
    rng = np.random.default_rng(3)
    size, rank, n, noise = 30, 3, 5, 0.2
    mean, a = rng.normal(size=size), np.exp(rng.normal(size=size))
    q = np.linalg.qr(rng.normal(size=(size, rank)))[0]
    lam = np.array([-0.9, -0.4, 2.0]) if negative else np.array([0.5, 3.0, 9.0])
    root = np.sqrt(a)
    cov = root[:, None] * (np.eye(size) + (q * lam) @ q.T) * root
    x, y = rng.normal(size=(n, size)), rng.normal(size=n)
    posterior_cov = np.linalg.inv(np.linalg.inv(cov) + x.T @ x / noise)
    posterior_mean = mean + posterior_cov @ x.T @ (y - x @ mean) / noise

    def split(v):
        return {"a": v[..., :12].reshape(*v.shape[:-1], 3, 4), "b": v[..., 12:]}

    # Whitened by a^1/2 the precision is I + [Q, a^1/2 X^T] diag(-lam / (1 + lam), 1 / s2) [..]^T = I + V diag(d) V^T,
    # whose inverse is I - V diag(d / (1 + d)) V^T.
    columns = split(np.concatenate([q.T, x * root]))
    middle = np.diag(np.concatenate([-lam / (1 + lam), np.full(n, 1 / noise)]))
    params = split(rng.normal(size=size))

    def program(columns, middle):
        basis, found = canonical(columns, middle)
        posterior = gaussians.LowRank(
            gaussians.Diagonal(split(jnp.asarray(posterior_mean)), split(a)), basis, -found / (1 + found)
        )
        covariance = jax.vmap(posterior.covariance_mv)(split(jnp.eye(size)))
        return posterior.eigenvalues, covariance, posterior.log_det_covariance(), posterior.log_prob(params)

    eigenvalues, covariance, log_det, log_prob = compiled(program, columns, middle)(columns, middle)
    assert eigenvalues.min() < 0
    np.testing.assert_allclose(flat_rows(covariance), posterior_cov, rtol=0, atol=1e-9 * posterior_cov.max())
    np.testing.assert_allclose(log_det, np.linalg.slogdet(posterior_cov)[1], rtol=1e-9)
    r = flat(params) - posterior_mean
    truth = -0.5 * (size * np.log(2 * np.pi) + log_det + r @ np.linalg.solve(posterior_cov, r))
    np.testing.assert_allclose(log_prob, truth, rtol=1e-9)


@pytest.mark.x64
@pytest.mark.parametrize("angle", [1.0, 1e-5])
def test_canonical_form(angle):
    """Q^T Q = I and Q diag(lam) Q^T = B K B^T, for indefinite K and columns unequal in length or nearly collinear."""
    rng = np.random.default_rng(4)
    columns = rng.normal(size=(4, 25)) * np.array([1e-3, 1.0, 1.0, 1e4])[:, None]
    # At 1e-5 the Gram matrix has an eigenvalue of 1e-10, from which one pass alone is orthonormal to 1e-6 only.
    columns[2] = columns[1] + angle * columns[2]
    middle = rng.normal(size=(4, 4))
    middle = middle + middle.T
    arguments = {"a": columns[:, :5], "b": columns[:, 5:].reshape(4, 4, 5)}, middle
    basis, lam = compiled(canonical, *arguments)(*arguments)
    q, truth = flat_rows(basis), columns.T @ middle @ columns
    np.testing.assert_allclose(q @ q.T, np.eye(4), atol=1e-14)
    np.testing.assert_allclose(q.T @ np.diag(lam) @ q, truth, rtol=0, atol=1e-13 * np.abs(truth).max())


# ---------------------------------------------------------------- rank


@pytest.mark.x64
def test_a_part_smaller_than_the_rank():
    """The marginal of two parameters under rank three: rank is lost, and the covariance is still that of the block."""
    rng = np.random.default_rng(5)
    factor = rng.normal(size=(3, 6))

    def program(factor):
        whole = gaussians.low_rank(
            {"a": jnp.zeros(2), "b": jnp.zeros(4)}, 0.7, {"a": factor[:, :2], "b": factor[:, 2:]}
        )
        g, units = whole.restrict("a"), {"a": jnp.eye(2), "b": None}
        return jax.vmap(g.covariance_mv)(units), jax.vmap(g.precision_mv)(units), g.log_det_covariance()

    covariance, precision, log_det = compiled(program, factor)(factor)
    truth = 0.7 * np.eye(2) + factor[:, :2].T @ factor[:, :2]
    np.testing.assert_allclose(flat_rows(covariance), truth, rtol=1e-12)
    np.testing.assert_allclose(flat_rows(precision), np.linalg.inv(truth), rtol=1e-12)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(truth)[1], rtol=1e-12)


@pytest.mark.x64
def test_a_factor_of_zeros_is_the_diagonal():
    def log_prob(factor):
        return gaussians.low_rank({"w": jnp.zeros(3)}, 2.0, {"w": factor}).log_prob({"w": jnp.ones(3)})

    value, gradient = jax.jit(jax.value_and_grad(log_prob))(jnp.zeros((2, 3)))
    np.testing.assert_allclose(value, -1.5 * np.log(4 * np.pi) - 0.75, rtol=1e-14)
    # The covariance is even in the factor, so that nothing changes to first order.
    np.testing.assert_array_equal(gradient, 0)


def test_restricting_everything_and_conditioning_on_nothing_change_nothing():
    rng = np.random.default_rng(6)
    params = {"a": jnp.asarray(rng.normal(size=3)), "b": jnp.asarray(rng.normal(size=(2, 2)))}
    factor = {"a": rng.normal(size=(2, 3)), "b": rng.normal(size=(2, 2, 2))}
    shifted = jax.tree.map(lambda x: x + 1, params)

    def program(factor):
        g = gaussians.low_rank(params, 1.0, factor)
        same = g, g.restrict("**"), g.condition(shifted, "**"), g.condition(shifted, params)
        return jnp.stack([g.log_prob(shifted) for g in same])

    found = compiled(program, factor)(factor)
    np.testing.assert_allclose(found[1:], found[0], rtol=1e-5)  # float32, D = 7


def test_cost_of_queries_is_linear():
    """Ten times the parameters take ten times the operations, not a hundred times."""

    def flops(size: int) -> float:
        g = gaussians.LowRank(gaussians.Diagonal(jnp.zeros(size), jnp.ones(size)), jnp.ones((4, size)), jnp.ones(4))
        cost = jax.jit(lambda g, x: g.log_prob(x)).lower(g, jnp.ones(size)).compile().cost_analysis()
        return cost["flops"]

    assert flops(100_000) < 15 * flops(10_000)


# ---------------------------------------------------------------- equal eigenvalues


@pytest.mark.x64
def test_gradients_in_the_factor_are_exact_at_equal_eigenvalues():
    rng = np.random.default_rng(7)
    factor = 1.3 * jnp.asarray(np.linalg.qr(rng.normal(size=(5, 3)))[0].T)
    x, y = jnp.asarray(rng.normal(size=(2, 5)))

    def of_low_rank(factor):
        g = gaussians.low_rank(jnp.zeros(5), 0.5, factor)
        return jnp.stack([g.log_prob(x), y @ g.covariance_mv(x), y @ g.precision_mv(x), y @ g.variance])

    def of_dense(factor):
        covariance = 0.5 * jnp.eye(5) + factor.T @ factor
        solved = jnp.linalg.solve(covariance, x)
        log_prob = -0.5 * (5 * jnp.log(2 * jnp.pi) + jnp.linalg.slogdet(covariance)[1] + x @ solved)
        return jnp.stack([log_prob, y @ covariance @ x, y @ solved, y @ jnp.diagonal(covariance)])

    found, truth = (jax.jit(jax.jacrev(f))(factor) for f in (of_low_rank, of_dense))
    np.testing.assert_allclose(found, truth, rtol=1e-10, atol=1e-12)
    # Root and inverse root of the symmetric matrix, by what they are: R R = Sigma and R^-1 R = I.
    g = jax.jit(lambda f: gaussians.low_rank(jnp.zeros(5), 0.5, f))

    def twice(factor):
        return y @ g(factor).unwhiten(g(factor).unwhiten(x)), y @ g(factor).whiten(g(factor).whiten(x))

    found = jax.jit(jax.jacrev(twice))(factor)
    np.testing.assert_allclose(jnp.stack(found), truth[1:3], rtol=1e-10, atol=1e-12)


# ---------------------------------------------------------------- sharp data


def test_what_is_measured_sharply_stays_so_in_a_file(tmp_path):
    """Two of four directions measured 1e9 times as sharply as the prior has them, in float32."""
    rng = np.random.default_rng(8)
    columns = (10**4.5 * rng.normal(size=(2, 4))).astype(np.float32)
    posterior = gaussians.isotropic(jnp.zeros(4), 1.0).add_precision(jnp.asarray(columns))
    gaussians.save(tmp_path / "g.safetensors", posterior)
    precision = np.eye(4) + columns.T.astype(np.float64) @ columns
    r = np.linalg.solve(precision, rng.normal(size=4)).astype(np.float32)
    for g in (posterior, gaussians.load(tmp_path / "g.safetensors")):
        np.testing.assert_allclose(g.log_det_covariance(), -np.linalg.slogdet(precision)[1], rtol=1e-5)
        v = columns[0] / np.linalg.norm(columns[0])
        np.testing.assert_allclose(g.precision_quadratic(jnp.asarray(v)), v @ precision @ v, rtol=1e-4)
        # Of what the data leave, the prior's share is all, and rounding of r along the columns adds nothing to it.
        outside = r - columns.T @ np.linalg.lstsq(columns.T, r, rcond=None)[0]
        np.testing.assert_allclose(g.covariance_mv(jnp.asarray(outside)), outside, rtol=1e-3, atol=1e-6)
