"""KL divergence for every pair of structures."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from gaussian_cases import BY_NAME, compiled, draw_problem, flat, flat_rows

from bayestl import gaussians

NAMES = ["isotropic leaves", "diagonal", "low rank", "low rank negative", "dense", "blocks", "kronecker"]
NAMES += ["low rank on kronecker", "broadcast", "low rank broadcast"]
TREE = "nnx"


def _kl(q, p) -> float:
    """The closed form for two normals given as (mean, covariance)."""
    (mq, cq), (mp, cp) = q, p
    trace = np.trace(np.linalg.solve(cp, cq))
    r = mq - mp
    log_dets = np.linalg.slogdet(cp)[1] - np.linalg.slogdet(cq)[1]
    return 0.5 * (trace + r @ np.linalg.solve(cp, r) - len(r) + log_dets)


@pytest.mark.representative("low rank on kronecker", "dense", "broadcast")
@pytest.mark.x64
@pytest.mark.parametrize("name", NAMES)
def test_every_pair(name):
    """As q against every structure as p and against itself, several random problems each, relative to 1e-9."""

    def program(q, ps):
        q = BY_NAME[name].build(q[0], q[1])
        ps = [BY_NAME[n].build(mean, ingredients) for n, (mean, ingredients, _) in zip(NAMES, ps, strict=True)]
        return jnp.stack([gaussians.kl_divergence(q, p) for p in ps]), gaussians.kl_divergence(q, q)

    run = None
    for seed in range(3):
        q, ps = draw_problem(BY_NAME[name], TREE, seed), [draw_problem(BY_NAME[n], TREE, seed + 50) for n in NAMES]
        arguments = q.arguments, [p.arguments for p in ps]
        run = run or compiled(program, *arguments)
        truth = [_kl((flat(q.mean), q.covariance), (flat(p.mean), p.covariance)) for p in ps]
        found, itself = run(*arguments)
        np.testing.assert_allclose(found, truth, rtol=1e-9)
        # A sum of D = 17 terms near 1 less D.
        np.testing.assert_allclose(itself, 0, atol=1e-11)


@pytest.mark.x64
@pytest.mark.parametrize("name", ["low rank", "blocks"])
def test_agrees_with_numpyro(name):
    """NumPyro's closed form between full normals."""
    q, p = draw_problem(BY_NAME[name], TREE, 1), draw_problem(BY_NAME["low rank negative"], TREE, 2)

    def program(q, p):
        q, p = BY_NAME[name].build(q[0], q[1]), BY_NAME["low rank negative"].build(p[0], p[1])
        return gaussians.kl_divergence(q, p)

    ours = compiled(program, q.arguments, p.arguments)(q.arguments, p.arguments)
    theirs = dist.kl_divergence(*(dist.MultivariateNormal(flat(x.mean), x.covariance) for x in (q, p)))
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)


@pytest.mark.x64
def test_agrees_with_its_definition():
    """E_q[log q - log p] over draws, within five standard errors."""
    q, p = (draw_problem(BY_NAME[n], TREE, 3) for n in ("low rank", "diagonal"))

    def program(q, p, key):
        q, p = BY_NAME["low rank"].build(q[0], q[1]), BY_NAME["diagonal"].build(p[0], p[1])
        ratios = jax.vmap(lambda x: q.log_prob(x) - p.log_prob(x))(q.sample(key, 4000))
        return ratios, gaussians.kl_divergence(q, p)

    arguments = q.arguments, p.arguments, jax.random.key(0)
    ratios, kl = compiled(program, *arguments)(*arguments)
    assert abs(ratios.mean() - kl) < 5 * ratios.std() / np.sqrt(len(ratios))


