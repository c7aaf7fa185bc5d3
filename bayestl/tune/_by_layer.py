"""Criteria as functions of one log factor for each layer's prior variance, with their gradients.

The network is linear around fixed parameters, so that ``G = sum_b tau_b G_b`` with the layers' Gram matrices. Without a
group the dual a solves ``a + grad l(z) = 0``, z = offset + G a, among the others R; so with v the gradient of the held
out log densities in their outputs, and ``u = H (I + G H)^-1 G_RB v``, their change with log tau_b is ``tau_b (v, -u)^T
G_b a``.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from bayestl import _tree
from bayestl._log_joint import LogJoint
from bayestl._types import Batch, Params
from bayestl.tune._gram import has_one_variance_per_leaf, leaf_grams
from bayestl.tune._linear_network import LinearNetwork, linear_network, mode, modes_without, posterior_dual, whitened


@dataclasses.dataclass(frozen=True)
class ByLayer:
    """The linearised network with a Gram matrix for each layer.

    Attributes:
        network: at factors 1.
        names: of the L layers: the paths of their parameters without the last part.
        grams: G_b, (L, N F, N F).
        distances: ``|theta_b - mu_b|^2 / variance`` of each layer, (L,).
    """

    network: LinearNetwork
    names: tuple[str, ...]
    grams: np.ndarray
    distances: np.ndarray

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
        value = explained - 0.5 * np.sum(self.distances / factors) - 0.5 * np.linalg.slogdet(inner)[1]
        inverse = np.linalg.inv(inner)
        traces = np.array([np.sum(inverse * whitened(gram, root)) for gram in self.grams])
        return float(value), 0.5 * (self.distances / factors - traces * factors)


def by_layer(joint: LogJoint, params: Params, batch: Batch) -> ByLayer:
    """The network linearised at ``params``, under the prior of ``joint``.

    Raises:
        TypeError: a prior without one variance for each array.
    """
    prior: Any = joint.prior
    if not has_one_variance_per_leaf(prior):
        raise TypeError(
            "layers have scales of their own where the prior has one variance for each array of parameters; this one "
            "has others, or correlations: tune.isotropic_family(name, mean) makes one"
        )
    network = linear_network(joint, params, batch)
    of_leaves = leaf_grams(joint, prior, params, batch.inputs)
    layer_of = layers_of(params)
    names = tuple(dict.fromkeys(layer_of.values()))
    grams, distances = np.zeros((len(names), *network.gram.shape)), np.zeros(len(names))
    for path, gram in of_leaves.items():
        grams[names.index(layer_of[path])] += gram
    variances: dict[str, Any] = {}
    for block in prior.blocks():
        variances |= _tree.by_paths(block.independent_variances())
    for path, moved in _tree.by_paths(jax.tree.map(lambda x, m: np.asarray(x, float) - m, params, prior.mean)).items():
        distances[names.index(layer_of[path])] += np.sum(np.square(moved)) / float(np.reshape(variances[path], ()))
    return ByLayer(network, names, grams, distances)


def layers_of(params: Params) -> dict[str, str]:
    """The layer of each array, by its path: the path without its last part, where it has more than one."""
    return {path: path.rsplit("/", 1)[0] for path in _tree.paths(params)}
