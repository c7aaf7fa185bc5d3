"""Linear-Gaussian problems, whose posteriors are known: plain numpy in float64 is the oracle.

``y = X theta + noise`` under a Gaussian prior. Parameters are a nested tree; the columns of X follow
``jax.tree.leaves``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import bayestl as btl

FIXTURE = json.loads((Path(__file__).parent.parent / "fixtures" / "linear_gaussian.json").read_text())


class Problem(NamedTuple):
    """Data, the prior's ingredients (its mean flat), and the exact posterior. Numpy only."""

    inputs: np.ndarray
    targets: np.ndarray
    noise: np.ndarray
    prior: Any
    mean: np.ndarray
    covariance: np.ndarray
    largest_curvature: np.ndarray
    """Of the loss per datum: what a learning rate must be measured by."""


class Structure(NamedTuple):
    """A covariance structure: its ingredients, its dense covariance, and how bayestl builds it."""

    name: str
    draw: Callable[[np.random.Generator, int], Any]
    covariance: Callable[[Any], np.ndarray]
    build: Callable[[Any, Any], btl.gaussians.Gaussian]
    """``(mean tree, ingredients) -> Gaussian``; may be traced."""


# ---------------------------------------------------------------- trees


def tree(flat: Any) -> dict[str, Any]:
    """A flat vector as nested parameters: a head of two numbers, a body with the rest."""
    return {"body": {"kernel": flat[2:].reshape(2, -1) if len(flat) > 3 else flat[2:]}, "a/head": flat[:2]}


def flat(params: Any) -> np.ndarray:
    """The numbers of :func:`tree`, in the order of the columns of X."""
    return np.concatenate([np.asarray(x, np.float64).ravel() for x in jax.tree.leaves(params)])


def rows(columns: Any) -> Any:
    """A matrix (k, D) as a tree of leaves (k, *shape)."""
    return jax.vmap(tree)(columns)


def linear(params: Any, inputs: jax.Array) -> jax.Array:
    """The network."""
    return inputs @ jnp.concatenate([x.reshape(-1) for x in jax.tree.leaves(params)])


def net(size: int) -> btl.Net:
    return btl.nets.from_function(linear, tree(jnp.zeros(size)))


def data(problem: Problem) -> Any:
    return btl.data.arrays(problem.inputs, problem.targets)


# ---------------------------------------------------------------- structures


def _diagonal(rng: np.random.Generator, size: int) -> np.ndarray:
    return np.exp(0.5 * rng.normal(size=size))


def _canonical(rng: np.random.Generator, size: int) -> Any:
    basis = np.linalg.qr(rng.normal(size=(size, 3)))[0].T
    return _diagonal(rng, size), basis, np.array([-0.9, rng.uniform(-0.7, -0.1), rng.uniform(0.5, 4.0)])


def _canonical_covariance(x: Any) -> np.ndarray:
    diagonal, basis, lam = x
    inner = np.eye(len(diagonal)) + basis.T @ (lam[:, None] * basis)
    return np.sqrt(diagonal)[:, None] * inner * np.sqrt(diagonal)


def _dense(rng: np.random.Generator, size: int) -> np.ndarray:
    root = rng.normal(size=(size, size)) / np.sqrt(size)
    return root @ root.T + 0.1 * np.eye(size)


def _blocks_covariance(x: Any) -> np.ndarray:
    variance, dense = x
    covariance = dense.copy()
    covariance[:2], covariance[:, :2] = 0.0, 0.0
    covariance[:2, :2] = variance * np.eye(2)
    return covariance


def _build_blocks(mean: Any, x: Any) -> btl.gaussians.Gaussian:
    variance, dense = x
    head = btl.gaussians.isotropic(mean, jnp.sqrt(variance))
    return btl.gaussians.by_path({"a~1head": head, "**": btl.gaussians.dense(mean, dense)})


STRUCTURES = [
    Structure(
        "isotropic",
        lambda rng, size: (np.exp(rng.normal()), np.ones(size)),
        lambda x: x[0] * np.diag(x[1]),
        lambda mean, x: btl.gaussians.isotropic(mean, jnp.sqrt(x[0])),
    ),
    Structure("diagonal", _diagonal, np.diag, lambda mean, x: btl.gaussians.diagonal(mean, tree(x))),
    Structure(
        "low rank",
        lambda rng, size: (_diagonal(rng, size), rng.normal(size=(3, size))),
        lambda x: np.diag(x[0]) + x[1].T @ x[1],
        lambda mean, x: btl.gaussians.low_rank(mean, tree(x[0]), rows(x[1])),
    ),
    Structure(
        "low rank, negative",
        _canonical,
        _canonical_covariance,
        lambda mean, x: btl.gaussians.LowRank(btl.gaussians.Diagonal(mean, tree(x[0])), rows(x[1]), x[2]),
    ),
    Structure("dense", _dense, lambda x: x, btl.gaussians.dense),
    Structure("blocks", lambda rng, size: (np.exp(rng.normal()), _dense(rng, size)), _blocks_covariance, _build_blocks),
]
BY_NAME = {structure.name: structure for structure in STRUCTURES}


