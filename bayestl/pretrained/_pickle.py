"""Pickles read as data: the opcodes are followed one by one, and nothing that a pickle names is imported or called."""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from typing import Any

from bayestl.pretrained._pickle_machine import Forbidden, Global, Machine, Opaque

__all__ = ["Forbidden", "Global", "Opaque", "interpret"]

_MOST_OPCODES = 4_000_000  # a state dict has some 40 for each tensor; one takes up to 200 bytes of memory


def interpret(
    file: Any,
    known: Mapping[str, Callable[..., Any] | None],
    stored: Callable[[Any], Any],
    skipped: Callable[[str], bool] = lambda name: False,
) -> Any:
    """The object in the pickle that starts at the position of ``file``, which is left behind it.

    Args:
        file: with ``read``, ``readline`` and ``tell``.
        known: the names that a pickle may refer to, and what stands for a call of each: a function of *ours*, or None
            where a name is only ever passed around.
        stored: what a persistent id stands for.
        skipped: whether an object of another name may be there; it becomes an :class:`Opaque`, which holds nothing.

    Raises:
        Forbidden: any other name, or a call of something else.
        ValueError: the pickle is cut short or damaged, or has more opcodes than a state dict.
    """
    machine = Machine(known, stored, skipped)
    try:
        for number, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if opcode.name == "STOP":
                return machine.pop()
            if number >= _MOST_OPCODES:
                raise Forbidden(f"its pickle has more than {_MOST_OPCODES:,} opcodes; save the state dict alone")
            machine.follow(opcode.name, argument)
    except Forbidden:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"its pickle is cut short or damaged ({type(error).__name__}: {str(error)[:200]})") from error
    raise ValueError("its pickle has no end: it is cut short")
