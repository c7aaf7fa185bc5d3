"""What stochastic-gradient samplers share: the energy's gradient, preconditioners, and what to do at which step."""

from __future__ import annotations

import numbers
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._log_joint import LogJoint
from bayestl._types import Batch, Key, NetState, Params, Prior
from bayestl.gaussians import Gaussian
from bayestl.infer._checks import as_schedule

_POWER_STEPS = 20


class SamplerSchedule(NamedTuple):
    """What a sampler does at which step; functions of a step count, which may be traced.

    Attributes:
        step_size: steps taken -> step size.
        noisy: steps taken -> 1 where the next step has noise, 0 where it only descends.
        collects: steps taken -> whether the parameters after them are a draw to keep.
    """

    step_size: Callable[[Any], Any]
    noisy: Callable[[Any], Any]
    collects: Callable[[Any], Any]


def plain_schedule(step_size: Any, name: str, every: int, start: int) -> SamplerSchedule:
    """Noise at every step; one draw in ``every`` steps after the first ``start``."""
    check_whole("every", every, 1)
    check_whole("start", start, 0)
    return SamplerSchedule(
        checked_schedule(name, step_size), Partial(_always), Partial(_thinned, int(every), int(start))
    )


def checked_schedule(name: str, step_size: Any) -> Callable[[Any], Any]:
    if not callable(step_size) and jnp.ndim(step_size) != 0:
        raise ValueError(f"{name} has shape {jnp.shape(step_size)}; give one number, or a function of the step")
    if not callable(step_size) and _tree.is_concrete(step_size) and not 0 < float(step_size) < float("inf"):
        raise ValueError(f"{name} is {step_size}; give a positive number, or a function of the step")
    return as_schedule(step_size)


def check_whole(name: str, value: Any, least: int) -> None:
    if not isinstance(value, numbers.Integral) or value < least:
        raise ValueError(f"{name} is {value!r}; give a whole number, at least {least}")


def _always(count: Any) -> float:
    return 1.0


def _thinned(every: int, start: int, count: Any) -> Any:
    return (count > start) & ((count - start) % every == 0)


class Energy(NamedTuple):
    """``U = -log joint`` at some parameters, from one batch.

    Attributes:
        loss: U per effective datum, up to a constant.
        nll: mean negative log likelihood of the batch, nats per example.
        log_prior: log prior up to a constant, nats.
        net_state: the network's state after the batch.
        gradient: of U, nats of the full data set, tempered.
    """

    loss: jax.Array
    nll: jax.Array
    log_prior: jax.Array
    net_state: NetState
    gradient: Any


def energy(joint: LogJoint, params: Params, batch: Batch, key: Key, net_state: NetState) -> Energy:
    """The energy and its gradient."""

    def loss(params):
        return joint.loss(params, batch, key=key, state=net_state)

    (value, terms), gradient = jax.value_and_grad(loss, has_aux=True)(params)
    gradient = jax.tree.map(lambda g: (joint.effective_num_data * g).astype(g.dtype), gradient)
    return Energy(value, terms.nll, terms.log_prior, terms.state, gradient)


# ---------------------------------------------------------------- preconditioners


def prior_preconditioner(prior: Prior | None) -> Params:
    """The prior's marginal variances, as a preconditioner for samplers.

    A direction that the prior holds tightly then moves by small steps, one that it leaves free by large ones, and the
    step size is a number near 1 for a prior that the data hardly narrow. It changes the speed, not the target.

    Args:
        prior: a Gaussian.

    Raises:
        TypeError: the flat prior, or another without variances.

    Example:
        >>> prior = btl.gaussians.isotropic({"w": jnp.zeros(2)}, scale=3.0)
        >>> print(btl.infer.prior_preconditioner(prior)["w"])
        [9. 9.]
    """
    check_arguments(prior_preconditioner, locals())
    if not isinstance(prior, Gaussian):
        raise TypeError(
            f"a preconditioner from the prior needs a Gaussian and got {type(prior).__name__}; give any tree of "
            "positive numbers in the structure of the parameters instead"
        )
    return prior.variance


