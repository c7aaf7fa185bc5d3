"""The diagonal of a curvature, layer by layer."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from bayestl import gaussians, layers
from bayestl._log_joint import LogJoint
from bayestl._types import Data, Key, Params, Scalar
from bayestl.curvature._kinds import Kind
from bayestl.curvature._layers import column_gradients, in_small_batches, layers_of
from bayestl.curvature._squares import squares
from bayestl.curvature._structure import Builder
from bayestl.passes import batches


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DiagonalCurvature:
    """The diagonal of H. Made by :func:`diagonal`.

    Attributes:
        diagonal: h, in the structure of the parameters.
        inventory: how every parameter was handled.
    """

    diagonal: Any
    inventory: layers.Inventory = dataclasses.field(metadata={"static": True})

    def mv(self, v: Params) -> Params:
        """``h v``."""
        return jax.tree.map(jnp.multiply, self.diagonal, v)

    def precision_update(
        self, prior: gaussians.Gaussian | None, params: Params, power: Scalar, temperature: Scalar
    ) -> gaussians.Gaussian:
        """The Gaussian at ``params`` with precision ``(power diag(h) + Sigma0^-1) / temperature``, of the structure of
        the prior; see :meth:`~bayestl.gaussians.Gaussian.add_diagonal_precision`.

        Under the flat prior a parameter whose h is 0 gives NaN.

        Raises:
            TypeError: a prior for which there is no closed form.
        """
        h = scaled(self.diagonal, power)
        if prior is None:
            posterior: gaussians.Gaussian = gaussians.from_diagonal_precision(params, h)
        else:
            posterior = prior.add_diagonal_precision(h).around(params)
        return posterior.rescale(jnp.asarray(temperature, jnp.result_type(*jax.tree.leaves(params))))

    def log_det_ratio(self, prior: gaussians.Gaussian, power: Scalar) -> jax.Array:
        """``log det (I + power Sigma0 diag(h))``.

        Raises:
            TypeError: a prior for which there is no closed form.
        """
        return prior.diagonal_log_det_ratio(scaled(self.diagonal, power))


def scaled(diagonal: Params, power: Scalar) -> Params:
    """``power diag(h)``."""
    return jax.tree.map(lambda x: jnp.asarray(power, x.dtype) * x, diagonal)


def diagonal() -> Builder:
    """The exact diagonal of the curvature, layer by layer.

    ``h_i = sum_n sum_j (J_n^T s_nj)_i^2``. Every parameter gets the precision that the data give to it alone;
    correlations are left out. A dense layer costs two products of squared activations. Where the positions of a
    convolution or a sequence share weights, the gradient of one layer is formed for a few examples at a time. For
    look-ups in a table, the cost is that of the rows that are looked up. Layers are found in the traced program, so any
    network will do; :func:`find_layers` shows how each parameter is handled, and so does ``inventory`` of the result.

    Under a diagonal, low-rank or dense prior, or a combination of these by path, the Laplace posterior has the
    structure of the prior; a Kronecker layer of up to 4096 parameters becomes dense.

    Reference:
        Dangel, Kunstner and Hennig 2020, "BackPACK: Packing more into backprop", arXiv 1912.10985, for the diagonal
        of a GGN from layer inputs and output gradients.

    Example:
        >>> net = btl.nets.mlp(jax.random.key(0), (4, 8, 3))
        >>> prior = btl.gaussians.isotropic(net.params, scale=1.0)
        >>> joint = btl.LogJoint(net, btl.likelihoods.categorical(), prior, num_data=2)
        >>> data = btl.data.arrays(jnp.ones((2, 4)), jnp.array([0, 1]))
        >>> posterior = btl.infer.laplace(
        ...     jax.random.key(0), joint, net.params, data, curvature=btl.curvature.diagonal()
        ... )
        >>> type(posterior).__name__
        'Diagonal'
    """
    return Partial(_diagonal)


def _diagonal(key: Key, joint: LogJoint, params: Params, data: Data, kind: Kind, batch_size: int) -> DiagonalCurvature:
    passes = batches(data, batch_size)
    network = layers_of(joint, params, passes.inputs)
    shared = [
        network.leaves[layer.leaf].size
        for layer in network.layers
        if layer.positions > 1 and not (layer.is_tied or layer.is_lookup)
    ]
    passes = in_small_batches(network, joint, kind, params, passes, max(shared, default=0))
    leaves = passes.sum(key, lambda key, batch: squares(network, column_gradients(network, joint, kind, key, batch)))
    return DiagonalCurvature(jax.tree.unflatten(jax.tree.structure(params), leaves), network.inventory)
