"""Many runs at once: settings and seeds as members of one compiled program."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec
from tqdm.auto import tqdm

from bayestl import _tree
from bayestl._arguments import check_key
from bayestl._types import Data, Inference, Key, Params
from bayestl.passes import first_examples
from bayestl.training._checkpoint import Checkpoint, describe_run, opened
from bayestl.training._fit import Callback, Progress, ask, bar_options, join, to_host
from bayestl.training._loop import Span, Transform, all_finite, as_seen, check_run, run_steps, split_key
from bayestl.training._ring import if_else

Vectorize = Callable[[Callable], Callable]


def sequentially(member: Callable) -> Callable:
    """Members one after another inside the program, as ``jax.vmap`` runs them side by side.

    For :func:`fit_many` where vmap is slow, as for convolutions on a CPU: their kernels then differ between members.
    """
    return lambda *args: jax.lax.map(lambda xs: member(*xs), args)


class ManyResult(NamedTuple):
    """What many runs give. M is the number of members.

    Attributes:
        posterior: the posterior, leaves with a leading axis M.
        state: the method's states, leaves with a leading axis M.
        history: the method's infos, name to array (M, steps, ...).
        failed: (M,), the step whose objective or new state was not finite, where the member was frozen; or -1.
        steps: steps taken.
        stopped: "finished", "already finished" (in the checkpoint that was found), "callback", or "interrupted".
        seconds: wall-clock seconds for all members, compilation left out.
        compile_seconds: seconds until the program was ready.
    """

    posterior: Any
    state: Any
    history: dict[str, np.ndarray]
    failed: np.ndarray
    steps: int
    stopped: str
    seconds: float
    compile_seconds: float

    @property
    def params(self) -> Params:
        """Every member's parameters (the point, or the mean), leaves with a leading axis M."""
        return self.posterior.params if hasattr(self.posterior, "params") else self.posterior.mean

    @property
    def net_state(self) -> Any:
        """Every member's network state, leaves with a leading axis M."""
        return getattr(self.state, "net_state", ())

    def __repr__(self) -> str:
        num_failed, kind = int(np.sum(self.failed >= 0)), type(self.posterior).__name__
        failed = f", {num_failed} failed" if num_failed else ""
        members = f"{len(self.failed)} members, {kind} each"
        return f"ManyResult({members}, {self.steps:,} steps, {self.stopped!r}{failed}, {self.seconds:.1f} s)"


class _Members(NamedTuple):
    """What differs between members; every leaf has a leading axis M."""

    settings: Any
    keys: Any
    params: Any
    data: Any


class _Shared(NamedTuple):
    """What all members share; None where it differs."""

    params: Any
    data: Any


class _Plan(NamedTuple):
    """The static part of the program."""

    make_inference: Callable[[Any], Inference]
    vectorize: Vectorize
    capacity: int
    batch_size: int
    transform: Transform | None
    devices: tuple[Any, ...]


