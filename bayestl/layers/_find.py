"""Which uses of parameters are layers: matrix products, convolutions and look-ups."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bayestl._rearrangement import Rearrangement
from bayestl.layers._bias import bias_of
from bayestl.layers._lookups import RowForm, of_gather
from bayestl.layers._moves import moves
from bayestl.layers._products import MatrixForm, Steps, of_convolution, of_product
from bayestl.layers._program import Op, Program
from bayestl.layers._uses import Use, Uses, uses_of_parameters


class Site(NamedTuple):
    """One product or look-up with a parameter.

    Attributes:
        use: where the parameter is used.
        operand: which operand of the operation is the layer's input: the factor of a product, or the row numbers of a
            look-up.
        form: the operation as a matrix product, or as a look-up.
        rearrangement: from the parameter to W (g, I, O); g has one group per step of a scan with stacked weights, and
            one per row of a table.
    """

    use: Use
    operand: int
    form: MatrixForm | RowForm
    rearrangement: Rearrangement

    @property
    def is_stacked(self) -> bool:
        """Whether it is in a scan that has separate weights for every step."""
        return self.use.scanned is not None and self.use.scanned.is_stacked[0]

    @property
    def positions(self) -> int:
        """P, how many positions of one example share the weights."""
        steps = 1 if self.use.scanned is None or self.is_stacked else self.use.scanned.length
        return self.form.positions * steps


class Layer(NamedTuple):
    """A parameter that enters products or look-ups, and nothing else.

    Attributes:
        leaf: which parameter.
        sites: where; several for a layer that is applied more than once.
        bias: the parameter that is added to every row of the products, None for none.
    """

    leaf: int
    sites: tuple[Site, ...]
    bias: int | None = None

    @property
    def is_tied(self) -> bool:
        """Whether the parameter is a different matrix at some of its sites, as a look-up table is that is the output
        layer too."""
        first = self.sites[0]
        return any(not _is_same_matrix(first, site) for site in self.sites[1:])

    @property
    def is_lookup(self) -> bool:
        """Whether all sites are look-ups."""
        return all(isinstance(site.form, RowForm) for site in self.sites)

    @property
    def positions(self) -> int:
        """P, how many positions of one example share the weights, at all sites together."""
        return sum(site.positions for site in self.sites)

    @property
    def rearrangement(self) -> Rearrangement:
        """From the parameter to W (g, I, O), at the first site."""
        return self.sites[0].rearrangement


class ParameterUses(NamedTuple):
    """How every parameter of a network enters it.

    Attributes:
        layers: parameters that enter only products and look-ups.
        operations: the uses of all other parameters, biases included.
        outputs: leaves that reach the outputs without meeting the inputs.
    """

    layers: tuple[Layer, ...]
    operations: tuple[Use, ...]
    outputs: tuple[int, ...]


def layers_of(program: Program) -> ParameterUses:
    """The layers of a program."""
    uses = uses_of_parameters(program)
    by_leaf = _by_leaf(program, uses)
    layers = _without_biases(program, uses, by_leaf)
    inside = {layer.leaf for layer in layers}
    operations = tuple(use for use in uses.uses if use.leaves[0] not in inside)
    layers = tuple(_with_bias(program, layer, by_leaf, uses) for layer in layers)
    return ParameterUses(layers, operations, uses.outputs)


def products_of(program: Program) -> tuple[Layer, ...]:
    """The parameters that enter only matrix products and convolutions, as one matrix; without their biases."""
    uses = uses_of_parameters(program)
    layers = _without_biases(program, uses, _by_leaf(program, uses))
    forms = [[site.form for site in layer.sites] for layer in layers]
    return tuple(
        layer
        for layer, of_layer in zip(layers, forms, strict=True)
        if all(isinstance(form, MatrixForm) for form in of_layer) and not layer.is_tied
    )


def _by_leaf(program: Program, uses: Uses) -> dict[int, list[Use]]:
    return {leaf: [use for use in uses.uses if leaf in use.leaves] for leaf in range(len(program.params))}


def _without_biases(program: Program, uses: Uses, by_leaf: dict[int, list[Use]]) -> list[Layer]:
    layers = []
    for leaf, of_leaf in by_leaf.items():
        sites = [site for site in (_site(program, use) for use in of_leaf) if site is not None]
        if sites and leaf not in uses.outputs and len(sites) == len(of_leaf):
            layers.append(Layer(leaf, tuple(sites)))
    return layers


def _site(program: Program, use: Use) -> Site | None:
    """The layer at a use; None unless it is a product with, or a look-up in, one parameter that is only rearranged."""
    op = program.op(use.path)
    scanned = use.scanned
    if len(use.leaves) != 1 or (scanned is not None and len(scanned.operands) != 1):
        return None
    ops, chain = (program.ops, use.chain) if scanned is None else (_body(program, use), scanned.chain)
    source = program.params[use.leaves[0]] if scanned is None else scanned.arguments[0]
    from_parameters = {source, *(value for number in chain for value in ops[number].outputs)}
    operands = [index for index, value in enumerate(op.inputs) if value not in from_parameters]
    steps = moves(program, ops, chain)
    if steps is None or len(op.inputs) != 2 or len(operands) != 1:
        return None
    (operand,) = operands
    shapes = [program.shapes[value].shape for value in op.inputs]
    result = program.shapes[op.outputs[0]].shape
    form: MatrixForm | RowForm | None = None
    if op.name == "dot_general":
        form = of_product(op.eqn.params, operand, shapes, result)
    elif op.name == "conv_general_dilated" and operand == 0 and op.eqn.params["batch_group_count"] == 1:
        form = of_convolution(op.eqn.params, shapes, result)
    elif op.name == "gather" and operand == 1:
        form = of_gather(op.eqn.params, shapes, result)
    if form is None:
        return None
    steps = (*steps, *form.weights.steps)
    shape = program.shapes[program.params[use.leaves[0]]].shape
    if scanned is not None:
        outer = moves(program, program.ops, use.chain)
        if outer is None:
            return None
        if scanned.is_stacked[0]:
            steps = _of_every_step(steps, scanned.length, form.weights.result)
        steps = (*outer, *steps)
    return Site(use, operand, form, Rearrangement(shape, steps))


def _body(program: Program, use: Use) -> tuple[Op, ...]:
    body = program.ops[use.path[0]].body
    assert body is not None
    return body.ops


def _of_every_step(steps: Steps, length: int, result: Sequence[int]) -> Steps:
    """The steps for one slice, extended to all slices, whose groups follow one another."""
    first = {"transpose": (0,), "reverse": (), "reshape": (length,)}
    lifted = tuple(
        (name, (*first[name], *(n if name == "reshape" else n + 1 for n in argument))) for name, argument in steps
    )
    groups, inputs, outputs = result
    return (*lifted, ("reshape", (length * groups, inputs, outputs)))


def _is_same_matrix(first: Site, other: Site) -> bool:
    """Whether two sites use a parameter as the same W."""
    if isinstance(first.form, RowForm) != isinstance(other.form, RowForm):
        return False
    one, two = first.rearrangement, other.rearrangement
    if one == two:
        return True
    if one.result != two.result:
        return False
    # The same rearrangement can be written in several ways.
    order = np.arange(math.prod(one.shape)).reshape(one.shape)
    return np.array_equal(one(order), two(order))


def _with_bias(program: Program, layer: Layer, by_leaf: dict[int, list[Use]], uses: Uses) -> Layer:
    """The layer with its bias: the parameter that is added to each row of its products, before anything else happens
    to them, and is used nowhere else."""
    if layer.is_tied or layer.is_lookup:
        return layer
    candidates = [use for leaf, uses in by_leaf.items() if leaf != layer.leaf for use in uses]
    biases = [
        bias_of(program, site.use, site.form, candidates) for site in layer.sites if isinstance(site.form, MatrixForm)
    ]
    leaves = {use.leaves for use in biases if use is not None}
    if any(use is None for use in biases) or len(leaves) != 1:
        return layer
    ((leaf,),) = leaves
    is_alone = len(by_leaf[leaf]) == len(biases) and leaf not in uses.outputs
    return layer._replace(bias=leaf) if is_alone else layer
