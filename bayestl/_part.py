"""A network of a part of its parameters, the others held fixed."""

from __future__ import annotations

import dataclasses
from typing import Any

from bayestl import _tree
from bayestl._types import Apply, Inputs, Key, Params


@dataclasses.dataclass(frozen=True)
class FixedApply:
    """``apply`` of a network whose fixed parameters lie in its state, beside its own: :func:`with_fixed`.

    What is fixed does not travel from step to step: a run carries :func:`moving`, and :func:`completed` puts the rest
    back where the network is applied.
    """

    apply: Apply


@dataclasses.dataclass(frozen=True)
class PartApply(FixedApply):
    """``apply`` of a network of some of its parameters."""

    def __call__(self, params: Params, state: Any, inputs: Inputs, key: Key | None) -> tuple[Any, Any]:
        whole = _tree.merge(params, state["frozen"])
        outputs, own = self.apply(whole, state["net"], inputs, key)
        return outputs, {**state, "net": own}


def with_fixed(state: Any, fixed: Params) -> Any:
    """The state that :class:`FixedApply` takes: the network's own, and the parameters that are held fixed."""
    return {"net": state, "frozen": fixed}


def own_state(apply: Any, state: Any) -> Any:
    """The network's own state, without the parameters that wrappers of ``apply`` hold fixed."""
    while apply is not None:
        state = state["net"] if isinstance(apply, FixedApply) else state
        apply = getattr(apply, "apply", None)
    return state


def moving(apply: Any, state: Any) -> Any:
    """A state with None in the place of what is held fixed."""
    if isinstance(apply, FixedApply):
        return with_fixed(moving(apply.apply, state["net"]), None)
    inner = getattr(apply, "apply", None)
    return state if inner is None else moving(inner, state)


def completed(apply: Any, state: Any, whole: Any) -> Any:
    """A state with what is held fixed, taken from ``whole`` wherever ``state`` has None for it."""
    if isinstance(apply, FixedApply):
        fixed = whole["frozen"] if state["frozen"] is None else state["frozen"]
        return with_fixed(completed(apply.apply, state["net"], whole["net"]), fixed)
    inner = getattr(apply, "apply", None)
    return state if inner is None else completed(inner, state, whole)


def like_given(apply: Any, state: Any, given: Any) -> Any:
    """A state with None in the place of what is held fixed, wherever ``given`` has None for it."""
    if isinstance(apply, FixedApply):
        fixed = None if given["frozen"] is None else state["frozen"]
        return with_fixed(like_given(apply.apply, state["net"], given["net"]), fixed)
    inner = getattr(apply, "apply", None)
    return state if inner is None else like_given(inner, state, given)
