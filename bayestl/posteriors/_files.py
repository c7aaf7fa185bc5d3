"""Any posterior on disk, with its network's state: one safetensors file, with a versioned header in its metadata."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from bayestl import _containers, _safetensors, _tree, gaussians
from bayestl._arguments import check_arguments
from bayestl._part import moving
from bayestl._types import Net, NetState, Params, Posterior
from bayestl.gaussians import Gaussian
from bayestl.posteriors import _stored_tree
from bayestl.posteriors._chain import Chain
from bayestl.posteriors._header import FORMAT, TREES, Header, Node, all_trees, from_json, gaussian_places, to_json
from bayestl.posteriors._mixture import Mixture
from bayestl.posteriors._part import Part
from bayestl.posteriors._point import Point
from bayestl.posteriors._samples import Samples
from bayestl.posteriors._stored_tree import StoredTree


class Loaded(NamedTuple):
    """What a file holds.

    Attributes:
        posterior: of the kind that was saved.
        net_state: the network's state; give it to ``joint.replace(state=...)`` before predicting.
        settings: what was said about it: of a run its steps, why it stopped, and its seconds; and whatever was given.
    """

    posterior: Any
    net_state: NetState
    settings: dict[str, Any]

    @property
    def params(self) -> Params:
        """The posterior's one set of parameters: the point, or the mean."""
        return self.posterior.params if hasattr(self.posterior, "params") else self.posterior.mean


def save(
    path: str | os.PathLike[str],
    posterior: Posterior,
    *,
    net_state: NetState = (),
    settings: dict[str, Any] | None = None,
) -> None:
    """Write a posterior of any kind to one file, with the state of its network.

    The file is complete or not there. Nothing in it is code: it is a safetensors file that other programs can read too.

    Args:
        path: where to; an existing file is replaced.
        posterior: a Gaussian, or one of ``bayestl.posteriors``: point, samples, chain, mixture, part.
        net_state: the network's state, ``result.net_state``, without which running statistics would be those of the
            start.
        settings: any JSON object: what is worth knowing about it.

    Raises:
        TypeError: a posterior of another kind; leaves that are not arrays; settings that are not JSON.
        ValueError: tracers; a Gaussian whose numbers no Gaussian has.

    Example:
        >>> import tempfile
        >>> chain = btl.posteriors.Chain({"w": jnp.arange(4.0)}, jnp.zeros(4), {"w": jnp.array(3.0)})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     btl.save(f"{folder}/chain.bayestl", chain, settings={"step_size": 1e-3})
        ...     loaded = btl.load(f"{folder}/chain.bayestl")
        >>> print(loaded.posterior.draws["w"], loaded.settings)
        [0. 1. 2. 3.] {'step_size': 0.001}
    """
    check_arguments(save, locals(), skip=("posterior",))
    from bayestl import __version__  # the package imports this module before it has a version

    tensors: dict[str, np.ndarray] = {}
    node = _describe(posterior, "posterior", tensors)
    state, arrays = _stored_tree.store("net_state", net_state)
    text = to_json(Header(node, state, {} if settings is None else settings, __version__))
    from_json(text)  # nothing is written that could not be read again
    _safetensors.write(Path(path), tensors | arrays, {"format": FORMAT, "header": text})


