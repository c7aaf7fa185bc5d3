"""Gram matrices of the linearised network, ``J S0 J^T``: layer by layer where that spares the Jacobians."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.lax import Precision

from bayestl import _tree, layers
from bayestl._arguments import check_arguments
from bayestl._log_joint import LogJoint
from bayestl._types import Inputs, Outputs, Params
from bayestl.gaussians import Gaussian
from bayestl.layers import LayeredNetwork, LayerGradients, ProductGradients
from bayestl.passes import num_inputs
from bayestl.predict import linearized_joint


def outputs_gram(joint: LogJoint, prior: Gaussian, params: Params, inputs: Inputs) -> np.ndarray:
    """``J S0 J^T`` at ``params``, (N F, N F) in float64, example after example.

    A dense layer whose prior has one variance needs no Jacobian: with a_n what enters it and z_nf the gradient of
    output f at its result, it adds ``v (a_n . a_m) (z_nf . z_mh)``. All other leaves are taken as they are; where the
    prior's parameters are not independent of each other, the Jacobians of all.

    Args:
        joint: its network and state.
        prior: S0 is its covariance.
        params: where.
        inputs: of N examples.
    """
    check_arguments(outputs_gram, locals())
    if not num_inputs(inputs):
        raise ValueError("inputs hold no example; give one or more, (N, ...)")
    around = prior.around(params)
    if has_one_variance_per_leaf(prior):
        gram = _total(joint.replace(prior=None), around, inputs)
    else:
        gram = linearized_joint(joint, around)(inputs).output_covariance
    return np.asarray(gram, np.float64)


def mean_prior_variance(joint: LogJoint, prior: Gaussian, inputs: Inputs) -> float:
    """The variance of an output under the prior, averaged over outputs and examples: ``mean_i tr(J_i S0 J_i^T) / C`` at
    the prior's mean."""
    check_arguments(mean_prior_variance, locals())
    return float(np.mean(np.diagonal(outputs_gram(joint, prior, prior.mean, inputs))))


def leaf_grams(joint: LogJoint, prior: Gaussian, params: Params, inputs: Inputs) -> dict[str, np.ndarray]:
    """What each parameter array adds to ``J S0 J^T``, by its path, for a prior of independent parameters."""
    grams = _by_leaf(joint.replace(prior=None), prior.around(params), inputs)
    return {path: np.asarray(gram, np.float64) for path, gram in grams.items()}


def has_one_variance_per_leaf(prior: Gaussian) -> bool:
    """Whether all parameters of an array have the same variance, and are independent."""
    return is_independent(prior) and all(jnp.size(v) == 1 for v in variances_of(prior).values())


def is_independent(prior: Gaussian) -> bool:
    """Whether all parameters are independent."""
    return all(block.independent_variances() is not None for block in prior.blocks())


def variances_of(prior: Gaussian) -> dict[str, Any]:
    """The variances of independent parameters by their paths, in shapes that broadcast to theirs."""
    variances: dict[str, Any] = {}
    for block in prior.blocks():
        variances |= _tree.by_paths(block.independent_variances())
    return variances


@jax.jit
def _total(joint: LogJoint, prior: Gaussian, inputs: Inputs) -> jax.Array:
    return _tree.total(_by_leaf(joint, prior, inputs).values())


@jax.jit
def _by_leaf(joint: LogJoint, prior: Gaussian, inputs: Inputs) -> dict[str, jax.Array]:
    variances = variances_of(prior)
    network = layers.find(partial(_outputs, joint), prior.mean, inputs)
    gradients = layers.gradients(network, inputs, _one_per_output)
    grams = []
    for number, (layer, of_layer) in enumerate(zip(network.layers, gradients.layers, strict=True)):
        path = network.paths[layer.leaf]
        grams.append((path, _of_layer(network, number, of_layer, variances[path])))
    for leaf, rows in gradients.leaves.items():
        path = network.paths[leaf]
        grams.append((path, _of_rows(rows, variances[path])))
    result: dict[str, jax.Array] = {}
    for path, gram in grams:
        symmetric = 0.5 * (gram + gram.T)
        result[path] = result[path] + symmetric if path in result else symmetric
    return result


def _outputs(joint: LogJoint, params: Params, inputs: Inputs) -> Outputs:
    return _tree.at_least_float32(joint.outputs(params, inputs)[0])


def _of_layer(network: LayeredNetwork, number: int, of_layer: LayerGradients, variance: Any) -> jax.Array:
    is_one = jnp.size(variance) == 1
    if is_one and isinstance(of_layer, ProductGradients) and of_layer.inputs.shape[1] == 1:
        a, z = of_layer.inputs[:, 0], jnp.moveaxis(of_layer.gradients[:, :, 0], 0, 1)  # (B, g, I), (B, F, g, O)
        entering = _einsum("ngi,mgi->gnm", a, a)
        leaving = _einsum("nfgo,mhgo->gnfmh", z, z)
        gram = jnp.sum(entering[:, :, None, :, None] * leaving, 0)
        size = z.shape[0] * z.shape[1]
        return jnp.reshape(variance, ()) * gram.reshape(size, size)
    return _of_rows(layers.weight_gradients(network.layers[number], of_layer), variance)


def _of_rows(rows: jax.Array, variance: Any) -> jax.Array:
    """Gradients (F, B, *shape) to their Gram matrix (B F, B F), each parameter with its variance."""
    if jnp.size(variance) > 1:
        rows, variance = rows * jnp.sqrt(variance), 1.0
    flat = jnp.moveaxis(rows, 0, 1).reshape(rows.shape[0] * rows.shape[1], -1)
    return jnp.reshape(variance, ()) * _einsum("am,bm->ab", flat, flat)


def _one_per_output(outputs: Outputs) -> Any:
    """Columns of the identity in the space of outputs, leaves (F, B, ...)."""
    leaves, treedef = jax.tree.flatten(outputs)
    sizes = [math.prod(x.shape[1:]) for x in leaves]
    identity = jnp.split(jnp.eye(sum(sizes), dtype=jnp.result_type(*leaves)), np.cumsum(sizes)[:-1], axis=1)
    columns = [
        jnp.broadcast_to(part.reshape(len(part), 1, *x.shape[1:]), (len(part), *x.shape))
        for part, x in zip(identity, leaves, strict=True)
    ]
    return jax.tree.unflatten(treedef, columns)


def _einsum(subscripts: str, *operands: jax.Array) -> jax.Array:
    return jnp.einsum(subscripts, *operands, precision=Precision.HIGHEST)
