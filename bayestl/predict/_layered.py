"""Covariances of outputs under Kronecker-factored posteriors, layer by layer.

The Jacobian of an output in a layer's matrix is a sum over positions of ``a g^T``, layer input times output gradient.
Rotating a and g into the basis in which the posterior is independent costs I^2 + O^2; rotating the Jacobian itself, one
matrix for every output, would cost I O (I + O). Where a low-rank change is on top, its columns go forward through the
network instead, one by one: ``J Sigma J^T = J S S^T J^T + sum_j lam_j (J S q_j) (J S q_j)^T``.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import Precision

from bayestl import _tree
from bayestl import layers as network_layers
from bayestl._types import Apply, Params
from bayestl.gaussians import Columns, Gaussian, MatrixLayout, Rearrangement
from bayestl.layers import LayerGradients
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
def layered_moments_of_chunk(linear: Linearization, inputs: Any, *, apply: Apply) -> tuple[Any, jax.Array]:
    """Outputs at the mean, leaves (B, ...), and ``J Sigma J^T``, (B, F, F)."""
    outputs = linear.outputs(apply, linear.gaussian.mean, inputs)
    layers, leaves = _gradients(apply, linear, inputs)
    base, columns = _split(linear.gaussian)
    covariance = _tree.total(_block_covariance(block, layers, leaves) for block in base.blocks())
    if columns is not None:
        covariance += _columns_covariance(apply, linear, base, columns, inputs)
    return outputs, covariance


def layered_batch_size(apply: Apply, linear: Linearization, inputs: Any) -> int:
    """How many examples at once."""
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *jnp.shape(x)[1:]), x.dtype), inputs)
    layers, leaves = jax.eval_shape(partial(_gradients, apply), linear, one)
    held = jax.tree.leaves((layers, leaves))
    # The Jacobians of layers that several positions share are formed.
    shared = [
        s.gradients.shape[0] * s.inputs.shape[2] * s.inputs.shape[3] * s.gradients.shape[4]
        for s in layers.values()
        if s.inputs.shape[1] > 1
    ]
    limit = _ON_CPU if jax.default_backend() == "cpu" else _ELSEWHERE
    return max(limit // max(sum(x.size for x in held) + sum(shared), 1), 1)


def _gradients(
    apply: Apply, linear: Linearization, inputs: Any
) -> tuple[dict[str, LayerGradients], dict[str, jax.Array]]:
    """The layers of Kronecker blocks by the path of their weights, and gradients (F, B, *shape) of all other leaves."""
    mean = linear.gaussian.mean
    network = network_layers.find(partial(linear.outputs, apply), mean, inputs)
    gradients = network_layers.gradients(network, inputs, _one_per_output)
    names = _tree.paths(mean)
    blocks = _split(linear.gaussian)[0].blocks()
    layouts = {block.layout.weights: block.layout for block in blocks if block.layout is not None}
    layers: dict[str, LayerGradients] = {}
    leaves = {names[leaf]: g for leaf, g in gradients.leaves.items()}
    for site, layer in zip(network.uses.weights, gradients.layers, strict=True):
        name = names[site.leaf]
        bias = None if site.bias is None else names[site.bias]
        if name in layouts and _fits(layouts[name], site.rearrangement, bias):
            layers[name] = layer
        else:
            leaves[name] = _back(site.rearrangement, layer)
    return layers, leaves


def _fits(layout: MatrixLayout, rearrangement: Rearrangement, bias: str | None) -> bool:
    """Whether a block's matrix is that of the layer as the network uses it."""
    if layout.bias not in (None, bias):
        return False
    shape = rearrangement.shape
    if layout.rearrangement.shape != shape:
        return False
    # There are several ways to write one rearrangement down.
    order = np.arange(math.prod(shape)).reshape(shape)
    return np.array_equal(layout.rearrangement(order), rearrangement(order))


def _one_per_output(outputs: Any) -> Any:
    """Columns of the identity in output space, leaves (F, B, ...)."""
    size = sum(x.size // x.shape[0] for x in jax.tree.leaves(outputs))
    dtype = jnp.result_type(*jax.tree.leaves(outputs))
    columns = unflat(jnp.eye(size, dtype=dtype)[:, None], outputs, 1)
    return jax.tree.map(lambda c, f: jnp.broadcast_to(c, (size, *f.shape)), columns, outputs)


def _back(rearrangement: Any, layer: LayerGradients) -> jax.Array:
    """Gradients of the weights themselves, (F, B, *shape)."""
    matrix = jnp.einsum("bpgi,fbpgo->fbgio", layer.inputs, layer.gradients, precision=Precision.HIGHEST)
    return jax.vmap(jax.vmap(rearrangement.back))(matrix)


def _split(gaussian: Gaussian) -> tuple[Gaussian, Columns | None]:
    """What a low-rank change of all parameters is on top of, and its columns; blocks keep theirs."""
    return gaussian.without_columns() if len(gaussian.blocks()) == 1 else (gaussian, None)


# ---------------------------------------------------------------- one block


def _block_covariance(block: Gaussian, layers: dict[str, LayerGradients], leaves: dict[str, jax.Array]) -> jax.Array:
    """What the parameters of one block add to the covariance of the outputs, (B, F, F)."""
    if block.layout is not None and block.layout.weights in layers:
        return block.covariance_of_products(*layers[block.layout.weights])
    one = next(iter([*leaves.values(), *(layer.gradients for layer in layers.values())]))
    missing = {path: jnp.zeros((*one.shape[:2], *x.shape), x.dtype) for path, x in _tree.by_paths(block.mean).items()}
    rows = _tree.restructure({**missing, **leaves}, block.mean)
    rows = jax.vmap(jax.vmap(transposed_unwhiten(block)))(rows)
    return jax.vmap(_tree.columns_gram, in_axes=1)(rows, rows)


def _columns_covariance(
    apply: Apply, linear: Linearization, base: Gaussian, columns: Columns, inputs: Any
) -> jax.Array:
    """What a low-rank change adds to the covariance of the outputs, (B, F, F)."""

    def along(column: Params) -> jax.Array:
        def outputs(part: Params) -> jax.Array:
            return flat(linear.outputs(apply, part, inputs), 1)

        return jax.jvp(outputs, (base.mean,), (base.unwhiten(column),))[1]

    images = jax.lax.map(along, columns.basis)
    return jnp.einsum("k,kbf,kbh->bfh", columns.eigenvalues, images, images, precision=Precision.HIGHEST)
