"""Criteria as functions of one log factor for each layer's prior variance, with their gradients.

A prior with a low-rank part has one more factor, on that part: ``S0 = sum_b tau_b D_b + tau_r Z Z^T``.

The network is linear around fixed parameters, so that ``G = sum_b tau_b G_b`` with the layers' Gram matrices. Without a
group the dual a solves ``a + grad l(z) = 0``, z = offset + G a, among the others R; so with v the gradient of the held
out log densities in their outputs, and ``u = H (I + G H)^-1 G_RB v``, their change with log tau_b is ``tau_b (v, -u)^T
G_b a``.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayestl import _tree, gaussians
from bayestl._arguments import check_arguments
from bayestl._log_joint import LogJoint
from bayestl._types import Batch, Params
from bayestl.gaussians import Gaussian
from bayestl.tune._gram import is_independent, leaf_grams, variances_of
from bayestl.tune._linear_network import (
    LinearNetwork,
    linear_network,
    mode,
    modes_without,
    moved,
    posterior_dual,
    whitened,
)
from bayestl.tune._output_space import flattened

# The name of the part of a prior that is of low rank, among those of layers.
LOW_RANK = "low rank"


@dataclasses.dataclass(frozen=True)
class ByLayer:
    """The linearised network with a Gram matrix for each layer.

    Attributes:
        network: at factors 1.
        names: of the L parts: the layers, which are the paths of their parameters without the last part, and
            :data:`LOW_RANK` at the end where the prior has such a part.
        grams: G_b, (L, N F, N F).
        distances: ``(theta_b - mu_b)^T D_b^-1 (theta_b - mu_b)`` of each layer, without the low-rank part.
        across: ``Z_b^T D_b^-1 (theta_b - mu_b)`` of each layer, (., k), with the k columns Z of the low-rank part.
        between: ``Z_b^T D_b^-1 Z_b`` of each layer, (., k, k).
    """

    network: LinearNetwork
    names: tuple[str, ...]
    grams: np.ndarray
    distances: np.ndarray
    across: np.ndarray
    between: np.ndarray

    def at(self, log_factors: np.ndarray) -> LinearNetwork:
        """The linearised network under these factors."""
        return self.network._replace(gram=np.tensordot(np.exp(log_factors), self.grams, 1))

    def held_out(self, log_factors: np.ndarray, groups: np.ndarray) -> tuple[float, np.ndarray]:
        """The sum of held-out log predictives over the examples that are left out, and its gradient, (L,)."""
        network = self.at(log_factors)
        duals = modes_without(network, mode(network), groups)
        outputs = network.outputs(duals)
        each, slopes, roots = (
            f(outputs) for f in (network.space.log_probs, network.space.slopes, network.space.roots_at)
        )
        value, gradient = 0.0, np.zeros(len(self.grams))
        num, width = outputs.shape[1:]
        gram = network.gram.reshape(num, width, num, width)
        for group, dual in enumerate(duals):
            out, rest = groups == group, groups != group
            value += float(each[group, out].sum())
            along = np.zeros((num, width))
            along[out] = -slopes[group, out]
            root = np.sqrt(network.powers[rest])[:, None, None] * roots[group, rest]
            pulled = np.einsum("nfmh,mh->nf", gram[rest][:, :, out], along[out])
            along[rest] = -posterior_dual(gram[rest][:, :, rest], root, pulled)
            gradient += np.einsum("a,bac,c->b", along.ravel(), self.grams, dual, optimize=True)
        return value, gradient * np.exp(log_factors)

    def log_evidence(self, log_factors: np.ndarray) -> tuple[float, np.ndarray]:
        """Laplace's evidence with the parameters and the curvature held, and its gradient, (L,)."""
        network, factors = self.at(log_factors), np.exp(log_factors)
        root = np.sqrt(network.powers)[:, None, None] * network.space.roots
        inner = whitened(network.gram, root)
        inner += np.eye(len(inner))
        explained = float(network.powers @ network.space.log_probs(network.space.outputs[None])[0])
        distance, slopes = self._distance(factors)
        value = explained - 0.5 * distance - 0.5 * np.linalg.slogdet(inner)[1]
        inverse = np.linalg.inv(inner)
        traces = np.array([np.sum(inverse * whitened(gram, root)) for gram in self.grams])
        return float(value), -0.5 * (slopes + traces * factors)

    def _distance(self, factors: np.ndarray) -> tuple[float, np.ndarray]:
        """``m^T S0^-1 m`` of what was moved, m, and its slopes in the log factors.

        By Woodbury's identity ``S0^-1 m = D^-1 (m - Z w)``, where ``w = (1 / tau_r + A)^-1 c``, ``A = sum_b between_b /
        tau_b``, and c is the same sum of ``across``.
        """
        layers, rank = factors[: len(self.distances)], self.across.shape[1]
        if not rank:
            return float(np.sum(self.distances / layers)), -self.distances / layers
        between = np.tensordot(1 / layers, self.between, 1)
        across = self.across.T @ (1 / layers)
        w = np.linalg.solve(np.eye(rank) / factors[-1] + between, across)
        value = float(np.sum(self.distances / layers) - across @ w)
        own = self.distances - 2 * self.across @ w + np.einsum("i,bij,j->b", w, self.between, w)
        outside = across - between @ w
        return value, -np.append(own / layers, factors[-1] * outside @ outside)


