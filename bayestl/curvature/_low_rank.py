"""The directions in which the data outweigh the prior most, by Lanczos' method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._log_joint import LogJoint
from bayestl._types import Batch, Data, Key, Params
from bayestl.curvature._columns import ColumnsCurvature
from bayestl.curvature._kinds import Kind
from bayestl.curvature._products import product
from bayestl.curvature._structure import Builder
from bayestl.gaussians import Gaussian
from bayestl.passes import batches


def low_rank(rank: int, num_steps: int | None = None) -> Builder:
    """The ``rank`` leading eigenvectors of the curvature *relative to the prior*, for networks of any size.

    Lanczos' method on ``S^T H S`` with ``S S^T = Sigma0``. The leading directions are those about which the target data
    say more than the prior; in all other directions the posterior stays as wide as the prior. Only products with H are
    needed, each of which takes three passes over the data. Every new vector is orthogonalised twice against all earlier
    ones. Memory: ``num_steps`` + ``rank`` copies of the parameters. If the linearised network of all data (for a last
    layer: its features) takes no more memory than that and the inputs together, it is computed once, not for each
    product.

    Args:
        rank: r, how many eigenvectors to compute, 1 to D.
        num_steps: Lanczos steps, one product each; r to D. None stands for 2 r + 10, or D if that is less. More steps
            make the smaller of the r eigenvectors more accurate.

    Raises:
        ValueError: rank below 1, or fewer steps than rank; when used: a rank or more steps than there are parameters.

    Reference:
        Golub and Van Loan 2013, "Matrix Computations", section 10.1 (Lanczos) and 10.3.1 (reorthogonalisation).

    Example:
        >>> net = btl.nets.mlp(jax.random.key(0), (4, 8, 3))
        >>> prior = btl.gaussians.isotropic(net.params, scale=1.0)
        >>> joint = btl.LogJoint(net, btl.likelihoods.categorical(), prior, num_data=20)
        >>> inputs = jax.random.normal(jax.random.key(1), (20, 4))
        >>> data = btl.data.arrays(inputs, jnp.arange(20) % 3)
        >>> posterior = btl.infer.laplace(
        ...     jax.random.key(0), joint, net.params, data, curvature=btl.curvature.low_rank(5)
        ... )
        >>> posterior.rank
        5
    """
    check_arguments(low_rank, locals())
    if rank < 1:
        raise ValueError(f"rank is {rank}; at least 1 eigenvector is needed")
    if num_steps is not None and num_steps < rank:
        raise ValueError(f"num_steps is {num_steps}, fewer than the {rank} eigenvectors asked for; take 2 * rank or so")
    return Partial(_low_rank, rank, num_steps)


def _low_rank(
    rank: int,
    num_steps: int | None,
    key: Key,
    joint: LogJoint,
    params: Params,
    data: Data | Batch,
    kind: Kind,
    batch_size: int,
) -> ColumnsCurvature:
    prior, size = joint.prior, _tree.size(params)
    if rank > size or (num_steps or 0) > size:
        raise ValueError(
            f"curvature.low_rank({rank}{'' if num_steps is None else f', num_steps={num_steps}'}) asks for more than "
            f"there are parameters, {size}; give a rank of at most that, or curvature.dense()"
        )
    if not isinstance(prior, Gaussian):
        raise ValueError(
            "curvature.low_rank looks for the directions in which the data outweigh the prior, and "
            f"{'the flat prior outweighs nothing' if prior is None else f'{type(prior).__name__} is no Gaussian'}; "
            "give a Gaussian prior, or curvature.dense()"
        )
    steps = min(2 * rank + 10, size) if num_steps is None else num_steps
    passes = batches(data, batch_size)
    # The linearised network may take as much memory again as is already in use, since that saves recomputing it.
    curvature = product(joint, kind, params, key, passes, _bytes(passes.inputs) + steps * _bytes(params))
    transposed = jax.linear_transpose(prior.unwhiten, params)

    def whitened_product(v: Params) -> Params:
        return transposed(curvature(prior.unwhiten(v)))[0]

    eigenpairs = lanczos(jax.random.split(key)[0], whitened_product, params, steps)
    values, vectors = eigenpairs.eigenvalues[-rank:], jax.tree.map(lambda u: u[-rank:], eigenpairs.vectors)
    back = jax.linear_transpose(prior.whiten, params)
    return ColumnsCurvature(jax.lax.map(lambda uv: back(_tree.scale(jnp.sqrt(uv[0]), uv[1]))[0], (values, vectors)))


def _bytes(tree: Any) -> int:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))


class Eigenpairs(NamedTuple):
    """Eigenvalues and eigenvectors of a positive semi-definite operator on trees.

    Attributes:
        eigenvalues: (k,), ascending; values below zero, which are rounding, become 0.
        vectors: leaves (k, *shape), orthonormal.
    """

    eigenvalues: jax.Array
    vectors: Params


def lanczos(key: Key, product: Callable[[Params], Params], like: Params, num_steps: int) -> Eigenpairs:
    """Approximate eigenpairs of a positive semi-definite operator on trees like ``like``; exact in D steps.

    The largest eigenvalues converge first, from below. If the start lies in an invariant subspace, as it may for a
    matrix of low rank, the iteration exhausts that subspace early; it then continues with a new random vector
    orthogonal to all earlier ones.
    """
    dtype = jnp.result_type(*jax.tree.leaves(like))
    tiny = 10 * jnp.finfo(dtype).eps
    basis = jax.tree.map(lambda x: jnp.zeros((num_steps, *x.shape), x.dtype), like)
    projected = jnp.zeros((num_steps, num_steps), dtype)

    def step(i: jax.Array, carry: tuple) -> tuple:
        basis, projected, v, largest = carry
        basis = jax.tree.map(lambda q, x: q.at[i].set(x), basis, v)
        image = product(v)
        # All coefficients, not only the two of the three-term recurrence: orthogonalising computes them anyway.
        along = _tree.columns_dot(basis, image)
        projected = projected.at[i].set(along)
        rest = _without(basis, _without(basis, image))
        length = jnp.sqrt(_tree.squared_norm(rest))
        largest = jnp.maximum(largest, jnp.sqrt(_tree.squared_norm(image)))
        fresh = _orthogonal(basis, _tree.normal_like(jax.random.fold_in(key, i + 1), like))
        ended = length <= tiny * largest
        v = jax.tree.map(lambda r, f: jnp.where(ended, f, r / jnp.where(ended, 1, length).astype(r.dtype)), rest, fresh)
        return basis, projected, _orthogonal(basis, v), largest

    start = _tree.normal_like(jax.random.fold_in(key, 0), like)
    carry = (basis, projected, _orthogonal(basis, start), jnp.zeros((), dtype))
    basis, projected, _, _ = jax.lax.fori_loop(0, num_steps, step, carry)
    lower = jnp.tril(projected)
    values, rotation = jnp.linalg.eigh(lower + jnp.tril(lower, -1).T)
    return Eigenpairs(jnp.maximum(values, 0), _tree.columns_mv(basis, rotation.T))


def _without(basis: Params, v: Params) -> Params:
    """``v`` without its part in the span of the orthonormal columns."""
    return _tree.sub(v, _tree.columns_mv(basis, _tree.columns_dot(basis, v)))


def _orthogonal(basis: Params, v: Params) -> Params:
    """``v`` made orthogonal to the columns and scaled to length 1."""
    v = _without(basis, _without(basis, v))
    length = jnp.sqrt(_tree.squared_norm(v))
    return _tree.scale(1 / jnp.maximum(length, jnp.finfo(length.dtype).tiny), v)
