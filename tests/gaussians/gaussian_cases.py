"""Random Gaussians, and their dense covariances from the ingredients alone: the oracle is plain numpy in float64.

A new covariance structure joins every test by one line in ``CASES``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import bayestl as btl
from bayestl import gaussians
from bayestl.gaussians._canonical import canonical


class Case(NamedTuple):
    """A covariance structure: how to draw its ingredients, build it, and write its covariance down densely."""

    name: str
    draw: Callable[[np.random.Generator, Any], Any]
    """``(rng, tree) -> ingredients``, a pytree of numpy arrays."""
    build: Callable[[Any, Any], gaussians.Gaussian]
    """``(mean, ingredients) -> Gaussian``."""
    covariance: Callable[[Any, Any], np.ndarray]
    """``(mean, ingredients) -> (D, D)``, in the order of ``jax.tree.leaves``."""


# ---------------------------------------------------------------- trees


def normal_tree(rng: np.random.Generator, shapes: Any) -> Any:
    """Standard normal leaves in the given shapes."""
    return jax.tree.map(lambda s: rng.normal(size=s), shapes, is_leaf=_is_shape)


def _is_shape(x: Any) -> bool:
    return isinstance(x, tuple) and all(isinstance(n, int) for n in x)


def _nnx(tree: Any) -> Any:
    return nnx.State(jax.tree.map(nnx.Param, tree))


_DICT = {"body": {"bias": (4,), "conv": (3, 1, 3, 3), "kernel": (3, 5)}, "head/0": {"scale": ()}}
_TUPLE = {"layers": ([(2, 3), (5,)], ((2, 1, 3), ()))}
_NNX = {"dense": {"bias": (3,), "kernel": (2, 3)}, "layers": {0: {"w": (4,)}, 10: {"w": (2, 2)}}}

TREES: dict[str, Callable[[np.random.Generator], Any]] = {
    "dict": lambda rng: normal_tree(rng, _DICT),
    "tuple": lambda rng: normal_tree(rng, _TUPLE),
    "nnx": lambda rng: _nnx(normal_tree(rng, _NNX)),
}


def flat(tree: Any) -> np.ndarray:
    """All numbers of a tree in one float64 vector."""
    return np.concatenate([np.asarray(x, np.float64).ravel() for x in jax.tree.leaves(tree)] or [np.zeros(0)])


def flat_rows(tree: Any) -> np.ndarray:
    """The same for leaves with a leading axis: a matrix of one row for each of its indices."""
    return np.concatenate([np.asarray(x, np.float64).reshape(len(x), -1) for x in jax.tree.leaves(tree)], axis=1)


def sizes(tree: Any) -> list[int]:
    return [np.size(x) for x in jax.tree.leaves(tree)]


def full(values: Any, tree: Any) -> np.ndarray:
    """A leaf-wise quantity as a vector: single numbers are repeated over their leaf."""
    pairs = zip(jax.tree.leaves(values), jax.tree.leaves(tree), strict=True)
    return np.concatenate([np.broadcast_to(v, np.shape(m)).ravel() for v, m in pairs])


def rows_of(tree: Any, keep: Callable[[str], bool]) -> np.ndarray:
    """The rows of the covariance that belong to the leaves whose path satisfies ``keep``."""
    mask = [np.full(np.size(x), keep(path)) for path, x in btl.tree.by_paths(tree).items()]
    return np.flatnonzero(np.concatenate(mask))


# ---------------------------------------------------------------- structures

RANK = 3


def _positive(rng: np.random.Generator, tree: Any) -> Any:
    return jax.tree.map(lambda x: np.exp(0.5 * rng.normal(size=np.shape(x))), tree)


def _one_per_leaf(rng: np.random.Generator, tree: Any) -> Any:
    return jax.tree.map(lambda x: np.exp(0.5 * rng.normal()), tree)


def _broadcasting(rng: np.random.Generator, tree: Any) -> Any:
    """A number for every row of a matrix, for every column of a larger array, and one for a vector."""

    def shape(full: tuple[int, ...]) -> tuple[int, ...]:
        return {0: (), 1: (1,), 2: (*full[:1], 1)}.get(len(full), full[-1:])

    return jax.tree.map(lambda x: np.exp(0.5 * rng.normal(size=shape(np.shape(x)))), tree)


def _draw_low_rank(rng: np.random.Generator, tree: Any) -> Any:
    factor = jax.tree.map(lambda x: rng.normal(size=(RANK, *np.shape(x))), tree)
    return _positive(rng, tree), factor


def _draw_collinear(rng: np.random.Generator, tree: Any) -> Any:
    factor = jax.tree.map(lambda x: rng.normal(size=(2, *np.shape(x))), tree)
    return _one_per_leaf(rng, tree), jax.tree.map(lambda f: np.stack([f[0], f[1], 2 * f[0]]), factor)


def _low_rank_covariance(mean: Any, ingredients: Any) -> np.ndarray:
    diagonal, factor = ingredients
    rows = flat_rows(factor)
    return np.diag(full(diagonal, mean)) + rows.T @ rows


def _draw_canonical(rng: np.random.Generator, tree: Any) -> Any:
    orthonormal = np.linalg.qr(rng.normal(size=(sum(sizes(tree)), RANK)))[0]
    ends = np.cumsum(sizes(tree))[:-1]
    leaves, treedef = jax.tree.flatten(tree)
    parts = np.split(orthonormal.T, ends, axis=1)
    basis = [p.reshape(RANK, *np.shape(x)) for p, x in zip(parts, leaves, strict=True)]
    lam = np.concatenate([rng.uniform(-0.99, -0.3, size=1), rng.uniform(-0.9, 5.0, size=RANK - 1)])
    return _positive(rng, tree), jax.tree.unflatten(treedef, basis), lam


def _build_canonical(mean: Any, ingredients: Any) -> gaussians.Gaussian:
    mean, (diagonal, basis, lam) = jax.tree.map(jnp.asarray, (mean, ingredients))
    return gaussians.LowRank(gaussians.Diagonal(mean, diagonal), basis, lam)


def _canonical_covariance(mean: Any, ingredients: Any) -> np.ndarray:
    diagonal, basis, lam = ingredients
    q, root = flat_rows(basis).T, np.sqrt(full(diagonal, mean))
    return root[:, None] * (np.eye(len(q)) + q @ np.diag(lam) @ q.T) * root[None, :]


def _draw_dense(rng: np.random.Generator, tree: Any) -> np.ndarray:
    root = rng.normal(size=(sum(sizes(tree)), sum(sizes(tree)))) / np.sqrt(sum(sizes(tree)))
    return root @ root.T + 0.1 * np.eye(len(root))


def _draw_blocks(rng: np.random.Generator, tree: Any) -> Any:
    # Every part is over the whole tree, and gives the marginal of what its pattern claims.
    return _draw_low_rank(rng, tree), _draw_dense(rng, tree), _positive(rng, tree)


def _build_blocks(mean: Any, ingredients: Any) -> gaussians.Gaussian:
    (diagonal, factor), dense, rest = ingredients
    first, second, third, *_ = btl.tree.paths(mean)
    body = gaussians.low_rank(mean, diagonal, factor)
    inner = gaussians.by_path({second: gaussians.dense(mean, dense), third: body}, like=_only(mean, (second, third)))
    return gaussians.by_path({first: body, second: inner, third: inner, "**": gaussians.diagonal(mean, rest)})


def _only(tree: Any, names: tuple[str, ...]) -> Any:
    return btl.tree.select_where(tree, lambda path: path in names)


def _blocks_covariance(mean: Any, ingredients: Any) -> np.ndarray:
    low_rank, dense, rest = ingredients
    first, second, third, *_ = btl.tree.paths(mean)
    result = np.diag(full(rest, mean))
    for name, whole in (
        (first, _low_rank_covariance(mean, low_rank)),
        (second, dense),
        (third, _low_rank_covariance(mean, low_rank)),
    ):
        rows = rows_of(mean, lambda path, name=name: path == name)
        result[np.ix_(rows, rows)] = whole[np.ix_(rows, rows)]
    return result


def _matrices(rng: np.random.Generator, tree: Any, size: Callable[[Any], int]) -> Any:
    def one(x: Any) -> np.ndarray:
        root = rng.normal(size=(size(x), size(x))) / np.sqrt(size(x))
        return root @ root.T + 0.1 * np.eye(size(x))

    return jax.tree.map(one, tree)


def _draw_kronecker(rng: np.random.Generator, tree: Any) -> Any:
    """Covariances of rows and of columns; a single number has one of each."""
    columns = _matrices(rng, tree, lambda x: np.shape(x)[-1] if np.ndim(x) else 1)
    return _matrices(rng, tree, lambda x: np.size(x) // np.shape(x)[-1] if np.ndim(x) else 1), columns


def _build_kronecker(mean: Any, ingredients: Any) -> gaussians.Gaussian:
    part = jax.tree.map(lambda m: m if m.ndim else None, mean)
    blocks = gaussians.kronecker(part, *ingredients).blocks()
    rest = btl.tree.complement(mean, part)
    if not jax.tree.leaves(rest):
        return gaussians.Blocks(blocks)
    variance = jax.tree.map(lambda m, r, c: None if m.ndim else r[0, 0] * c[0, 0], mean, *ingredients)
    return gaussians.Blocks((*blocks, gaussians.diagonal(rest, variance)))


def _kronecker_covariance(mean: Any, ingredients: Any) -> np.ndarray:
    blocks = [np.kron(r, c) for r, c in zip(*map(jax.tree.leaves, ingredients), strict=True)]
    result, start = np.zeros((sum(sizes(mean)),) * 2), 0
    for block in blocks:
        result[start : start + len(block), start : start + len(block)] = block
        start += len(block)
    return result


def _draw_update(base: Callable[..., Any]) -> Callable[..., Any]:
    """Something that is added to the covariance of a base, and something that is then added to the precision."""

    def draw(rng: np.random.Generator, tree: Any) -> Any:
        added, measured = (jax.tree.map(lambda x, k=k: rng.normal(size=(k, *np.shape(x))), tree) for k in (RANK - 1, 1))
        return base(rng, tree), added, measured

    return draw


def _build_update(base: Callable[..., gaussians.Gaussian]) -> Callable[..., gaussians.Gaussian]:
    def build(mean: Any, ingredients: Any) -> gaussians.Gaussian:
        inner, added, measured = ingredients
        gaussian = base(mean, inner)
        columns = canonical(jax.vmap(gaussian.whiten)(added), jnp.eye(RANK - 1))
        return gaussians.LowRank(gaussian, *columns).add_precision(measured)

    return build


def _update_covariance(base: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    def covariance(mean: Any, ingredients: Any) -> np.ndarray:
        inner, added, measured = ingredients
        rows, last = flat_rows(added), flat_rows(measured)
        return np.linalg.inv(np.linalg.inv(base(mean, inner) + rows.T @ rows) + last.T @ last)

    return covariance


def _isotropic_covariance(mean: Any, scale: Any) -> np.ndarray:
    return np.diag(full(scale, mean) ** 2)


CASES = [
    Case(
        "isotropic",
        lambda rng, tree: np.exp(rng.normal()),
        gaussians.isotropic,
        lambda mean, s: s**2 * np.eye(sum(sizes(mean))),
    ),
    Case("isotropic leaves", _one_per_leaf, gaussians.isotropic, _isotropic_covariance),
    Case("diagonal", _positive, gaussians.diagonal, lambda mean, a: np.diag(full(a, mean))),
    Case("broadcast", _broadcasting, gaussians.diagonal, lambda mean, a: np.diag(full(a, mean))),
    Case("low rank", _draw_low_rank, lambda mean, x: gaussians.low_rank(mean, *x), _low_rank_covariance),
    Case(
        "low rank broadcast",
        lambda rng, tree: (_broadcasting(rng, tree), _draw_low_rank(rng, tree)[1]),
        lambda mean, x: gaussians.low_rank(mean, *x),
        _low_rank_covariance,
    ),
    Case("low rank collinear", _draw_collinear, lambda mean, x: gaussians.low_rank(mean, *x), _low_rank_covariance),
    Case("low rank negative", _draw_canonical, _build_canonical, _canonical_covariance),
    Case("dense", _draw_dense, gaussians.dense, lambda mean, x: x),
    Case("blocks", _draw_blocks, _build_blocks, _blocks_covariance),
    Case("kronecker", _draw_kronecker, _build_kronecker, _kronecker_covariance),
    Case(
        "low rank on blocks",
        _draw_update(_draw_blocks),
        _build_update(_build_blocks),
        _update_covariance(_blocks_covariance),
    ),
    Case(
        "low rank on kronecker",
        _draw_update(_draw_kronecker),
        _build_update(_build_kronecker),
        _update_covariance(_kronecker_covariance),
    ),
    Case(
        "low rank on low rank",
        _draw_update(_draw_low_rank),
        _build_update(lambda mean, x: gaussians.low_rank(mean, *x)),
        _update_covariance(_low_rank_covariance),
    ),
]
BY_NAME = {case.name: case for case in CASES}


class Problem(NamedTuple):
    """A Gaussian as numpy ingredients, its dense covariance, and a point to ask about."""

    mean: Any
    ingredients: Any
    params: Any
    covariance: np.ndarray

    @property
    def arguments(self) -> tuple[Any, Any, Any]:
        return self.mean, self.ingredients, self.params


def draw_problem(case: Case, tree: str, seed: int) -> Problem:
    rng = np.random.default_rng([seed, sum(map(ord, case.name))])
    mean, params = TREES[tree](rng), TREES[tree](rng)
    ingredients = case.draw(rng, mean)
    return Problem(mean, ingredients, params, case.covariance(mean, ingredients))


def stacked(problems: list[Problem]) -> tuple[Any, Any, Any]:
    """Mean, ingredients and params of problems of one case and tree, stacked for vmap."""
    return jax.tree.map(lambda *xs: np.stack(xs), *(p.arguments for p in problems))


def compiled(program: Callable[..., Any], *args: Any) -> Callable[..., Any]:
    """A program compiled for arguments like these, fast rather than well, since it will run a few times only."""
    options = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    return jax.jit(program).lower(*args).compile(compiler_options=options)
