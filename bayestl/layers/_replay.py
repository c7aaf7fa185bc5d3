"""A network evaluated again from its traced program, with changes at its layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bayestl._arguments import check_arguments
from bayestl._types import Inputs
from bayestl.layers._fast import run_fast
from bayestl.layers._find import Site
from bayestl.layers._lookups import RowForm
from bayestl.layers._network import LayeredNetwork, examples_of
from bayestl.layers._products import MatrixForm
from bayestl.layers._program import Body, Op, Program
from bayestl.layers._uses import Use

Product = Callable[[jax.Array, jax.Array], jax.Array]
"""A replacement for the product of a layer: from its input a (P, g, I) and its weights W (g, I, O) to (P, g, O)."""

Path = tuple[int, ...]
"""The number of an operation, or the number of a scan followed by the operation's number in its body."""


class Entered(NamedTuple):
    """The inputs of layers and of other operations with parameters, for one example, by the path of the operation.

    Attributes:
        products: a, (P, g, I); (T, P, g, I) in a scan.
        rows: row numbers, (P,); (T, P) in a scan.
        operands: value number to array, with a leading axis of T in a scan.
    """

    products: dict[Path, jax.Array]
    rows: dict[Path, jax.Array]
    operands: dict[Path, dict[int, jax.Array]]


def replay(network: LayeredNetwork, inputs: Inputs, replaced: Mapping[str, Product] | None = None) -> Any:
    """The outputs of a network for a batch, with some of its layers replaced.

    Without replacements these are the network's own outputs, computed from its traced program.

    Args:
        network: from :func:`find`.
        inputs: a batch, leaves (B, ...).
        replaced: from the path of a layer's weights to a replacement for its product: a function of the layer's input
            (P, g, I), for P positions of one example and g groups, and its weights (g, I, O), that returns its output
            (P, g, O) before the bias. In a ``lax.scan`` it is called for one step.

    Raises:
        ValueError: a path that does not name the weights of a dense layer or a convolution.

    Example:
        >>> params = {"w": jnp.ones((3, 2))}
        >>> network = btl.layers.find(lambda params, x: x @ params["w"], params, jnp.ones((5, 3)))
        >>> a, b = jnp.ones((3, 1)), jnp.full((1, 2), 0.5)  # an adapter of rank one
        >>> adapted = btl.layers.replay(network, jnp.ones((5, 3)), {"w": lambda x, w: x @ w + (x @ a) @ b})
        >>> print(adapted[0])
        [4.5 4.5]
    """
    check_arguments(replay, locals())
    by_path = {network.paths[layer.leaf]: layer for layer in network.layers}
    changes: dict[Path, Product] = {}
    for path, product in (replaced or {}).items():
        sites = by_path[path].sites if path in by_path else ()
        if not sites or not all(isinstance(site.form, MatrixForm) for site in sites):
            names = [name for name, layer in by_path.items() if not layer.is_lookup]
            raise ValueError(
                f"replaced names {path!r}, which are not the weights of a dense layer or a convolution; those of this "
                f"network are {', '.join(map(repr, names)) or 'none'}"
            )
        changes |= {site.use.path: product for site in sites}
    examples = examples_of(network, inputs)
    outputs, _ = jax.vmap(lambda example: evaluate(network, example, ({}, {}), changes))(examples)
    return jax.tree.unflatten(network.program.outputs_tree, outputs)


def places(network: LayeredNetwork) -> Any:
    """The shapes of what :func:`evaluate` adds for one example: to the results of the operations that take parameters,
    by path, and to the parameters that reach the outputs without meeting the inputs, by leaf."""
    program, shapes = network.program, {}
    uses = [*(site.use for layer in network.layers for site in layer.sites), *network.operations]
    for use in uses:
        lead = () if use.scanned is None else (use.scanned.length,)
        results = [program.shapes[value] for value in differentiable(program, program.op(use.path))]
        shapes[use.path] = [jax.ShapeDtypeStruct((*lead, *s.shape), s.dtype) for s in results]
    leaves = {leaf: jax.eval_shape(lambda x: x, network.leaves[leaf]) for leaf in network.outputs}
    return shapes, leaves


def differentiable(program: Program, op: Op) -> list[int]:
    """The results of an operation that have gradients."""
    return [value for value in op.outputs if jnp.issubdtype(program.shapes[value].dtype, jnp.floating)]


def evaluate(
    network: LayeredNetwork, inputs: Sequence[jax.Array], added: Any, replaced: Mapping[Path, Product] | None = None
) -> tuple[list[jax.Array], Entered]:
    """The network for one example: the leaves of its outputs, and the inputs of its layers.

    Args:
        network: from :func:`find`.
        inputs: the leaves of one example's inputs, each with a leading axis of 1.
        added: added to results and parameters, with the keys of :func:`places`; nothing is added where a key is absent.
        replaced: from the path of an operation to its replacement.
    """
    program = network.program
    results, deltas = added
    values = {**network.constants, **dict(zip(program.inputs, inputs, strict=True))}
    values |= {program.params[leaf]: network.leaves[leaf] + delta for leaf, delta in deltas.items()}
    run_from = _Run(network, replaced or {})
    entered = run_from.ops(program.ops, (), values, results, network.varying)
    return [values[value][0] for value in program.outputs], entered


