"""One Newton step away from each group of examples, from the covariances of its outputs alone.

Let A be the curvature of the log joint of all data, Sigma = A^-1, and V = J_B Sigma J_B^T for the outputs of a group
B. Without it the curvature is ``A - J_B^T H J_B``, and the gradient lacks ``J_B^T g``, H and g those of the group's
loss in its outputs. With ``W = (V^-1 - H)^-1``, their covariance without the group, and ``t = J_B Sigma grad log p``,
the step of all data, the outputs of the group move by ``t + W (H t + g)``. The parameters need not be a mode.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayestl import _tree, infer, predict
from bayestl._log_joint import LogJoint
from bayestl._static import partition
from bayestl._types import Batch, Key, Params
from bayestl.curvature import Builder
from bayestl.gaussians import Gaussian
from bayestl.tune._output_space import OutputSpace, output_space
from bayestl.tune._remaining_gain import gradient


def outputs_without(
    key: Key,
    joint: LogJoint,
    params: Params,
    batch: Batch,
    groups: np.ndarray,
    curvature: Builder,
    batch_size: int | None,
) -> tuple[OutputSpace, np.ndarray]:
    """The likelihood at the outputs, and the outputs of each example without its group, (N, F); float64 on the host."""
    params, prior = _tree.at_least_float32(params), _gaussian(joint)
    num = len(groups)
    counts = np.ones(num) if batch.weights is None else np.asarray(batch.weights, np.float64)
    # Every example counts as often as its weight says, at temperature 1, which moves no mode.
    own = joint.replace(num_data=float(counts.sum()), temperature=1.0)
    posterior = infer.laplace(key, own, params, batch, curvature=curvature, batch_size=batch_size)
    arrays, static = partition(joint)
    towards = posterior.covariance_mv(gradient(static, arrays, params, batch))
    outputs, steps = _moved(joint.replace(prior=None), params, towards, batch)
    space = output_space(joint.likelihood, outputs, batch.targets)
    step = np.concatenate([np.asarray(x, np.float64).reshape(num, -1) for x in jax.tree.leaves(steps)], -1)
    powers = float(joint.kappa) * counts
    gradients, roots = powers[:, None] * space.gradients, np.sqrt(powers)[:, None, None] * space.roots
    # One example at a time is passed over in batches, layer by layer where the posterior has layers.
    alone = np.bincount(groups[groups >= 0]).max() == 1
    around = (posterior, prior.around(params))
    each = [_covariances(joint, gaussian, batch.inputs) for gaussian in around] if alone else []
    result = space.outputs.copy()
    for group in range(groups.max() + 1):
        rows = np.flatnonzero(groups == group)
        if alone:
            covariance, of_prior = (blocks[rows[0]] for blocks in each)
        else:
            inputs = jax.tree.map(lambda x, rows=rows: x[rows], batch.inputs)
            covariance, of_prior = (_covariance(joint, gaussian, inputs) for gaussian in around)
        hessian = _block_diagonal(roots[rows] @ roots[rows].transpose(0, 2, 1))
        of_all = step[rows].ravel()
        force = hessian @ of_all + gradients[rows].ravel()
        moved = of_all + _without(covariance, of_prior, hessian) @ force
        result[rows] += moved.reshape(len(rows), -1)
    return space, result


def _without(covariance: np.ndarray, of_prior: np.ndarray, hessian: np.ndarray) -> np.ndarray:
    """``W = (V^-1 - H)^-1``, by a root K of the prior's covariance of the same outputs: with ``V = K Y K^T`` it is
    ``K (I + E)^-1 K^T``, ``E = Y^-1 - K^T H K - I``. E is what the other examples say, and nothing makes it negative
    but rounding, or a curvature that does not see all of the group.
    """
    values, vectors = np.linalg.eigh(of_prior.astype(np.float64))
    # Outputs that no parameter tells apart.
    held = values > len(values) * np.finfo(of_prior.dtype).eps * values[-1]
    root = vectors[:, held] * np.sqrt(values[held])
    inverse = vectors[:, held] / np.sqrt(values[held])
    scaled = inverse.T @ covariance.astype(np.float64) @ inverse
    others = np.linalg.inv(scaled) - root.T @ hessian @ root - np.eye(len(scaled))
    information, directions = np.linalg.eigh(0.5 * (others + others.T))
    side = root @ directions
    return side / (1 + np.maximum(information, 0.0)) @ side.T


def _block_diagonal(blocks: np.ndarray) -> np.ndarray:
    """(B, F, F) to (B F, B F)."""
    num, width, _ = blocks.shape
    whole = np.zeros((num, width, num, width))
    whole[np.arange(num), :, np.arange(num)] = blocks
    return whole.reshape(num * width, num * width)


def _covariances(joint: LogJoint, gaussian: Gaussian, inputs: Any) -> np.ndarray:
    """Of the outputs of each example, (N, F, F)."""
    outputs: Any = predict.linearized(joint.replace(prior=None), gaussian, lambda outputs: outputs)(inputs)
    return np.asarray(outputs.covariance[0])


def _covariance(joint: LogJoint, gaussian: Gaussian, inputs: Any) -> np.ndarray:
    """Of the outputs of some examples together, (B F, B F)."""
    together = predict.linearized_joint(joint.replace(prior=None), gaussian)(inputs)
    return np.asarray(together.output_covariance)


def _gaussian(joint: LogJoint) -> Gaussian:
    prior: Any = joint.prior
    return prior


@jax.jit
def _moved(joint: LogJoint, params: Params, towards: Params, batch: Batch) -> tuple[Any, Any]:
    """Outputs, and how much they change with the parameters."""

    def outputs(params: Params) -> Any:
        return _tree.at_least_float32(joint.outputs(params, batch.inputs)[0])

    towards = jax.tree.map(lambda t, p: jnp.asarray(t, p.dtype), towards, params)
    return jax.jvp(outputs, (params,), (towards,))
