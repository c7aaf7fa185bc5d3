"""A network as named stages in order, so that it can be cut at any of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from bayestl import _tree

Stage = Callable[[Any], Any]
"""A module, or a function without parameters, from an array (or a pytree of arrays) to the next."""


class Sequential(nnx.Module):
    """Modules and functions that are applied one after another, each an attribute under its name."""

    def __init__(self, parts: Mapping[str, Stage]):
        self.names = tuple(parts)
        for name, part in parts.items():
            setattr(self, name, part)

    def __call__(self, x: jax.Array) -> jax.Array:
        for name in self.names:
            x = getattr(self, name)(x)
        return x


class Backbone(nnx.Module):
    """A network as named stages in order: cut it where you want, and put another head on.

    A stage is an attribute under its name, and the first key of its parameters' paths (``layer1/0/conv1/kernel``), so
    patterns such as ``"layer4/**"`` choose a depth. Outputs are at least float32, whatever the stages compute in.
    A backbone becomes a :class:`bayestl.Net` by :func:`bayestl.nets.from_nnx`.

    Args:
        stages: name to module or function, each from one array (or pytree of arrays) to the next, in the order in
            which they are applied. Names become attributes: Python identifiers that a backbone does not have yet.

    Raises:
        ValueError: no stages, or a name that cannot be an attribute.

    Example:
        >>> from flax import nnx
        >>> rngs = nnx.Rngs(0)
        >>> net = btl.pretrained.Backbone({"body": nnx.Linear(3, 4, rngs=rngs), "head": nnx.Linear(4, 2, rngs=rngs)})
        >>> net.features(jnp.ones((5, 3)), until="body").shape
        (5, 4)
        >>> body, rest = net.split("body")
        >>> print(body.stages, rest.stages)
        ('body',) ('head',)
    """

    def __init__(self, stages: Mapping[str, Stage]):
        if not stages:
            raise ValueError("stages is empty; give at least one named module")
        for name in stages:
            if not name.isidentifier() or hasattr(type(self), name) or name == "stages":
                raise ValueError(f"stages has the name {name!r}, which a backbone cannot have as a new attribute")
        self.stages = tuple(stages)
        for name, stage in stages.items():
            setattr(self, name, stage)

    def __call__(self, inputs: Any) -> Any:
        """What the last stage gives for ``inputs``."""
        return self.features(inputs, until=self.stages[-1])

    def features(self, inputs: Any, *, until: str) -> Any:
        """What the stage ``until`` gives for ``inputs``.

        Raises:
            ValueError: there is no such stage.
        """
        x = inputs
        for name in self._up_to("until", until):
            x = getattr(self, name)(x)
        return jax.tree.map(_at_least_float32, x)

    def split(self, at: str) -> tuple[Backbone, Backbone]:
        """The stages up to and including ``at``, and those after it: a frozen body and what is trained on its features.

        Both share their variables with this backbone; :func:`bayestl.nets.from_nnx` copies them.

        Raises:
            ValueError: there is no such stage, or none after it.
        """
        first = self._up_to("at", at)
        rest = self.stages[len(first) :]
        if not rest:
            raise ValueError(
                f"at is {at!r}, the last stage, so that nothing is left after it; the stages are {self.stages}"
            )
        return self._with(first), self._with(rest)

    def with_head(self, head: Stage) -> Backbone:
        """This backbone with ``head`` in place of its own stage ``head``, or after its last stage when it has none.

        Args:
            head: takes what the stage before it gives; :func:`features` of a few pictures shows the shape.
        """
        stages = {name: getattr(self, name) for name in self.stages if name != "head"}
        return Backbone({**stages, "head": head})

    def _with(self, names: tuple[str, ...]) -> Backbone:
        return Backbone({name: getattr(self, name) for name in names})

    def _up_to(self, argument: str, stage: str) -> tuple[str, ...]:
        check_stage(argument, stage, self.stages)
        return self.stages[: self.stages.index(stage) + 1]


def _at_least_float32(x: jax.Array) -> jax.Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32)) if jnp.issubdtype(x.dtype, jnp.floating) else x


def check_stage(argument: str, stage: str, stages: tuple[str, ...]) -> None:
    if stage not in stages:
        raise ValueError(f"{argument} is {stage!r}; the stages are {_tree.shown(stages, most=40)}")


def build(
    stages: Mapping[str, Callable[[], Any]], include_top: bool, cut: str | None, top: tuple[str, ...] = ("head",)
) -> Backbone:
    """The stages up to ``cut``, or all of them, or those before the ``top``; no others are made."""
    names = tuple(stages)
    if cut is not None:
        check_stage("cut", cut, names)
        names = names[: names.index(cut) + 1]
    elif not include_top:
        names = tuple(name for name in names if name not in top)
    return Backbone({name: stages[name]() for name in names})