@pytest.mark.x64
def test_gradients():
    """By the mean ``Sp^-1 (mq - mp)``; by a factor F of q ``F (Sp^-1 - Sq^-1)``; by q's variances half its diagonal."""
    q, p = draw_problem(BY_NAME["low rank"], TREE, 5), draw_problem(BY_NAME["low rank negative"], TREE, 6)
    prior = BY_NAME["low rank negative"].build(p.mean, p.ingredients)

    def kl(mean, diagonal, factor):
        return gaussians.kl_divergence(gaussians.low_rank(mean, diagonal, factor), prior)

    diagonal, factor = q.ingredients
    arguments = q.mean, diagonal, factor
    mean, by_diagonal, by_factor = compiled(jax.grad(kl, (0, 1, 2)), *arguments)(*arguments)
    inner = np.linalg.inv(p.covariance) - np.linalg.inv(q.covariance)
    truth = np.linalg.solve(p.covariance, flat(q.mean) - flat(p.mean))
    # Through two eigendecompositions; gaps between the eigenvalues here are of order one.
    np.testing.assert_allclose(flat(mean), truth, rtol=1e-9, atol=1e-9 * np.abs(truth).max())
    truth = flat_rows(factor) @ inner
    np.testing.assert_allclose(flat_rows(by_factor), truth, rtol=1e-8, atol=1e-8 * np.abs(truth).max())
    truth = 0.5 * np.diag(inner)
    np.testing.assert_allclose(flat(by_diagonal), truth, rtol=1e-8, atol=1e-8 * np.abs(truth).max())


def test_trees_that_differ():
    q, p = (gaussians.isotropic({"w": jnp.zeros(n)}, 1.0) for n in (2, 3))
    with pytest.raises(ValueError, match=r"q and p differ at 'w': \(2,\) against \(3,\); both must be over the same"):
        gaussians.kl_divergence(q, p)


def test_kronecker_asks_for_no_quadratic_form_per_parameter():
    """Where those of the other side are fewer: none for a diagonal precision, k for one of rank k."""
    rng, mean = np.random.default_rng(8), {"b": jnp.zeros((2, 4)), "w": jnp.zeros((3, 4))}

    def matrices(sizes):
        roots = [rng.normal(size=(n, n)) for n in sizes]
        return dict(zip(("b", "w"), [r @ r.T + np.eye(len(r)) for r in roots], strict=True))

    q = gaussians.kronecker(mean, matrices((2, 3)), matrices((4, 4)))
    factor = {"b": rng.normal(size=(2, 2, 4)), "w": rng.normal(size=(2, 3, 4))}
    low_rank = gaussians.low_rank(mean, 0.5, factor)
    priors = [gaussians.isotropic(mean, 0.7), low_rank, gaussians.by_path({"b": low_rank, "w": low_rank})]

    def never(v):
        raise AssertionError("a quadratic form of the precision was asked for")

    for p in priors:
        trace = q.trace(p.precision_diagonal(), never, gaussians.Dual(p.precision_trace, p.num_directions))
        every = q.trace(p.precision_diagonal(), p.precision_quadratic)
        np.testing.assert_allclose(trace, every, rtol=1e-5)  # float32, D = 20


def test_float32_of_a_posterior_from_its_sharp_prior():
    """The prior a (I + Q diag(lam) Q^T) with a = 1e-8 and lam to 1e8; in the posterior the base has the variances that
    are smaller, and the columns have those that are larger. To 1e-5 of D, where variances alone would be off by 10."""
    rng, (rows, columns) = np.random.default_rng(9), (4, 6)
    q = np.linalg.qr(rng.normal(size=(24, 3)))[0].T.reshape(3, rows, columns)
    lam, mean = np.array([1e8, 1e4, 2.0]), {"w": jnp.zeros((rows, columns))}
    factors = [np.linalg.qr(rng.normal(size=(n, n)))[0] for n in (rows, columns)]
    r, c = (f @ np.diag(rng.uniform(0.2, 1.0, len(f))) @ f.T for f in factors)
    p = gaussians.LowRank(
        gaussians.Diagonal(mean, {"w": jnp.float32(1e-8)}), {"w": jnp.asarray(q, jnp.float32)}, jnp.asarray(lam)
    )
    base = gaussians.kronecker(mean, {"w": 1e-8 * r}, {"w": c})
    posterior = gaussians.LowRank(base, p.basis, jnp.asarray(0.5 * lam))
    flat_q = np.asarray(p.basis["w"], np.float64).reshape(3, 24)
    prior_covariance = 1e-8 * (np.eye(24) + flat_q.T @ np.diag(lam) @ flat_q)
    root = np.asarray(jax.vmap(base.unwhiten)({"w": jnp.eye(24).reshape(24, rows, columns)})["w"]).reshape(24, 24)
    root = root.T.astype(np.float64)
    covariance = root @ (np.eye(24) + flat_q.T @ np.diag(0.5 * lam) @ flat_q) @ root.T
    truth = _kl((np.zeros(24), covariance), (np.zeros(24), prior_covariance))
    found = gaussians.kl_divergence(posterior, p)
    np.testing.assert_allclose(found, truth, rtol=1e-3)
