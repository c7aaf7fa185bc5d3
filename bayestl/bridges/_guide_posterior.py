"""What a trained guide believes, as one of our posteriors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from numpyro.infer import Predictive, autoguide

from bayestl._log_joint import LogJoint
from bayestl._static import Static, partition
from bayestl._types import Batch, Key, Params, Posterior
from bayestl.bridges._guides import MakeGuide, made_guide
from bayestl.bridges._numpyro_model import NumPyroModel
from bayestl.bridges._sites import Sites
from bayestl.gaussians import Dense, Diagonal, low_rank
from bayestl.posteriors import Point


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class GuidePosterior:
    """What a guide without a name of ours believes (a flow, several guides together, one written by hand).

    Attributes:
        joint: the log joint that the guide was made for.
        guide_params: values of the guide's parameters, by name.
        batch: the data that the guide reads, or None.
        make_guide: model -> guide, static.
        sites: which parameters make up which site, static.
    """

    joint: LogJoint
    guide_params: dict[str, Any]
    batch: Batch | None
    make_guide: MakeGuide = dataclasses.field(metadata={"static": True})
    sites: Sites = dataclasses.field(metadata={"static": True})

    def sample(self, key: Key, num_samples: int) -> Params:
        """``num_samples`` draws; leaves have a leading axis of that length."""
        dynamic, static = partition(self)
        return _sample(dynamic, key, static=static, num_samples=num_samples)


@partial(jax.jit, static_argnames=("static", "num_samples"))
def _sample(dynamic: list[Any], key: Key, *, static: Static, num_samples: int) -> Params:
    this: GuidePosterior = static.combine(dynamic)
    guide: Any = made_guide(this.make_guide, NumPyroModel(this.joint, this.sites))
    if not isinstance(guide, autoguide.AutoGuide):
        values = Predictive(guide, params=this.guide_params, num_samples=num_samples)(key, this.batch)
        return this.sites.to_params(values)
    # Called once, so that it knows the model's sites.
    handlers.substitute(handlers.seed(guide, key), this.guide_params)(this.batch)
    values = guide.sample_posterior(key, this.guide_params, this.batch, sample_shape=(num_samples,))
    return this.sites.to_params(values)


def known_posterior(guide: Callable, params: dict[str, Any], sites: Sites) -> Posterior | None:
    """The guide's distribution as a Gaussian or a point over the parameters' tree; None when it is neither."""
    median: Any
    if isinstance(guide, autoguide.AutoDelta):
        median = guide.median(params)
        return Point(sites.to_params(median))
    if isinstance(guide, autoguide.AutoNormal):
        scales = {name: params[f"{name}_{guide.prefix}_scale"] for name in sites.names}
        median = guide.median(params)
        return Diagonal(sites.to_params(median), _squares(sites.to_params(scales)))
    if isinstance(guide, autoguide.AutoDiagonalNormal):
        normal = guide.get_posterior(params)
        return Diagonal(_unflat(sites, normal.loc), _squares(_unflat(sites, normal.scale)))
    if isinstance(guide, autoguide.AutoLowRankMultivariateNormal):
        normal = guide.get_posterior(params)
        mean, diagonal = _unflat(sites, normal.loc), _unflat(sites, normal.cov_diag)
        return low_rank(mean, diagonal, _unflat(sites, normal.cov_factor.T))
    if isinstance(guide, autoguide.AutoMultivariateNormal | autoguide.AutoLaplaceApproximation):
        normal = guide.get_posterior(params)
        mean = _unflat(sites, normal.loc)
        return Dense(mean, _reordered(normal.scale_tril, sites.rows()))
    return None


def _unflat(sites: Sites, vector: jax.Array) -> Params:
    return sites.to_params(sites.split(vector))


def _squares(tree: Params) -> Params:
    return jax.tree.map(jnp.square, tree)


def _reordered(cholesky: jax.Array, rows: np.ndarray) -> jax.Array:
    """The Cholesky factor of a covariance whose i-th row belongs to place ``rows[i]``, in order of the places."""
    if np.array_equal(rows, np.arange(len(rows))):
        return cholesky
    # Triangular again by a QR decomposition of the factor itself, which does not square its condition number.
    upper = jnp.linalg.qr(cholesky[np.argsort(rows)].T, mode="r")
    return upper.T * jnp.where(jnp.diagonal(upper) < 0, -1.0, 1.0)[None, :]
