"""Improved variational online Newton around an informative prior: a mean-field posterior at the price of Adam."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._infos import ELBOInfo
from bayestl._log_joint import LogJoint
from bayestl._types import Batch, Inference, Key, NetState, Params, Scalar
from bayestl.gaussians import Diagonal, Gaussian
from bayestl.infer._checks import as_schedule, check_params
from bayestl.infer._variational import averaged, negative_entropy, tempered


class IVONState(NamedTuple):
    """Attributes:
    mean: means of the approximation, m.
    hessian: running estimate h of the diagonal Hessian of the nll per effective datum.
    momentum: running mean of gradients, not yet debiased.
    count: number of steps taken: where the debiasing and the learning-rate schedule stand.
    net_state: the network's state.
    """

    mean: Any
    hessian: Any
    momentum: Any
    count: jax.Array
    net_state: NetState


def ivon(
    joint: LogJoint,
    learning_rate: optax.ScalarOrSchedule,
    *,
    momentum: Scalar = 0.9,
    hessian_decay: Scalar = 0.99999,
    initial_hessian: Scalar = 1.0,
    num_samples: int = 1,
) -> Inference:
    """The Gaussian with independent parameters nearest to the posterior, by natural-gradient steps.

    The same optimum as :func:`mean_field_vi` for one pass and three copies of the parameters a step: the variances
    follow from a running estimate of the Hessian, ``sigma_i^2 = 1 / (ess (h_i + delta_i))``, and are not moved by an
    optimizer. With the prior N(mu, Sigma) and the effective number of data ``ess = kappa N / T``,
    ``delta = diag(Sigma^-1) / (kappa N)``, and draws ``theta = m + sigma e`` with gradients g of the nll there,

        ``h <- b2 h + (1 - b2) g e / sigma + 1/2 (1 - b2)^2 (h - g e / sigma)^2 / (h + delta)``
        ``m <- m - rate (mean of g + Sigma^-1 (m - mu) / (kappa N)) / (h + delta)``

    The last term of h keeps ``h + delta`` above 0. A prior that correlates parameters enters by its whole precision in
    the mean, by the diagonal of it in the variances, as the optimum asks. At kappa = 0 the posterior is the prior's own
    projection, mean mu and variances ``1 / diag(Sigma^-1)``, h being 0 throughout.

    Args:
        joint: the target; its prior is a Gaussian or None.
        learning_rate: of steps measured by the curvature: 1 is a whole Newton step. A number or an optax schedule,
            which should decay. The paper's rate alpha, where it is rescaled, is ``alpha (initial_hessian + delta)``.
        momentum: b1, the decay of the running mean of gradients, in [0, 1).
        hessian_decay: b2, in [0, 1). The estimate remembers some 1 / (1 - b2) steps: a run must be longer than that,
            or h stays near its start. The default is the paper's, for 1e5 steps; small decays overestimate h, by
            1/2 (1 - b2) times the variance of ``g e / sigma`` over h + delta.
        initial_hessian: h at the start, > 0; large is a narrow start.
        num_samples: draws per step, >= 1, each a pass through the network.

    Returns:
        An :class:`Inference` whose posterior is a :class:`~bayestl.gaussians.Diagonal`.

    Raises:
        TypeError: a prior that is not a Gaussian.
        ValueError: a number out of range; the flat prior without data (kappa = 0), which has no posterior.

    Reference:
        Shen et al. 2024, "Variational Learning is Effective for Large Deep Networks" (arXiv 2402.17641), algorithm 1.
        There the prior is N(0, 1 / (ess delta)); here it is any Gaussian.

    Example:
        >>> net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(1)})
        >>> prior = btl.gaussians.isotropic(net.params, scale=1.0)
        >>> joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), prior, num_data=4)
        >>> data = btl.data.arrays(jnp.ones((4, 1)), jnp.full(4, 2.0))
        >>> schedule = optax.exponential_decay(0.3, 200, 0.5)
        >>> inference = btl.infer.ivon(joint, schedule, hessian_decay=0.99, num_samples=16)
        >>> fitted = btl.fit(jax.random.key(0), inference, net.params, data, steps=2000, progress=False)
        >>> print(fitted.posterior.mean["w"].round(1), fitted.posterior.variance["w"].round(1))
        [1.6] [0.2]
    """
    check_arguments(ivon, locals())
    _check(joint, momentum, hessian_decay, initial_hessian, num_samples)
    step = Partial(_step, joint, as_schedule(learning_rate), momentum, hessian_decay, num_samples)
    init = Partial(_init, joint, jnp.asarray(initial_hessian, jnp.result_type(float)))
    return Inference(init, step, Partial(_posterior, joint), joint.check, joint.scorer())


def _check(joint: LogJoint, momentum: Any, hessian_decay: Any, initial_hessian: Any, num_samples: int) -> None:
    if joint.prior is not None and not isinstance(joint.prior, Gaussian):
        raise TypeError(
            f"ivon needs a Gaussian prior, or None for the flat one, and got {type(joint.prior).__name__}; "
            "mean_field_vi takes any prior"
        )
    if joint.prior is None and _tree.is_concrete(joint.kappa) and not float(joint.kappa) > 0:
        raise ValueError("ivon under the flat prior needs kappa > 0: without data and without a prior nothing is known")
    for name, value in (("momentum", momentum), ("hessian_decay", hessian_decay)):
        if _tree.is_concrete(value) and not 0 <= float(value) < 1:
            raise ValueError(f"{name} is {value}; it must lie in [0, 1)")
    if _tree.is_concrete(initial_hessian) and not 0 < float(initial_hessian) < float("inf"):
        raise ValueError(f"initial_hessian is {initial_hessian}; it is a curvature per datum and must be above 0")
    if num_samples < 1:
        raise ValueError(f"num_samples is {num_samples}; at least 1 draw per step is needed")


def _init(joint: LogJoint, initial_hessian: jax.Array, key: Key, params: Params) -> IVONState:
    check_params(joint, params)
    mean = _tree.at_least_float32(params)
    start = jnp.where(joint.kappa > 0, initial_hessian, 0.0)
    hessian = jax.tree.map(lambda m: jnp.full(m.shape, start, m.dtype), mean)
    return IVONState(mean, hessian, _tree.zeros_like(mean), jnp.zeros((), jnp.int32), joint.moving_state)


def _step(
    joint: LogJoint,
    schedule: Any,
    momentum: Any,
    hessian_decay: Any,
    num_samples: Any,
    key: Key,
    state: IVONState,
    batch: Batch,
) -> tuple[IVONState, ELBOInfo]:
    key_noise, key_net = jax.random.split(key)
    prior = _Prior.of(joint, state.mean)
    variance = _variance(joint, state.hessian, prior.delta)
    seen = jnp.where(joint.kappa > 0, 1.0, 0.0)  # without data the likelihood counts for nothing

    def sampled(key_noise: Key, key_net: Key) -> tuple[Any, Any]:
        noise = _tree.normal_like(key_noise, state.mean)
        scale = jax.tree.map(jnp.sqrt, variance)
        params = jax.tree.map(lambda m, s, e: m + s * e, state.mean, scale, noise)

        def nll(params: Params) -> tuple[jax.Array, Any]:
            terms = joint.replace(prior=None).loss(params, batch, key=key_net, state=state.net_state)[1]
            return terms.nll, terms.state

        (value, net_state), grad = jax.value_and_grad(nll, has_aux=True)(params)
        grad = jax.tree.map(lambda g: (seen * g).astype(g.dtype), grad)
        return (value, grad, jax.tree.map(lambda g, e, s: g * e / s, grad, noise, scale)), net_state

    (nll, grad, curvature), net_state = averaged(sampled, key_noise, key_net, num_samples)
    average = jax.tree.map(lambda v, g: (momentum * v + (1 - momentum) * g).astype(v.dtype), state.momentum, grad)
    hessian = jax.tree.map(lambda *xs: _updated(hessian_decay, *xs), state.hessian, curvature, prior.delta)
    count = state.count + 1
    rate, debias = schedule(state.count), 1 / (1 - momentum**count)

    def moved(m: jax.Array, v: jax.Array, p: jax.Array, h: jax.Array, d: jax.Array) -> jax.Array:
        return (m - rate * (debias * v + p) / (h + d)).astype(m.dtype)

    mean = jax.tree.map(moved, state.mean, average, prior.pull, hessian, prior.delta)
    kl = prior.kl(variance)
    elbo = -joint.kappa * joint.num_data * nll / joint.temperature - kl
    info = ELBOInfo(-elbo / joint.effective_num_data, elbo, nll, kl)
    return IVONState(mean, hessian, average, count, net_state), info


def _updated(decay: Any, h: jax.Array, new: jax.Array, delta: jax.Array) -> jax.Array:
    """The next h: with s = h + delta and x = (1 - b2) (new - h), ``h + x + x^2 / (2 s)``, where s cannot lose half."""
    change = (1 - decay) * (new - h)
    return (h + change + change**2 / (2 * (h + delta))).astype(h.dtype)


class _Prior(NamedTuple):
    """What the tempered prior adds to a step at the mean m; Sigma_T = T Sigma, ess = kappa N / T.

    Attributes:
        delta: ``diag(Sigma_T^-1) / ess``.
        pull: ``Sigma_T^-1 (m - mu) / ess``.
        kl: variances of q -> KL(q || prior).
    """

    delta: Params
    pull: Params
    kl: Any

    @staticmethod
    def of(joint: LogJoint, mean: Params) -> _Prior:
        size, prior, ess = _tree.size(mean), tempered(joint), joint.effective_num_data

        def negative_entropy_of(variance: Params) -> jax.Array:
            return negative_entropy(size, _tree.total(jnp.sum(jnp.log(v)) for v in jax.tree.leaves(variance)))

        if prior is None:
            return _Prior(_tree.zeros_like(mean), _tree.zeros_like(mean), negative_entropy_of)
        deviation = _tree.sub(mean, prior.mean)
        diagonal, pull = prior.precision_diagonal(), prior.precision_mv(deviation)

        def kl(variance: Params) -> jax.Array:
            # -E_q[log prior], of which a normal's constant and log determinant are those at its mean.
            quadratic = _tree.vdot(diagonal, variance) + _tree.vdot(deviation, pull)
            return negative_entropy_of(variance) - prior.log_prob(prior.mean) + 0.5 * quadratic

        def per_datum(x: jax.Array, m: jax.Array) -> jax.Array:
            return (x / ess).astype(m.dtype)

        return _Prior(jax.tree.map(per_datum, diagonal, mean), jax.tree.map(per_datum, pull, mean), kl)


def _variance(joint: LogJoint, hessian: Params, delta: Params) -> Params:
    ess = joint.effective_num_data
    return jax.tree.map(lambda h, d: (1 / (ess * (h + d))).astype(h.dtype), hessian, delta)


def _posterior(joint: LogJoint, state: IVONState) -> Diagonal:
    return Diagonal(state.mean, _variance(joint, state.hessian, _Prior.of(joint, state.mean).delta))
