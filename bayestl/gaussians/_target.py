"""Where the parameters of a file go: into the containers that the file describes, or into those of a given tree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bayestl import _containers, _tree
from bayestl._types import Params
from bayestl.gaussians._header import Header


class Target(NamedTuple):
    """A tree, and for each of its leaves the position in ``Header.parameters``."""

    treedef: Any
    order: tuple[int, ...]

    def place(self, values: Mapping[int, Any]) -> Params:
        """The tree with ``values`` at their leaves, and None where there is none."""
        return jax.tree.unflatten(self.treedef, [values.get(i) for i in self.order])


def target_stored(header: Header) -> Target:
    """The tree that the file describes.

    Raises:
        ValueError: containers that cannot be rebuilt from a file, or that contradict the paths.
    """
    if header.containers == _containers.OTHER:
        raise ValueError(
            "its parameters were in containers other than dict, list and tuple; pass like=params, a tree of the "
            "target's arrays or shapes"
        )
    try:
        leaves, treedef = jax.tree_util.tree_flatten_with_path(_containers.from_json(header.containers))
    except TypeError as error:
        raise ValueError(f"containers is not a tree: {error}") from error
    if [path for path, _ in leaves] != [p.keys for p in header.parameters]:
        raise ValueError("containers and the paths of parameters disagree")
    order = tuple(position for _, position in leaves)
    if order != tuple(range(len(order))):
        raise ValueError("containers does not hold every parameter once, in order")
    return Target(treedef, order)


def target_like(header: Header, like: Params) -> Target:
    """The tree of ``like``, whose leaves are matched by path.

    Raises:
        ValueError: paths or shapes that differ.
    """
    leaves, treedef = jax.tree_util.tree_flatten_with_path(like)
    shapes_of_like = {_tree.path_string(path): jnp.shape(leaf) for path, leaf in leaves}
    have = {p.path: p.shape for p in header.parameters}
    missing = [path for path in shapes_of_like if path not in have]
    extra = [path for path in have if path not in shapes_of_like]
    shapes = [path for path in shapes_of_like if path in have and have[path] != shapes_of_like[path]]
    parts = []
    if missing:
        parts.append(f"missing from the file {_tree.shown(missing, 4)}")
    if extra:
        parts.append(f"unexpected in the file {_tree.shown(extra, 4)}")
    parts += [
        f"{path!r} has shape {have[path]} in the file against {shapes_of_like[path]} in like" for path in shapes[:4]
    ]
    if len(shapes) > 4:
        parts.append(f"{len(shapes) - 4} more shapes differ")
    if parts:
        raise ValueError(
            f"file and like differ: {'; '.join(parts)}. Load it with like=the source's parameters, take what the "
            "target shares with restrict, and give the rest its own prior with gaussians.by_path(..., like=params)"
        )
    position = {p.path: i for i, p in enumerate(header.parameters)}
    return Target(treedef, tuple(position[path] for path in shapes_of_like))
