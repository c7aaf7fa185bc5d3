"""Covariances of outputs under Kronecker-factored posteriors and, for tables of look-ups, diagonal ones; by layers.

The Jacobian of an output in a layer's matrix is a sum over positions of ``a g^T``, layer input times output gradient.
Rotating a and g into the basis in which the posterior is independent costs I^2 + O^2; rotating the Jacobian itself, one
matrix for every output, would cost I O (I + O). Where a low-rank change is on top, its columns go forward through the
network instead, one by one: ``J Sigma J^T = J S S^T J^T + sum_j lam_j (J S q_j) (J S q_j)^T``.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import Precision

from bayestl import _tree
from bayestl import layers as network_layers
from bayestl._convolutions import loop_map
from bayestl._types import Apply, Inputs, Outputs, Params
from bayestl.gaussians import Columns, Gaussian, MatrixLayout, Rearrangement
from bayestl.layers import ProductGradients, RowGradients, TiedGradients, once_per_row, weight_gradients
from bayestl.predict._gaussian_outputs import flat, unflat
from bayestl.predict._jacobian import Linearization, transposed_unwhiten

# Numbers that one batch may take: what the caches of a CPU hold, or a part of an accelerator's memory.
_ON_CPU, _ELSEWHERE = 2**22, 2**28


def is_layered(gaussian: Gaussian) -> bool:
    """Whether a Gaussian has Kronecker-factored layers, and no low-rank change on top that takes away most of what they
    have: then the sum over the columns cancels, and Gram matrices of rows do not.
    """
    base, columns = _split(gaussian)
    if columns is not None and not (
        _tree.is_concrete(columns.eigenvalues) and bool(jnp.all(columns.eigenvalues > -0.5))
    ):
        return False
    return any(block.layout is not None for block in base.blocks())


@partial(jax.jit, static_argnames="apply")
def layered_moments_of_chunk(linear: Linearization, inputs: Inputs, *, apply: Apply) -> tuple[Any, jax.Array]:
    """Outputs at the mean, leaves (B, ...), and ``J Sigma J^T``, (B, F, F)."""
    outputs = linear.outputs(apply, linear.gaussian.mean, inputs)
    layers, leaves = _gradients(apply, linear, inputs)
    base, columns = _split(linear.gaussian)
    covariance = _tree.total(_block_covariance(block, layers, leaves) for block in base.blocks())
    if columns is not None:
        covariance += _columns_covariance(apply, linear, base, columns, inputs)
    return outputs, covariance


def layered_batch_size(apply: Apply, linear: Linearization, inputs: Inputs) -> int:
    """How many examples at once."""
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *jnp.shape(x)[1:]), x.dtype), inputs)

    def shapes_of(
        linear: Linearization, inputs: Inputs
    ) -> tuple[list[ProductGradients | RowGradients], list[jax.Array]]:
        layers, leaves = _gradients(apply, linear, inputs)
        return [part.gradients for part in layers.values()], list(leaves.values())

    layers, leaves = jax.eval_shape(shapes_of, linear, one)
    held = jax.tree.leaves((layers, leaves))
    # The Jacobians of layers that several positions share are formed.
    shared = [
        s.gradients.shape[0] * s.inputs.shape[2] * s.inputs.shape[3] * s.gradients.shape[4]
        for s in layers
        if isinstance(s, ProductGradients) and s.inputs.shape[1] > 1
    ]
    limit = _ON_CPU if jax.default_backend() == "cpu" else _ELSEWHERE
    return max(limit // max(sum(x.size for x in held) + sum(shared), 1), 1)


def has_lookups(apply: Apply, linear: Linearization, inputs: Inputs) -> bool:
    """Whether the covariances of a diagonal Gaussian are to be computed layer by layer: a table of look-ups has a few
    rows in the Jacobian of an example, which would else be held as a whole."""
    if any(block.independent_variances() is None for block in linear.gaussian.blocks()):
        return False
    answers = []

    def shapes_only(linear: Linearization, inputs: Inputs) -> None:
        network = network_layers.find(partial(linear.outputs, apply), linear.gaussian.mean, inputs)
        answers.append(any(layer.is_lookup for layer in network.layers))

    jax.eval_shape(shapes_only, linear, inputs)
    return answers[0]


class _Part(NamedTuple):
    """A layer in one batch.

    Attributes:
        rearrangement: from its parameter to the matrix (g, I, O).
        gradients: what enters it, and the gradients of the network's outputs.
    """

    rearrangement: Rearrangement
    gradients: ProductGradients | RowGradients


def _gradients(apply: Apply, linear: Linearization, inputs: Inputs) -> tuple[dict[str, _Part], dict[str, jax.Array]]:
    """The layers of Kronecker and diagonal blocks by the path of their weights, and gradients (F, B, *shape) of all
    other leaves."""
    mean = linear.gaussian.mean
    network = network_layers.find(partial(linear.outputs, apply), mean, inputs)
    gradients = network_layers.gradients(network, inputs, _one_per_output)
    names = network.paths
    layouts: dict[str, MatrixLayout] = {}
    for block in _split(linear.gaussian)[0].blocks():
        if block.layout is not None:
            layouts[block.layout.weights] = block.layout
        elif block.independent_variances() is not None:
            inside = set(_tree.paths(block.mean))
            of_block = [layer for layer in network.layers if names[layer.leaf] in inside]
            layouts |= {names[x.leaf]: MatrixLayout(names[x.leaf], x.rearrangement) for x in of_block}
    layers: dict[str, _Part] = {}
    leaves = {names[leaf]: g for leaf, g in gradients.leaves.items()}
    for layer, of_layer in zip(network.layers, gradients.layers, strict=True):
        name = names[layer.leaf]
        bias = None if layer.bias is None else names[layer.bias]
        is_one = not isinstance(of_layer, TiedGradients)
        if is_one and name in layouts and _fits(layouts[name], layer.rearrangement, bias):
            layers[name] = _Part(layer.rearrangement, of_layer)
        else:
            leaves[name] = weight_gradients(layer, of_layer)
    return layers, leaves


def _fits(layout: MatrixLayout, rearrangement: Rearrangement, bias: str | None) -> bool:
    """Whether a block's matrix is that of the layer as the network uses it."""
    if layout.bias not in (None, bias):
        return False
    shape = rearrangement.shape
    if layout.rearrangement == rearrangement:
        return True
    if layout.rearrangement.shape != shape or layout.rearrangement.result != rearrangement.result:
        return False
    # There are several ways to write one rearrangement down.
    order = np.arange(math.prod(shape)).reshape(shape)
    return np.array_equal(layout.rearrangement(order), rearrangement(order))


