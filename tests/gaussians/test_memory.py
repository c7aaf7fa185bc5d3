"""Nothing of size D x D is formed, by any method of any structure but dense."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayestl import gaussians

SIZE = 1000
RANK = 5


def _params() -> dict:
    return {"a": jnp.zeros((20, 25)), "b": jnp.zeros(300), "c": {"d": jnp.zeros((2, 5, 10, 2))}}


def _factor() -> Any:
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=(RANK, *x.shape))), _params())


def _blocks() -> gaussians.Gaussian:
    low_rank = gaussians.low_rank(_params(), 1.0, _factor())
    return gaussians.by_path({"a": low_rank, "**": low_rank})


def _update() -> gaussians.Gaussian:
    blocks = gaussians.by_path({"a": gaussians.isotropic(_params(), 1.0), "**": gaussians.isotropic(_params(), 2.0)})
    return gaussians.LowRank(blocks, _factor(), jnp.ones(RANK))


STRUCTURES = {
    "isotropic": lambda: gaussians.isotropic(_params(), 1.0),
    "diagonal": lambda: gaussians.diagonal(_params(), jax.tree.map(lambda x: x + 1, _params())),
    "low rank": lambda: gaussians.low_rank(_params(), 1.0, _factor()),
    "blocks": _blocks,
    "low rank on blocks": _update,
}
METHODS = {
    "log_prob": lambda g, x: g.log_prob(x),
    "gradient": lambda g, x: jax.grad(g.log_prob)(x),
    "sample": lambda g, x: g.sample(jax.random.key(0), 2),
    "variance": lambda g, x: g.variance,
    "precision_diagonal": lambda g, x: g.precision_diagonal(),
    "precision_mv": lambda g, x: g.precision_mv(x),
    "covariance_mv": lambda g, x: g.covariance_mv(x),
    "whiten": lambda g, x: g.whiten(x),
    "unwhiten": lambda g, x: g.unwhiten(x),
    "rescale": lambda g, x: g.rescale(2.0),
    "inflate": lambda g, x: g.inflate(2.0),
    "restrict": lambda g, x: g.restrict(["a", "c/**"]),
    "condition": lambda g, x: g.condition(x, "c/**"),
}


def _sizes(jaxpr: Any) -> Iterator[int]:
    """The size of every intermediate, those of inner programs included."""
    for equation in jaxpr.eqns:
        yield from (v.aval.size for v in equation.outvars if hasattr(v.aval, "size"))
        for inner in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from _sizes(inner)


def _largest(function: Any, *args: Any) -> int:
    return max(_sizes(jax.make_jaxpr(function)(*args).jaxpr), default=0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("structure", STRUCTURES)
def test_no_method_forms_a_matrix(structure, method):
    g = STRUCTURES[structure]()
    # Draws and both products with the columns at once: a few times rank x D.
    assert _largest(METHODS[method], g, _params()) <= 2 * RANK * SIZE


def test_no_constructor_forms_a_matrix():
    assert _largest(lambda f: gaussians.low_rank(_params(), 1.0, f), _factor()) <= 2 * RANK * SIZE


@pytest.mark.parametrize("p", STRUCTURES)
@pytest.mark.parametrize("q", STRUCTURES)
def test_no_divergence_forms_a_matrix(q, p):
    # The columns of q against those of p: rank x 2 x D.
    assert _largest(gaussians.kl_divergence, STRUCTURES[q](), STRUCTURES[p]()) <= 2 * RANK * SIZE


def test_a_matrix_would_be_seen():
    dense = gaussians.Dense(_params(), jnp.eye(SIZE))
    assert _largest(lambda g: g.covariance(), dense) >= SIZE**2
    assert _largest(jax.jit(lambda x: jnp.sum(jnp.outer(x, x))), jnp.ones(SIZE)) >= SIZE**2
