"""A network as a list of operations, traced for one example."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from jax.extend.core import ClosedJaxpr, Literal

from bayestl._applied import call_network
from bayestl._types import Params

# Calls that compute exactly what their body computes. A function with a derivative rule of its own does not belong
# here: written out, it would lose the rule.
_CALLS = {"jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint"}


class Body(NamedTuple):
    """What a ``lax.scan`` does in one step.

    Attributes:
        ops: the operations.
        arguments: the values at its start: constants, carry, and slices of what is scanned over.
        outputs: the values at its end: carry, and slices of what is stacked.
        num_constants: how many arguments are the same in all steps.
        num_carries: how many go from step to step.
    """

    ops: tuple[Op, ...]
    arguments: tuple[int, ...]
    outputs: tuple[int, ...]
    num_constants: int
    num_carries: int


class Op(NamedTuple):
    """One operation.

    Attributes:
        eqn: the JAX equation, with its primitive and its parameters.
        inputs: numbers of the values that it takes.
        outputs: numbers of the values that it returns.
        body: that of a ``lax.scan``, None for all other operations.
    """

    eqn: Any
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    body: Body | None = None

    @property
    def name(self) -> str:
        """The primitive's name."""
        return self.eqn.primitive.name


class Program(NamedTuple):
    """The operations that the outputs need, in order; values are referred to by number.

    Attributes:
        ops: the operations.
        shapes: shape and dtype of every value, including values in bodies of scans.
        params: numbers of the leaves of the parameters.
        inputs: numbers of the leaves of one example's inputs, each with a leading axis of 1.
        constants: value number to array, including values in bodies of scans.
        outputs: numbers of the leaves of the outputs.
        outputs_tree: the structure of the outputs.
    """

    ops: tuple[Op, ...]
    shapes: Mapping[int, Any]
    params: tuple[int, ...]
    inputs: tuple[int, ...]
    constants: Mapping[int, Any]
    outputs: tuple[int, ...]
    outputs_tree: Any

    def op(self, path: Sequence[int]) -> Op:
        """The operation at a path: its number, or the number of a scan followed by its number in the body."""
        op = self.ops[path[0]]
        return op if len(path) == 1 or op.body is None else op.body.ops[path[1]]


def trace(network: Callable[[Params, Any], Any], params: Params, example: Any) -> Program:
    """The operations of ``network(params, example)``, with calls of other functions written out.

    Args:
        network: parameters and inputs to outputs.
        params: parameters, or their shapes.
        example: inputs with a leading axis of 1, or their shapes.
    """

    def applied(params: Params, example: Any) -> Any:
        return call_network(lambda: network(params, example), params, example)

    closed, shapes = jax.make_jaxpr(applied, return_shape=True)(params, example)
    writer = _Writer(itertools.count(), [], {}, {})
    count = len(jax.tree.leaves(params))
    arguments = [writer.new(var.aval) for var in closed.jaxpr.invars]
    outputs = writer.write(closed, arguments)
    return Program(
        _needed(writer.ops, outputs),
        writer.shapes,
        tuple(arguments[:count]),
        tuple(arguments[count:]),
        writer.constants,
        tuple(outputs),
        jax.tree.structure(shapes),
    )


class _Writer(NamedTuple):
    numbers: Any
    ops: list[Op]
    shapes: dict[int, Any]
    constants: dict[int, Any]

    def new(self, shape: Any) -> int:
        number = next(self.numbers)
        self.shapes[number] = shape
        return number

    def constant(self, value: Any, shape: Any) -> int:
        number = self.new(shape)
        self.constants[number] = value
        return number

    def write(self, closed: Any, arguments: Sequence[int]) -> list[int]:
        """Record a function, given the numbers of its arguments; returns the numbers of its results."""
        jaxpr, consts = (closed.jaxpr, closed.consts) if isinstance(closed, ClosedJaxpr) else (closed, ())
        numbers: dict[Any, int] = dict(zip(jaxpr.invars, arguments, strict=True))
        numbers |= {var: self.constant(c, var.aval) for var, c in zip(jaxpr.constvars, consts, strict=True)}

        def number(atom: Any) -> int:
            return self.constant(atom.val, atom.aval) if isinstance(atom, Literal) else numbers[atom]

        for eqn in jaxpr.eqns:
            inputs = [number(atom) for atom in eqn.invars]
            inner = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
            if eqn.primitive.name in _CALLS and inner is not None:
                outputs = self.write(inner, inputs)
            else:
                outputs = [self.new(var.aval) for var in eqn.outvars]
                body = self.body(inner, inputs, outputs) if eqn.primitive.name == "scan" else None
                self.ops.append(Op(eqn, tuple(inputs), tuple(outputs), body))
            numbers |= dict(zip(eqn.outvars, outputs, strict=True))
        return [number(atom) for atom in jaxpr.outvars]

    def body(self, step: Any, inputs: Sequence[int], results: Sequence[int]) -> Body:
        """The step of a scan from ``inputs`` to ``results``."""
        writer = self._replace(ops=[])
        jaxpr = step.jaxpr if isinstance(step, ClosedJaxpr) else step
        arguments = [self.new(var.aval) for var in jaxpr.invars]
        outputs = writer.write(step, arguments)
        # Told apart by their axes, since each version of JAX names them differently: slices have one axis less.
        num_slices, num_stacked = (
            sum(len(self.shapes[outer].shape) > len(self.shapes[inner].shape) for outer, inner in pairs)
            for pairs in (zip(inputs, arguments, strict=True), zip(results, outputs, strict=True))
        )
        carries = len(outputs) - num_stacked
        constants = len(arguments) - num_slices - carries
        return Body(_needed(writer.ops, outputs), tuple(arguments), tuple(outputs), constants, carries)


def _needed(ops: Sequence[Op], outputs: Sequence[int]) -> tuple[Op, ...]:
    values, needed = set(outputs), []
    for op in reversed(ops):
        if values & set(op.outputs):
            values |= set(op.inputs)
            needed.append(op)
    return tuple(reversed(needed))


def run(op: Op, values: Sequence[Any]) -> Sequence[Any]:
    """The results of one operation."""
    with op.eqn.ctx.manager:
        results = op.eqn.primitive.bind(*values, **op.eqn.primitive.get_bind_params(op.eqn.params))
    return results if op.eqn.primitive.multiple_results else [results]


def run_all(ops: Sequence[Op], values: dict[int, Any]) -> None:
    """Run operations one after another and store their results in ``values``."""
    for op in ops:
        values |= zip(op.outputs, run(op, [values[v] for v in op.inputs]), strict=True)
