"""A network with products of low rank added to those of its layers: ``a W + s (a A) B``.

The network is traced for a whole batch, so that what is not added to is computed as the network itself computes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bayestl import _tree
from bayestl._types import Params
from bayestl.layers._find import Layer, Site, products_of
from bayestl.layers._products import MatrixForm, of_convolution
from bayestl.layers._program import Body, Op, Program, run, trace

Path = tuple[int, ...]


class LowRankProduct(NamedTuple):
    """What is added to the products of one layer with weights W (g, I, O).

    Attributes:
        a: A, (I, r); (g, I, r) for more groups than one.
        b: B, (r, O); (g, r, O).
    """

    a: jax.Array
    b: jax.Array


class BatchNetwork(NamedTuple):
    """A network for a whole batch, with the layers to which products can be added. Made by :func:`trace_products`.

    Attributes:
        program: its operations.
        layers: path of the weights to layer, for all that enter matrix products or convolutions only.
    """

    program: Program
    layers: dict[str, Layer]


def trace_products(network: Callable[[Params, Any], Any], params: Params, inputs: Any) -> BatchNetwork:
    """A network's products, found in its program for these inputs.

    Args:
        network: ``(params, inputs) -> outputs``.
        params: the parameters, or their shapes.
        inputs: any pytree of arrays or shapes.
    """
    program, paths = trace(network, params, inputs), _tree.paths(params)
    return BatchNetwork(program, {paths[layer.leaf]: layer for layer in products_of(program)})


def add_products(
    network: BatchNetwork, params: Params, inputs: Any, added: Mapping[str, LowRankProduct], scale: float
) -> Any:
    """The outputs of a network with ``scale (a A) B`` added to some of its products.

    Args:
        network: from :func:`trace_products`, for inputs of these shapes.
        params: the parameters.
        inputs: as they were traced.
        added: by the path of the layer's weights.
        scale: s.
    """
    program, sites = network.program, {}
    for path, product in added.items():
        sites |= {site.use.path: (site, product) for site in network.layers[path].sites}
    values = {**program.constants, **dict(zip(program.params, jax.tree.leaves(params), strict=True))}
    values |= zip(program.inputs, jax.tree.leaves(inputs), strict=True)
    _Adder(program, scale).run(program.ops, (), values, sites)
    return jax.tree.unflatten(program.outputs_tree, [values[value] for value in program.outputs])


class _Adder(NamedTuple):
    program: Program
    scale: float

    def run(
        self,
        ops: Sequence[Op],
        outer: Path,
        values: dict[int, Any],
        sites: Mapping[Path, tuple[Site, LowRankProduct]],
    ) -> None:
        """Run the operations of a program, or of a scan's body, and fill ``values``."""
        scans = {path[0] for path in sites if not outer and len(path) == 2}
        for number, op in enumerate(ops):
            operands = [values[value] for value in op.inputs]
            if number in scans and op.body is not None:
                inside = {path: site for path, site in sites.items() if path[0] == number and len(path) == 2}
                results = self.scan(op, op.body, number, operands, inside)
            else:
                results = run(op, operands)
            if (*outer, number) in sites:
                site, product = sites[(*outer, number)]
                z = self.added(op, site, operands[site.operand], product)
                results = [results[0] + z.astype(results[0].dtype)]
            values |= zip(op.outputs, results, strict=True)

    def scan(
        self,
        op: Op,
        body: Body,
        number: int,
        operands: Sequence[Any],
        sites: Mapping[Path, tuple[Site, LowRankProduct]],
    ) -> Sequence[Any]:
        """A ``lax.scan`` with products in its body; stacked weights have a product for every step."""
        count, carries, length = body.num_constants, body.num_carries, op.eqn.params["length"]
        constants = {**self.program.constants, **dict(zip(body.arguments[:count], operands[:count], strict=True))}
        each_step = {
            path: jax.tree.map(lambda x: x.reshape(length, *_step_shape(x, length)), product)
            for path, (site, product) in sites.items()
            if site.is_stacked
        }

        def step(carry: list[Any], scanned: Any) -> tuple[list[Any], Any]:
            slices, products = scanned
            inner = {**constants, **dict(zip(body.arguments[count:], [*carry, *slices], strict=True))}
            here = {path: (site, products.get(path, product)) for path, (site, product) in sites.items()}
            self.run(body.ops, (number,), inner, here)
            outputs = [inner[value] for value in body.outputs]
            return outputs[:carries], outputs[carries:]

        carry, stacked = jax.lax.scan(
            step,
            list(operands[count : count + carries]),
            (list(operands[count + carries :]), each_step),
            length=length,
            reverse=op.eqn.params["reverse"],
        )
        return [*carry, *stacked]

    def added(self, op: Op, site: Site, x: jax.Array, product: LowRankProduct) -> jax.Array:
        """``s (a A) B`` in the shape of the operation's result."""
        assert isinstance(site.form, MatrixForm)
        a, b = (factor.astype(x.dtype) for factor in product)
        if op.name == "dot_general":
            inner = _times(site.form.inputs(x), a)
        else:
            inner = _convolved(op, self.program.shapes[op.inputs[1]].shape, x, a)
        # The factor belongs here and not to B: as it stands, each of the two enters one plain product.
        return site.form.outputs.back(_times(inner * self.scale, b))


def _step_shape(x: jax.Array, length: int) -> tuple[int, ...]:
    """The shape of one step's factor, of those of all steps, (steps x groups, ...)."""
    groups = x.shape[0] // length
    return x.shape[1:] if groups == 1 else (groups, *x.shape[1:])


def _times(rows: jax.Array, weights: jax.Array) -> jax.Array:
    """(P, g, I) times (I, O) or (g, I, O)."""
    if weights.ndim == 2:
        return (rows.reshape(rows.shape[0], -1) @ weights)[:, None]
    return jnp.einsum("pgi,gio->pgo", rows, weights)


def _convolved(op: Op, kernel_shape: tuple[int, ...], x: jax.Array, a: jax.Array) -> jax.Array:
    """``a A`` (P, g, r), by a convolution like that of the layer but with r channels in every group."""
    params = op.eqn.params
    numbers, groups, rank = params["dimension_numbers"], params["feature_group_count"], a.shape[-1]
    shape = list(kernel_shape)
    shape[numbers.rhs_spec[0]] = groups * rank
    fields = ("window_strides", "padding", "lhs_dilation", "rhs_dilation", "precision")
    options = {field: params[field] for field in fields} | {"feature_group_count": groups}

    def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(x, kernel, dimension_numbers=numbers, **options)

    kernel_like = jax.ShapeDtypeStruct(tuple(shape), x.dtype)
    form = of_convolution(params, [x.shape, kernel_like.shape], jax.eval_shape(convolve, x, kernel_like).shape)
    return form.outputs(convolve(x, form.weights.back(a.reshape(groups, -1, rank))))
