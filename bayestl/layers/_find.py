"""Which operations of a network are layers, found from the way of every parameter through the program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bayestl._rearrangement import Rearrangement
from bayestl.layers._inventory import Entry, Inventory
from bayestl.layers._products import MatrixForm, Steps, of_convolution, of_product
from bayestl.layers._program import Op, Program

_MOVES = {
    "reshape",
    "transpose",
    "squeeze",
    "expand_dims",
    "broadcast_in_dim",
    "convert_element_type",
    "copy",
    "copy_p",
}
_SUMS = {"add", "add_any"}
_ELEMENTWISE = {*_SUMS, "sub", "mul", "div"}


class Weights(NamedTuple):
    """A parameter that enters a matrix product or a convolution, and nothing else.

    Attributes:
        leaf: which parameter.
        op: which operation.
        data: which of its operands is the layer's input.
        form: the operation as a matrix product.
        rearrangement: from the parameter to W (g, I, O).
        bias: the parameter that is added to each row of the product, None for none.
    """

    leaf: int
    op: int
    data: int
    form: MatrixForm
    rearrangement: Rearrangement
    bias: int | None = None


class Operation(NamedTuple):
    """A parameter that enters one other operation, and nothing else.

    Attributes:
        leaf: which parameter.
        op: which operation.
        chain: the operations on the way there, which depend on this parameter alone.
    """

    leaf: int
    op: int
    chain: tuple[int, ...]


class Uses(NamedTuple):
    """How every parameter of a network enters it.

    Attributes:
        weights: those of matrix products.
        operations: those of one other operation; biases of ``weights`` included.
        others: leaves that enter more than once, or are mixed with others before they meet the inputs.
        unused: leaves that the outputs do not depend on.
        varying: values that depend on the inputs or on ``others``.
        inventory: the same in words.
    """

    weights: tuple[Weights, ...]
    operations: tuple[Operation, ...]
    others: tuple[int, ...]
    unused: tuple[int, ...]
    varying: frozenset[int]
    inventory: Inventory


class _Chain(NamedTuple):
    """A value that depends on one parameter and on nothing else that varies."""

    leaf: int
    ops: tuple[int, ...] = ()


_DATA, _MIXED = "depends on the inputs", "depends on several parameters"


def uses_of_parameters(program: Program, names: Sequence[str]) -> Uses:
    """How the parameters enter a program.

    Args:
        program: from :func:`trace`.
        names: the paths of the parameters.
    """
    origin, uses = _followed(program, len(names))
    once = [of_leaf[0] for of_leaf in uses.values() if len(of_leaf) == 1]
    sites = [_weights(program, use, origin) or use for use in once if isinstance(use, Operation)]
    operations = tuple(site for site in sites if isinstance(site, Operation))
    layers = tuple(_with_bias(program, site, operations) for site in sites if isinstance(site, Weights))
    others = tuple(leaf for leaf, of_leaf in uses.items() if of_leaf and leaf not in {site.leaf for site in sites})
    unused = tuple(leaf for leaf, of_leaf in uses.items() if not of_leaf)
    inventory = Inventory(tuple(_entry(program, names, leaf, uses[leaf], layers) for leaf in uses))
    return Uses(layers, operations, others, unused, _varying(program, others), inventory)


def _followed(program: Program, count: int) -> tuple[dict[int, Any], dict[int, list[Operation | str]]]:
    """Where every value comes from (constants left out), and where every parameter meets something else.

    That is an operation that depends on the inputs too, or, in words, another one.
    """
    origin: dict[int, Any] = dict.fromkeys(program.inputs, _DATA)
    origin |= {value: _Chain(leaf) for leaf, value in enumerate(program.params)}
    uses: dict[int, list[Operation | str]] = {leaf: [] for leaf in range(count)}
    for number, op in enumerate(program.ops):
        sources = [origin[value] for value in op.inputs if value in origin]
        ways: dict[int, set[int]] = {}
        for source in sources:
            if isinstance(source, _Chain):
                ways.setdefault(source.leaf, set()).update(source.ops)
        if not sources:
            continue
        if len(ways) == 1 and all(isinstance(source, _Chain) for source in sources):
            ((leaf, ops),) = ways.items()
            result: Any = _Chain(leaf, (*sorted(ops), number))
        else:
            result = _DATA if _DATA in sources else _MIXED
            for leaf, ops in ways.items():
                operation = Operation(leaf, number, tuple(sorted(ops)))
                uses[leaf].append(operation if result is _DATA else f"{op.name} without the inputs")
        origin |= dict.fromkeys(op.outputs, result)
    for value in program.outputs:
        if isinstance(source := origin.get(value), _Chain):
            uses[source.leaf].append("the outputs without the inputs")
    return origin, uses


def _varying(program: Program, others: Sequence[int]) -> frozenset[int]:
    values = {*program.inputs, *(program.params[leaf] for leaf in others)}
    for op in program.ops:
        if values & set(op.inputs):
            values |= set(op.outputs)
    return frozenset(values)


# ---------------------------------------------------------------- layers


def _weights(program: Program, use: Operation, origin: Mapping[int, Any]) -> Weights | None:
    """The layer whose weights a parameter holds, if it does."""
    op = program.ops[use.op]
    if op.name not in ("dot_general", "conv_general_dilated"):
        return None
    data = [origin.get(value) for value in op.inputs].index(_DATA)
    steps = _moves(program, use.chain)
    if steps is None:
        return None
    shapes = [program.shapes[value].shape for value in op.inputs]
    result = program.shapes[op.outputs[0]].shape
    if op.name == "dot_general":
        form = of_product(op.eqn.params, data, shapes, result)
    elif data == 0 and op.eqn.params["batch_group_count"] == 1:
        form = of_convolution(op.eqn.params, shapes, result)
    else:
        return None
    shape = program.shapes[program.params[use.leaf]].shape
    return Weights(use.leaf, use.op, data, form, Rearrangement(shape, (*steps, *form.weights.steps)))


def _moves(program: Program, chain: Sequence[int]) -> Steps | None:
    """A chain as steps, None where it does more than rearrange a parameter."""
    steps: list[Any] = []
    for number in chain:
        step = _move(program, program.ops[number])
        if step is None:
            return None
        steps += step
    return tuple(steps)


def _move(program: Program, op: Op) -> Steps | None:
    """An operation as steps, None where it does more than rearrange."""
    before, after = (program.shapes[value] for value in (op.inputs[0], op.outputs[0]))
    if op.name == "transpose":
        return (("transpose", tuple(op.eqn.params["permutation"])),)
    if op.name in _MOVES and before.size == after.size:
        return () if before.shape == after.shape else (("reshape", tuple(after.shape)),)
    return None


def _with_bias(program: Program, site: Weights, operations: Sequence[Operation]) -> Weights:
    """The layer with its bias: the parameter that is added to each row of the product, before anything else is done."""
    value = program.ops[site.op].outputs[0]
    moved = Rearrangement(program.shapes[value].shape)
    while True:
        readers = [number for number, op in enumerate(program.ops) if value in op.inputs]
        if len(readers) != 1 or value in program.outputs:
            return site
        op = program.ops[readers[0]]
        if op.name in _SUMS:
            biases = [other for other in operations if other.op == readers[0] and _is_row(program, site, moved, other)]
            return site._replace(bias=biases[0].leaf) if biases else site
        step = _move(program, op)
        if step is None:
            return site
        value, moved = op.outputs[0], moved._replace(steps=(*moved.steps, *step))


def _is_row(program: Program, site: Weights, moved: Rearrangement, bias: Operation) -> bool:
    """Whether a parameter is added to every row of a product, whose result was rearranged meanwhile."""
    added = _added(program, bias)
    if added is None or program.shapes[program.ops[bias.op].outputs[0]].shape != moved.result:
        return False
    rows = site.form.outputs(moved.back(np.broadcast_to(added, moved.result)))
    return np.array_equal(rows, np.broadcast_to(_order(rows.shape[1:]), rows.shape))


def _order(shape: Sequence[int]) -> np.ndarray:
    return np.arange(np.prod(shape, dtype=int)).reshape(shape)


def _added(program: Program, site: Operation) -> np.ndarray | None:
    """Which number of a parameter arrives where at its operation, None where it is not just spread out."""
    x = _order(program.shapes[program.params[site.leaf]].shape)
    for step in (program.ops[number] for number in site.chain):
        shape = program.shapes[step.outputs[0]].shape
        if step.name == "transpose":
            x = x.transpose(step.eqn.params["permutation"])
        elif step.name == "broadcast_in_dim":
            spread = [1] * len(shape)
            for axis, length in zip(step.eqn.params["broadcast_dimensions"], x.shape, strict=True):
                spread[axis] = length
            x = np.broadcast_to(x.reshape(spread), shape)
        elif step.name in _MOVES:
            x = x.reshape(shape)
        else:
            return None
    return x


# ---------------------------------------------------------------- words


def _entry(
    program: Program, names: Sequence[str], leaf: int, uses: Sequence[Operation | str], layers: Sequence[Weights]
) -> Entry:
    if not uses:
        return Entry(names[leaf], "unused", "the outputs do not depend on it", False)
    ways = [use if isinstance(use, str) else program.ops[use.op].name for use in uses]
    if len(uses) > 1 or isinstance(uses[0], str):
        times = "" if len(uses) == 1 else f"{len(uses)} times: "
        return Entry(names[leaf], "whole network", f"enters {times}{', '.join(ways)}", True)
    for layer in layers:
        if layer.leaf == leaf:
            return Entry(names[leaf], "layer", layer.form.name, False)
        if layer.bias == leaf:
            return Entry(names[leaf], "layer", f"bias of {names[layer.leaf]!r}", False)
    if ways[0] in _ELEMENTWISE:
        return Entry(names[leaf], "elementwise", ways[0], False)
    return Entry(names[leaf], "one operation", ways[0], True)
