"""The last layer of a network: what makes its predictions say nothing when it is zero."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from bayestl import _tree, layers
from bayestl._log_joint import LogJoint
from bayestl._types import Inputs, Params


def find_head(joint: LogJoint, params: Params, inputs: Inputs, given: Sequence[str] | None) -> tuple[str, ...] | None:
    """The paths of the last layer, its bias among them; None where no layer alone silences the network.

    Args:
        joint: its network.
        params: of it.
        inputs: some inputs.
        given: path patterns that say it; None to look for it.

    Raises:
        ValueError: patterns that match nothing, or parameters at whose zero the outputs still depend on the inputs.
    """
    if given is not None:
        paths = tuple(_tree.paths(_tree.select(params, list(given))))
        if not _is_silent(joint, zeroed(params, paths), inputs):
            raise ValueError(
                f"head is {list(given)}, but with these parameters at zero the outputs still depend on the inputs; "
                "name the last layer, bias included"
            )
        return paths
    candidates = _last_layer(joint, params, inputs)
    return candidates if candidates and _is_silent(joint, zeroed(params, candidates), inputs) else None


def zeroed(params: Params, paths: Sequence[str]) -> Params:
    """The parameters with those at ``paths`` set to zero."""
    leaves = _tree.by_paths(params)
    return _tree.restructure({p: jnp.zeros_like(x) if p in paths else x for p, x in leaves.items()}, params)


def _last_layer(joint: LogJoint, params: Params, inputs: Inputs) -> tuple[str, ...]:
    """The product that comes last in the traced program, and its bias; nothing where there is none."""
    results: list[tuple[str, ...]] = []

    def look(params: Params, inputs: Inputs) -> None:
        network = layers.find(lambda p, x: joint.outputs(p, x)[0], params, inputs)
        if network.layers:
            last = max(network.layers, key=lambda layer: max(site.use.path for site in layer.sites))
            leaves = [last.leaf, *([] if last.bias is None else [last.bias])]
            results.append(tuple(network.paths[leaf] for leaf in leaves))

    jax.eval_shape(look, params, inputs)
    return results[0] if results else ()


def _is_silent(joint: LogJoint, params: Params, inputs: Inputs) -> bool:
    outputs = joint.outputs(params, inputs)[0]
    return all(bool(jnp.all(jnp.isfinite(x)) & jnp.all(x == x[:1])) for x in jax.tree.leaves(outputs))
