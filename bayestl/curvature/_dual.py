"""The whole curvature of a few examples, as its N K columns."""

from __future__ import annotations

import jax
from jax.tree_util import Partial

from bayestl._log_joint import LogJoint
from bayestl._types import Batch, Data, Key, Params
from bayestl.curvature._columns import ColumnsCurvature
from bayestl.curvature._kinds import Kind
from bayestl.curvature._products import num_columns, square_root
from bayestl.curvature._structure import Builder
from bayestl.passes import batches


def dual() -> Builder:
    """The exact curvature for few-shot targets with any number of parameters: the N K columns themselves.

    With K output columns per example (C for the GGN of a classifier), it takes N K copies of the parameters and
    matrices of size N K x N K, but nothing of size D x D. With these columns W, the posterior under a prior S0 is
    ``S0 - S0 W (I + W^T S0 W)^-1 W^T S0``, a :class:`~bayestl.gaussians.LowRank` under diagonal and low-rank priors,
    and the evidence is that of :func:`~bayestl.infer.scale_evidence`, for all scales of the prior at once.

    Example:
        >>> net = btl.nets.mlp(jax.random.key(0), (4, 8, 3))
        >>> prior = btl.gaussians.isotropic(net.params, scale=1.0)
        >>> joint = btl.LogJoint(net, btl.likelihoods.categorical(), prior, num_data=2)
        >>> data = btl.data.arrays(jnp.ones((2, 4)), jnp.array([0, 1]))
        >>> posterior = btl.infer.laplace(
        ...     jax.random.key(0), joint, net.params, data, curvature=btl.curvature.dual()
        ... )
        >>> posterior.rank
        6
    """
    return Partial(_dual)


def _dual(
    key: Key, joint: LogJoint, params: Params, data: Data | Batch, kind: Kind, batch_size: int
) -> ColumnsCurvature:
    passes = batches(data, batch_size)
    rows = passes.map(key, lambda key, batch: square_root(joint, kind, params, key, batch))
    # Rows go from example to example, so that those of the padding come last.
    num = passes.num_examples * num_columns(joint, kind, params, passes)
    return ColumnsCurvature(jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:num], rows))
