"""Paths that survive being interrupted: a file after every scale, from which the same call goes on to the same bits."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayestl import _safetensors, training
from bayestl.tune._left_out import LeftOut
from bayestl.tune._path_run import Target

# Of what a file holds; files of another kind belong to another call.
_FORM = "predictions"
_WHERE = ("bayestl", "jax", "device")


class PathCheckpoint:
    """The files of one path in a folder of its own.

    Args:
        folder: made if missing; None for nothing to be saved.
        call: what the path depends on, from :func:`describe_call`; asked only where there is a folder.
    """

    def __init__(self, folder: str | os.PathLike[str] | None, call: Callable[[], dict[str, str]]):
        self.folder = None if folder is None else Path(folder)
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.call = call()

    def restored(self, number: int, like: Any) -> tuple[Any, list[LeftOut], int] | None:
        """State, predictions and number of steps that were saved under this number; None where nothing was.

        Args:
            number: how many scales came before.
            like: a state of the same structure.

        Raises:
            ValueError: a file of another call.
        """
        path = self._file(number)
        if path is None or not path.exists():
            return None
        try:
            with _safetensors.opened(path, "transfer or tune.path") as file:
                metadata = file.metadata() or {}
                arrays: dict[str, Any] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no dict
        except ValueError as error:
            warnings.warn(f"{error}; this scale is computed again", RuntimeWarning, stacklevel=4)
            return None
        if metadata.get("call") != self.call["call"]:
            raise ValueError(
                f"{path} belongs to another call: its key, data, sources, scales, steps, criterion or network differ; "
                "give this one a folder of its own, or the arguments of the one that was interrupted"
            )
        for name in _WHERE:
            if metadata.get(name) != self.call[name]:
                warnings.warn(
                    f"{path} was written by {name} {metadata.get(name)}, and this is {self.call[name]}; the path goes "
                    "on, but its last bits may differ from those of one that was not interrupted",
                    RuntimeWarning,
                    stacklevel=4,
                )
        treedef = jax.tree.structure(like)
        state = jax.tree.unflatten(treedef, [jnp.asarray(arrays[str(place)]) for place in range(treedef.num_leaves)])
        columns: list[Any] = [arrays.get(name) for name in LeftOut._fields]
        num = len(arrays["log_probs"])
        each = [LeftOut(*[_at(column, place) for column in columns]) for place in range(num)]
        return state, each, int(arrays["steps"])

    def save(self, number: int, state: Any, said: list[LeftOut], steps: int) -> None:
        """Written whole or not at all."""
        path = self._file(number)
        if path is not None:
            arrays = {str(place): x for place, x in enumerate(jax.tree.leaves(state))}
            columns = zip(LeftOut._fields, zip(*said, strict=True), strict=True)
            arrays |= {name: np.stack(column) for name, column in columns if column[0] is not None}
            arrays["steps"] = np.asarray(steps)
            _safetensors.write(path, {name: np.asarray(x, order="C") for name, x in arrays.items()}, self.call)

    def _file(self, number: int) -> Path | None:
        return None if self.folder is None else self.folder / f"scale-{number:03}.safetensors"


def _at(column: Any, place: int) -> Any:
    return None if column is None else column[place]


def describe_call(targets: Sequence[Target], *rest: Any) -> dict[str, str]:
    """A digest of all that paths depend on, and of where they run."""
    from bayestl import __version__

    joint, batch, mean = targets[0].joint, targets[0].batch, targets[0].families[0].prior.mean
    traced = jax.make_jaxpr(lambda params: joint.log_likelihoods(params, batch))(mean)
    settings = [sorted(vars(target.criterion).items()) for target in targets]
    numbers = [
        [(t.key, t.joint, [family.prior for family in t.families], t.batch, t.log_scales, t.subsets) for t in targets],
        *_arrays([settings, *rest]),
    ]
    names = [(type(t.criterion).__qualname__, [family.name for family in t.families]) for t in targets]
    words = _FORM, names, *_words([settings, *rest])
    return {
        "call": f"{training.digest(jax.tree.leaves(numbers))} {training.traced_digest(traced)} {words}",
        "bayestl": __version__,
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
    }


def _arrays(settings: Any) -> Iterable[Any]:
    return [x for x in jax.tree.leaves(settings) if isinstance(x, np.ndarray | jax.Array | float | int)]


def _words(settings: Any) -> Iterable[str]:
    """Of functions the names: what they close over is not known."""
    others = [x for x in jax.tree.leaves(settings) if not isinstance(x, np.ndarray | jax.Array | float | int)]
    return [re.sub(r"0x[0-9a-f]+", "", getattr(x, "__qualname__", repr(x))) for x in others]
