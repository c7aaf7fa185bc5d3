"""Draws on disk, for chains that would not fit on the device."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from bayestl import _safetensors, _tree
from bayestl._arguments import check_arguments
from bayestl._types import Params
from bayestl.posteriors import Samples
from bayestl.training import Ring

_NAME = re.compile(r"draws-(\d{9})-(\d{9})\.safetensors")


class SampleWriter:
    """A callback for :func:`bayestl.fit` and :func:`bayestl.fit_many` that writes draws to disk as they are collected.

    After every chunk of steps the draws collected in it are written to one safetensors file, which is complete or not
    there. The sampler's ``num_samples`` need only hold the draws of one chunk, ``chunk_size / every``. The chains of
    ``fit_many`` go to folders of their own, ``chain-000`` and so on. Read them with :func:`read_samples`.

    Args:
        directory: a folder of this run's own; made when missing.
        resume: go on in a folder that holds draws already, those of the same run before it was stopped; a run that
            goes on from a checkpoint draws the same again.

    Raises:
        FileExistsError: the folder holds draws, and ``resume`` is false.

    Example:
        >>> import tempfile
        >>> net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(2)})
        >>> joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), None, num_data=4)
        >>> data = btl.data.arrays(jnp.ones((4, 2)), jnp.ones(4))
        >>> sampler = btl.infer.sgld(joint, 1e-2, num_samples=10, every=10)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     writer = btl.infer.SampleWriter(folder)
        ...     _ = btl.fit(
        ...         jax.random.key(0), sampler, net.params, data, steps=1000, callbacks=[writer], progress=False
        ...     )
        ...     print(btl.infer.read_samples(folder, net.params).draws["w"].shape)
        (100, 2)
    """

    def __init__(self, directory: str | Path, *, resume: bool = False):
        check_arguments(SampleWriter.__init__, locals())
        self._directory, self._written = Path(directory), {}
        if not resume and any(self._directory.rglob("draws-*.safetensors")):
            raise FileExistsError(
                f"{directory} holds draws already; give this run a folder of its own, or say resume=True when it goes "
                "on from a checkpoint of the run that wrote them"
            )

    def __call__(self, event: Any) -> None:
        """Write what was collected since the last call.

        Raises:
            ValueError: more draws in a chunk than the sampler keeps; a method that collects none.
        """
        collected = getattr(event.state, "collected", None)
        if not isinstance(collected, Ring):
            raise ValueError(
                f"{type(event.state).__name__} collects no draws; SampleWriter is for the samplers of infer"
            )
        if jnp.ndim(collected.count) == 0:
            self._write(self._directory, collected)
            return
        for chain in range(collected.count.shape[0]):
            self._write(self._directory / f"chain-{chain:03d}", jax.tree.map(lambda x, c=chain: x[c], collected))

    def _write(self, folder: Path, collected: Ring) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if folder not in self._written:
            files = _files(folder)
            self._written[folder] = files[-1][1] if files else 0
        first, count, capacity = self._written[folder], int(collected.count), collected.capacity
        if count <= first:
            return
        if count - first > capacity:
            raise ValueError(
                f"{count - first} draws were collected since the last chunk, but the sampler keeps only {capacity} "
                "(num_samples), so that some are lost: raise num_samples, or take a smaller chunk_size"
            )
        rows = np.arange(first, count) % capacity
        tensors = {
            f"draws/{path}": np.ascontiguousarray(np.asarray(leaf[rows]))
            for path, leaf in _tree.by_paths(collected.rows).items()
        }
        _safetensors.write(folder / f"draws-{first:09d}-{count:09d}.safetensors", tensors)
        self._written[folder] = count


def read_samples(directory: str | Path, like: Params, *, rows: slice = slice(None)) -> Samples:
    """The draws that :class:`SampleWriter` wrote to a folder, in the order drawn.

    Args:
        directory: the folder; for a run of ``fit_many`` that of one chain.
        like: parameters of the network, for their structure.
        rows: which draws: ``slice(100, None, 10)`` for every tenth after the first hundred. Only these are held.

    Raises:
        FileNotFoundError: no draws there.
        ValueError: draws of another network, a file that cannot be read, or one that is missing in between.
    """
    check_arguments(read_samples, locals())
    files = _files(Path(directory))
    if not files:
        raise FileNotFoundError(f"{directory} holds no draws that SampleWriter wrote")
    total, parts = files[-1][1], []
    chosen_rows = np.arange(total)[rows]
    if not chosen_rows.size:
        raise ValueError(f"rows {rows} takes none of the {total} draws in {directory}")
    if rows.step is not None and rows.step < 0:
        raise ValueError(f"rows has step {rows.step}; draws are read in their order")
    for first, last, path in files:
        inside = chosen_rows[(chosen_rows >= first) & (chosen_rows < last)] - first
        if inside.size:
            parts.append(_read(path, like, inside))
    draws = jax.tree.map(lambda *xs: jnp.concatenate(xs), *parts)
    return Samples(draws, jnp.zeros(chosen_rows.size))


def _files(folder: Path) -> list[tuple[int, int, Path]]:
    """First draw, last draw + 1 and path of every file, in order and without a gap."""
    names = [(match, path) for path in folder.glob("draws-*.safetensors") if (match := _NAME.fullmatch(path.name))]
    files = sorted((int(match[1]), int(match[2]), path) for match, path in names)
    end = 0
    for first, last, _ in files:
        if first != end:
            raise ValueError(f"{folder} lacks draws {end} to {first - 1}; a file was removed")
        end = last
    return files


def _read(path: Path, like: Params, rows: np.ndarray) -> Params:
    try:
        with safe_open(path, framework="np") as file:
            arrays = {name.removeprefix("draws/"): file.get_tensor(name)[rows] for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read: it is not a safetensors file, or was cut short ({error})") from error
    one = {name: jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for name, x in arrays.items()}
    _tree.check_same_structure(f"the draws in {path.name}", one, "like", _tree.by_paths(like), "give their network's")
    return _tree.restructure({name: jnp.asarray(x) for name, x in arrays.items()}, like)
