"""Variances in shapes that broadcast to their parameters: right in value (every law has a case), never made large."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file
from test_memory import _largest

from bayestl import gaussians

ROWS, COLUMNS = 400_000, 300
SHAPES = {
    "table": jax.ShapeDtypeStruct((ROWS, COLUMNS), jnp.float32),
    "head": jax.ShapeDtypeStruct((7,), jnp.float32),
}
PER_ROW = {
    "table": jax.ShapeDtypeStruct((ROWS, 1), jnp.float32),
    "head": jax.ShapeDtypeStruct((), jnp.float32),
}


def _bytes(tree: Any) -> int:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


OPERATIONS = {
    "itself": lambda g, mean, a: g,
    "rescale by a number": lambda g, mean, a: g.rescale(2.0),
    "rescale per leaf": lambda g, mean, a: g.rescale({"table": 2.0, "head": 3.0}),
    "rescale per row": lambda g, mean, a: g.rescale(a),
    "inflate": lambda g, mean, a: g.inflate(0.1),
    "around": lambda g, mean, a: g.around(mean),
    "restrict": lambda g, mean, a: g.restrict("table"),
    "condition": lambda g, mean, a: g.condition(mean, "table"),
    "realign": lambda g, mean, a: g.realign(mean),
    "independent variances": lambda g, mean, a: g.independent_variances(),
    "without columns": lambda g, mean, a: g.without_columns()[0],
}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("within", ["alone", "in blocks"])
def test_nothing_of_the_full_size_is_stored(operation, within):
    """One number per row of a 400,000 x 300 table are 1.6 MB beside its mean; one per parameter would be 480 MB."""

    def program(mean: Any, variances: Any) -> Any:
        g = gaussians.diagonal(mean, variances)
        if within == "in blocks":
            g = gaussians.by_path({"table": g, "**": g})
        result = OPERATIONS[operation](g, mean, variances)
        return (result, None) if not isinstance(result, gaussians.Gaussian) else (result, result.mean)

    result, mean = jax.eval_shape(program, SHAPES, PER_ROW)
    assert 0 < _bytes(result) - _bytes(mean) <= _bytes(PER_ROW)


def test_low_rank_stores_nothing_of_the_full_size_but_its_columns():
    def program(mean: Any, variances: Any, factor: Any) -> Any:
        return gaussians.low_rank(mean, variances, factor).rescale(variances)

    factor = jax.tree.map(lambda x: jax.ShapeDtypeStruct((2, *x.shape), x.dtype), SHAPES)
    result = jax.eval_shape(program, SHAPES, PER_ROW, factor)
    assert _bytes(result.base) == _bytes(SHAPES) + _bytes(PER_ROW)


@pytest.mark.parametrize("within", ["alone", "in blocks"])
def test_a_divergence_forms_nothing_of_the_full_size_for_the_variances(within):
    """The trace and the log determinants, which is all of a divergence but the distance of the means."""

    def both(mean: Any, variances: Any) -> tuple[Any, Any]:
        q, p = gaussians.diagonal(mean, variances), gaussians.isotropic(mean, 0.3)
        if within == "in blocks":
            return gaussians.by_path({"table": q, "**": q}), gaussians.by_path({"table": p, "**": p})
        return q, p

    def program(mean: Any, variances: Any) -> Any:
        q, p = both(mean, variances)
        trace = q.trace(p.precision_diagonal(), None) + p.precision_trace(q.independent_variances(), None)
        return trace + q.log_det_covariance() - p.log_det_covariance()

    assert _largest(program, SHAPES, PER_ROW) <= ROWS


def test_files_hold_the_small_shapes(tmp_path):
    mean = {"table": jnp.zeros((40, 30)), "head": jnp.zeros(3)}
    g = gaussians.diagonal(mean, {"table": jnp.arange(1.0, 41.0)[:, None], "head": 2.0})
    gaussians.save(tmp_path / "g", g)
    tensors = load_file(tmp_path / "g")
    assert {name: x.shape for name, x in tensors.items() if name.startswith("diagonal")} == {
        "diagonal/table": (40, 1),
        "diagonal/head": (),
    }
    loaded = gaussians.load(tmp_path / "g", like=mean)
    jax.tree.map(np.testing.assert_array_equal, loaded, g)
    np.testing.assert_array_equal(loaded.variance["table"][:, 7], np.arange(1, 41))


@pytest.mark.parametrize("shape", [(2,), (3, 1), (1, 2), (1, 1, 3), (0, 3)])
def test_shapes_that_do_not_broadcast_are_named(shape):
    mean = {"w": jnp.zeros((2, 3))}
    message = (
        rf"differ at 'w': \({', '.join(map(str, shape))},?\) against \(2, 3\), to which it does not broadcast; .*row"
    )
    with pytest.raises(ValueError, match=f"diagonal and mean {message}"):
        gaussians.diagonal(mean, {"w": jnp.ones(shape)})
    with pytest.raises(ValueError, match=f"c and mean {message}"):
        gaussians.isotropic(mean, 1.0).rescale({"w": jnp.ones(shape)})


def test_factors_that_a_kronecker_covariance_cannot_hold_are_refused():
    g = gaussians.kronecker({"w": jnp.zeros((2, 3))}, {"w": jnp.eye(2)}, {"w": jnp.eye(3)})
    with pytest.raises(ValueError, match=r"c and the leaves of mean differ at 'w': \(2, 1\) against \(\)"):
        g.rescale({"w": jnp.ones((2, 1))})
