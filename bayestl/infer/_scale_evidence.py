"""The evidence of all scales of a prior at once, for few-shot targets."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._log_joint import LogJoint
from bayestl._static import Static, partition
from bayestl._types import Batch, Data, Key, Params
from bayestl.curvature import Kind, dual, ggn
from bayestl.gaussians import Blocks, Gaussian
from bayestl.infer._evidence import total_log_likelihood
from bayestl.infer._laplace import checked, power
from bayestl.passes import Batches


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ScaleEvidence:
    """The log evidence as a function of factors on the covariances of a prior's blocks. Made by
    :func:`scale_evidence`.

    Nothing in a call is as long as the parameters: B matrices of size M x M, M = N K columns of the curvature.

    They are roots and not Gram matrices, whose products float32 rounds: what the data say of a direction is still told
    from nothing where they outweigh the prior up to 1e12-fold in another one, and not 1e6-fold.

    Attributes:
        prior: the prior at factors 1.
        explained: kappa log p(D | theta*), nats.
        quadratics: ``r_b^T Sigma_b^-1 r_b`` for every block, (B,).
        roots: R_b for every block, (B, M, M), triangular, with ``R_b^T R_b = kappa W_b^T Sigma_b W_b``.
        temperature: T.
        names: of the blocks: their paths, static.
    """

    prior: Gaussian
    explained: jax.Array
    quadratics: Float[Array, " B"]
    roots: Float[Array, "B M M"]
    temperature: Any
    names: tuple[str, ...] = dataclasses.field(metadata={"static": True})

    def __call__(self, log_factors: Float[Array, " B"]) -> Float[Array, ""]:
        """The log evidence, nats, under the prior whose block b has ``exp(log_factors[b])`` times its covariance."""
        factors = jnp.exp(log_factors)
        size = self.roots.shape[-1]
        scaled = jnp.sqrt(factors).astype(self.roots.dtype)[:, None, None] * self.roots
        stacked = jnp.concatenate([jnp.eye(size, dtype=self.roots.dtype), scaled.reshape(-1, size)])
        log_det = 2 * jnp.sum(jnp.log(jnp.abs(jnp.diagonal(jnp.linalg.qr(stacked)[1]))))
        return (self.explained - 0.5 * jnp.sum(self.quadratics / factors)) / self.temperature - 0.5 * log_det

    def rescaled_prior(self, log_factors: Float[Array, " B"]) -> Gaussian:
        """The prior with these factors on the covariances of its blocks."""
        factors = list(jnp.exp(log_factors))
        blocks = self.prior.blocks()
        if len(blocks) > 1:
            return Blocks(tuple(block.rescale(c) for block, c in zip(blocks, factors, strict=True)))
        if self.prior.independent_variances() is not None:
            return self.prior.rescale(jax.tree.unflatten(jax.tree.structure(self.prior.mean), factors))
        return self.prior.rescale(factors[0])


def scale_evidence(
    key: Key, joint: LogJoint, params: Params, data: Data | Batch, *, kind: Kind = ggn, batch_size: int | None = 64
) -> ScaleEvidence:
    """How well each scale of the prior's blocks foresaw a few-shot target, exactly, for networks of any size.

    ``kappa/T log p(D | theta*) - 1/(2T) sum_b r_b^T Sigma_b^-1 r_b / tau_b - 1/2 log |I + kappa sum_b tau_b K_b|`` with
    ``K_b = W_b^T Sigma_b W_b`` from the whole curvature ``H = W W^T``. One pass over the data; after it the evidence
    and its gradient in every log tau_b are those of M x M matrices. The mode is held fixed: climb, find the mode anew
    under :meth:`ScaleEvidence.rescaled_prior`, and repeat.

    Args:
        key: of sampled labels.
        joint: the target. Blocks are those of a prior made by ``gaussians.by_path``, and the leaves of a diagonal or
            isotropic one; a prior of any other structure is one block.
        params: the mode theta*.
        data: all the training data, few, in memory or a stream; or one :class:`~bayestl.Batch`, whose weights count.
        kind: which curvature.
        batch_size: examples seen at once; None for all.

    Raises:
        ValueError: the flat prior; whatever :func:`laplace` raises.

    Example:
        >>> net = btl.nets.mlp(jax.random.key(0), (4, 8, 3))
        >>> prior = btl.gaussians.isotropic(net.params, scale=1.0)
        >>> joint = btl.LogJoint(net, btl.likelihoods.categorical(), prior, num_data=3)
        >>> data = btl.data.arrays(jnp.eye(3, 4), jnp.arange(3))
        >>> evidence = btl.infer.scale_evidence(jax.random.key(0), joint, net.params, data)
        >>> evidence.names
        ('dense_0/bias', 'dense_0/kernel', 'head/bias', 'head/kernel')
        >>> jax.grad(evidence)(jnp.zeros(4)).shape
        (4,)
    """
    check_arguments(scale_evidence, locals(), skip=("data",))
    joint, params, passes, check = checked(joint, params, data, batch_size)
    if joint.prior is None:
        raise ValueError("the flat prior is improper, so the evidence is undefined; give a Gaussian prior")
    arrays, static = partition((joint, dual(), kind))
    explained, quadratics, roots = passes.run(_ingredients, static, arrays, key, params, passes, check=check)
    prior: Any = joint.prior  # a Gaussian: the curvature is whitened by it
    names = tuple(", ".join(_tree.paths(part)) for part, _ in _blocks(prior))
    return ScaleEvidence(prior, explained, quadratics, roots, joint.temperature, names)


@partial(jax.jit, static_argnums=0)
def _ingredients(
    static: Static, arrays: list[Any], key: Key, params: Params, passes: Batches
) -> tuple[jax.Array, jax.Array, jax.Array]:
    joint, curvature, kind = static.combine(arrays)
    weight = power(joint, passes)
    columns = curvature(key, joint, params, passes, kind, passes.batch_size).columns
    quadratics, roots = [], []
    for part, block in _blocks(joint.prior):
        own = _tree.like_selection(columns, part)
        transposed = jax.linear_transpose(block.unwhiten, block.mean)
        root = _triangular(jax.vmap(lambda v, transposed=transposed: transposed(v)[0])(own))
        roots.append(jnp.sqrt(weight).astype(root.dtype) * root)
        quadratics.append(block.squared_mahalanobis(_tree.like_selection(params, part)))
    return weight * total_log_likelihood(joint, params, passes), jnp.stack(quadratics), jnp.stack(roots)


def _triangular(columns: Params) -> jax.Array:
    """R (M, M) with ``R^T R = A^T A`` for the columns A, leaves (M, *shape)."""
    rows = jnp.concatenate([x.reshape(len(x), -1) for x in jax.tree.leaves(columns)], axis=1)
    root = jnp.linalg.qr(rows.T)[1]
    return jnp.pad(root, [(0, len(rows) - len(root)), (0, 0)])


def _blocks(prior: Gaussian) -> list[tuple[Params, Gaussian]]:
    """The independent blocks of a prior, each beside its selection of the parameters."""
    blocks = prior.blocks()
    if len(blocks) > 1 or prior.independent_variances() is None:
        return [(block.mean, block) for block in blocks]
    leaves, treedef = jax.tree.flatten(prior.mean)
    marks = [
        jax.tree.unflatten(treedef, [x if i == j else None for j, x in enumerate(leaves)]) for i in range(len(leaves))
    ]
    return [(mark, prior.restrict(mark)) for mark in marks]
