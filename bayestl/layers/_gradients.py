"""Inputs and output gradients of every layer of a network, example by example, from one program.

The program for one example is evaluated with zeros added to the outputs of its layers. One product with the transposed
Jacobian per column then gives the gradients at all those places, for a whole batch. The gradient of a layer's weights
is the product of its input and its output gradient. The network only has to be traceable by JAX.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.lax import Precision

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._types import Inputs
from bayestl.layers._find import Layer, Site
from bayestl.layers._lookups import RowForm
from bayestl.layers._network import LayeredNetwork, examples_of
from bayestl.layers._pulled_back import pulled_back
from bayestl.layers._replay import Entered, evaluate, places


class ProductGradients(NamedTuple):
    """A layer in one batch of B examples, with P positions that share its weights, g groups and K columns.

    Attributes:
        inputs: a, (B, P, g, I).
        gradients: of the K columns with respect to the layer's output z = a W, (K, B, P, g, O).
    """

    inputs: jax.Array
    gradients: jax.Array


class RowGradients(NamedTuple):
    """A table in one batch of B examples, each of which looks up P rows of O numbers; K columns.

    Attributes:
        rows: their numbers, (B, P) integers; V for no row.
        gradients: of the K columns with respect to the rows that were looked up, (K, B, P, O).
    """

    rows: jax.Array
    gradients: jax.Array


class TiedGradients(NamedTuple):
    """A parameter whose sites use it as different matrices.

    Attributes:
        sites: one entry per site, in the layer's order.
    """

    sites: tuple[ProductGradients | RowGradients, ...]


LayerGradients = ProductGradients | RowGradients | TiedGradients


class Gradients(NamedTuple):
    """The gradients of one batch, in at least float32.

    Attributes:
        layers: one per layer.
        leaves: gradients of all other parameters (biases included), leaf number to (K, B, *shape).
    """

    layers: tuple[LayerGradients, ...]
    leaves: dict[int, jax.Array]


def gradients(network: LayeredNetwork, inputs: Inputs, columns: Callable[[Any], Any]) -> Gradients:
    """The inputs of the layers, and the gradients of ``columns^T f`` for the network's outputs f, for one batch.

    Args:
        network: from :func:`find`.
        inputs: a batch, leaves (B, ...).
        columns: a function from outputs (B, ...), of at least float32, to the columns (K, B, ...) that are pulled back
            through the network.

    Example:
        >>> params = {"w": jnp.ones((3, 2))}
        >>> network = btl.layers.find(lambda params, x: x @ params["w"], params, jnp.ones((5, 3)))
        >>> layer = btl.layers.gradients(network, jnp.ones((5, 3)), lambda outputs: outputs[None]).layers[0]
        >>> layer.inputs.shape, layer.gradients.shape
        ((5, 1, 1, 3), (1, 5, 1, 1, 2))
    """
    check_arguments(gradients, locals())
    examples = examples_of(network, inputs)
    num = examples[0].shape[0]
    zeros = jax.tree.map(lambda s: jnp.zeros((num, *s.shape), s.dtype), places(network))

    def network_of(zeros: Any) -> Any:
        return jax.vmap(lambda example, added: evaluate(network, example, added))(examples, zeros)

    outputs, pull_back, entered = jax.vjp(network_of, zeros, has_aux=True)
    outputs = jax.tree.unflatten(network.program.outputs_tree, outputs)
    directions = jax.tree.leaves(columns(_tree.at_least_float32(outputs)))
    directions = [s.astype(f.dtype) for s, f in zip(directions, jax.tree.leaves(outputs), strict=True)]
    results, deltas = jax.vmap(lambda s: pull_back(s)[0])(directions)
    layers = tuple(_of_layer(layer, entered, results) for layer in network.layers)
    leaves = dict(deltas)
    for use in network.operations:
        of_use = jax.vmap(jax.vmap(pulled_back(network, use), (None, 0)), (0, 1), 1)
        for leaf, gradient in of_use(entered.operands[use.path], results[use.path]).items():
            leaves[leaf] = leaves[leaf] + gradient if leaf in leaves else gradient
    return Gradients(*_at_least_float32(layers, leaves))


def weight_gradient(layer: Layer, of_layer: LayerGradients) -> jax.Array:
    """The gradient of a layer's parameter, for one example and one column; no array has an axis for these two."""
    parts = of_layer.sites if isinstance(of_layer, TiedGradients) else [of_layer]
    each = []
    for site, part in zip(layer.sites, parts, strict=False):
        if isinstance(part, RowGradients):
            table = jnp.zeros(site.rearrangement.result, part.gradients.dtype)
            matrix = table.at[part.rows, 0].add(part.gradients, mode="drop")
        else:
            matrix = jnp.einsum("pgi,pgo->gio", part.inputs, part.gradients, precision=Precision.HIGHEST)
        each.append(site.rearrangement.back(matrix))
    return _tree.total(each)