def check_preconditioner(preconditioner: Params | None, params: Params, other: str = "params") -> None:
    """One positive number per parameter, or per leaf."""
    if preconditioner is None:
        return
    shapes = jax.tree.map(jnp.zeros_like, params)
    given = _tree.by_paths(preconditioner)
    marks = _tree.by_paths(shapes)
    like_given = _tree.restructure(
        {p: jnp.zeros(()) if p in given and jnp.ndim(given[p]) == 0 else m for p, m in marks.items()}, shapes
    )
    fix = "give one positive number per leaf, or per parameter, as infer.prior_preconditioner(prior) does"
    _tree.check_same_structure("preconditioner", preconditioner, other, like_given, fix)
    _tree.check_positive("preconditioner", preconditioner, "a preconditioner must be positive")


def as_preconditioner(preconditioner: Params | None, params: Params) -> Params:
    """The preconditioner in the dtypes of the parameters; ones where there is none."""
    if preconditioner is None:
        return jax.tree.map(lambda x: jnp.ones((), x.dtype), params)
    return jax.tree.map(lambda p, x: jnp.asarray(p, x.dtype), preconditioner, params)


def mean_square(weights: Params, x: Params) -> jax.Array:
    """``1/D sum_i w_i x_i^2``."""
    return _tree.total(jax.tree.leaves(jax.tree.map(lambda w, v: jnp.sum(w * v * v), weights, x))) / _tree.size(x)


# ---------------------------------------------------------------- stability


def warn_unstable(joint: LogJoint, schedule: SamplerSchedule, preconditioner: Any, limit: Any, name: str) -> None:
    """Warn where the prior alone makes a step size unstable: ``step size * curvature >= limit``.

    What is known before a run is the largest eigenvalue of ``P^1/2 Sigma^-1 P^1/2 / T``; the likelihood adds to it.
    """
    if not isinstance(joint.prior, Gaussian) or not _tree.is_concrete((joint, schedule, preconditioner, limit)):
        return
    check_preconditioner(preconditioner, joint.prior.mean, "prior")
    # Inside a traced function (the members of fit_many) operations on constants would be traced as well.
    with jax.ensure_compile_time_eval():
        curvature = float(_largest_curvature(joint.prior, preconditioner)) / float(joint.temperature)
        # A rate that warms up from 0 hides what follows.
        largest = max(float(schedule.step_size(jnp.int32(count))) for count in (0, 1, 100, 10_000))
    if largest * curvature < float(limit):
        return
    warnings.warn(
        f"{name} is {largest:.3g}, beyond the bound {float(limit) / curvature:.3g} of stability: the prior alone has "
        f"curvature {curvature:.3g}, and the likelihood adds to it; the chain will diverge. Take a smaller {name}, a "
        "prior that is less sharp (a larger eps or scale), or preconditioner=infer.prior_preconditioner(prior)",
        UserWarning,
        stacklevel=4,
    )


@jax.jit
def _largest_curvature(prior: Gaussian, preconditioner: Any) -> jax.Array:
    """Largest eigenvalue of ``P^1/2 Sigma^-1 P^1/2``, from below: by the power method, and from the diagonal."""
    scale = as_preconditioner(preconditioner, prior.mean)
    roots = jax.tree.map(jnp.sqrt, scale)

    def step(_: Any, carry: tuple[Params, jax.Array]) -> tuple[Params, jax.Array]:
        v = carry[0]
        v = _tree.scale(jax.lax.rsqrt(_tree.squared_norm(v)), v)
        moved = jax.tree.map(jnp.multiply, roots, prior.precision_mv(jax.tree.map(jnp.multiply, roots, v)))
        return moved, _tree.vdot(v, moved)

    start = _tree.normal_like(jax.random.key(0), prior.mean)
    _, largest = jax.lax.fori_loop(0, _POWER_STEPS, step, (start, jnp.zeros((), _tree.vdot(start, start).dtype)))
    diagonal = jax.tree.map(lambda p, d: jnp.max(p * d), scale, prior.precision_diagonal())
    return jnp.maximum(largest, jnp.max(jnp.stack(jax.tree.leaves(diagonal))))