def load(path: str | os.PathLike[str], net: Net | None = None) -> Loaded:
    """The posterior in a file that :func:`~bayestl.save` (or ``result.save``) wrote, with its network's state.

    Nothing in the file is trusted: header, shapes and numbers are checked, and nothing is ever unpickled.

    Args:
        path: the file.
        net: the network it is for: parameters are found by path and take its containers, and their shapes are checked.
            Without it dicts, lists and tuples are rebuilt as they were; networks with other containers (NNX,
            Equinox) need it.

    Raises:
        ValueError: not such a file, one that was cut short or changed, or that a newer version wrote; parameters other
            than those of the network. The message says which.

    Example:
        >>> import tempfile
        >>> net = btl.nets.mlp(jax.random.key(0), (2, 3))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     btl.save(f"{folder}/map.bayestl", btl.Point(net.params), net_state=net.state)
        ...     loaded = btl.load(f"{folder}/map.bayestl", net)
        >>> loaded.params["head"]["kernel"].shape
        (2, 3)
    """
    check_arguments(load, locals())
    with _safetensors.opened(path, "btl.save") as file, jax.ensure_compile_time_eval():
        header = _header(file)
        node, state = header.posterior, header.net_state
        names = _check_tensors(file, node, state)
        tensors = {name: file.get_tensor(name) for name in names}
        posterior = _rebuild(node, tensors, None if net is None else net.params)
        # A state is as the method left it, which may hold more than that of the network.
        like = None if net is None or state.containers != _containers.OTHER else _like(net, state)
        net_state = _stored_tree.load(state, tensors, like)
    return Loaded(posterior, net_state, header.settings)


def _like(net: Net, state: StoredTree) -> NetState:
    """The network's state; that of a run, without what the network holds fixed, where the file has just this."""
    of_run = moving(net.apply, net.state)
    return of_run if set(_tree.paths(of_run)) == set(state.paths) else net.state


# ---------------------------------------------------------------- writing


def _describe(posterior: Any, place: str, tensors: dict[str, np.ndarray]) -> Node:
    """The description of a posterior; its arrays join ``tensors``."""
    kinds = {Point: "point", Samples: "samples", Chain: "chain", Mixture: "mixture", Part: "part"}
    if isinstance(posterior, Gaussian):
        tensors[f"{place}/gaussian"] = _gaussian_bytes(posterior)
        return Node("gaussian", {}, (), place)
    kind = kinds.get(type(posterior))
    if kind is None:
        raise TypeError(
            f"a {type(posterior).__name__} cannot be saved; give a Gaussian or one of bayestl.posteriors, such as "
            "draws from it: btl.Samples(posterior.sample(key, num), jnp.zeros(num))"
        )
    trees = {}
    for name in sorted(TREES[kind]):
        trees[name], arrays = _stored_tree.store(f"{place}/{name}", getattr(posterior, name))
        tensors |= arrays
    components = posterior.components if kind == "mixture" else (posterior.part,) if kind == "part" else ()
    inner = tuple(_describe(one, f"{place}/{number}", tensors) for number, one in enumerate(components))
    return Node(kind, trees, inner, place)


def _gaussian_bytes(gaussian: Gaussian) -> np.ndarray:
    """A file of ``gaussians.save``, whose checks and header it keeps, as the array that it is in this file."""
    with tempfile.TemporaryDirectory() as folder:
        inside = Path(folder) / "gaussian.safetensors"
        gaussians.save(inside, gaussian)
        return np.fromfile(inside, np.uint8)


# ---------------------------------------------------------------- reading


def _header(file: Any) -> Header:
    metadata = file.metadata() or {}
    if metadata.get("format") != FORMAT or "header" not in metadata:
        raise ValueError("it is a safetensors file, but not a posterior that btl.save wrote")
    return from_json(metadata["header"])


def _check_tensors(file: Any, node: Node, state: StoredTree) -> list[str]:
    """The names of all arrays, which are those that the header announces."""
    expected = {name: spec for tree in (*all_trees(node), state) for name, spec in _stored_tree.announced(tree).items()}
    places, names = gaussian_places(node), set(file.keys())
    if names != set(expected) | set(places):
        missing, extra = sorted({*expected, *places} - names), sorted(names - {*expected, *places})
        raise ValueError(f"header and arrays disagree: missing {missing[:4]}, not announced {extra[:4]}")
    for name in names:
        view = file.get_slice(name)
        shape, dtype = tuple(view.get_shape()), view.get_dtype()
        if name in expected and (shape, dtype) != expected[name]:
            raise ValueError(
                f"header and arrays disagree: {name!r} is {dtype} of shape {shape}, and {expected[name][1]} of shape "
                f"{expected[name][0]} is announced"
            )
        if name in places and (len(shape), dtype) != (1, "U8"):
            raise ValueError(f"header and arrays disagree: {name!r} is {dtype} of shape {shape}, and no file of bytes")
    return sorted(names)


