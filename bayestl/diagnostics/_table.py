"""The small table that a report is."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple


class Row(NamedTuple):
    """One line of a report.

    Attributes:
        name: what was measured.
        value: the number.
        limit: what it should be, in words; "" if any number will do.
        warning: what is wrong, in plain words; "" if nothing is.
    """

    name: str
    value: float
    limit: str = ""
    warning: str = ""


@dataclasses.dataclass(frozen=True)
class Report:
    """What the checks say about a posterior; prints as a small table.

    Attributes:
        posterior: its kind.
        rows: the lines of the table.
    """

    posterior: str
    rows: tuple[Row, ...]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is wrong, in plain words; empty if nothing is."""
        return tuple(row.warning for row in self.rows if row.warning)

    def __getitem__(self, name: str) -> float:
        """The number of the row with this name."""
        return next(row.value for row in self.rows if row.name == name)

    def __str__(self) -> str:
        width = max([len(row.name) for row in self.rows], default=0)
        lines = [
            f"  {row.name:<{width}}  {row.value:>10.4g}  {row.limit}{'  <-' if row.warning else ''}".rstrip()
            for row in self.rows
        ]
        words = [f"  Not to be trusted as it is: {text}." for text in self.warnings]
        return "\n".join([self.posterior, *lines, *words])

    __repr__ = __str__
