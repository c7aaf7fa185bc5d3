"""Cyclical stochastic-gradient MCMC: long steps to find another mode, short ones to sample it, over and over."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax.tree_util import Partial

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._log_joint import LogJoint
from bayestl._types import Inference, Params, Scalar
from bayestl.infer._sampling import SamplerSchedule, check_whole, checked_schedule
from bayestl.infer._sghmc import scheduled_sghmc
from bayestl.infer._sgld import scheduled_sgld


def cosine_cycles(peak: Scalar, cycle_length: int) -> Callable[[Any], Any]:
    """A step size that starts every cycle at its peak and falls to nearly 0 along a cosine.

    ``peak/2 (cos(pi (step mod L) / L) + 1)``

    Args:
        peak: the step size at the start of a cycle, > 0.
        cycle_length: L, steps in a cycle, >= 2.

    Raises:
        ValueError: numbers out of range.

    Reference:
        Zhang et al. 2020, "Cyclical Stochastic Gradient MCMC for Bayesian Deep Learning" (arXiv 1902.03932),
        equation 1.

    Example:
        >>> schedule = btl.infer.cosine_cycles(0.2, 4)
        >>> print([round(float(schedule(step)), 2) for step in range(6)])
        [0.2, 0.17, 0.1, 0.03, 0.2, 0.17]
    """
    check_arguments(cosine_cycles, locals())
    checked_schedule("peak", peak)
    check_whole("cycle_length", cycle_length, 2)
    return Partial(_cosine, peak, int(cycle_length))


def _cosine(peak: Any, cycle_length: int, count: Any) -> Any:
    return 0.5 * peak * (jnp.cos(math.pi * (count % cycle_length) / cycle_length) + 1)


def cyclical_sgld(
    joint: LogJoint,
    step_size: Scalar,
    *,
    cycle_length: int,
    num_samples: int,
    exploration: float = 0.8,
    every: int = 1,
    preconditioner: Params | None = None,
) -> Inference:
    """:func:`sgld` in cycles, for posteriors with several modes.

    Step sizes follow :func:`cosine_cycles`. The first part of every cycle explores: plain gradient descent, without
    noise and without draws. The rest samples, and only from it draws are collected.

    Args:
        joint: the target, tempered as it says.
        step_size: eps at the start of a cycle, > 0.
        cycle_length: L, steps in a cycle, >= 2.
        num_samples: K, draws kept on the device, the last ones.
        exploration: beta, in [0, 1): the part of a cycle that explores.
        every: steps from one draw to the next within a cycle, >= 1, counted back from its last step, which is always
            collected.
        preconditioner: as for :func:`sgld`.

    Returns:
        An :class:`Inference` whose posterior is a :class:`~bayestl.posteriors.Chain`.

    Raises:
        ValueError: numbers out of range; a preconditioner that differs from the parameters, or is not positive.

    Warns:
        UserWarning: a step size that is unstable under the prior alone.

    Reference:
        Zhang et al. 2020 (arXiv 1902.03932), algorithm 1.

    Example:
        >>> net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(1)})
        >>> prior = btl.gaussians.isotropic(net.params, scale=1.0)
        >>> joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), prior, num_data=4)
        >>> data = btl.data.arrays(jnp.ones((4, 1)), jnp.full(4, 2.0))
        >>> sampler = btl.infer.cyclical_sgld(joint, 0.1, cycle_length=50, num_samples=20, every=5)
        >>> fitted = btl.fit(jax.random.key(0), sampler, net.params, data, steps=500, progress=False)
        >>> fitted.posterior.draws["w"].shape      # two draws from each of ten cycles
        (20, 1)
    """
    check_arguments(cyclical_sgld, locals(), skip=("step_size",))
    schedule = _cycle_schedule(step_size, "step_size", cycle_length, exploration, every)
    return scheduled_sgld(joint, schedule, num_samples, preconditioner)


def cyclical_sghmc(
    joint: LogJoint,
    learning_rate: Scalar,
    *,
    cycle_length: int,
    num_samples: int,
    friction: Scalar = 0.1,
    exploration: float = 0.8,
    every: int = 1,
    preconditioner: Params | None = None,
) -> Inference:
    """:func:`sghmc` in cycles, for posteriors with several modes.

    Learning rates follow :func:`cosine_cycles`. The first part of every cycle explores: SGD with momentum, without
    noise and without draws. The rest samples, and only from it draws are collected. The velocity is carried on from
    cycle to cycle.

    Args:
        joint: the target, tempered as it says.
        learning_rate: lr at the start of a cycle, > 0.
        cycle_length: L, steps in a cycle, >= 2.
        num_samples: K, draws kept on the device, the last ones.
        friction: alpha, in (0, 1].
        exploration: beta, in [0, 1): the part of a cycle that explores.
        every: steps from one draw to the next within a cycle, >= 1, counted back from its last step, which is always
            collected.
        preconditioner: as for :func:`sghmc`.

    Returns:
        An :class:`Inference` whose posterior is a :class:`~bayestl.posteriors.Chain`.

    Raises:
        ValueError: numbers out of range; a preconditioner that differs from the parameters, or is not positive.

    Warns:
        UserWarning: a learning rate that is unstable under the prior alone.

    Reference:
        Zhang et al. 2020 (arXiv 1902.03932), algorithm 1, with the update of :func:`sghmc`.
    """
    check_arguments(cyclical_sghmc, locals(), skip=("learning_rate",))
    schedule = _cycle_schedule(learning_rate, "learning_rate", cycle_length, exploration, every)
    return scheduled_sghmc(joint, schedule, friction, num_samples, preconditioner)


def _cycle_schedule(peak: Any, name: str, cycle_length: int, exploration: float, every: int) -> SamplerSchedule:
    if callable(peak):
        raise TypeError(f"{name} is a function; a cyclical sampler makes its own schedule from a number, the peak")
    if not hasattr(peak, "dtype") and not isinstance(peak, float | int):
        raise TypeError(f"{name} is a {type(peak).__name__}; give a number, the peak of every cycle")
    checked_schedule(name, peak)
    check_whole("every", every, 1)
    if not _tree.is_concrete(exploration) or not 0 <= float(exploration) < 1:
        raise ValueError(f"exploration is {exploration}; it is the part of a cycle without noise, in [0, 1)")
    schedule = cosine_cycles(peak, cycle_length)
    # Steps 0, ..., first - 1 of a cycle explore: those whose place in it, as a part of 1, is below beta.
    first = math.ceil(float(exploration) * cycle_length)
    if first >= cycle_length:
        raise ValueError(
            f"exploration {exploration} leaves none of the {cycle_length} steps of a cycle for sampling; take longer "
            "cycles, or explore less"
        )
    return SamplerSchedule(
        schedule, Partial(_sampling, first, int(cycle_length)), Partial(_wanted, first, int(cycle_length), int(every))
    )


def _sampling(first: int, cycle_length: int, count: Any) -> Any:
    return jnp.where(count % cycle_length >= first, 1.0, 0.0)


def _wanted(first: int, cycle_length: int, every: int, count: Any) -> Any:
    place = (count - 1) % cycle_length
    return (place >= first) & ((cycle_length - 1 - place) % every == 0)
