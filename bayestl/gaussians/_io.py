"""Gaussians on disk: one safetensors file, with a versioned header in its metadata."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayestl import _containers, _safetensors
from bayestl._arguments import check_arguments
from bayestl._types import Params
from bayestl.gaussians._base import Gaussian
from bayestl.gaussians._header import FORMAT, Header, from_json, to_json
from bayestl.gaussians._stored import check_values, describe, expected, rebuild, tensors_of
from bayestl.gaussians._target import target_like, target_stored

_OURS = "covariance as stored, no further factor"


def save(
    path: str | os.PathLike[str], gaussian: Gaussian, *, source_task: str = "", convention: str = "", notes: Any = None
) -> None:
    """Write a Gaussian to one safetensors file, for others and for later.

    The file is complete or not there: it is written under another name and then moved.

    Args:
        path: where to; an existing file is replaced.
        gaussian: any Gaussian of this package with concrete values.
        source_task: where it was learned, for human readers.
        convention: what the numbers mean: which factors and floors the covariance already includes. The default is the
            package's own convention: the covariance as stored, no further factor.
        notes: any JSON value: settings, a citation, a seed.

    Raises:
        ValueError: values that :func:`load` would refuse (non-finite, variances that are not positive), or tracers.
        TypeError: not a Gaussian of this package, or keys in its tree other than text and integers.

    Example:
        >>> import tempfile
        >>> prior = btl.gaussians.isotropic({"head/0": jnp.zeros(2), "body": (jnp.ones(3),)}, scale=0.5)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     btl.gaussians.save(f"{folder}/prior.safetensors", prior, source_task="digits")
        ...     print(btl.gaussians.load(f"{folder}/prior.safetensors").mean)
        {'body': (Array([1., 1., 1.], dtype=float32),), 'head/0': Array([0., 0.], dtype=float32)}
    """
    check_arguments(save, locals(), skip=("gaussian",))
    from bayestl import __version__  # the package imports this module before it has a version

    structure, parameters = describe(gaussian)
    containers = _containers.to_json(jax.tree.structure(gaussian.mean))
    header = Header(structure, parameters, containers, convention or _OURS, source_task, notes, __version__)
    tensors = tensors_of(gaussian, header)
    with jax.ensure_compile_time_eval():
        check_values(gaussian)
    try:
        text = to_json(header)
    except (TypeError, ValueError) as error:
        raise type(error)(f"the header cannot be written, notes must be a JSON value: {error}") from error
    _parsed(text)  # whatever is written must be readable
    _safetensors.write(Path(path), tensors, {"format": FORMAT, "header": text})


def load(path: str | os.PathLike[str], *, like: Params | None = None) -> Gaussian:
    """The Gaussian in a file that :func:`save` wrote, with its dtypes.

    Nothing in the file is trusted: header, shapes and values go through the constructors' checks, and nothing is ever
    unpickled.

    Args:
        path: the file.
        like: the parameters it is for: a pytree of arrays or of ``jax.ShapeDtypeStruct``. Leaves are matched by path
            and take the containers of ``like``. Without it, nested dicts, lists, tuples and None are rebuilt as they
            were; trees with other containers (``nnx.State``, named tuples, custom nodes) need it.

    Raises:
        ValueError: another kind of file, a truncated one, or one from a newer version; values that no Gaussian can
            have; parameters other than those of ``like``, which the message names.

    Example:
        >>> import tempfile
        >>> prior = btl.gaussians.isotropic({"w": jnp.zeros(2)}, scale=0.5)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     btl.gaussians.save(f"{folder}/prior.safetensors", prior)
        ...     prior = btl.gaussians.load(f"{folder}/prior.safetensors", like={"w": jnp.ones(2)})
        >>> print(prior.variance["w"])
        [0.25 0.25]
    """
    # The arrays are read immediately, not as part of a program, even if this is called while tracing.
    check_arguments(load, locals())
    with _safetensors.opened(path, "gaussians.save") as file, jax.ensure_compile_time_eval():
        header = _header(file)
        _check_tensors(file, header)
        _warn_of_float64(path, file, header)
        target = target_stored(header) if like is None else target_like(header, like)
        tensors = {name: jnp.asarray(file.get_tensor(_named(header, name))) for name in expected(header)}
        return rebuild(header, tensors, target)


def read_header(path: str | os.PathLike[str]) -> Header:
    """What a file says about the Gaussian in it, without reading the numbers.

    Raises:
        ValueError: a file that :func:`save` did not write, a truncated one, or one from a newer version.

    Example:
        >>> import tempfile
        >>> prior = btl.gaussians.isotropic({"w": jnp.zeros(2)}, scale=0.5)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     btl.gaussians.save(f"{folder}/prior.safetensors", prior, source_task="digits")
        ...     header = btl.gaussians.read_header(f"{folder}/prior.safetensors")
        >>> print(header.source_task, header.structure.kind, header.parameters[0].path)
        digits diagonal w
    """
    check_arguments(read_header, locals())
    with _safetensors.opened(path, "gaussians.save") as file:
        header = _header(file)
        _check_tensors(file, header)
    return header


def _header(file: Any) -> Header:
    metadata = file.metadata() or {}
    if metadata.get("format") != FORMAT or "header" not in metadata:
        raise ValueError(
            "it is a safetensors file, but not a Gaussian that gaussians.save wrote: plain weights become one with "
            "gaussians.isotropic(weights, scale)"
        )
    return _parsed(metadata["header"])


def _parsed(text: str) -> Header:
    try:
        header = from_json(text)
        if header.containers != _containers.OTHER:
            target_stored(header)
    except ValueError as error:
        raise ValueError(f"its header is not valid: {error}") from error
    return header


def _check_tensors(file: Any, header: Header) -> None:
    announced = {_named(header, name): each for name, each in expected(header).items()}
    present = set(file.keys())
    if present != set(announced):
        missing, extra = sorted(set(announced) - present), sorted(present - set(announced))
        raise ValueError(f"header and tensors disagree: missing {missing[:4]}, not announced {extra[:4]}")
    dtypes = {"float32": "F32", "float64": "F64"}
    for name, (admitted, dtype) in announced.items():
        view = file.get_slice(name)
        shape, admissible = tuple(view.get_shape()), [dtypes[dtype]] if dtype else list(dtypes.values())
        if not admitted.admits(shape) or view.get_dtype() not in admissible:
            raise ValueError(
                f"header and tensors disagree: {name!r} is {view.get_dtype()} of shape {shape}; "
                f"{' or '.join(admissible)} of shape {admitted} is needed"
            )


def _named(header: Header, name: str) -> str:
    """What a file calls an array."""
    return header.names.get(name, name)


def _warn_of_float64(path: str | os.PathLike[str], file: Any, header: Header) -> None:
    announced = [_named(header, name) for name in expected(header)]
    if jnp.result_type(float) != np.float64 and any(file.get_slice(n).get_dtype() == "F64" for n in announced):
        warnings.warn(f"{path} holds float64, which JAX keeps as float32 unless jax_enable_x64 is set", stacklevel=3)
