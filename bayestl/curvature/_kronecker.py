"""Curvature as Kronecker products, one per layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.lax import Precision
from jax.tree_util import Partial

from bayestl import _tree, gaussians
from bayestl._arguments import check_arguments
from bayestl._log_joint import LogJoint
from bayestl._types import Data, Key, Params, Scalar
from bayestl.curvature._diagonal import scaled
from bayestl.curvature._kinds import Kind
from bayestl.curvature._layers import column_gradients, in_small_batches, layers_of
from bayestl.curvature._squares import squares
from bayestl.curvature._structure import Builder
from bayestl.layers import Gradients, Inventory, Layer, LayerGradients, ProductGradients, RowGradients, same_rows
from bayestl.passes import batches

Sharing = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
"""``(inputs, gradients) -> (inputs, gradients)``: inputs (B, P, g, I) and gradients (K, B, P, g, O) of a layer whose
weights P positions share, to those whose outer products are summed; P may change. It has to be linear along the
positions, and the same for all I inputs: for look-ups its effect is found by applying it to the identity."""

Bias = Callable[[jax.Array], tuple[jax.Array, ...]]
"""From the input factor (g, I + 1, I + 1) of a layer with its bias, the last row, to the blocks of it that are used:
all of it, or that of the weights and that of the bias (g, 1, 1)."""


def expand(inputs: jax.Array, gradients: jax.Array) -> tuple[jax.Array, jax.Array]:
    """KFAC-expand: every position counts as an example. ``A = 1/(N P) sum_n sum_p a a^T``, ``G = sum_n sum_p g g^T``.

    Exact for a deep linear network whose loss is a sum of squares over all positions.

    Reference:
        Eschenhagen et al. 2023, "Kronecker-Factored Approximate Curvature for Modern Neural Network Architectures",
        arXiv 2311.00636. With one position it is KFAC; for convolutions it is that of Grosse and Martens 2016.
    """
    return inputs / jnp.sqrt(jnp.asarray(inputs.shape[1], inputs.dtype)), gradients


def reduce(inputs: jax.Array, gradients: jax.Array) -> tuple[jax.Array, jax.Array]:
    """KFAC-reduce: positions are averaged first. ``A = 1/N sum_n abar abar^T``, abar the mean of a over positions, and
    ``G = sum_n gsum gsum^T``, gsum the sum of g.

    Exact for a deep linear network whose outputs are averaged over positions before a loss of squares, and cheaper than
    :func:`expand`.

    Reference:
        Eschenhagen et al. 2023, arXiv 2311.00636.
    """
    return jnp.mean(inputs, 1, keepdims=True), jnp.sum(gradients, 2, keepdims=True)


def joined(inputs: jax.Array) -> tuple[jax.Array, ...]:
    """Weights and bias of a layer in one block, with their correlations."""
    return (inputs,)


def separate(inputs: jax.Array) -> tuple[jax.Array, ...]:
    """Weights and bias of a layer in separate blocks, without their correlations."""
    return inputs[:, :-1, :-1], inputs[:, -1:, -1:]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KroneckerCurvature:
    """H as a Kronecker product for every layer, and a diagonal for all other parameters. Made by :func:`kronecker`.

    Attributes:
        layers: the factors.
        diagonal: h of the parameters that belong to no layer, None at all others.
        inventory: how every parameter was handled.
    """

    layers: tuple[gaussians.KroneckerFactors, ...]
    diagonal: Any
    inventory: Inventory = dataclasses.field(metadata={"static": True})

    def mv(self, v: Params) -> Params:
        """``H v``."""
        parts = [jax.tree.map(jnp.multiply, self.diagonal, _tree.like_selection(v, self.diagonal))]
        for layer in self.layers:
            image = _product(_product(layer.inputs, layer.layout.matrix(v)), layer.outputs)
            parts.append(layer.layout.tree(image, v))
        return _tree.merge(*parts)

    def precision_update(
        self, prior: gaussians.Gaussian | None, params: Params, power: Scalar, temperature: Scalar
    ) -> gaussians.Gaussian:
        """The Gaussian at ``params`` with precision ``(power H + Sigma0^-1) / temperature``: a
        :class:`~bayestl.gaussians.Kronecker` for every layer, under a prior with a low-rank part below a
        :class:`~bayestl.gaussians.LowRank`; see :meth:`~bayestl.gaussians.Gaussian.add_kronecker_precision`, which says
        where it is exact.

        Under the flat prior a factor that is singular up to rounding gives NaN.

        Raises:
            ValueError: a prior that, apart from a low-rank part, correlates the parameters of a layer or has more than
                one variance in a row of its matrix.
        """
        precision = self._precision(power)
        if prior is None:
            posterior = gaussians.from_kronecker_precision(params, precision)
        else:
            posterior = prior.add_kronecker_precision(precision).around(params)
        return posterior.rescale(jnp.asarray(temperature, jnp.result_type(*jax.tree.leaves(params))))

    def log_det_ratio(self, prior: gaussians.Gaussian, power: Scalar) -> jax.Array:
        """``log det (I + power Sigma0 H)``.

        Raises:
            ValueError: as :meth:`precision_update`.
        """
        return prior.kronecker_log_det_ratio(self._precision(power))

    def _precision(self, power: Scalar) -> gaussians.KroneckerPrecision:
        """``power H``."""
        layers = tuple(
            dataclasses.replace(layer, outputs=jnp.asarray(power, layer.outputs.dtype) * layer.outputs)
            for layer in self.layers
        )
        return gaussians.KroneckerPrecision(layers, scaled(self.diagonal, power))


def kronecker(sharing: Sharing = expand, bias: Bias = joined) -> Builder:
    """Kronecker-factored curvature (KFAC): ``H_l ~ A_l (x) G_l`` for every layer, a diagonal for all other parameters.

    ``A = 1/N sum_n a_n a_n^T`` over the layer's inputs, ``G = sum_n sum_j g_nj g_nj^T`` over the gradients of the
    columns with respect to its outputs. The product is a sum over the examples: N enters once. The bias is the weight
    of an input that is always 1. It is exact for a single example of a layer without sharing, and for a layer whose
    ``sum_j g g^T`` is the same for all examples, such as the last layer of a regression. Correlations between layers
    are left out.

    Layers are found in the traced program: dense layers, also if shared by a sequence or by the steps of a
    ``lax.scan``, convolutions in any number of dimensions, groups of both, and look-ups in tables. The input factor of
    a look-up is diagonal over the V rows of the table: how often each row was looked up. With :func:`reduce`, which
    mixes the rows of an example, it is the diagonal of that factor. For a parameter that enters in another way, such as
    the scale and bias of a normalisation, or as several different matrices, such as a table that is also the output
    layer, H has its exact diagonal. :func:`find_layers` shows which parameters these are, and so does ``inventory`` of
    the result.

    The Laplace posterior is exact under priors with one variance per parameter, or one per row of a layer's matrix: a
    :class:`~bayestl.gaussians.Kronecker` for every layer. The prior may also have a low-rank part, across any layers;
    the posterior then has one too, and is a :class:`~bayestl.gaussians.LowRank` on top of these. Under a posterior by
    this curvature the next one is in the Kronecker basis nearest to the eigenvectors of both, exact in their diagonal
    there. Memory: I^2 + O^2 per layer; V + O^2 for look-ups, and V O for the eigenvalues of their posterior.

    Args:
        sharing: how to treat the positions that share weights: :func:`expand`, :func:`reduce`, or a function of yours.
        bias: :func:`joined`, weights and bias as one block, or :func:`separate`, as in other packages.

    Reference:
        Martens and Grosse 2015, "Optimizing Neural Networks with Kronecker-factored Approximate Curvature", section 3;
        Eschenhagen et al. 2023, arXiv 2311.00636; Ritter, Botev and Barber 2018, "A Scalable Laplace Approximation for
        Neural Networks", where each factor gets its own share of the prior: here the posterior is exact instead.

    Example:
        >>> net = btl.nets.mlp(jax.random.key(0), (4, 8, 3))
        >>> prior = btl.gaussians.isotropic(net.params, scale=1.0)
        >>> joint = btl.LogJoint(net, btl.likelihoods.categorical(), prior, num_data=2)
        >>> data = btl.data.arrays(jnp.ones((2, 4)), jnp.array([0, 1]))
        >>> posterior = btl.infer.laplace(
        ...     jax.random.key(0), joint, net.params, data, curvature=btl.curvature.kronecker()
        ... )
        >>> [type(block).__name__ for block in posterior.blocks()]
        ['Kronecker', 'Kronecker']
    """
    check_arguments(kronecker, locals())
    return Partial(_kronecker, sharing, bias)


def _kronecker(
    sharing: Sharing,
    bias: Bias,
    key: Key,
    joint: LogJoint,
    params: Params,
    data: Data,
    kind: Kind,
    batch_size: int,
) -> KroneckerCurvature:
    passes = batches(data, batch_size)
    network = layers_of(joint, params, passes.inputs)
    passes = in_small_batches(network, joint, kind, params, passes)
    factored = tuple(layer for layer in network.layers if not layer.is_tied)
    inside = {leaf for layer in factored for leaf in (layer.leaf, layer.bias)}

    def one(key: Key, batch: Any) -> Any:
        gradients = column_gradients(network, joint, kind, key, batch)
        of_layers = list(zip(network.layers, gradients.layers, strict=True))
        each = [_factors(layer, g, sharing, batch.weights) for layer, g in of_layers if not layer.is_tied]
        tied = [(layer, g) for layer, g in of_layers if layer.is_tied]
        alone = Gradients(tuple(g for _, g in tied), {n: g for n, g in gradients.leaves.items() if n not in inside})
        squared = squares(network._replace(layers=tuple(layer for layer, _ in tied)), alone)
        return each, [None if leaf in inside else x for leaf, x in enumerate(squared)]

    sums, squared = passes.sum(key, one)
    diagonal = jax.tree.unflatten(jax.tree.structure(params), squared)
    names = network.paths
    blocks = []
    for layer, (inputs, outputs) in zip(factored, sums, strict=True):
        inputs = inputs / passes.total_weight().astype(inputs.dtype)
        layout = gaussians.MatrixLayout(names[layer.leaf], layer.rearrangement)
        if layer.bias is None:
            blocks.append(gaussians.KroneckerFactors(inputs, outputs, layout))
            continue
        layout, blocks_of_inputs = layout._replace(bias=names[layer.bias]), bias(inputs)
        if len(blocks_of_inputs) == 1:
            blocks.append(gaussians.KroneckerFactors(blocks_of_inputs[0], outputs, layout))
        else:
            alone = layout.bias_alone(network.leaves[layer.bias].shape)
            weights, bias_block = blocks_of_inputs
            blocks.append(gaussians.KroneckerFactors(weights, outputs, layout._replace(bias=None)))
            blocks.append(gaussians.KroneckerFactors(bias_block, outputs, alone))
    return KroneckerCurvature(tuple(blocks), diagonal, network.inventory)


def _factors(
    layer: Layer, of_layer: LayerGradients, sharing: Sharing, weights: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """``sum_n w_n a_n a_n^T``, including the bias's input if there is a bias, and ``sum_n w_n g_n g_n^T``."""
    if isinstance(of_layer, RowGradients):
        return _row_factors(of_layer, layer.rearrangement.result[0], sharing, weights)
    assert isinstance(of_layer, ProductGradients)
    a, z = sharing(of_layer.inputs, of_layer.gradients)
    # The output gradients already contain the root of the weights.
    weights = weights.astype(a.dtype)[:, None, None, None]
    inputs, outputs = _gram(a * weights, a), _gram(z, z)
    if layer.bias is not None:
        ones, _ = sharing(jnp.ones((*of_layer.inputs.shape[:3], 1), a.dtype), of_layer.gradients)
        weighted = ones * weights
        cross = jnp.sum(a * weighted, (0, 1))[..., None]
        corner = jnp.sum(ones * weighted, (0, 1))[..., None]
        inputs = jnp.block([[inputs, cross], [cross.mT, corner]])
    return inputs, outputs