def _one_per_output(outputs: Outputs) -> Any:
    """Columns of the identity in output space, leaves (F, B, ...)."""
    size = sum(x.size // x.shape[0] for x in jax.tree.leaves(outputs))
    dtype = jnp.result_type(*jax.tree.leaves(outputs))
    columns = unflat(jnp.eye(size, dtype=dtype)[:, None], outputs, 1)
    return jax.tree.map(lambda c, f: jnp.broadcast_to(c, (size, *f.shape)), columns, outputs)


def _split(gaussian: Gaussian) -> tuple[Gaussian, Columns | None]:
    """What a low-rank change of all parameters is on top of, and its columns; blocks keep theirs."""
    return gaussian.without_columns() if len(gaussian.blocks()) == 1 else (gaussian, None)


# ---------------------------------------------------------------- one block


def _block_covariance(block: Gaussian, layers: dict[str, _Part], leaves: dict[str, jax.Array]) -> jax.Array:
    """What the parameters of one block add to the covariance of the outputs, (B, F, F)."""
    if block.layout is not None and block.layout.weights in layers:
        return _layer_covariance(block, layers[block.layout.weights].gradients)
    variances = block.independent_variances()
    if variances is not None:
        return _diagonal_covariance(block.mean, variances, layers, leaves)
    one = next(iter([*leaves.values(), *(part.gradients.gradients for part in layers.values())]))
    missing = {path: jnp.zeros((*one.shape[:2], *x.shape), x.dtype) for path, x in _tree.by_paths(block.mean).items()}
    rows = _tree.restructure({**missing, **leaves}, block.mean)
    rows = jax.vmap(jax.vmap(transposed_unwhiten(block)))(rows)
    return jax.vmap(_tree.columns_gram, in_axes=1)(rows, rows)


def _layer_covariance(block: Gaussian, layer: ProductGradients | RowGradients) -> jax.Array:
    if isinstance(layer, RowGradients):
        return block.covariance_of_rows(*once_per_row(layer))
    return block.covariance_of_products(*layer)


def _diagonal_covariance(
    mean: Params, variances: Params, layers: dict[str, _Part], leaves: dict[str, jax.Array]
) -> jax.Array:
    """``sum_i v_i J_fi J_hi`` over the parameters of one block."""
    one = next(iter([*leaves.values(), *(part.gradients.gradients for part in layers.values())]))
    total = jnp.zeros((one.shape[1], one.shape[0], one.shape[0]), one.dtype)
    shapes = {path: x.shape for path, x in _tree.by_paths(mean).items()}
    for path, variance in _tree.by_paths(variances).items():
        variance = jnp.broadcast_to(variance, shapes[path])
        if path in leaves:
            rows = (leaves[path] * jnp.sqrt(variance)).reshape(*leaves[path].shape[:2], -1)
            total += _einsum("fbm,hbm->bfh", rows, rows)
        elif path in layers:
            spectrum, layer = layers[path].rearrangement(variance), layers[path].gradients
            if isinstance(layer, RowGradients):
                total += _rows_covariance(layer, spectrum)
            else:
                total += _products_covariance(layer.inputs, layer.gradients, spectrum)
    return total


def _products_covariance(a: jax.Array, z: jax.Array, spectrum: jax.Array) -> jax.Array:
    """``sum_io lam_io M_fio M_hio`` with ``M_f = sum_p a_p z_fp^T``; lam (g, I, O)."""
    if a.shape[1] == 1:
        a, z = a[:, 0], z[:, :, 0]
        weights = _einsum("bgi,gio->bgo", a * a, spectrum)
        z = z * jnp.sqrt(weights)
        return _einsum("fbgo,hbgo->bfh", z, z)
    matrix = _einsum("bpgi,fbpgo->bfgio", a, z) * jnp.sqrt(spectrum)
    matrix = matrix.reshape(*matrix.shape[:2], -1)
    return _einsum("bfm,bhm->bfh", matrix, matrix)


def _rows_covariance(layer: RowGradients, spectrum: jax.Array) -> jax.Array:
    """The same for rows of a table, of which only those that were looked up are touched; lam (V, 1, O)."""
    rows, z = once_per_row(layer)
    weights = spectrum[:, 0].at[rows].get(mode="fill", fill_value=0)
    z = z * jnp.sqrt(weights)
    return _einsum("fbpo,hbpo->bfh", z, z)


def _columns_covariance(
    apply: Apply, linear: Linearization, base: Gaussian, columns: Columns, inputs: Inputs
) -> jax.Array:
    """What a low-rank change adds to the covariance of the outputs, (B, F, F)."""

    def along(column: Params) -> jax.Array:
        def outputs(part: Params) -> jax.Array:
            return flat(linear.outputs(apply, part, inputs), 1)

        return jax.jvp(outputs, (base.mean,), (base.unwhiten(column),))[1]

    images = loop_map(along, columns.basis)
    return jnp.einsum("k,kbf,kbh->bfh", columns.eigenvalues, images, images, precision=Precision.HIGHEST)


def _einsum(subscripts: str, *operands: jax.Array) -> jax.Array:
    return jnp.einsum(subscripts, *operands, precision=Precision.HIGHEST)
