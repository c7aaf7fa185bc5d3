"""Inputs and output gradients of every layer of a network, example by example, from one program.

The program of one example is evaluated with zeros added to the outputs of its layers. One product with the transposed
Jacobian per column then gives the gradients at all those places, for a whole batch; the gradient of a layer's weights
is the product of its input and its output gradient. Nothing is asked of the network but that JAX can trace it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bayestl import _tree
from bayestl.layers._find import Operation
from bayestl.layers._network import LayeredNetwork
from bayestl.layers._products import of_convolution
from bayestl.layers._program import Op, Program, run
from bayestl.layers._windows import can_pool, pool


class LayerGradients(NamedTuple):
    """A layer of weights in one batch of B examples, with P positions that share them, g groups and K columns.

    Attributes:
        inputs: a, (B, P, g, I).
        gradients: of the columns in the layer's output z = a W, (K, B, P, g, O).
    """

    inputs: jax.Array
    gradients: jax.Array


class Gradients(NamedTuple):
    """The gradients of one batch, in at least float32.

    Attributes:
        layers: one per layer of weights.
        leaves: gradients of the parameters outside of these (biases among them), leaf number to (K, B, *shape).
    """

    layers: tuple[LayerGradients, ...]
    leaves: dict[int, jax.Array]


def gradients(network: LayeredNetwork, inputs: Any, columns: Callable[[Any], Any]) -> Gradients:
    """Layer inputs, and the gradients of ``columns^T f`` for the network's outputs f, for one batch.

    Args:
        network: from :func:`find`.
        inputs: a batch, leaves (B, ...).
        columns: outputs (B, ...), of at least float32, to the columns (K, B, ...) that are pulled back through the
            network.

    Example:
        >>> params = {"w": jnp.ones((3, 2))}
        >>> network = btl.layers.find(lambda params, x: x @ params["w"], params, jnp.ones((5, 3)))
        >>> layer = btl.layers.gradients(network, jnp.ones((5, 3)), lambda outputs: outputs[None]).layers[0]
        >>> layer.inputs.shape, layer.gradients.shape
        ((5, 1, 1, 3), (1, 5, 1, 1, 2))
    """
    examples = [x[:, None] for x in jax.tree.leaves(inputs)]
    num = examples[0].shape[0]
    zeros = jax.tree.map(lambda s: jnp.zeros((num, *s.shape), s.dtype), _places(network))
    outputs, pull_back, entered = jax.vjp(lambda z: jax.vmap(_evaluated(network))(examples, z), zeros, has_aux=True)
    outputs = jax.tree.unflatten(network.program.outputs_tree, outputs)
    directions = jax.tree.leaves(columns(_tree.at_least_float32(outputs)))
    directions = [s.astype(f.dtype) for s, f in zip(directions, jax.tree.leaves(outputs), strict=True)]
    places, deltas = jax.vmap(lambda s: pull_back(s)[0])(directions)
    layers = []
    for site, layer_inputs in zip(network.uses.weights, entered[0], strict=True):
        rearrange = jax.vmap(jax.vmap(site.form.outputs))
        layers.append(LayerGradients(layer_inputs, rearrange(places[site.op][0])))
    leaves = dict(deltas)
    for site, operands in zip(network.uses.operations, entered[1], strict=True):
        leaves[site.leaf] = jax.vmap(_pulled_back(network, site), (0, 1), 1)(operands, places[site.op])
    return Gradients(_tree.at_least_float32(tuple(layers)), _tree.at_least_float32(leaves))


def held_numbers(network: LayeredNetwork) -> tuple[int, int]:
    """How many numbers :func:`gradients` holds for one example, and how many more for every column of it."""
    program, uses = network.program, network.uses
    of_example, of_column = 0, 0
    for site in uses.weights:
        op = program.ops[site.op]
        layer_inputs = jax.eval_shape(lambda x, site=site: site.form.inputs(x), program.shapes[op.inputs[site.data]])
        of_example += layer_inputs.size
        of_column += 3 * program.shapes[op.outputs[0]].size + layer_inputs.size * site.form.is_rewritten
    of_column += sum(network.leaves[leaf].size for leaf in (*uses.others, *(site.leaf for site in uses.operations)))
    return of_example, of_column


# ---------------------------------------------------------------- one example


def _places(network: LayeredNetwork) -> Any:
    """The shapes of what is added: at the results of operations, and to the parameters that enter more than once."""
    ops = sorted({site.op for site in (*network.uses.weights, *network.uses.operations)})
    shapes = {number: [network.program.shapes[v] for v in _differentiable(network.program, number)] for number in ops}
    shapes = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype), shapes)
    return shapes, {leaf: jax.eval_shape(lambda x: x, network.leaves[leaf]) for leaf in network.uses.others}


def _differentiable(program: Program, number: int) -> list[int]:
    return [v for v in program.ops[number].outputs if jnp.issubdtype(program.shapes[v].dtype, jnp.floating)]


def _evaluated(network: LayeredNetwork) -> Any:
    """The network for one example: its outputs, and what enters layers and other operations with parameters."""
    program, uses = network.program, network.uses
    weights = {site.op: site for site in uses.weights}

    def evaluate(inputs: Sequence[jax.Array], added: Any) -> tuple[list[jax.Array], Any]:
        places, deltas = added
        values = {**network.constants, **dict(zip(program.inputs, inputs, strict=True))}
        values |= {program.params[leaf]: network.leaves[leaf] + delta for leaf, delta in deltas.items()}
        entered = {}
        for number, op in enumerate(program.ops):
            if not uses.varying & set(op.outputs):
                continue
            if number in weights:
                entered[number] = weights[number].form.inputs(values[op.inputs[weights[number].data]])
            values |= zip(op.outputs, _run_fast(program, op, values, entered.get(number)), strict=True)
            if number in places:
                targets = _differentiable(program, number)
                values |= {v: values[v] + z for v, z in zip(targets, places[number], strict=True)}
        operands = [
            {v: values[v] for v in program.ops[site.op].inputs if v in uses.varying} for site in uses.operations
        ]
        return [values[v][0] for v in program.outputs], ([entered[site.op] for site in uses.weights], operands)

    return evaluate


def _run_fast(program: Program, op: Op, values: dict[int, Any], layer_inputs: jax.Array | None) -> Sequence[Any]:
    """The results of one operation, of convolutions and pooling by slices and products."""
    operands = [values[v] for v in op.inputs]
    result = program.shapes[op.outputs[0]]
    if op.name == "conv_general_dilated" and op.eqn.params["batch_group_count"] == 1:
        form = of_convolution(op.eqn.params, [x.shape for x in operands], result.shape)
        a = form.inputs(operands[0]) if layer_inputs is None else layer_inputs
        z = _product(a, form.weights(operands[1]), op.eqn.params["precision"], result.dtype)
        return [form.outputs.back(z)]
    known = op.name in ("reduce_window_max", "reduce_window_sum") and jnp.issubdtype(result.dtype, jnp.floating)
    if known and can_pool(op.eqn.params):
        return [pool(op.name, op.eqn.params, operands[0])]
    return run(op, operands)


def _product(a: jax.Array, w: jax.Array, precision: Any, dtype: Any) -> jax.Array:
    """``a W``, (P, g, O), for a (P, g, I) and W (g, I, O)."""
    if w.shape[0] == 1:
        return jnp.matmul(a[:, 0], w[0], precision=precision, preferred_element_type=dtype)[:, None]
    if w.shape[1] * w.shape[2] <= 64:
        # Many small products, as in a depthwise convolution: their sums at once.
        return jnp.sum(a[..., None] * w, axis=2, dtype=dtype)
    return jnp.einsum("pgi,gio->pgo", a, w, precision=precision, preferred_element_type=dtype)


def _pulled_back(network: LayeredNetwork, site: Operation) -> Any:
    """From an operation's operands (...) and the gradients of its results (K, ...) to those of the parameter."""
    program = network.program

    def pulled_back(operands: dict[int, jax.Array], places: list[jax.Array]) -> jax.Array:
        def results(leaf: jax.Array) -> list[jax.Array]:
            values = {**network.constants, **operands, program.params[site.leaf]: leaf}
            for op in (program.ops[number] for number in (*site.chain, site.op)):
                values |= zip(op.outputs, run(op, [values[v] for v in op.inputs]), strict=True)
            return [values[v] for v in _differentiable(program, site.op)]

        pull_back = jax.vjp(results, network.leaves[site.leaf])[1]
        return jax.vmap(lambda z: pull_back(z)[0])(places)

    return pulled_back