def fit_many(
    keys: Key,
    make_inference: Callable[[Any], Inference],
    settings: Any,
    params: Params,
    data: Data,
    *,
    steps: int,
    batch_size: int | None = None,
    transform: Transform | None = None,
    chunk_size: int = 100,
    callbacks: Sequence[Callback] = (),
    checkpoint: Checkpoint | None = None,
    progress: bool = True,
    params_axis: int | None = None,
    data_axis: int | None = None,
    vectorize: Vectorize = jax.vmap,
    devices: Sequence[Any] | None = None,
) -> ManyResult:
    """Run a method for many settings and seeds in one compiled program, each member as :func:`fit` would run it.

    Settings are traced: learning rates, prior scales, kappa and T vary between members without compiling again, as long
    as the prior is built from them inside ``make_inference``. A member that becomes non-finite is frozen at the state
    before the step that failed and reported in ``failed``, while the others go on.

    Args:
        keys: (M,) keys, one per member.
        make_inference: setting -> :class:`Inference`, with the setting's numbers as they come (they are tracers).
        settings: pytree of arrays with a leading axis M, one entry per member.
        params: where to start.
        data: the training data.
        steps: number of steps.
        batch_size: examples per step, 1 to N; by default 64, or N where that is less.
        transform: ``(key, batch) -> batch``, inside the compiled program.
        chunk_size: steps between reports.
        callbacks: functions of :class:`Progress`, called after each chunk; True ends all runs.
        checkpoint: save all members as they go, and go on from the last checkpoint when there is one, as :func:`fit`.
        progress: show a progress bar.
        params_axis: 0 when every member has a start of its own, in leaves with a leading axis M; None when shared.
        data_axis: 0 when every member has data of its own (``data.stack``); None when shared.
        vectorize: how members share a device: ``jax.vmap`` side by side, :func:`sequentially` one after another.
        devices: devices over which members are spread; by default all that there are.

    Raises:
        ValueError: leading axes that differ, and whatever :func:`fit` raises.

    Warns:
        RuntimeWarning: members that became non-finite.
    """
    check_key("fit_many", keys, batched=True)
    num_members = _count(settings, keys)
    _check_resident(data)
    batch_size, capacity = check_run(data, steps, batch_size, chunk_size)
    for name, tree, axis in (("params", params, params_axis), ("data", data, data_axis)):
        _check_axis(name, tree, axis, num_members)
    _check_first(make_inference, settings, keys, params, data, params_axis, data_axis, transform)
    devices = tuple(jax.devices() if devices is None else devices)[:num_members]
    plan = _Plan(make_inference, vectorize, capacity, batch_size, transform, devices)
    members = _Members(settings, keys, params if params_axis == 0 else None, data if data_axis == 0 else None)
    shared = _Shared(None if params_axis == 0 else params, None if data_axis == 0 else data)
    padding = -num_members % len(devices)
    members = jax.tree.map(lambda x: _pad(x, padding), members)

    began = time.perf_counter()
    run = partial(_chunk, plan)
    carry = _start(plan, members, shared)
    jax.block_until_ready(run(members, shared, carry, Span(jnp.int32(0), jnp.int32(0))))
    ready = time.perf_counter()
    history: list[dict[str, np.ndarray]] = []
    done, stopped = 0, "finished"

    def description() -> dict[str, Any]:
        return describe_run(
            lambda setting: make_inference(setting).step, settings, carry, keys, data, batch_size, transform,
            member_state=carry.state, own_data=data_axis == 0,
        )  # fmt: skip

    with opened(checkpoint, description) as saver, tqdm(**bar_options(steps, progress)) as bar:
        if saver is not None and (saved := saver.restore(carry, steps)) is not None:
            done, carry = saved.step, saved.state
            stopped = "already finished" if done == steps else stopped
            history.append(saved.history)
            bar.update(done)
        try:
            while done < steps:
                num = min(capacity, steps - done)
                carry, infos = run(members, shared, carry, Span(jnp.int32(done), jnp.int32(num)))
                history.append(to_host(infos, num, num_members))
                done += num
                bar.update(num)
                failed = np.asarray(carry.failed)[:num_members]
                bar.set_postfix_str(_summary(history[-1], failed), refresh=False)
                if saver is not None and saver.due(done):
                    saver.save(done, carry, join(history, 1))
                state = _cut(carry.state, num_members)
                if ask(callbacks, Progress(done, history[-1], state, partial(_posteriors, plan, settings, state))):
                    stopped = "callback"
                    break
        except KeyboardInterrupt:
            stopped = "interrupted"
            warnings.warn(f"interrupted; the result holds the states after {done} steps", RuntimeWarning, stacklevel=2)
        finally:
            if saver is not None:
                saver.save(done, carry, join(history, 1))
    failed = np.asarray(carry.failed)[:num_members]
    if (failed >= 0).any():
        warnings.warn(_failures(failed), RuntimeWarning, stacklevel=2)
    state = _cut(carry.state, num_members)
    posterior = _posteriors(plan, settings, state)
    seconds = time.perf_counter() - ready
    return ManyResult(posterior, state, join(history, 1), failed, done, stopped, seconds, ready - began)


class _Carry(NamedTuple):
    """A member's state, and the step at which it failed, or -1."""

    state: Any
    failed: jax.Array


def _spread(plan: _Plan, function: Callable, sharded: tuple, replicated: tuple) -> Any:
    """``function(*sharded members, *replicated)`` for all members, over the devices of the plan."""

    def local(sharded: tuple, replicated: tuple) -> Any:
        return plan.vectorize(lambda *xs: function(*xs, *replicated))(*sharded)

    if len(plan.devices) == 1:
        return local(sharded, replicated)
    mesh = jax.sharding.Mesh(np.array(plan.devices), ("members",))
    over = PartitionSpec("members")
    spread = jax.shard_map(local, mesh=mesh, in_specs=(over, PartitionSpec()), out_specs=over, check_vma=False)
    return spread(sharded, replicated)


