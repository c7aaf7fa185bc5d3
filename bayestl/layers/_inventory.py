"""How the parameters of a network enter it, in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from bayestl.layers._bias import SUMS
from bayestl.layers._find import Layer
from bayestl.layers._program import Program
from bayestl.layers._uses import Use

_SHIFTS = {*SUMS, "sub"}
_SCALES = {"mul", "div"}


class Entry(NamedTuple):
    """How one parameter enters a network.

    Attributes:
        path: the parameter's.
        kind: ``dense``, ``convolution``, ``look-up``, ``tied`` (several of these, with the parameter arranged
            differently) or ``bias``: its gradients come from the layer's inputs and output gradients. ``scale`` and
            ``shift``, as in a normalisation, or ``elementwise`` for both: one gradient of the parameter's own size
            per example. ``operation``: likewise, through other operations. ``outputs``: it reaches the outputs without
            meeting the inputs. ``unused``: the outputs do not depend on it.
        description: details.
        is_fallback: whether it belongs to no known layer; the result is exact, but slow and memory-hungry for a large
            parameter.
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
        """Paths of the parameters that belong to no known layer."""
        return tuple(entry.path for entry in self.entries if entry.is_fallback)

    def __str__(self) -> str:
        columns = [entry.path for entry in self.entries], [entry.kind for entry in self.entries]
        widths = [max(map(len, column), default=0) for column in columns]
        return "\n".join(f"{e.path:<{widths[0]}}  {e.kind:<{widths[1]}}  {e.description}" for e in self.entries)


def inventory_of(
    program: Program,
    paths: Sequence[str],
    layers: Sequence[Layer],
    operations: Sequence[Use],
    outputs: Sequence[int],
) -> Inventory:
    """The inventory of a network."""
    by_leaf = {layer.leaf: layer for layer in layers}
    biases = {layer.bias: layer for layer in layers if layer.bias is not None}
    entries = []
    for leaf, path in enumerate(paths):
        if leaf in by_leaf:
            entries.append(_of_layer(path, by_leaf[leaf]))
        elif leaf in biases:
            entries.append(Entry(path, "bias", f"of {paths[biases[leaf].leaf]!r}", False))
        else:
            uses = [use for use in operations if leaf in use.leaves]
            entries.append(_of_operations(program, path, uses, leaf in outputs))
    return Inventory(tuple(entries))


def _of_layer(path: str, layer: Layer) -> Entry:
    kinds = [site.form.kind for site in layer.sites]
    if layer.is_tied:
        return Entry(path, "tied", " and ".join(kinds), False)
    words = [layer.sites[0].form.description]
    if layer.positions > 1:
        words.append(f"{layer.positions} positions")
    groups = layer.rearrangement.result[0]
    if groups > 1 and not layer.is_lookup:
        words.append(f"{groups} groups")
    scanned = layer.sites[0].use.scanned
    if scanned is not None:
        words.append(f"{scanned.length} steps")
    if len(layer.sites) > 1:
        words.append(f"applied {len(layer.sites)} times")
    return Entry(path, kinds[0], ", ".join(words), False)


def _of_operations(program: Program, path: str, uses: Sequence[Use], in_outputs: bool) -> Entry:
    names = [program.op(use.path).name for use in uses]
    if in_outputs:
        return Entry(path, "outputs", " and ".join(["without the inputs", *names]), True)
    if not uses:
        return Entry(path, "unused", "the outputs do not depend on it", False)
    kind = "operation"
    for known, operations in (("shift", _SHIFTS), ("scale", _SCALES), ("elementwise", _SHIFTS | _SCALES)):
        if set(names) <= operations:
            kind = known
            break
    return Entry(path, kind, " and ".join(names), kind == "operation")
