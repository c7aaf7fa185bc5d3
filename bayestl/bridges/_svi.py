"""NumPyro's stochastic variational inference, with any of its guides, as a method that ``fit`` runs."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial
from numpyro import handlers
from numpyro import infer as numpyro_infer
from numpyro.infer.svi import SVIState as NumPyroState

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._infos import ELBOInfo
from bayestl._log_joint import LogJoint
from bayestl._static import Static, partition
from bayestl._types import Batch, Data, Inference, Key, Params, Posterior
from bayestl.bridges._guide_posterior import GuidePosterior, known_posterior
from bayestl.bridges._guides import MakeGuide, check_guide, made_guide, reads_data
from bayestl.bridges._numpyro_model import NumPyroModel, numpyro_model
from bayestl.bridges._sites import Sites
from bayestl.gaussians import Gaussian
from bayestl.passes import whole


class SVIState(NamedTuple):
    """Attributes:
    optim_state: NumPyro's optimizer state: step, and the guide's unconstrained parameters with the optimizer's own.
    sites: which parameters make up which site; static.
    """

    optim_state: Any
    sites: Sites


class _Method(NamedTuple):
    joint: LogJoint
    make_guide: MakeGuide
    optimizer: optax.GradientTransformation
    num_particles: int
    batch: Batch | None


def svi(
    joint: LogJoint,
    guide: MakeGuide,
    optimizer: optax.GradientTransformation,
    *,
    num_particles: int = 1,
    data: Data | None = None,
) -> Inference:
    """Variational inference with any of NumPyro's guides: full covariances, flows, or one written by hand.

    Maximises ``ELBO = E_q[kappa log P(D | theta)] / T - KL(q || prior_T)``, the KL by the same draws, on the model of
    :func:`numpyro_model`; prior_T is ``prior.rescale(T)``. What the optimizer sees is ``-ELBO T / (kappa N)`` (at
    kappa = 0: ``-ELBO T / N``), so that learning rates survive a change of N, kappa and T. For a diagonal Gaussian
    :func:`bayestl.infer.mean_field_vi`, whose KL is exact, is the less noisy way. The network runs deterministically,
    with the state that ``joint`` holds.

    The start sets where an AutoGuide's location begins. Weight decay in the optimizer would shrink the guide's
    parameters, scales among them: use one without.

    Args:
        joint: the target.
        guide: a class of AutoGuides, or a function from the model to a guide. It is called anew, on a model of the same
            sites, wherever a program is built; methods made with the same object share programs, so define it once. To
            set options: ``functools.partial(AutoLowRankMultivariateNormal, rank=5)``. A guide written by hand samples
            each site as a vector of its size; it is called with a batch, and with None for the start.
        optimizer: any optax transformation without a line search.
        num_particles: draws per step, >= 1, each a pass through the network.
        data: all data, for guides that read it: AutoLaplaceApproximation, whose Hessian is taken on it, and AutoDAIS.

    Returns:
        An :class:`Inference` whose posterior is, in the tree of the network, a ``Diagonal`` for AutoNormal and
        AutoDiagonalNormal, a ``LowRank`` for AutoLowRankMultivariateNormal, a ``Dense`` for AutoMultivariateNormal and
        AutoLaplaceApproximation, a :class:`~bayestl.Point` for AutoDelta, and a :class:`GuidePosterior` for any other.

    Raises:
        ValueError: num_particles below 1. On ``init``: a guide that misses a site or gives it another shape; one that
            reads data where none is given; a start that does not fit the prior.
        TypeError: a guide or an optimizer that is none.

    Warns:
        RuntimeWarning: a Hessian of AutoLaplaceApproximation that is not positive definite.

    Reference:
        Kucukelbir et al. 2017, "Automatic Differentiation Variational Inference", equation 5.

    Example:
        >>> from numpyro.infer.autoguide import AutoMultivariateNormal
        >>> net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(1)})
        >>> prior = btl.gaussians.isotropic(net.params, scale=1.0)
        >>> joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), prior, num_data=3)
        >>> data = btl.data.arrays(jnp.ones((3, 1)), jnp.full(3, 2.0))
        >>> optimizer = optax.adam(optax.cosine_decay_schedule(0.05, 2000))
        >>> inference = btl.bridges.svi(joint, AutoMultivariateNormal, optimizer, num_particles=4)
        >>> fitted = btl.fit(jax.random.key(0), inference, net.params, data, steps=2000, progress=False)
        >>> print(fitted.posterior.mean["w"].round(1), fitted.posterior.variance["w"].round(1))
        [1.5] [0.2]
    """
    check_arguments(svi, locals(), skip=("data", "guide", "optimizer"))
    if num_particles < 1:
        raise ValueError(f"num_particles is {num_particles}; at least 1 draw per step is needed")
    if not callable(guide):
        raise TypeError(
            f"guide is a {type(guide).__name__}, which cannot be called; give an AutoGuide class, or a function from "
            "the model to a guide"
        )
    if not isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(f"optimizer is a {type(optimizer).__name__}; give an optax transformation, bare")
    batch = None if data is None else whole(data)
    method = _Method(joint, guide, optimizer, int(num_particles), batch)
    # The data go to the posterior alone: a step's program sees its batch and nothing else of them.
    step = Partial(_step, method._replace(batch=None))
    return Inference(Partial(_init, method), step, Partial(_posterior, method), joint.check)


def _numpyro_svi(method: _Method, model: NumPyroModel, guide: Any) -> numpyro_infer.SVI:
    joint = method.joint
    scale = 1 / joint.effective_num_data
    objective = numpyro_infer.Trace_ELBO(num_particles=method.num_particles)
    scaled_model, scaled_guide = (handlers.scale(fn, scale=scale) for fn in (model, guide))
    return numpyro_infer.SVI(scaled_model, scaled_guide, method.optimizer, objective)


def _ready(method: _Method, sites: Sites, key: Key, batch: Batch | None) -> tuple[numpyro_infer.SVI, Any]:
    """NumPyro's SVI and its guide, set up on a model of these sites. Only for use in compiled programs.

    The start that NumPyro computes on the way is not used, and so not a part of the program.
    """
    model = NumPyroModel(method.joint, sites)
    guide = made_guide(method.make_guide, model)
    svi = _numpyro_svi(method, model, guide)
    svi.init(key, batch)
    return svi, guide


def _init(method: _Method, key: Key, params: Params) -> SVIState:
    _tree.check_floating("params", params)
    _tree.check_finite("params", params, "the start must be finite")
    if isinstance(method.joint.prior, Gaussian):
        fix = "start from the target's parameters, as sources.match(...).params gives them"
        _tree.check_same_structure("params", params, "prior", method.joint.prior.mean, fix)
    params = _tree.at_least_float32(params)
    dynamic, static = partition(method)
    optim_state = _start(dynamic, key, params, static=static)
    return SVIState(optim_state, numpyro_model(method.joint, like=params).sites)


@partial(jax.jit, static_argnames="static")
def _start(dynamic: list[Any], key: Key, params: Params, *, static: Static) -> Any:
    """NumPyro's state at the start. One program: NumPyro sets a guide up by hundreds of small operations."""
    method: _Method = static.combine(dynamic)
    model = numpyro_model(method.joint, like=params)
    guide = made_guide(method.make_guide, model, model.to_values(params))
    if reads_data(guide) and method.batch is None:
        raise ValueError(
            f"{type(guide).__name__} reads the data; pass all of them: svi(joint, guide, optimizer, data=)"
        )
    check_guide(guide, model, key, method.batch)
    start = _numpyro_svi(method, model, guide).init(key, method.batch)
    if start.mutable_state is not None:
        raise ValueError(f"guide has mutable sites {sorted(start.mutable_state)}, which svi does not carry; use params")
    return start.optim_state


