"""A network of a part of its parameters, the others held fixed."""

from __future__ import annotations

import dataclasses
from typing import Any

from bayestl import _tree
from bayestl._types import Apply, Inputs, Key, Params


@dataclasses.dataclass(frozen=True)
class PartApply:
    """``apply`` of a network whose fixed parameters lie in its state, beside its own: :func:`with_fixed`."""

    apply: Apply

    def __call__(self, params: Params, state: Any, inputs: Inputs, key: Key | None) -> tuple[Any, Any]:
        whole = _tree.merge(params, state["frozen"])
        outputs, own = self.apply(whole, state["net"], inputs, key)
        return outputs, {**state, "net": own}


def with_fixed(state: Any, fixed: Params) -> Any:
    """The state that :class:`PartApply` takes: the network's own, and the parameters that are held fixed."""
    return {"net": state, "frozen": fixed}


def own_state(apply: Any, state: Any) -> Any:
    """The network's own state, without the parameters that wrappers of ``apply`` hold fixed."""
    while apply is not None:
        state = state["net"] if isinstance(apply, PartApply) else state
        apply = getattr(apply, "apply", None)
    return state
