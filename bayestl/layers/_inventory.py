"""How the parameters of a network enter it, in words."""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """How one parameter enters a network.

    Attributes:
        path: of the parameter.
        kind: ``layer`` or ``elementwise``: its gradients come from the layer's inputs and output gradients.
            ``one operation`` and ``whole network``: an exact Jacobian per example of this parameter, through that
            operation or through all. ``unused``: zero.
        description: what the program does with it.
        is_fallback: whether it is in no known layer; exact, but slow and memory-hungry for a large parameter.
    """

    path: str
    kind: str
    description: str
    is_fallback: bool


class Inventory(NamedTuple):
    """How every parameter enters a network, in the order of ``jax.tree.leaves``. Prints as a table.

    Attributes:
        entries: one per parameter.
    """

    entries: tuple[Entry, ...]

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """Paths of the parameters that are in no known layer."""
        return tuple(entry.path for entry in self.entries if entry.is_fallback)

    def __str__(self) -> str:
        columns = [entry.path for entry in self.entries], [entry.kind for entry in self.entries]
        widths = [max(map(len, column), default=0) for column in columns]
        return "\n".join(f"{e.path:<{widths[0]}}  {e.kind:<{widths[1]}}  {e.description}" for e in self.entries)
