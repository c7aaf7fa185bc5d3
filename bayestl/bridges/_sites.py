"""Which parameters make up which site, and the way between a parameter tree and the sites' flat vectors."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayestl import _tree
from bayestl._types import Params, Prior
from bayestl.gaussians import Gaussian


# Static, so that a method's state can carry it through compiled programs without a copy of the parameters.
@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Sites:
    """Sites as flat vectors over their leaves, each leaf in row-major order.

    Flat, since NumPyro's guides and kernels want a site to be one array.

    Attributes:
        treedef: the tree of all parameters.
        paths: the path of every leaf.
        shapes: the shape of every leaf.
        dtypes: the dtype of every leaf.
        members: for every site, by name, the positions of its leaves in ``jax.tree.leaves``.
    """

    treedef: Any
    paths: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[Any, ...]
    members: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def names(self) -> list[str]:
        """The names of the sites, in order."""
        return [name for name, _ in self.members]

    def size(self, positions: Sequence[int]) -> int:
        """How many numbers the leaves at these positions hold."""
        return sum(math.prod(self.shapes[i]) for i in positions)

    @property
    def sizes(self) -> dict[str, int]:
        """The length of every site's vector."""
        return {name: self.size(positions) for name, positions in self.members}

    def described(self, name: str) -> str:
        """A site and its leaves, for an error message."""
        leaves = [self.paths[i] for i in dict(self.members)[name]]
        return f"{name!r} ({_tree.shown(leaves, 4)})"

    def to_values(self, params: Params) -> dict[str, jax.Array]:
        """Parameters, leaves (..., *shape), as one vector (..., d) per site."""
        leaves = jax.tree.leaves(params)
        rows = [x.reshape(*x.shape[: x.ndim - len(s)], -1) for x, s in zip(leaves, self.shapes, strict=True)]
        return {name: jnp.concatenate([rows[i] for i in positions], axis=-1) for name, positions in self.members}

    def to_params(self, values: Mapping[str, Any]) -> Params:
        """One vector (..., d) per site as parameters, leaves (..., *shape)."""
        leaves: list[Any] = [None] * len(self.shapes)
        for name, positions in self.members:
            vector = values[name]
            ends = accumulate(math.prod(self.shapes[i]) for i in positions)
            for i, part in zip(positions, jnp.split(vector, list(ends)[:-1], axis=-1), strict=True):
                leaves[i] = part.reshape(*vector.shape[:-1], *self.shapes[i]).astype(self.dtypes[i])
        return jax.tree.unflatten(self.treedef, leaves)

    def split(self, vector: jax.Array) -> dict[str, jax.Array]:
        """All sites' vectors one after another, (..., D), by name."""
        parts = jnp.split(vector, list(accumulate(self.sizes.values()))[:-1], axis=-1)
        return dict(zip(self.names, parts, strict=True))

    def rows(self) -> np.ndarray:
        """For every number of all sites' vectors, one after another, its place in ``jax.tree.leaves``, (D,)."""
        ends = list(accumulate(math.prod(s) for s in self.shapes))
        return np.concatenate(
            [
                np.arange(ends[i] - math.prod(self.shapes[i]), ends[i])
                for _, positions in self.members
                for i in positions
            ]
        )


def sites_of(like: Params, prior: Prior | None = None) -> Sites:
    """The sites of parameters like ``like``: one for each block of the prior, and one where it has none."""
    leaves, treedef = jax.tree.flatten(like)
    places = jax.tree.unflatten(treedef, range(len(leaves)))
    parts = prior.blocks() if isinstance(prior, Gaussian) else ()
    shapes, dtypes = (tuple(jnp.shape(x) for x in leaves), tuple(np.dtype(x.dtype) for x in leaves))
    positions = [tuple(jax.tree.leaves(_tree.like_selection(places, part.mean))) for part in parts]
    if len(parts) < 2:
        return Sites(treedef, tuple(_tree.paths(like)), shapes, dtypes, (("theta", tuple(range(len(leaves)))),))
    # Of one width, so that the order of the names, by which NumPyro concatenates sites, is that of the blocks.
    width = len(str(len(parts) - 1))
    members = tuple((f"theta_{i:0{width}}", where) for i, where in enumerate(positions))
    return Sites(treedef, tuple(_tree.paths(like)), shapes, dtypes, members)