def weight_gradients(layer: Layer, of_layer: LayerGradients) -> jax.Array:
    """The gradients of a layer's parameter, (K, B, *shape)."""
    parts = list(of_layer.sites) if isinstance(of_layer, TiedGradients) else [of_layer]

    def each(parts: Any) -> jax.Array:
        return weight_gradient(layer, TiedGradients(tuple(parts)))

    axes: list[Any] = [type(part) for part in parts]
    over_columns = [of_part(None, 0) for of_part in axes]
    return jax.vmap(jax.vmap(each), (over_columns,))(parts)


def once_per_row(layer: RowGradients) -> RowGradients:
    """The same table with an example's gradients summed per row, at the row's first position; 0 at its others."""
    rows, z = layer
    if rows.shape[1] == 1:
        return layer
    same, first = same_rows(rows)
    z = jnp.einsum("bpq,kbqo->kbpo", same.astype(z.dtype), z, precision=Precision.HIGHEST)
    return RowGradients(rows, jnp.where(first[..., None], z, 0))


def same_rows(rows: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Which positions look up the same row, (B, P, P), and which are the first to look up their row, (B, P)."""
    same = rows[:, :, None] == rows[:, None, :]
    return same, jnp.argmax(same, axis=-1) == jnp.arange(rows.shape[1])


def held_numbers(network: LayeredNetwork) -> tuple[int, int]:
    """How many numbers :func:`gradients` stores per example, and how many more per column of an example."""
    program, of_example, of_column = network.program, 0, 0
    for site in (site for layer in network.layers for site in layer.sites):
        op = program.op(site.use.path)
        operand, result = program.shapes[op.inputs[site.operand]], program.shapes[op.outputs[0]].size
        steps = 1 if site.use.scanned is None else site.use.scanned.length
        if isinstance(site.form, RowForm):
            of_example += steps * site.form.positions
            of_column += 3 * steps * result
        else:
            size = jax.eval_shape(lambda x, form=site.form: form.inputs(x), operand).size
            of_example += steps * size
            of_column += steps * (3 * result + size * site.form.is_rewritten)
    others = {leaf for use in network.operations for leaf in use.leaves} | set(network.outputs)
    of_column += sum(network.leaves[leaf].size for leaf in others)
    return of_example, of_column


# ---------------------------------------------------------------- layers


def _of_layer(layer: Layer, entered: Entered, results: dict[Any, Sequence[jax.Array]]) -> LayerGradients:
    parts = [_of_site(site, entered, results[site.use.path][0]) for site in layer.sites]
    if len(parts) == 1:
        return parts[0]
    if layer.is_tied:
        return TiedGradients(tuple(parts))
    first, second = (jnp.concatenate(x, axis) for x, axis in zip(zip(*parts, strict=True), (1, 2), strict=True))
    return type(parts[0])(first, second)


def _of_site(site: Site, entered: Entered, result: jax.Array) -> ProductGradients | RowGradients:
    """The input of a site (B, ...), and the gradients at its result (K, B, ...); in a scan, T comes after B."""
    outputs = jax.vmap(jax.vmap(site.form.outputs))
    z = (jax.vmap(outputs, 2, 2) if site.use.scanned else outputs)(result)
    if isinstance(site.form, RowForm):
        rows, z = entered.rows[site.use.path], z[..., 0, :]
        if not site.use.scanned:
            return RowGradients(rows, z)
        if site.is_stacked:
            # The tables of all steps follow one another; "no row" of one of them has to remain "no row" of them all.
            steps, count = rows.shape[1], site.form.weights.result[0]
            offset = count * jnp.arange(steps, dtype=rows.dtype)[:, None]
            rows = jnp.where(rows == count, steps * count, rows + offset)
        return RowGradients(rows.reshape(len(rows), -1), z.reshape(*z.shape[:2], -1, z.shape[-1]))
    a = entered.products[site.use.path]
    if site.use.scanned:
        a, z = (_steps_to(site.is_stacked, x, axis) for x, axis in ((a, 1), (z, 2)))
    return ProductGradients(a, z)


def _steps_to(groups: bool, x: jax.Array, axis: int) -> jax.Array:
    """Merge the axes (T, P, g) into (P, T g), or into (T P, g)."""
    steps, positions, count = x.shape[axis : axis + 3]
    shape = (positions, steps * count) if groups else (steps * positions, count)
    x = jnp.moveaxis(x, axis, axis + 1) if groups else x
    return x.reshape(*x.shape[:axis], *shape, *x.shape[axis + 3 :])


def _at_least_float32(layers: Any, leaves: Any) -> Any:
    """Row numbers stay integers."""
    return jax.tree.map(
        lambda x: _tree.at_least_float32(x) if jnp.issubdtype(x.dtype, jnp.floating) else x, (layers, leaves)
    )
