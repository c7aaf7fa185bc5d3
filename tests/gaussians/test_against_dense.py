"""Every structure, every operation, against dense float64 algebra on the same ingredients."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussian_cases import BY_NAME, CASES, TREES, Problem, compiled, draw_problem, flat, full, rows_of

import bayestl as btl

pytestmark = pytest.mark.x64

# Every structure on one of the trees, in turn.
GRID = [(case.name, list(TREES)[i % len(TREES)]) for i, case in enumerate(CASES)]
DRAWS = 15
SCALE, EPS = 3.7, 0.41
# Condition numbers here are below 1e5, so that float64 rounding stays near 1e-11; a wrong formula is off by percents.
RTOL = 1e-9


def _ravel(tree: Any) -> jax.Array:
    return jnp.concatenate([x.reshape(-1) for x in jax.tree.leaves(tree)])


def _whole(x: jax.Array, like: jax.Array) -> jax.Array:
    return jnp.broadcast_to(x, like.shape)


def _matrix(mv, like: Any) -> jax.Array:
    """The matrix of a linear map, from its action on unit vectors."""
    leaves, treedef = jax.tree.flatten(like)
    ends = np.cumsum([x.size for x in leaves])[:-1]
    parts = jnp.split(jnp.eye(btl.tree.size(like)), ends, axis=1)
    units = jax.tree.unflatten(treedef, [p.reshape(-1, *x.shape) for p, x in zip(parts, leaves, strict=True)])
    return jax.vmap(lambda v: _ravel(mv(v)))(units).T


def _answers(g: Any, params: Any) -> dict[str, jax.Array]:
    """What every Gaussian is asked: enough to tell that its fields belong to this one distribution."""
    return {
        "mean": _ravel(g.mean),
        "log_prob": g.log_prob(params),
        "log_det": g.log_det_covariance(),
        "covariance": _matrix(g.covariance_mv, g.mean),
        "precision": _matrix(g.precision_mv, g.mean),
    }


def _more_answers(g: Any, params: Any) -> dict[str, jax.Array]:
    """The rest, which is asked once for every structure."""
    return {
        "squared_mahalanobis": g.squared_mahalanobis(params),
        "variance": _ravel(g.variance),
        "precision_diagonal": _ravel(jax.tree.map(_whole, g.precision_diagonal(), g.mean)),
        "root": _matrix(g.unwhiten, g.mean),
        "inverse_root": _matrix(g.whiten, g.mean),
        "gradient": _ravel(jax.grad(g.log_prob)(params)),
    }


def _kept(path: str, names: list[str]) -> bool:
    """The part of the parameters that restrict and condition keep: every other leaf."""
    return names.index(path) % 2 == 0


def _per_leaf(mean: Any) -> Any:
    leaves, treedef = jax.tree.flatten(mean)
    return jax.tree.unflatten(treedef, [0.5 + i for i in range(len(leaves))])


def _per_row(mean: Any) -> Any:
    """A factor for every row of a matrix, one for any other leaf."""

    def factor(x: Any) -> np.ndarray:
        return 0.5 + np.arange(np.shape(x)[0])[:, None] if np.ndim(x) == 2 else np.asarray(1.5)

    return jax.tree.map(factor, mean)


def _has_matrices(name: str) -> bool:
    return "kronecker" in name


def _operated(g: Any, params: Any, is_kronecker: bool) -> dict[str, tuple[Any, Any]]:
    """Operation to the Gaussian that it gives, with parameters over the same tree."""
    names = btl.tree.paths(params)
    part = btl.tree.select_where(params, lambda path: _kept(path, names))
    return {
        "rescale": (g.rescale(SCALE), params),
        "rescale per leaf": (g.rescale(_per_leaf(params)), params),
        "inflate": (g.inflate(EPS), params),
        # One number for a leaf where the structure can hold no more.
        "rescale per row": (g.rescale(_per_leaf(params) if is_kronecker else _per_row(params)), params),
        "restrict": (g.restrict(part), part),
        "condition": (g.condition(params, part), part),
    }


OPERATIONS = ["rescale", "rescale per leaf", "rescale per row", "inflate", "restrict", "condition"]


def _truth(problem: Problem, operation: str, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, covariance and parameters after an operation, by dense algebra."""
    mean, params, cov = flat(problem.mean), flat(problem.params), problem.covariance
    names = btl.tree.paths(problem.mean)
    s = rows_of(problem.mean, lambda path: _kept(path, names))
    r = np.setdiff1d(np.arange(len(mean)), s)
    if operation == "rescale":
        cov = SCALE * cov
    if operation == "rescale per leaf":
        roots = np.sqrt(full(_per_leaf(problem.mean), problem.mean))
        cov = roots[:, None] * cov * roots[None, :]
    if operation == "rescale per row":
        factors = _per_leaf(problem.mean) if _has_matrices(name) else _per_row(problem.mean)
        roots = np.sqrt(full(factors, problem.mean))
        cov = roots[:, None] * cov * roots[None, :]
    if operation == "inflate":
        cov = cov + EPS * np.eye(len(cov))
    if operation == "restrict":
        mean, params, cov = mean[s], params[s], cov[np.ix_(s, s)]
    if operation == "condition":
        gain = np.linalg.solve(cov[np.ix_(r, r)], cov[np.ix_(r, s)]).T
        mean = mean[s] + gain @ (params[r] - mean[r])
        cov = cov[np.ix_(s, s)] - gain @ cov[np.ix_(r, s)]
        params = params[s]
    return mean, cov, params


