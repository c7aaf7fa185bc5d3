"""Where parameters meet the inputs of a network: the operations that take both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from bayestl.layers._program import Body, Op, Program


class Scanned(NamedTuple):
    """How parameters reach an operation in the body of a ``lax.scan``.

    Attributes:
        length: T, the number of steps.
        operands: the values outside the scan, which depend on parameters alone.
        arguments: the same values inside the body, for one step.
        is_stacked: for each of them, whether every step has a slice of its own, or all share one value.
        chain: the operations in the body, from the arguments to the operation, which depend on parameters alone.
    """

    length: int
    operands: tuple[int, ...]
    arguments: tuple[int, ...]
    is_stacked: tuple[bool, ...]
    chain: tuple[int, ...]


class Use(NamedTuple):
    """One operation that takes values computed from parameters alone, and values that depend on the inputs.

    Attributes:
        leaves: which parameters; almost always one.
        path: the operation's number in the program, or the number of a scan followed by its number in the body.
        chain: the operations from the parameters to it, or to the scan, which depend on parameters alone.
        scanned: the rest of the way for an operation in a scan; None for all others.
    """

    leaves: tuple[int, ...]
    path: tuple[int, ...]
    chain: tuple[int, ...]
    scanned: Scanned | None = None


class Uses(NamedTuple):
    """Every use of parameters in a program.

    Attributes:
        uses: in the order of the operations.
        outputs: leaves that reach the outputs without meeting the inputs.
    """

    uses: tuple[Use, ...]
    outputs: tuple[int, ...]


class _OfParameters(NamedTuple):
    """A value that depends on parameters, or on values computed from them, and not on the inputs."""

    sources: frozenset[int]
    ops: frozenset[int] = frozenset()


class _OfInputs(NamedTuple):
    """A value that depends on the inputs."""


_Origin = _OfParameters | _OfInputs


def uses_of_parameters(program: Program) -> Uses:
    """Where the parameters of a program meet its inputs."""
    origins: dict[int, _Origin] = dict.fromkeys(program.inputs, _OfInputs())
    origins |= {value: _OfParameters(frozenset({value})) for value in program.params}
    uses = []
    for number, chain, scanned, path in _meetings(program.ops, origins):
        leaves = tuple(leaf for leaf, value in enumerate(program.params) if value in chain.sources)
        uses.append(Use(leaves, (number, *path), tuple(sorted(chain.ops)), scanned))
    outputs = [origins.get(value) for value in program.outputs]
    sources = set().union(*(origin.sources for origin in outputs if isinstance(origin, _OfParameters)))
    return Uses(tuple(uses), tuple(leaf for leaf, value in enumerate(program.params) if value in sources))


_Meeting = tuple[int, _OfParameters, Scanned | None, tuple[int, ...]]


def _meetings(ops: Sequence[Op], origins: dict[int, _Origin], enter: bool = True) -> Iterator[_Meeting]:
    """The operations where parameters meet inputs; fills ``origins`` for all values on the way."""
    for number, op in enumerate(ops):
        operands = [origins[value] for value in op.inputs if value in origins]
        if not operands:
            continue
        chains = [origin for origin in operands if isinstance(origin, _OfParameters)]
        if len(chains) == len(operands):
            chain = _joined(chains)
            origins |= dict.fromkeys(op.outputs, chain._replace(ops=chain.ops | {number}))
            continue
        origins |= dict.fromkeys(op.outputs, _OfInputs())
        if not chains:
            continue
        inside = _inside(op, op.body, origins) if op.body is not None and enter else None
        if inside is None:
            yield number, _joined(chains), None, ()
            continue
        yield from ((number, chain, scanned, path) for chain, scanned, path in inside)
        if starts := _starts(op, op.body, origins):
            yield number, _joined(starts), None, ()


def _joined(chains: Sequence[_OfParameters]) -> _OfParameters:
    return _OfParameters(
        frozenset().union(*(chain.sources for chain in chains)), frozenset().union(*(chain.ops for chain in chains))
    )


def _starts(op: Op, body: Body | None, origins: Mapping[int, _Origin]) -> list[_OfParameters]:
    """The initial carry of a scan, where it is computed from parameters."""
    if body is None:
        return []
    starts = [origins.get(value) for value in op.inputs[body.num_constants :][: body.num_carries]]
    return [origin for origin in starts if isinstance(origin, _OfParameters)]


def _inside(
    op: Op, body: Body, origins: Mapping[int, _Origin]
) -> list[tuple[_OfParameters, Scanned, tuple[int, ...]]] | None:
    """The meetings in the body of a scan; None if a parameter leaves it without having met the inputs, or is in the
    initial carry as well."""
    first, carries = body.num_constants, body.num_carries
    carried = range(first, first + carries)
    of_inputs = {i for i, value in enumerate(op.inputs) if isinstance(origins.get(value), _OfInputs)}
    of_inputs |= {i for i in carried if op.inputs[i] in origins}
    while True:
        inner: dict[int, _Origin] = {body.arguments[i]: _OfInputs() for i in of_inputs}
        for i, value in enumerate(op.inputs):
            if i not in of_inputs and value in origins:
                inner[body.arguments[i]] = _OfParameters(frozenset({body.arguments[i]}))
        meetings = list(_meetings(body.ops, inner, enter=False))
        # A carry that starts as a constant depends on the inputs once any step makes it depend on them.
        grown = {i for i in carried if isinstance(inner.get(body.outputs[i - first]), _OfInputs)} - of_inputs
        if not grown:
            break
        of_inputs |= grown
    if any(isinstance(inner.get(value), _OfParameters) for value in body.outputs):
        return None
    results = []
    for number, chain, _, _ in meetings:
        indices = [i for i, argument in enumerate(body.arguments) if argument in chain.sources]
        outer = [origins[op.inputs[i]] for i in indices]
        scanned = Scanned(
            op.eqn.params["length"],
            tuple(op.inputs[i] for i in indices),
            tuple(body.arguments[i] for i in indices),
            tuple(i >= first + carries for i in indices),
            tuple(sorted(chain.ops)),
        )
        results.append((_joined([origin for origin in outer if isinstance(origin, _OfParameters)]), scanned, (number,)))
    if starts := _starts(op, body, origins):
        sources = _joined(starts).sources
        if any(sources & chain.sources for chain, _, _ in results):
            return None
    return results


def varying(program: Program, leaves: Sequence[int]) -> frozenset[int]:
    """The values that depend on the inputs, or on these leaves."""
    values: set[Any] = {*program.inputs, *(program.params[leaf] for leaf in leaves)}
    for op in program.ops:
        if values & set(op.inputs):
            values |= set(op.outputs)
    return frozenset(values)
