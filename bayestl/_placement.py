"""Where the arrays of a run lie on a mesh: batches sharded, parameters as given, all that is shaped alike with them."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._types import Batch, Params


def shard_params(params: Params, mesh: Mesh, axis: str) -> Params:
    """Parameters spread over a mesh axis, each device holding a part of every large array (FSDP).

    Every leaf is split along its longest axis that the mesh axis divides; one that has none is replicated. Give the
    result to :func:`~bayestl.fit` with ``sharding``: priors, optimizer states and posteriors are then laid out alike,
    so that D parameters with a rank-k prior take (k + a few) D / devices numbers on each.

    Args:
        params: pytree of arrays.
        mesh: devices, from ``jax.make_mesh`` with Auto axes.
        axis: name of one of its axes.

    Raises:
        ValueError: the mesh has no such axis.

    Example:
        >>> from jax.sharding import AxisType
        >>> mesh = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,))
        >>> params = btl.shard_params({"w": jnp.zeros((3, 8))}, mesh, "data")
        >>> tuple(params["w"].sharding.spec)
        (None, 'data')
    """
    check_arguments(shard_params, locals())
    if axis not in mesh.axis_names:
        raise ValueError(f"axis {axis!r} is not an axis of the mesh, which has {mesh.axis_names}")
    return jax.tree.map(lambda x: put(x, NamedSharding(mesh, _longest(jnp.shape(x), mesh.shape[axis], axis))), params)


def _longest(shape: tuple[int, ...], size: int, axis: str) -> PartitionSpec:
    divisible = [i for i, length in enumerate(shape) if length and length % size == 0]
    if not divisible:
        return PartitionSpec()
    longest = max(divisible, key=lambda i: shape[i])
    return PartitionSpec(*(None,) * longest, axis)


def check_sharding(sharding: Any, batch_size: int) -> None:
    """Refuse a sharding that is none, or that does not divide the batch."""
    if not isinstance(sharding, NamedSharding):
        raise TypeError(
            f"sharding is a {type(sharding).__name__}; give how a batch lies on a mesh: "
            'jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))'
        )
    manual = [str(kind) for kind in sharding.mesh.axis_types if kind != jax.sharding.AxisType.Auto]
    if manual:
        raise ValueError(
            f"sharding has a mesh with axes of types {sharding.mesh.axis_types}; the compiler places arrays on Auto "
            "axes: jax.make_mesh(shape, names, axis_types=(jax.sharding.AxisType.Auto,) * len(names))"
        )
    first = sharding.spec[0] if len(sharding.spec) else None
    axes = () if first is None else (first,) if isinstance(first, str) else tuple(first)
    if len([entry for entry in sharding.spec if entry is not None]) != 1 or not axes:
        raise ValueError(
            f"sharding has spec {sharding.spec}; a batch is split along its first axis alone: "
            f"PartitionSpec({sharding.mesh.axis_names[0]!r})"
        )
    parts = num_shares(sharding)
    if batch_size % parts:
        below = batch_size // parts * parts
        near = f"{below + parts}" if below == 0 else f"{below} or {below + parts}"
        raise ValueError(
            f"batch_size {batch_size} does not divide over the {parts} devices of mesh axis {', '.join(axes)}; give a "
            f"multiple of {parts} ({near}), or a mesh whose axis divides {batch_size}"
        )


def num_shares(sharding: NamedSharding) -> int:
    """How many parts a batch is split into."""
    return math.prod(sharding.mesh.shape[name] for name in jax.tree.leaves(tuple(sharding.spec)))


class MeshLayout(NamedTuple):
    """How a compiled program keeps its arrays on a mesh; hashable, so that it can be a static part of it.

    Attributes:
        batch: sharding of a batch.
        state: one sharding per leaf of the method's state.
    """

    batch: NamedSharding
    state: tuple[NamedSharding, ...]

    def rows(self, rows: jax.Array) -> jax.Array:
        """Row numbers (steps, B), or (steps,) windows, split as batches are."""
        spec = PartitionSpec(None, *self.batch.spec) if rows.ndim > 1 else PartitionSpec()
        return jax.lax.with_sharding_constraint(rows, NamedSharding(self.batch.mesh, spec))

    def split(self, batch: Batch) -> Any:
        """A batch, split over the devices."""
        return jax.lax.with_sharding_constraint(batch, self.batch)

    def keep(self, state: Any) -> Any:
        """A state, laid out as it was at the start: the next step finds what the program was compiled for."""
        leaves, treedef = jax.tree.flatten(state)
        constrained = [jax.lax.with_sharding_constraint(x, s) for x, s in zip(leaves, self.state, strict=True)]
        return jax.tree.unflatten(treedef, constrained)

    def report(self, infos: Any) -> Any:
        """Numbers that every process can read."""
        return jax.lax.with_sharding_constraint(infos, NamedSharding(self.batch.mesh, PartitionSpec()))


def layout_of(sharding: NamedSharding, state: Any) -> MeshLayout:
    """The layout of a state that lies on the mesh."""
    return MeshLayout(sharding, tuple(x.sharding for x in jax.tree.leaves(state)))


def replicate(tree: Any, mesh: Mesh | AbstractMesh) -> Any:
    """Every array on every device of the mesh; arrays that lie on it already stay as they are."""
    return jax.tree.map(lambda x: _onto(x, mesh, PartitionSpec()), tree)


def place_alike(tree: Any, params: Params, mesh: Mesh | AbstractMesh) -> Any:
    """A pytree on a mesh, every array that belongs to a parameter laid out as that parameter.

    An array belongs to the parameter whose path ends its own and whose shape its own ends with: a prior's mean and
    factors (k, \\*shape), an optimizer's momenta. All else is replicated, and what lies on the mesh already stays.
    """
    like = _tree.by_paths(params)

    def leaf(path: Any, x: Any) -> Any:
        if not hasattr(x, "dtype"):
            return x
        name, shape = _tree.path_string(path), jnp.shape(x)
        owners = [p for p, y in like.items() if _ends(name, p) and shape[len(shape) - y.ndim :] == y.shape]
        spec = PartitionSpec()
        if owners:
            owner = like[max(owners, key=len)]
            if isinstance(owner.sharding, NamedSharding):
                spec = PartitionSpec(*(None,) * (len(shape) - owner.ndim), *owner.sharding.spec)
        return _onto(x, mesh, spec)

    return jax.tree_util.tree_map_with_path(leaf, tree)


def put(x: Any, sharding: NamedSharding) -> jax.Array:
    """An array laid out on a mesh, whose devices may belong to several processes that all hold the whole array.

    A shape without values becomes one that says where the array would lie.
    """
    if isinstance(x, jax.ShapeDtypeStruct):
        return cast("jax.Array", jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding))
    if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(put(jax.random.key_data(x), sharding), impl=jax.random.key_impl(x))
    if sharding.is_fully_addressable:
        return jax.device_put(x, sharding)
    # No process may look at another's devices: each gives its own parts of the array.
    host = np.asarray(x)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def _onto(x: Any, mesh: Mesh | AbstractMesh, spec: PartitionSpec) -> Any:
    here = getattr(x, "sharding", None)
    if isinstance(here, NamedSharding) and here.mesh == mesh:
        return x
    return put(x, NamedSharding(mesh, spec)) if hasattr(x, "dtype") else x


def _ends(path: str, end: str) -> bool:
    return not end or path == end or path.endswith("/" + end)