@lru_cache
def _computed(name: str, tree: str) -> tuple[list[Problem], list[dict[str, dict[str, np.ndarray]]]]:
    """The answers for some random problems of one structure and tree, all from one jitted program."""
    case = BY_NAME[name]
    problems = [draw_problem(case, tree, seed) for seed in range(DRAWS)]

    def program(mean, ingredients, params):
        g = case.build(mean, ingredients)
        derived = {
            operation: _answers(h, at) for operation, (h, at) in _operated(g, params, _has_matrices(name)).items()
        }
        return {"itself": _answers(g, params) | _more_answers(g, params), **derived}

    run = compiled(program, *problems[0].arguments)
    return problems, [jax.device_get(run(*problem.arguments)) for problem in problems]


def _check(found: dict[str, np.ndarray], mean: np.ndarray, cov: np.ndarray, params: np.ndarray) -> None:
    precision, r = np.linalg.inv(cov), params - mean
    log_det = np.linalg.slogdet(cov)[1]
    _close("mean", found["mean"], mean)
    _close("log_det", found["log_det"], log_det)
    _close("log_prob", found["log_prob"], -0.5 * (len(r) * np.log(2 * np.pi) + log_det + r @ precision @ r))
    _close("covariance", found["covariance"], cov)
    _close("precision", found["precision"], precision)


def _close(name: str, value: np.ndarray, truth: np.ndarray) -> None:
    size = float(np.max(np.abs(truth)))
    np.testing.assert_allclose(value, truth, rtol=RTOL, atol=RTOL * max(size, 1.0), err_msg=name)


@pytest.mark.parametrize(("name", "tree"), GRID)
def test_agrees_with_dense_algebra(name, tree):
    problems, computed = _computed(name, tree)
    for problem, answers in zip(problems, computed, strict=True):
        mean, cov, params = _truth(problem, "itself", name)
        found = answers["itself"]
        _check(found, mean, cov, params)
        precision, r = np.linalg.inv(cov), params - mean
        _close("squared_mahalanobis", found["squared_mahalanobis"], r @ precision @ r)
        _close("variance", found["variance"], np.diag(cov))
        _close("precision_diagonal", found["precision_diagonal"], np.diag(precision))
        _close("S S^T", found["root"] @ found["root"].T, cov)
        _close("S^-1 S", found["inverse_root"] @ found["root"], np.eye(len(r)))
        _close("gradient", found["gradient"], -precision @ r)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(("name", "tree"), GRID)
def test_operation_agrees_with_dense_algebra(name, tree, operation):
    problems, computed = _computed(name, tree)
    for problem, answers in zip(problems, computed, strict=True):
        _check(answers[operation], *_truth(problem, operation, name))


def test_there_are_a_hundred_problems():
    assert {name for name, _ in GRID} == set(BY_NAME)
    assert len(GRID) * DRAWS >= 100