def _row_factors(layer: RowGradients, count: int, sharing: Sharing, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The diagonal of ``sum_n w_n a_n a_n^T``, (V, 1, 1), for rows a of the identity, and ``sum_n w_n g_n g_n^T``.

    The effect of ``sharing`` on positions is found by applying it to the identity. Positions without a row, as those of
    padding, do not count: what is shared by all positions that have one weighs as much as it would without the others.
    """
    rows, positions = layer.rows, layer.rows.shape[1]
    z = jnp.where(rows[..., None] < count, layer.gradients, 0)[:, :, :, None]
    mixed, z = sharing(jnp.eye(positions, dtype=z.dtype)[None, :, None], z)
    same, first = same_rows(rows)
    mix, has_row = mixed[0, :, 0], (rows < count).astype(z.dtype)
    each = jnp.einsum("qp,bpr->bqr", mix, same.astype(z.dtype), precision=Precision.HIGHEST)
    of_all, of_rows = (jnp.sum(jnp.square(x @ mix.T), -1, keepdims=True) for x in (jnp.ones_like(has_row), has_row))
    squared = jnp.sum(each * each, 1) * first * weights.astype(z.dtype)[:, None]
    squared = squared * jnp.where(of_rows > 0, of_all / jnp.where(of_rows > 0, of_rows, 1), 0)
    inputs = jnp.zeros(count, z.dtype).at[rows].add(squared, mode="drop")
    return inputs[:, None, None], _gram(z, z)


def _gram(x: jax.Array, y: jax.Array) -> jax.Array:
    """``sum x y^T`` in every group, (g, I, I), for x and y (..., g, I)."""
    x, y = (z.reshape(-1, *z.shape[-2:]) for z in (x, y))
    if x.shape[1] == 1:
        # A plain product is faster than one with a batch axis of length 1.
        return jnp.matmul(x[:, 0].T, y[:, 0], precision=Precision.HIGHEST)[None]
    return jnp.einsum("ngi,ngj->gij", x, y, precision=Precision.HIGHEST)


def _product(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.matmul(x, y, precision=Precision.HIGHEST)
