"""What identifies a run: its program, numbers, data, start and settings, as digests that can be compared."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from bayestl import _tree
from bayestl._static import partition
from bayestl._types import Batch, Data, Key

FORMAT = 2

_SAMPLED_ROWS = 16
_WHERE = ("version", "jax", "devices")
# Compared in this order: the most obvious difference is the one that gets named.
_COMPARED = (
    ("key", "was started with another key, which orders the data"),
    ("num_examples", "saw another number of examples"),
    ("batch_size", "used another batch size"),
    ("numbers", "had other numbers in its method (prior, likelihood, tempers, rates)"),
    ("start", "had another start (parameters, or the network's state)"),
    ("data", "saw other data: the inputs or targets of some example differ"),
)
_PROGRAM = (
    "takes other steps: the network, the likelihood, the optimizer, a learning rate or the transform differ, or a "
    "constant that one of them holds"
)


class OtherRun(Exception):
    """A checkpoint that belongs to another run."""


def describe_run(
    make_step: Callable[[Any], Callable],
    numbers: Any,
    state: Any,
    key: Key,
    data: Data,
    batch_size: int,
    transform: Callable | None,
    *,
    member_state: Any = None,
    own_data: bool = False,
) -> dict[str, Any]:
    """What must be the same for a run to continue from a checkpoint, as JSON values.

    Args:
        make_step: numbers -> the method's step.
        numbers: arrays that the step takes.
        state: the start.
        key: the run's key.
        data: the data set; all of it counts if it is in memory, a sample of its rows if it is a stream.
        batch_size: examples per step.
        transform: the function applied to each batch.
        member_state: for many members, the method's states, which have a leading member axis, as the numbers do.
        own_data: whether the data have such an axis too.
    """
    from bayestl import __version__

    return {
        "format": FORMAT,
        "version": __version__,
        "jax": jax.__version__,
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "method": f"{type(state).__module__}.{type(state).__qualname__}",
        "state": {path: [list(x.shape), str(x.dtype)] for path, x in _tree.by_paths(state).items()},
        "numbers": digest(jax.tree.leaves(numbers)),
        "start": digest(jax.tree.leaves(state)),
        "key": np.asarray(jax.random.key_data(key)).ravel().tolist(),
        "num_examples": int(data.num_examples),
        "batch_size": int(batch_size),
        "data": _data_digest(data),
        "program": _program_digest(make_step, numbers, state, member_state, data, batch_size, transform, own_data),
    }


def compare(saved: dict[str, Any], run: dict[str, Any], where: str) -> None:
    """Raise :class:`OtherRun` if two descriptions differ; only warn if just the environment does.

    Args:
        saved: the checkpoint's description.
        run: that of the run that wants to continue from it.
        where: the checkpoint's name, for messages.
    """
    fix = "give this run a directory of its own, or the arguments of the one that was saved"
    if saved.get("format") != FORMAT:
        newer = "upgrade bayestl" if (saved.get("format") or 0) > FORMAT else "start the run anew in another directory"
        raise OtherRun(f"{where} has format {saved.get('format')}, and this version of bayestl reads {FORMAT}; {newer}")
    if saved["method"] != run["method"]:
        raise OtherRun(f"{where} is of another method: {saved['method']} against {run['method']}; {fix}")
    paths = {**saved["state"], **run["state"]}
    differing = [path for path in paths if saved["state"].get(path) != run["state"].get(path)]
    if differing:
        path = differing[0]
        raise OtherRun(
            f"{where} is of another model: at {path!r} it has {saved['state'].get(path)}, this run has "
            f"{run['state'].get(path)}, and {len(differing)} arrays differ in all; {fix}"
        )
    for name, words in _COMPARED:
        if saved[name] != run[name]:
            detail = f": {saved[name]} against {run[name]}" if name in ("num_examples", "batch_size") else ""
            raise OtherRun(f"{where} {words}{detail}; {fix}")
    moved = [name for name in _WHERE if saved[name] != run[name]]
    for name in moved:
        warnings.warn(
            f"{where} was written by {name} {saved[name]}, and this is {run[name]}; the run goes on, but its last bits "
            "may differ from those of an uninterrupted run",
            RuntimeWarning,
            stacklevel=6,
        )
    # Another version may trace the same step to another program.
    if not moved and saved["program"] != run["program"]:
        raise OtherRun(f"{where} {_PROGRAM}; {fix}")


def digest(leaves: Iterable[Any]) -> str:
    """A digest of all numbers of some arrays, with their shapes and dtypes, except arrays partly held elsewhere."""
    total = hashlib.blake2b(digest_size=16)
    for leaf in leaves:
        if not _tree.is_concrete(leaf) or not getattr(leaf, "is_fully_addressable", True):
            continue
        array = np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)
        total.update(f"{array.dtype}{array.shape}".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _data_digest(data: Data) -> str:
    held = data.resident()
    if held is not None:
        return digest(jax.tree.leaves(held))
    rows = np.unique(np.linspace(0, data.num_examples - 1, _SAMPLED_ROWS).astype(int))
    return digest(jax.tree.leaves(data.rows(rows)))


# ---------------------------------------------------------------- programs


def _program_digest(
    make_step: Callable[[Any], Callable],
    numbers: Any,
    state: Any,
    member_state: Any,
    data: Data,
    batch_size: int,
    transform: Callable | None,
    own_data: bool,
) -> str:
    """A digest of the traced step (of one member), including every constant in it."""
    lead = 0 if member_state is None else 1
    arrays, static = partition((numbers, member_state if lead else state))
    shapes = [jax.ShapeDtypeStruct(np.shape(x)[lead:], jax.numpy.result_type(x)) for x in arrays]
    example: Any = (jax.tree.map(lambda x: x[0], data) if own_data else data).first(1)
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((batch_size, *np.shape(x)[1:]), x.dtype), example)

    def step(arrays: list[Any], key: Key, batch: Batch) -> Any:
        numbers, state = static.combine(arrays)
        batch = batch if transform is None else transform(key, batch)
        return make_step(numbers)(key, state, batch)

    return traced_digest(jax.make_jaxpr(step)(shapes, jax.random.key(0), batch))


def traced_digest(traced: Any) -> str:
    """A digest of a traced program, including every constant in it."""
    total = hashlib.blake2b(digest_size=16)
    # Functions are printed with their addresses, which differ from one process to the next.
    total.update(re.sub(r"0x[0-9a-f]+", "", str(traced)).encode())
    total.update(digest(_constants(traced)).encode())
    return total.hexdigest()


def _constants(jaxpr: Any) -> Iterator[Any]:
    """The arrays that a traced program contains, including those of the programs inside it."""
    yield from getattr(jaxpr, "consts", ())
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        yield from (x.val for x in equation.invars if np.ndim(getattr(x, "val", 0)))
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                    yield from _constants(inner)
