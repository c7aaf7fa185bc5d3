"""Biases of products: parameters added to each row of a product before anything else happens to it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bayestl._rearrangement import Rearrangement
from bayestl.layers._moves import move, moves, spread
from bayestl.layers._products import MatrixForm
from bayestl.layers._program import Program
from bayestl.layers._uses import Use

SUMS = {"add", "add_any"}


def bias_of(program: Program, site: Use, form: MatrixForm, candidates: Sequence[Use]) -> Use | None:
    """The use of a parameter that is added to each row of a product; None if there is none.

    Args:
        program: the network.
        site: the place of the product in the program.
        form: the product.
        candidates: uses of other parameters.
    """
    inside = len(site.path) == 2
    body = program.ops[site.path[0]].body if inside else None
    ops = program.ops if body is None else body.ops
    outputs = program.outputs if body is None else body.outputs
    value = ops[site.path[-1]].outputs[0]
    moved = Rearrangement(program.shapes[value].shape)
    while True:
        readers = [number for number, op in enumerate(ops) if value in op.inputs]
        if len(readers) != 1 or value in outputs:
            return None
        op = ops[readers[0]]
        if op.name in SUMS:
            path = (*site.path[:-1], readers[0])
            biases = [use for use in candidates if use.path == path and _is_row(program, site, form, moved, use)]
            return biases[0] if biases else None
        step = move(program, op)
        if step is None:
            return None
        value, moved = op.outputs[0], moved._replace(steps=(*moved.steps, *step))


def _is_row(program: Program, site: Use, form: MatrixForm, moved: Rearrangement, bias: Use) -> bool:
    """Whether a parameter is added to every row of a product, whose result may have been rearranged in between."""
    if len(bias.leaves) != 1:
        return False
    source = program.params[bias.leaves[0]]
    ops, chain = program.ops, bias.chain
    if bias.scanned is not None and site.scanned is not None:
        body = program.ops[bias.path[0]].body
        if body is None or len(bias.scanned.arguments) != 1 or bias.scanned.is_stacked != site.scanned.is_stacked:
            return False
        # Outside the scan, its numbers must keep their order.
        outer = moves(program, ops, chain)
        if outer is None or any(name != "reshape" for name, _ in outer):
            return False
        ops, chain, source = body.ops, bias.scanned.chain, bias.scanned.arguments[0]
    added = spread(program, ops, chain, source)
    if added is None or program.shapes[ops[bias.path[-1]].outputs[0]].shape != moved.result:
        return False
    rows = form.outputs(moved.back(np.broadcast_to(added, moved.result)))
    order = np.arange(np.prod(rows.shape[1:], dtype=int)).reshape(rows.shape[1:])
    return np.array_equal(rows, np.broadcast_to(order, rows.shape))
