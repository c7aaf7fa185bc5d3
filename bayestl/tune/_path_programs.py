"""The programs of a path: steps of many fits side by side or one by one, and their learning rates."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from bayestl._dispatch import loops_on_host
from bayestl._log_joint import LogJoint
from bayestl._static import Static
from bayestl._types import Batch, Params
from bayestl.infer import proximal_map
from bayestl.tune._family import Family
from bayestl.tune._rate import dispatched_safe_rate, safe_rate

MOMENTUM = 0.9


def _seen(batch: Batch, rows: Any) -> Batch:
    """These rows of the examples; None for all."""
    return batch if rows is None else jax.tree.map(lambda x: jnp.asarray(x)[rows], batch)


def _step(joint: LogJoint, common: Any, state: Any, weights: jax.Array | None, batch: Batch, rows: Any) -> Any:
    """One step of one fit, which sees these rows of the examples; None for all."""
    prior, scale, rate, likelihood = common
    num = joint.num_data if weights is None else jnp.sum(weights).astype(joint.num_data.dtype)
    own = joint.replace(prior=prior.rescale(scale), num_data=num, likelihood=likelihood)
    deterministic: Any = None
    given = _seen(Batch(batch.inputs, batch.targets, weights), rows)
    state, _ = proximal_map(own, rate, momentum=MOMENTUM).step(deterministic, state, given)
    return state._replace(net_state=joint.moving_state)


@partial(jax.jit, static_argnums=(0, 7))
def side_by_side(
    static: Static,
    arrays: list[Any],
    common: Any,
    states: Any,
    subsets: jax.Array | None,
    batch: Batch,
    which: jax.Array | None,
    steps: int,
    rows: Any,
) -> Any:
    """``steps`` steps of every member (leading axis M) on every subset of its examples (second axis)."""
    joint = static.combine(arrays)

    def of_member(common: Any, states: Any, which: Any) -> Any:
        own, weights = _own((batch, subsets), which)

        def one(state: Any, weights: jax.Array | None) -> Any:
            def body(state: Any, rows: Any) -> tuple[Any, None]:
                return _step(joint, common, state, weights, own, rows), None

            return jax.lax.scan(body, state, rows, length=steps)[0]

        return jax.vmap(one)(states, weights)

    return jax.vmap(of_member)(common, states, which)


def one_by_one(
    static: Static,
    arrays: list[Any],
    common: Any,
    states: Any,
    subsets: jax.Array | None,
    batch: Batch,
    which: jax.Array | None,
    steps: int,
    rows: Any,
) -> Any:
    """The same by one dispatch per step and fit: on CPUs convolutions are slow inside of loops, and side by side."""
    num_members, num_fits = states.reach.shape

    def of_member(member: int) -> Any:
        own = jax.tree.map(lambda x: x[member], common)
        examples, weights = _own((batch, subsets), None if which is None else which[member])

        def one(fit: int) -> Any:
            state = jax.tree.map(lambda x: x[member, fit], states)
            for step in range(steps):
                at = None if rows is None else rows[step]
                counted = None if weights is None else weights[fit]
                state = _dispatched(static, arrays, own, state, counted, examples, at)
            return state

        return stacked([one(fit) for fit in range(num_fits)])

    return stacked([of_member(member) for member in range(num_members)])


def _own(of_targets: Any, which: Any) -> Any:
    """What is the member's own, of leaves with a leading axis of targets; everything where there is but one."""
    return of_targets if which is None else jax.tree.map(lambda x: jnp.asarray(x)[which], of_targets)


@partial(jax.jit, static_argnums=0)
def _dispatched(
    static: Static, arrays: list[Any], common: Any, state: Any, weights: Any, batch: Batch, rows: Any
) -> Any:
    return _step(static.combine(arrays), common, state, weights, batch, rows)


def has_slow_loops(joint: LogJoint, family: Family, batch: Batch) -> bool:
    return loops_on_host(jax.make_jaxpr(lambda params: joint.outputs(params, batch.inputs)[0])(family.prior.mean))


@partial(jax.jit, static_argnums=(0, 5))
def rates(static: Static, arrays: list[Any], each: Any, batch: Batch, rows: Any, per_trace: float | None) -> jax.Array:
    """Of every member, from (key, likelihood, mode, number of the target), on these rows of its examples."""
    joint = static.combine(arrays)

    def one(member: Any) -> jax.Array:
        key, likelihood, params, which = member
        own = _seen(_own(batch, which), rows)
        return safe_rate(key, joint.replace(likelihood=likelihood), params, own, per_trace)

    return jax.lax.map(one, each)


def dispatched_rates(
    static: Static, arrays: list[Any], each: Any, batch: Batch, rows: Any, per_trace: float | None
) -> jax.Array:
    rates = []
    for number in range(len(each[0])):
        key, likelihood, params, which = jax.tree.map(lambda x, n=number: x[n], each)
        own = _seen(_own(batch, which), rows)
        rates.append(dispatched_safe_rate(static, arrays, key, likelihood, params, own, per_trace))
    return jnp.stack(rates)


@jax.jit
def finite(params: Params) -> jax.Array:
    """Which members (leading axis) are finite, (M,)."""
    checks = [jnp.all(jnp.isfinite(x).reshape(len(x), -1), 1) for x in jax.tree.leaves(params)]
    return jnp.all(jnp.stack(checks), 0)


def stacked(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *xs: jnp.stack(xs), *trees)