def by_layer(joint: LogJoint, params: Params, batch: Batch) -> ByLayer:
    """The network linearised at ``params``, under the prior of ``joint``.

    Raises:
        TypeError: a prior with other correlations than those of a low-rank part.
    """
    prior: Any = joint.prior
    parts = parts_of(prior)
    if parts is None:
        raise TypeError(
            f"layers have scales of their own where the prior's parameters are independent, or have a low-rank part "
            f"beside that; this one is {prior!r}, with other correlations: tune.isotropic_family(name, mean) makes one"
        )
    base, factor = parts
    network = linear_network(joint, params, batch)
    of_leaves = leaf_grams(joint, base, params, batch.inputs)
    layer_of = layers_of(params)
    names = tuple(dict.fromkeys(layer_of.values()))
    grams, distances = np.zeros((len(names), *network.gram.shape)), np.zeros(len(names))
    for path, gram in of_leaves.items():
        grams[names.index(layer_of[path])] += gram
    columns = {} if factor is None else {path: np.asarray(x, float) for path, x in _tree.by_paths(factor).items()}
    rank = len(next(iter(columns.values()))) if columns else 0
    across, between = np.zeros((len(names), rank)), np.zeros((len(names), rank, rank))
    variances = variances_of(base)
    for path, each in _tree.by_paths(jax.tree.map(lambda x, m: np.asarray(x, float) - m, params, prior.mean)).items():
        number = names.index(layer_of[path])
        root = np.sqrt(np.broadcast_to(np.asarray(variances[path], float), each.shape))
        whitened_by_base = (each / root).ravel()
        distances[number] += whitened_by_base @ whitened_by_base
        if rank:
            of_columns = (columns[path] / root).reshape(rank, -1)
            across[number] += of_columns @ whitened_by_base
            between[number] += of_columns @ of_columns.T
    if factor is not None:
        along = [
            flattened(moved(joint.replace(prior=None), params, jax.tree.map(lambda x, k=k: x[k], factor), batch)[1])
            for k in range(rank)
        ]
        images = np.stack([np.asarray(each, np.float64).ravel() for each in along])
        grams, names = np.concatenate([grams, (images.T @ images)[None]]), (*names, LOW_RANK)
    return ByLayer(network, names, grams, distances, across, between)


def has_layer_scales(prior: Gaussian) -> bool:
    """Whether :func:`layer_scales` can give the layers of this prior scales of their own.

    It can where the parameters are independent, or have a low-rank part beside that.

    Args:
        prior: a Gaussian.

    Example:
        >>> params = {"w": jnp.zeros(2)}
        >>> [
        ...     btl.tune.has_layer_scales(prior)
        ...     for prior in (btl.gaussians.isotropic(params, 1.0), btl.gaussians.dense(params, jnp.eye(2)))
        ... ]
        [True, False]
    """
    check_arguments(has_layer_scales, locals())
    return parts_of(prior) is not None


def parts_of(prior: Gaussian) -> tuple[Gaussian, Params | None] | None:
    """Independent parameters and the k columns of a low-rank part, leaves (k, *shape); None where there is more."""
    base, columns = prior.without_columns()
    if not is_independent(base):
        return None
    if columns is None:
        return base, None
    if np.any(np.asarray(columns.ratios) < 1):
        return None
    roots = jnp.sqrt(columns.ratios - 1)
    spread = jax.vmap(base.unwhiten)(columns.basis)
    return base, jax.tree.map(lambda x: x * roots.reshape(-1, *[1] * (x.ndim - 1)), spread)


def rescaled(prior: Gaussian, names: tuple[str, ...], log_factors: np.ndarray) -> Gaussian:
    """The prior with a factor on the variance of every part."""
    parts = parts_of(prior)
    assert parts is not None
    base, factor = parts
    layer_of = layers_of(prior.mean)
    each = {path: jnp.asarray(np.exp(log_factors[names.index(layer)])) for path, layer in layer_of.items()}
    base = base.rescale(_tree.restructure(each, prior.mean))
    if factor is None:
        return base
    root = float(np.exp(0.5 * log_factors[-1]))
    return gaussians.low_rank(prior.mean, base.variance, jax.tree.map(lambda x: root * x, factor))


def layers_of(params: Params) -> dict[str, str]:
    """The layer of each array, by its path: the path without its last part, where it has more than one."""
    return {path: path.rsplit("/", 1)[0] for path in _tree.paths(params)}
