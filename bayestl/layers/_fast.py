"""Operations in a form that XLA does not slow down inside compiled loops on a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from bayestl.layers._products import of_convolution
from bayestl.layers._program import Op, Program, run
from bayestl.layers._windows import can_pool, pool


def run_fast(program: Program, op: Op, operands: Sequence[Any], a: jax.Array | None) -> Sequence[Any]:
    """The results of one operation; convolutions and pooling are computed from slices and products. ``a`` is the input
    of such a product, if it has been computed already."""
    result = program.shapes[op.outputs[0]]
    if op.name == "conv_general_dilated" and op.eqn.params["batch_group_count"] == 1:
        form = of_convolution(op.eqn.params, [x.shape for x in operands], result.shape)
        a = form.inputs(operands[0]) if a is None else a
        z = _product(a, form.weights(operands[1]), op.eqn.params["precision"], result.dtype)
        return [form.outputs.back(z)]
    is_pooling = op.name in ("reduce_window_max", "reduce_window_sum") and jnp.issubdtype(result.dtype, jnp.floating)
    if is_pooling and can_pool(op.eqn.params):
        return [pool(op.name, op.eqn.params, operands[0])]
    return run(op, operands)


def _product(a: jax.Array, w: jax.Array, precision: Any, dtype: Any) -> jax.Array:
    """``a W``, (P, g, O), for a (P, g, I) and W (g, I, O)."""
    if w.shape[0] == 1:
        return jnp.matmul(a[:, 0], w[0], precision=precision, preferred_element_type=dtype)[:, None]
    if w.shape[1] * w.shape[2] <= 64:
        # Many small products, as in a depthwise convolution, are faster as one sum.
        return jnp.sum(a[..., None] * w, axis=2, dtype=dtype)
    return jnp.einsum("pgi,gio->pgo", a, w, precision=precision, preferred_element_type=dtype)
