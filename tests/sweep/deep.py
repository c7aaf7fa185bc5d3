"""Every way to spoil an argument, for every public function of a room, and for what such functions give back."""

from __future__ import annotations

from typing import Any, NamedTuple

from tests.sweep.methods import methods
from tests.sweep.table import TABLE
from tests.sweep.test_sweep import foreign, public, spoiled_arguments

METHODS = "methods"
"""The room of what is called on results: of the package's classes, and of functions that its functions make."""

# Calls that end in another's sentence, each with the reason why that is right.
ALLOWED: dict[str, str] = {}


class Sweep(NamedTuple):
    """What came of the calls of one room.

    Attributes:
        num_calls: how many there were.
        foreign: those that did not end in a sentence of ours, and how they ended.
    """

    num_calls: int
    foreign: dict[str, str]


def sweep(room: str) -> Sweep:
    """Spoil every argument of every function of a room in every way; ``""`` is the package's own, by ``METHODS``
    what is called on results."""
    functions = methods() if room == METHODS else {n: (public()[n], c) for n, c in TABLE.items() if _room(n) == room}
    num_calls, wrong = 0, {}
    for name, (function, case) in functions.items():
        calls: list[tuple[str, dict[str, Any]]] = list(spoiled_arguments(name, case))
        if case.is_cheap:
            calls.append((f"{name} with the valid arguments of the table", case.arguments()))
        for call, arguments in calls:
            num_calls += 1
            outcome = foreign(function, arguments)
            if outcome is not None and call not in ALLOWED:
                wrong[call] = outcome
    return Sweep(num_calls, wrong)


def _room(name: str) -> str:
    return name.rpartition(".")[0]
