"""What happened to the arrays of a checkpoint, and the probable cause when some do not fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from bayestl import _tree
from bayestl.pretrained._layouts import Table


class Mismatch(NamedTuple):
    """An array that does not fit its parameter.

    Attributes:
        name: of the array.
        path: of the parameter.
        array_shape: shape of the array, as it is in the checkpoint.
        parameter_shape: shape of the parameter.
    """

    name: str
    path: str
    array_shape: tuple[int, ...]
    parameter_shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name!r} of shape {self.array_shape} does not fit {self.path!r} of shape {self.parameter_shape}"


class LoadReport(NamedTuple):
    """What :func:`load` did with every array of a checkpoint and with every parameter of a network.

    Attributes:
        mapped: name of an array -> path of the parameter or running statistic that it filled.
        reshaped: name -> change of memory layout, of those mapped arrays that needed one.
        new: paths that were named as new and keep their values.
        left_out: names of arrays that were not needed: for stages that were cut off, or for what is new.
        ignored: names of arrays that no network needs, such as counts of batches.
        unused: names of arrays without a place here.
        missing: paths that no array filled.
        mismatched: arrays of another shape than their parameter.
    """

    mapped: dict[str, str]
    reshaped: dict[str, str]
    new: tuple[str, ...]
    left_out: tuple[str, ...]
    ignored: tuple[str, ...]
    unused: tuple[str, ...]
    missing: tuple[str, ...]
    mismatched: tuple[Mismatch, ...]

    @property
    def complete(self) -> bool:
        """Whether every array and every parameter is accounted for."""
        return not (self.unused or self.missing or self.mismatched)

    def __str__(self) -> str:
        mismatched = [str(mismatch) for mismatch in self.mismatched]
        rows = {
            "mapped": f"{len(self.mapped)} arrays, {len(self.reshaped)} of them in another memory layout",
            "new": _counted(self.new),
            "left out": _counted(self.left_out),
            "ignored": _counted(self.ignored),
            "unused": _counted(self.unused),
            "missing": _counted(self.missing),
            "mismatched": f"{len(mismatched)}: {'; '.join(mismatched[:4]) or 'none'}",
        }
        optional = {name for name in ("new", "left out", "ignored") if rows[name] == _counted(())}
        return "\n".join(f"{name}: {row}" for name, row in rows.items() if name not in optional)


def _counted(names: Iterable[str]) -> str:
    names = tuple(names)
    return f"{len(names)}: {_tree.shown(names, most=4)}"


def cause(report: LoadReport, arrays: Iterable[str], table: Table) -> str:
    """The most likely reason why something is unused, missing or of another shape, and what to do."""
    names = list(arrays)
    prefix, num = _common_prefix(names, table)
    if prefix:
        which = "every name begins" if num == len(names) else f"{num} of {len(names)} names begin"
        return f"{which} with {prefix!r}: give rename=lambda name: name.removeprefix({prefix!r})"
    if not report.mapped:
        return "no array fits: this is another architecture, or another library's names for it; choose its table"
    troubled = [*report.missing, *(mismatch.path for mismatch in report.mismatched)]
    if troubled and not report.unused and all(path.startswith("head/") for path in troubled):
        return (
            'only the head differs: give new=["head/**"] to keep this network\'s own, or num_classes of the checkpoint'
        )
    if [mismatch.path.split("/")[-1] for mismatch in report.mismatched] == ["pos_embed"]:
        return "only the position embedding differs: make the network with the image_size of the checkpoint"
    if report.missing and not report.unused and not report.mismatched:
        return "arrays are missing: the file was cut short, or is of a smaller network; cut this one where it ends"
    if report.unused and not report.missing and not report.mismatched:
        return "the checkpoint has more layers than this network: choose the architecture it was made for"
    return "this is probably another architecture than the checkpoint's, or the wrong table"


def _common_prefix(names: list[str], table: Mapping[str, object]) -> tuple[str, int]:
    """What stands before most names, and before how many, when that keeps more names from the table than are in it."""
    counts: dict[str, int] = {}
    for name in names:
        for end in [n + 1 for n, letter in enumerate(name) if letter in "./"]:
            if name[end:] in table:
                counts[name[:end]] = counts.get(name[:end], 0) + 1
    known = sum(name in table for name in names)
    prefix = max(counts, key=lambda prefix: counts[prefix], default="")
    if counts.get(prefix, 0) <= max(known, len(names) // 2):
        return "", 0
    return prefix, sum(name.startswith(prefix) for name in names)