@partial(jax.jit, static_argnums=0)
def _start(plan: _Plan, members: _Members, shared: _Shared) -> _Carry:
    def member(mine: _Members, shared: _Shared) -> _Carry:
        params = shared.params if mine.params is None else mine.params
        state = plan.make_inference(mine.settings).init(split_key(mine.keys).init, params)
        return _Carry(state, jnp.int32(-1))

    return _spread(plan, member, (members,), (shared,))


@partial(jax.jit, static_argnums=0)
def _chunk(plan: _Plan, members: _Members, shared: _Shared, carry: _Carry, span: Span) -> tuple[_Carry, Any]:
    def member(mine: _Members, carry: _Carry, shared: _Shared, span: Span) -> tuple[_Carry, Any]:
        step = plan.make_inference(mine.settings).step

        def guarded(key: Key, carry_and_count: Any, batch: Any) -> tuple[Any, Any]:
            (state, failed), count = carry_and_count
            new_state, info = step(key, state, batch)
            good = (failed < 0) & jnp.isfinite(info.objective) & all_finite(new_state)
            state = if_else(good, new_state, state)
            failed = jnp.where((failed < 0) & ~good, count + 1, failed)
            return (_Carry(state, failed), count + 1), info

        (carry, _), infos = run_steps(
            guarded,
            (carry, span.start),
            shared.data if mine.data is None else mine.data,
            split_key(mine.keys),
            span,
            capacity=plan.capacity,
            batch_size=plan.batch_size,
            transform=plan.transform,
        )
        return carry, infos

    return _spread(plan, member, (members, carry), (shared, span))


@partial(jax.jit, static_argnums=0)
def _posteriors(plan: _Plan, settings: Any, state: Any) -> Any:
    return jax.vmap(lambda setting, mine: plan.make_inference(setting).posterior(mine))(settings, state)


def _pad(x: jax.Array, padding: int) -> jax.Array:
    return jnp.concatenate([x, jnp.repeat(x[-1:], padding, axis=0)]) if padding else x


def _cut(tree: Any, num_members: int) -> Any:
    return jax.tree.map(lambda x: x[:num_members], tree)


def _count(settings: Any, keys: Key) -> int:
    if jnp.ndim(keys) != 1 or not jnp.issubdtype(keys.dtype, jax.dtypes.prng_key):
        raise ValueError("keys must be an array of keys, one per member: jax.random.split(jax.random.key(0), M)")
    _check_axis("settings", settings, 0, len(keys))
    return len(keys)


def _check_resident(data: Any) -> None:
    if not isinstance(data, Data) or data.resident() is None:
        raise TypeError(
            f"data is a {type(data).__name__}, which streams; every member orders the data by its own key, so fit_many "
            "needs all of it on the device: btl.data.arrays(inputs, targets)"
        )


def _check_axis(name: str, tree: Any, axis: int | None, num_members: int) -> None:
    if axis is None:
        return
    if axis != 0:
        raise ValueError(f"{name}_axis is {axis}; it can be 0 (a leading member axis) or None (shared)")
    for path, leaf in _tree.by_paths(tree).items():
        if jnp.ndim(leaf) == 0 or jnp.shape(leaf)[0] != num_members:
            raise ValueError(
                f"{name} at {path!r} has shape {jnp.shape(leaf)}, but there are {num_members} keys: every leaf needs a "
                f"leading axis of {num_members}, one entry per member"
            )


def _check_first(make_inference, settings, keys, params, data, params_axis, data_axis, transform) -> None:
    """Build the first member outside the program, so that its own checks see numbers, and check all data against it."""
    first = make_inference(jax.tree.map(lambda x: x[0], settings))
    start = jax.tree.map(lambda x: x[0], params) if params_axis == 0 else params
    examples = first_examples(data)
    if data_axis == 0:
        examples = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), examples)
    first.check(start, *as_seen(examples, transform))
    first.init(keys[0], start)


def _summary(infos: dict[str, np.ndarray], failed: np.ndarray) -> str:
    alive = failed < 0
    mean = f"objective {np.mean(infos['objective'][alive]):.4g}" if alive.any() else "all members failed"
    return mean + (f", {np.sum(~alive)} of {len(failed)} frozen" if not alive.all() else "")


def _failures(failed: np.ndarray) -> str:
    bad = np.flatnonzero(failed >= 0)
    listed = ", ".join(f"{m} (step {failed[m]})" for m in bad[:8]) + (" ..." if len(bad) > 8 else "")
    return (
        f"{len(bad)} of {len(failed)} members became non-finite and were frozen at the state before: {listed}; a "
        "smaller learning rate, or a prior that is less sharp, may help"
    )
