"""Gradients of parameters that enter operations other than layers, one operation at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from bayestl.layers._network import LayeredNetwork
from bayestl.layers._program import Op, run, run_all
from bayestl.layers._replay import differentiable
from bayestl.layers._uses import Scanned, Use

PullBack = Callable[[dict[int, jax.Array], Sequence[jax.Array]], dict[int, jax.Array]]


def pulled_back(network: LayeredNetwork, use: Use) -> PullBack:
    """From the inputs of an operation, and the gradients at its results, to those of its parameters, by leaf.

    The function is for one example and one column; in a scan all arrays have a leading axis for the steps.
    """
    program = network.program
    numbers = [program.params[leaf] for leaf in use.leaves]
    leaves = [network.leaves[leaf] for leaf in use.leaves]
    ops = [program.ops[number] for number in use.chain]

    def once(operands: dict[int, jax.Array], results: Sequence[jax.Array]) -> dict[int, jax.Array]:
        def after(leaves: Sequence[jax.Array]) -> list[jax.Array]:
            values = {**network.constants, **operands, **dict(zip(numbers, leaves, strict=True))}
            run_all(ops, values)
            return _results(network, program.ops[use.path[0]], values)

        return dict(zip(use.leaves, jax.vjp(after, leaves)[1](list(results))[0], strict=True))

    def every_step(operands: dict[int, jax.Array], results: Sequence[jax.Array], scanned: Scanned) -> dict:
        def before(leaves: Sequence[jax.Array]) -> list[jax.Array]:
            values = {**network.constants, **dict(zip(numbers, leaves, strict=True))}
            run_all(ops, values)
            return [values[value] for value in scanned.operands]

        arguments, pull_back = jax.vjp(before, leaves)
        step = _step(network, use, scanned)
        axes = [0 if stacked else None for stacked in scanned.is_stacked]
        each = jax.vmap(step, (axes, 0, 0))(arguments, operands, list(results))
        each = [g if stacked else jnp.sum(g, 0) for g, stacked in zip(each, scanned.is_stacked, strict=True)]
        return dict(zip(use.leaves, pull_back(each)[0], strict=True))

    if use.scanned is None:
        return once
    scanned = use.scanned
    return lambda operands, results: every_step(operands, results, scanned)


def _step(network: LayeredNetwork, use: Use, scanned: Scanned) -> Callable[..., list[jax.Array]]:
    """The gradients of the arguments of a scan's body, for one step."""
    body = network.program.ops[use.path[0]].body
    assert body is not None

    def step(
        arguments: Sequence[jax.Array], operands: dict[int, jax.Array], results: Sequence[jax.Array]
    ) -> list[jax.Array]:
        def after(arguments: Sequence[jax.Array]) -> list[jax.Array]:
            values = {**network.program.constants, **operands, **dict(zip(scanned.arguments, arguments, strict=True))}
            run_all([body.ops[number] for number in scanned.chain], values)
            return _results(network, body.ops[use.path[1]], values)

        return jax.vjp(after, list(arguments))[1](list(results))[0]

    return step


def _results(network: LayeredNetwork, op: Op, values: dict[int, jax.Array]) -> list[jax.Array]:
    values |= zip(op.outputs, run(op, [values[value] for value in op.inputs]), strict=True)
    return [values[value] for value in differentiable(network.program, op)]
