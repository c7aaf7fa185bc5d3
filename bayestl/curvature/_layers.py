"""Inputs and output gradients of every layer of a network, example by example, from one program.

The network is traced for one example, and evaluated with zeros added to the outputs of its layers. One product with
the transposed Jacobian per column then gives the gradients at all those places, for a whole batch; the gradient of a
layer's weights is the product of its input and its output gradient. Nothing is asked of the network but that JAX can
trace it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bayestl import _tree
from bayestl._log_joint import LogJoint
from bayestl._types import Batch, Key, Params
from bayestl.curvature._batches import Batches, batches
from bayestl.curvature._kinds import Kind
from bayestl.curvature._layers_find import Layers, Local, find
from bayestl.curvature._layers_layout import of_convolution
from bayestl.curvature._layers_program import Op, Program, run, trace
from bayestl.curvature._layers_report import Report
from bayestl.curvature._layers_windows import can_pool, pool
from bayestl.curvature._products import masked_columns, num_columns

# Numbers that one batch may take: what the caches of a CPU hold, or a part of an accelerator's memory.
_ON_CPU, _ELSEWHERE = 2**22, 2**28


class Seen(NamedTuple):
    """A layer of weights in one batch of B examples, with P positions that share them, g groups and K columns.

    Attributes:
        inputs: a, (B, P, g, I).
        gradients: of the columns in the layer's output z = a W, (K, B, P, g, O).
    """

    inputs: jax.Array
    gradients: jax.Array


class Gradients(NamedTuple):
    """What one batch says, in at least float32.

    Attributes:
        layers: one per layer of weights.
        leaves: gradients of the parameters outside of these (biases among them), leaf number to (K, B, *shape).
        mask: (B,), 0 for examples that do not count; their gradients are zero already.
    """

    layers: tuple[Seen, ...]
    leaves: dict[int, jax.Array]
    mask: jax.Array


class Taken(NamedTuple):
    """A network at some parameters, taken apart into its layers.

    Attributes:
        program: its operations.
        layers: how the parameters enter it.
        leaves: the parameters.
        still: the values that do not vary from example to example.
    """

    program: Program
    layers: Layers
    leaves: Sequence[jax.Array]
    still: dict[int, Any]


def take_apart(joint: LogJoint, params: Params, inputs: Any) -> Taken:
    """The layers of the deterministic network of a log joint.

    Args:
        joint: its network and state.
        params: the parameters.
        inputs: any number of examples; only their shapes are looked at.

    Raises:
        ValueError: outputs whose leading axis is not that of the examples.
    """
    example = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *jnp.shape(x)[1:]), jnp.asarray(x).dtype), inputs)
    program = trace(lambda p, x: joint.outputs(p, x)[0], params, example)
    for value in program.outputs:
        if program.shapes[value].shape[:1] != (1,):
            raise ValueError(
                f"for a batch of one example the network gives an output of shape {program.shapes[value].shape}; a "
                "leading axis of length 1 is wanted (a squeeze() without an axis takes it away)"
            )
    layers, leaves = find(program, _tree.paths(params)), jax.tree.leaves(params)
    still = {**program.constants, **dict(zip(program.params, leaves, strict=True))}
    for op in program.ops:
        if not layers.varying & set(op.outputs):
            still |= zip(op.outputs, run(op, [still[value] for value in op.inputs]), strict=True)
    return Taken(program, layers, leaves, still)


def find_layers(joint: LogJoint, params: Params, inputs: Any) -> Report:
    """How :func:`diagonal` and :func:`kronecker` would handle every parameter, without computing anything.

    Args:
        joint: the log joint.
        params: its parameters.
        inputs: some inputs, leading axis of any length; only shapes are looked at.

    Example:
        >>> net = btl.nets.mlp(jax.random.key(0), (4, 8, 3))
        >>> joint = btl.LogJoint(net, btl.likelihoods.categorical(), None, num_data=10)
        >>> print(btl.curvature.find_layers(joint, net.params, jnp.ones((1, 4))))
        dense_0/bias    layer  bias of 'dense_0/kernel'
        dense_0/kernel  layer  dense
        head/bias       layer  bias of 'head/kernel'
        head/kernel     layer  dense
    """
    found = []

    def shapes_only(joint: LogJoint, params: Params, inputs: Any) -> None:
        found.append(take_apart(joint, params, inputs).layers.report)

    jax.eval_shape(shapes_only, joint, params, inputs)
    return found[0]


def in_small_batches(
    taken: Taken, joint: LogJoint, kind: Kind, params: Params, passes: Batches, per_column: int = 0
) -> Batches:
    """The same data in batches no larger than before, and small enough for all that is held per example.

    Args:
        taken: the network.
        joint: its log joint.
        kind: of columns.
        params: the parameters.
        passes: the data.
        per_column: further numbers that are held for every column of every example.
    """
    program, layers = taken.program, taken.layers
    held = 0
    for site in layers.weights:
        op = program.ops[site.op]
        seen = jax.eval_shape(lambda x, site=site: site.layout.seen(x), program.shapes[op.inputs[site.data]]).size
        held += seen
        per_column += 3 * program.shapes[op.outputs[0]].size + seen * site.layout.rewritten
    per_column += sum(taken.leaves[leaf].size for leaf in (*layers.others, *(site.leaf for site in layers.local)))
    held += per_column * num_columns(joint, kind, params, passes)
    most = (_ON_CPU if jax.default_backend() == "cpu" else _ELSEWHERE) // max(held, 1)
    return batches(passes, max(min(passes.batch_size, most), 1))


def gradients(taken: Taken, joint: LogJoint, kind: Kind, key: Key, batch: Batch) -> Gradients:
    """Layer inputs, and the gradients of the columns of ``kind``, for one batch."""
    examples = [x[:, None] for x in jax.tree.leaves(batch.inputs)]
    num = examples[0].shape[0]
    zeros = jax.tree.map(lambda s: jnp.zeros((num, *s.shape), s.dtype), _places(taken))
    outputs, pull_back, seen = jax.vjp(lambda z: jax.vmap(_evaluated(taken))(examples, z), zeros, has_aux=True)
    outputs = jax.tree.unflatten(taken.program.outputs_tree, outputs)
    columns = masked_columns(joint, kind, key, _tree.at_least_float32(outputs), batch)
    columns = [s.astype(f.dtype) for s, f in zip(jax.tree.leaves(columns), jax.tree.leaves(outputs), strict=True)]
    places, deltas = jax.vmap(lambda s: pull_back(s)[0])(columns)
    layers = []
    for site, inputs in zip(taken.layers.weights, seen[0], strict=True):
        rearrange = jax.vmap(jax.vmap(site.layout.outputs))
        layers.append(Seen(inputs, rearrange(places[site.op][0])))
    leaves = dict(deltas)
    for site, operands in zip(taken.layers.local, seen[1], strict=True):
        leaves[site.leaf] = jax.vmap(_pulled_back(taken, site), (0, 1), 1)(operands, places[site.op])
    mask = jnp.ones(num, jnp.float32) if batch.mask is None else batch.mask
    return Gradients(_tree.at_least_float32(tuple(layers)), _tree.at_least_float32(leaves), mask)


# ---------------------------------------------------------------- one example


def _places(taken: Taken) -> Any:
    """The shapes of what is added: at the results of operations, and to the parameters that enter more than once."""
    ops = sorted({site.op for site in (*taken.layers.weights, *taken.layers.local)})
    shapes = {number: [taken.program.shapes[v] for v in _differentiable(taken.program, number)] for number in ops}
    shapes = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype), shapes)
    return shapes, {leaf: jax.eval_shape(lambda x: x, taken.leaves[leaf]) for leaf in taken.layers.others}


def _differentiable(program: Program, number: int) -> list[int]:
    return [v for v in program.ops[number].outputs if jnp.issubdtype(program.shapes[v].dtype, jnp.floating)]


def _evaluated(taken: Taken) -> Any:
    """The network for one example: its outputs, and what layers and other operations with parameters see."""
    program, layers = taken.program, taken.layers
    weights = {site.op: site for site in layers.weights}

    def evaluate(inputs: Sequence[jax.Array], added: Any) -> tuple[list[jax.Array], Any]:
        places, deltas = added
        values = {**taken.still, **dict(zip(program.inputs, inputs, strict=True))}
        values |= {program.params[leaf]: taken.leaves[leaf] + delta for leaf, delta in deltas.items()}
        seen = {}
        for number, op in enumerate(program.ops):
            if not layers.varying & set(op.outputs):
                continue
            if number in weights:
                seen[number] = weights[number].layout.seen(values[op.inputs[weights[number].data]])
            values |= zip(op.outputs, _run_fast(program, op, values, seen.get(number)), strict=True)
            if number in places:
                targets = _differentiable(program, number)
                values |= {v: values[v] + z for v, z in zip(targets, places[number], strict=True)}
        operands = [{v: values[v] for v in program.ops[site.op].inputs if v in layers.varying} for site in layers.local]
        return [values[v][0] for v in program.outputs], ([seen[site.op] for site in layers.weights], operands)

    return evaluate


def _run_fast(program: Program, op: Op, values: dict[int, Any], seen: jax.Array | None) -> Sequence[Any]:
    """The results of one operation, of convolutions and pooling by slices and products."""
    found = [values[v] for v in op.inputs]
    result = program.shapes[op.outputs[0]]
    if op.name == "conv_general_dilated" and op.eqn.params["batch_group_count"] == 1:
        layout = of_convolution(op.eqn.params, [x.shape for x in found], result.shape)
        a = layout.seen(found[0]) if seen is None else seen
        z = _product(a, layout.weights(found[1]), op.eqn.params["precision"], result.dtype)
        return [layout.outputs.back(z)]
    known = op.name in ("reduce_window_max", "reduce_window_sum") and jnp.issubdtype(result.dtype, jnp.floating)
    if known and can_pool(op.eqn.params):
        return [pool(op.name, op.eqn.params, found[0])]
    return run(op, found)


def _product(a: jax.Array, w: jax.Array, precision: Any, dtype: Any) -> jax.Array:
    """``a W``, (P, g, O), for a (P, g, I) and W (g, I, O)."""
    if w.shape[0] == 1:
        return jnp.matmul(a[:, 0], w[0], precision=precision, preferred_element_type=dtype)[:, None]
    if w.shape[1] * w.shape[2] <= 64:
        # Many small products, as in a depthwise convolution: their sums at once.
        return jnp.sum(a[..., None] * w, axis=2, dtype=dtype)
    return jnp.einsum("pgi,gio->pgo", a, w, precision=precision, preferred_element_type=dtype)


def _pulled_back(taken: Taken, site: Local) -> Any:
    """From an operation's operands (...) and the gradients of its results (K, ...) to those of the parameter."""
    program = taken.program

    def pulled_back(operands: dict[int, jax.Array], places: list[jax.Array]) -> jax.Array:
        def results(leaf: jax.Array) -> list[jax.Array]:
            values = {**taken.still, **operands, program.params[site.leaf]: leaf}
            for op in (program.ops[number] for number in (*site.chain, site.op)):
                values |= zip(op.outputs, run(op, [values[v] for v in op.inputs]), strict=True)
            return [values[v] for v in _differentiable(program, site.op)]

        pull_back = jax.vjp(results, taken.leaves[site.leaf])[1]
        return jax.vmap(lambda z: pull_back(z)[0])(places)

    return pulled_back