def _factors(rng: np.random.Generator, size: int) -> Any:
    """Of the head, one row of two numbers, and of the body, two rows."""
    return np.exp(rng.normal(size=(1, 1))), _dense(rng, 2), _dense(rng, 2), _dense(rng, size // 2 - 1)


def _kronecker_covariance(x: Any) -> np.ndarray:
    head, body = np.kron(x[0], x[1]), np.kron(x[2], x[3])
    return np.block([[head, np.zeros((2, len(body)))], [np.zeros((len(body), 2)), body]])


def _build_kronecker(mean: Any, x: Any) -> btl.gaussians.Gaussian:
    rows, columns = ({"a/head": h, "body": {"kernel": b}} for h, b in ((x[0], x[2]), (x[1], x[3])))
    return btl.gaussians.kronecker(mean, rows, columns)


# Not among the others: closed forms of Laplace and of NumPyro's sites know it apart.
KRONECKER = Structure("kronecker", _factors, _kronecker_covariance, _build_kronecker)


# ---------------------------------------------------------------- problems


def solve(inputs: Any, targets: Any, noise: float, mean: Any, covariance: np.ndarray, kappa: float = 1.0) -> Any:
    """Posterior mean and covariance, and the largest curvature of the loss per effective datum."""
    precision = kappa * inputs.T @ inputs / noise**2 + np.linalg.inv(covariance)
    posterior = np.linalg.inv(precision)
    right = kappa * inputs.T @ targets / noise**2 + np.linalg.solve(covariance, mean)
    return posterior @ right, posterior, np.linalg.eigvalsh(precision)[-1] / (kappa * len(inputs))


def draw(structure: Structure, size: int, num: int, seed: int) -> Problem:
    """A random problem with ``num`` examples of ``size`` parameters."""
    rng = np.random.default_rng([seed, size, sum(map(ord, structure.name))])
    inputs, truth, noise = rng.normal(size=(num, size)), rng.normal(size=size), np.exp(0.3 * rng.normal())
    targets = inputs @ truth + noise * rng.normal(size=num)
    mean, ingredients = rng.normal(size=size), structure.draw(rng, size)
    solved = solve(inputs, targets, noise, mean, structure.covariance(ingredients))
    return Problem(inputs, targets, noise, (mean, ingredients), *solved)


def joint(structure: Structure, problem: Any, cast: Any = lambda net: net, **changes: Any) -> btl.LogJoint:
    """The log joint of a problem, whose numbers may be traced; ``cast`` changes what the network computes in."""
    mean, ingredients = problem.prior
    num, size = problem.inputs.shape
    prior = structure.build(tree(jnp.asarray(mean)), ingredients)
    return btl.LogJoint(cast(net(size)), btl.likelihoods.normal(problem.noise), prior, **{"num_data": num, **changes})


def stacked(problems: list[Problem]) -> Problem:
    """Problems of one structure and size, with a leading member axis on every leaf."""
    return jax.tree.map(lambda *xs: np.stack(xs), *problems)


def stacked_data(problems: Problem) -> Any:
    """Their data, for many fits at once."""
    members = [btl.data.arrays(*pair) for pair in zip(problems.inputs, problems.targets, strict=True)]
    return btl.data.stack(members)


def fixture_problem(prior: str, kappa: float = 1.0) -> tuple[Structure, Problem]:
    """The fixture's data under one of its priors: "low rank", "isotropic" or "zero mean"; the answer is left open."""
    structure = BY_NAME["low rank" if prior == "low rank" else "isotropic"]
    ingredients: Any = (np.array(FIXTURE["low_rank_diag"]), np.array(FIXTURE["low_rank_factor"]).T)
    if prior != "low rank":
        ingredients = (np.float64(2.0), np.ones(3))
    mean = np.zeros(3) if prior == "zero mean" else np.array(FIXTURE["prior_mean"])
    inputs, targets = np.array(FIXTURE["X"]), np.array(FIXTURE["y"])
    noise = np.sqrt(FIXTURE["sigma2"])
    solved = solve(inputs, targets, noise, mean, structure.covariance(ingredients), kappa)
    return structure, Problem(inputs, targets, noise, (mean, ingredients), *solved)
