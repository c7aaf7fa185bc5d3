"""What every method checks before it starts."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial

from bayestl import _tree
from bayestl._log_joint import LogJoint
from bayestl._types import Params
from bayestl.gaussians import Gaussian


def check_params(joint: LogJoint, params: Params) -> None:
    """The parameters a run starts from must be those that the prior is about, and finite."""
    _tree.check_floating("params", params)
    _tree.check_finite("params", params, "the start must be finite")
    if isinstance(joint.prior, Gaussian):
        fix = "start from the target's parameters, as sources.match(...).params gives them"
        _tree.check_same_structure("params", params, "prior", joint.prior.mean, fix)


def check_rank(rank: int, params: Params) -> None:
    """A low-rank part has at most as many directions as there are parameters."""
    if rank > _tree.size(params):
        raise ValueError(f"rank is {rank}, but there are only {_tree.size(params)} parameters; lower it")


def warn_weight_decay(optimizer: Any, params: Params) -> None:
    """Warn when an optimizer moves parameters although the gradient is zero: that is a second prior.

    Its state and two updates are computed on ones, in arrays of the parameters' structure with axes cut to length 2:
    the answer is the same, and a probe on the whole would take ten copies of the parameters and more.
    """
    if not _tree.is_concrete(params):
        return
    try:
        probe = jax.tree.map(lambda x: jnp.ones([min(length, 2) for length in x.shape], x.dtype), params)
        updates = _updates_without_gradient(optimizer, probe)
    except Exception:  # an optimizer that cannot be probed on a constant loss (a line search) is not a decaying one
        return
    if not _tree.is_concrete(updates):
        return
    moved = max((float(jnp.max(jnp.abs(jnp.nan_to_num(u)))) for u in jax.tree.leaves(updates) if u.size), default=0.0)
    if moved > 0:
        warnings.warn(
            f"the optimizer moves parameters by up to {moved:.2g} a step when the gradient is zero: weight decay, "
            "which acts as a second prior beside the one in the log joint; use the optimizer without it (optax.adam "
            "for optax.adamw), or say allow_weight_decay=True",
            UserWarning,
            stacklevel=2,
        )


def _updates_without_gradient(optimizer: Any, params: Params) -> list[Any]:
    zeros, value = _tree.zeros_like(params), jnp.zeros(())
    optimizer = optax.with_extra_args_support(optimizer)
    state, updates_by_step = optimizer.init(params), []
    # A learning rate that warms up from 0 hides the decay in the first step.
    for _ in range(2):
        updates, state = optimizer.update(zeros, state, params, value=value, grad=zeros, value_fn=lambda params: value)
        updates_by_step.append(updates)
    return updates_by_step


def as_schedule(learning_rate: Any) -> Callable[[Any], Any]:
    """A learning rate as a function of the step; a number stays an array in it, and is no part of the program."""
    return learning_rate if callable(learning_rate) else Partial(_constant, learning_rate)


def _constant(learning_rate: Any, count: Any) -> Any:
    return learning_rate