class _Run:
    """Runs the operations of a program or of a scan's body, and records their inputs."""

    def __init__(self, network: LayeredNetwork, replaced: Mapping[Path, Product]):
        self.program, self.replaced = network.program, replaced
        self.sites: dict[Path, Site] = {site.use.path: site for layer in network.layers for site in layer.sites}
        self.operations: dict[Path, Use] = {use.path: use for use in network.operations}
        self.scans = {path[0] for path in (*self.sites, *self.operations) if len(path) == 2}

    def ops(
        self,
        ops: Sequence[Op],
        outer: Path,
        values: dict[int, Any],
        added: Mapping[Path, Sequence[jax.Array]],
        varying: frozenset[int] | None,
    ) -> Entered:
        """Run them in order and fill ``values``. With ``varying``, run only those that compute one of these."""
        entered = Entered({}, {}, {})
        for number, op in enumerate(ops):
            if varying is not None and not varying & set(op.outputs):
                continue
            path = (*outer, number)
            if path in self.operations:
                entered.operands[path] = self.operands(ops, path, values, varying)
            if not outer and number in self.scans and op.body is not None:
                results, inside = self.scan(op, op.body, number, values, added)
                entered.products.update(inside.products)
                entered.rows.update(inside.rows)
                entered.operands.update(inside.operands)
            else:
                results = self.op(op, path, values, entered)
            values |= zip(op.outputs, results, strict=True)
            if path in added:
                targets = differentiable(self.program, op)
                values |= {v: values[v] + z for v, z in zip(targets, added[path], strict=True)}
        return entered

    def op(self, op: Op, path: Path, values: dict[int, Any], entered: Entered) -> Sequence[Any]:
        """The results of one operation; convolutions and pooling are computed from slices and products."""
        operands = [values[value] for value in op.inputs]
        site, a = self.sites.get(path), None
        if site is not None and isinstance(site.form, RowForm):
            entered.rows[path] = site.form.rows(operands[site.operand])
        elif site is not None and isinstance(site.form, MatrixForm):
            a = entered.products[path] = site.form.inputs(operands[site.operand])
            if path in self.replaced:
                weights = site.form.weights(operands[1 - site.operand])
                z = self.replaced[path](a, weights)
                return [site.form.outputs.back(z.astype(self.program.shapes[op.outputs[0]].dtype))]
        return run_fast(self.program, op, operands, a)

    def scan(
        self, op: Op, body: Body, number: int, values: dict[int, Any], added: Mapping[Path, Sequence[jax.Array]]
    ) -> tuple[Sequence[Any], Entered]:
        """A ``lax.scan`` with changes in its body; recorded inputs are stacked over the steps."""
        count, carries = body.num_constants, body.num_carries
        operands = [values[value] for value in op.inputs]
        inside = {path: zs for path, zs in added.items() if len(path) == 2 and path[0] == number}
        constants = {**self.program.constants, **dict(zip(body.arguments[:count], operands[:count], strict=True))}

        def step(carry: list[Any], scanned: Any) -> tuple[list[Any], Any]:
            slices, zeros = scanned
            inner = {**constants, **dict(zip(body.arguments[count:], [*carry, *slices], strict=True))}
            entered = self.ops(body.ops, (number,), inner, dict(zip(inside, zeros, strict=True)), None)
            outputs = [inner[value] for value in body.outputs]
            return outputs[:carries], (outputs[carries:], entered)

        carry, (stacked, entered) = jax.lax.scan(
            step,
            operands[count : count + carries],
            (operands[count + carries :], list(inside.values())),
            length=op.eqn.params["length"],
            reverse=op.eqn.params["reverse"],
        )
        return [*carry, *stacked], entered

    def operands(
        self, ops: Sequence[Op], path: Path, values: dict[int, Any], varying: frozenset[int] | None
    ) -> dict[int, jax.Array]:
        """The inputs of an operation with parameters, except the parameters and values computed from them alone."""
        use = self.operations[path]
        chain = use.chain if len(path) == 1 or use.scanned is None else use.scanned.chain
        numbers = {value for number in (*chain, path[-1]) for value in ops[number].inputs}
        numbers -= {value for number in chain for value in ops[number].outputs}
        if varying is not None:
            return {value: values[value] for value in sorted(numbers & varying)}
        sources = set() if use.scanned is None else set(use.scanned.arguments)
        return {value: values[value] for value in sorted(numbers - sources - set(self.program.constants))}
