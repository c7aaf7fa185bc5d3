"""How the parameters of a network were found to enter it, in words."""

from __future__ import annotations

from typing import NamedTuple


class Handled(NamedTuple):
    """How one parameter was handled.

    Attributes:
        path: of the parameter.
        way: ``layer`` or ``elementwise``: its gradients come from the layer's inputs and output gradients.
            ``one operation`` and ``whole network``: an exact Jacobian per example of this parameter, through that
            operation or through all. ``unused``: zero.
        why: what was found in the program.
        is_fallback: whether it is in no known layer; exact, but slow and memory-hungry for a large parameter.
    """

    path: str
    way: str
    why: str
    is_fallback: bool


class Report(NamedTuple):
    """How every parameter was handled, in the order of ``jax.tree.leaves``. Prints as a table.

    Attributes:
        entries: one per parameter.
    """

    entries: tuple[Handled, ...]

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """Paths of the parameters that are in no known layer."""
        return tuple(entry.path for entry in self.entries if entry.is_fallback)

    def __str__(self) -> str:
        widths = [max(map(len, column)) for column in ([e.path for e in self.entries], [e.way for e in self.entries])]
        return "\n".join(f"{e.path:<{widths[0]}}  {e.way:<{widths[1]}}  {e.why}" for e in self.entries)