def _step(method: _Method, key: Key, state: SVIState, batch: Batch) -> tuple[SVIState, ELBOInfo]:
    svi, _ = _ready(method, state.sites, key, batch)
    new_state, loss = svi.update(_numpyro_state(state, key), batch)
    info = ELBOInfo(loss, -loss * method.joint.effective_num_data)
    return SVIState(new_state.optim_state, state.sites), info


def _numpyro_state(state: SVIState, key: Key) -> Any:
    return NumPyroState(state.optim_state, None, key)


def _posterior(method: _Method, state: SVIState) -> Posterior:
    dynamic, static = partition(method)
    posterior = _known_or_params(dynamic, state, static=static)
    if isinstance(posterior, dict):
        return GuidePosterior(method.joint, posterior, method.batch, method.make_guide, state.sites)
    known = isinstance(posterior, Gaussian) and _tree.is_concrete(posterior)
    if known and not bool(jnp.isfinite(posterior.log_det_covariance())):
        warnings.warn(
            "the Hessian at the guide's point is not positive definite, so this posterior is not a density: train "
            "longer, or use a guide that learns its covariance",
            RuntimeWarning,
            stacklevel=2,
        )
    return posterior


@partial(jax.jit, static_argnames="static")
def _known_or_params(dynamic: list[Any], state: SVIState, *, static: Static) -> Posterior | dict[str, Any]:
    """One of our posteriors where the guide is of a known kind, else the values of its parameters."""
    method: _Method = static.combine(dynamic)
    key = jax.random.key(0)
    svi, guide = _ready(method, state.sites, key, method.batch)
    params = svi.get_params(_numpyro_state(state, key))
    known = known_posterior(guide, params, state.sites)
    return params if known is None else known