def _rebuild(node: Node, tensors: dict[str, np.ndarray], like: Params | None, part: bool = False) -> Any:
    if node.kind == "gaussian":
        return _gaussian(tensors[f"{node.place}/gaussian"], like, part)
    own = {"params", "draws", "rest"}
    trees = {
        name: _stored_tree.load(tree, tensors, like if name in own else None, part or name == "rest")
        for name, tree in node.trees.items()
    }
    inner = tuple(_rebuild(one, tensors, like, part or node.kind == "part") for one in node.inner)
    if "log_weights" in trees:
        _check_log_weights(node, trees, len(inner))
    if like is not None:
        _check_shapes(node, trees, like)
    if node.kind == "part":
        overlap = sorted(set(_tree.paths(trees["rest"])) & set(_paths(inner[0])))
        if overlap:
            raise ValueError(f"{_tree.shown(overlap, 4)} are said to be random and fixed at once")
        return Part(inner[0], trees["rest"])
    if node.kind == "mixture":
        return Mixture(inner, trees["log_weights"])
    return {"point": Point, "samples": Samples, "chain": Chain}[node.kind](**trees)


def _paths(posterior: Posterior) -> list[str]:
    """The paths of what a posterior draws."""
    shapes = jax.eval_shape(lambda key: posterior.sample(key, 1), jax.random.key(0))
    return _tree.paths(shapes)


def _gaussian(array: np.ndarray, like: Params | None, part: bool) -> Gaussian:
    with tempfile.TemporaryDirectory() as folder:
        inside = Path(folder) / "gaussian.safetensors"
        array.tofile(inside)
        try:
            if like is not None and part:
                names = {parameter.path for parameter in gaussians.read_header(inside).parameters}
                like = _tree.select_where(like, lambda path: path in names)
            return gaussians.load(inside, like=like)
        except ValueError as error:
            raise ValueError(str(error).replace(f"{inside}: ", "the Gaussian in it: ")) from error


def _check_log_weights(node: Node, trees: dict[str, Any], num_inner: int) -> None:
    """Raise unless there is one weight, or -inf, for each row of every array (for each component)."""
    log_weights = trees["log_weights"]
    if not isinstance(log_weights, jax.Array) or bool(
        (~np.isfinite(log_weights) & (np.asarray(log_weights) != -np.inf)).any()
    ):
        raise ValueError("log_weights is no array of numbers, each finite or -inf")
    if node.kind == "mixture":
        if log_weights.shape != (num_inner,):
            raise ValueError(f"log_weights has shape {log_weights.shape} for a mixture of {num_inner}")
        return
    rows = {name: tree for name, tree in trees.items() if name in ("draws", "chain", "stats")}
    for path, leaf in _tree.by_paths(rows).items():
        if leaf.shape[: log_weights.ndim] != log_weights.shape:
            raise ValueError(f"{path!r} has shape {leaf.shape}, and log_weights {log_weights.shape}")


def _check_shapes(node: Node, trees: dict[str, Any], like: Params) -> None:
    """Raise when parameters have other shapes than the network's, leading axes of draws and chains left out."""
    shapes = {path: np.shape(leaf) for path, leaf in _tree.by_paths(like).items()}
    for name in sorted({"params", "draws", "rest"} & set(trees)):
        for path, leaf in _tree.by_paths(trees[name]).items():
            lead = leaf.ndim - len(shapes[path])
            if lead < 0 or leaf.shape[lead:] != shapes[path] or (node.kind in ("point", "part") and lead):
                raise ValueError(
                    f"{name} at {path!r} has shape {leaf.shape} in the file, and {shapes[path]} in the network"
                )
