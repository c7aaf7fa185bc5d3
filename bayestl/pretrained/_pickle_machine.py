"""The machine that a pickle is a program for, with nothing behind its names."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

_VALUES = {
    *("INT", "LONG", "LONG1", "LONG4", "BININT", "BININT1", "BININT2", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_SET": list}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_NOTHING = {"PROTO", "FRAME"}
_PLAIN_KEYS = (str, int, float, bool, bytes, type(None))
_MOST_COPIED = 4_000_000
_LONGEST_NAME = 1000


@dataclasses.dataclass(frozen=True)
class Global:
    """A name that a pickle refers to, ``module.attribute``; only ever compared with the names that are known."""

    name: str


@dataclasses.dataclass(frozen=True)
class Opaque:
    """In the place of an object of which nothing is known but the name: what it is made of is dropped."""

    name: str


class Forbidden(ValueError):
    """A pickle asks for something that plain arrays do not need."""


class Machine:
    """The stack, the marks and the memo of the pickle machine."""

    def __init__(
        self,
        known: Mapping[str, Callable[..., Any] | None],
        stored: Callable[[Any], Any],
        skipped: Callable[[str], bool],
    ):
        self.known, self.stored, self.skipped = known, stored, skipped
        self.num_copied = 0
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under each mark
        self.memo: dict[int, Any] = {}

    def follow(self, name: str, argument: Any) -> None:
        """One opcode."""
        if name in _VALUES:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            self.stack.append(_EMPTY[name]())
        elif name in _TUPLES:
            self.stack.append(tuple(self.take(_TUPLES[name])))
        elif name not in _NOTHING:
            method = getattr(self, f"op_{name.lower()}", None)
            if method is None:
                raise Forbidden(f"its pickle uses {name}, which a file of plain arrays does not need; nothing was run")
            method(argument)

    def pop(self) -> Any:
        return self.stack.pop()

    def take(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise IndexError("the stack is empty")
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def to_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def refer(self, name: str) -> Global | Opaque:
        if name in self.known:
            return Global(name)
        if len(name) <= _LONGEST_NAME and self.skipped(name):
            return Opaque(name)
        raise Forbidden(
            f"its pickle names {name[:200]!r}, which a file of plain arrays does not need and which could run any "
            "code; nothing was run. If the file is yours, save model.state_dict() alone, best as safetensors; or give "
            "key=, such as key='state_dict', to read the tensors below it and nothing else"
        )

    # -------------------------------------------------------------- stack and memo

    def op_mark(self, _: Any) -> None:
        self.below.append(self.stack)
        self.stack = []

    def op_pop(self, _: Any) -> None:
        self.stack.pop() if self.stack else self.to_mark()

    def op_pop_mark(self, _: Any) -> None:
        self.to_mark()

    def op_dup(self, _: Any) -> None:
        self.stack.append(self.stack[-1])

    def op_put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    op_binput = op_long_binput = op_put

    def op_memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def op_get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    op_binget = op_long_binget = op_get

    # -------------------------------------------------------------- containers

    def op_tuple(self, _: Any) -> None:
        items = self.to_mark()
        self.stack.append(tuple(items))

    def op_list(self, _: Any) -> None:
        items = self.to_mark()
        self.stack.append(items)

    def op_dict(self, _: Any) -> None:
        items = self.to_mark()
        self.stack.append({})
        self.fill(self.stack[-1], items)

    def op_append(self, _: Any) -> None:
        item = self.stack.pop()
        self.sequence().append(item)

    def op_appends(self, _: Any) -> None:
        items = self.to_mark()
        self.sequence().extend(items)

    op_additems = op_appends  # a set is kept as a list

    def op_setitem(self, _: Any) -> None:
        self.fill(self.stack[-3], self.take(2))

    def op_setitems(self, _: Any) -> None:
        items = self.to_mark()
        self.fill(self.stack[-1], items)

    def sequence(self) -> list[Any]:
        if isinstance(self.stack[-1], Opaque):
            return []
        if type(self.stack[-1]) is not list:
            raise ValueError("items for something that is not a list")
        return self.stack[-1]

    def fill(self, target: Any, items: list[Any]) -> None:
        if isinstance(target, Opaque):
            return
        if type(target) is not dict or len(items) % 2:
            raise ValueError("items for something that is not a dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in _PLAIN_KEYS:  # hashing a nested key could take for ever
                raise ValueError(f"a key is a {type(key).__name__}; names are text")
            target[key] = value

    # -------------------------------------------------------------- names and calls

    def op_global(self, argument: str) -> None:
        self.stack.append(self.refer(argument.replace(" ", ".", 1)))

    def op_stack_global(self, _: Any) -> None:
        module, name = self.take(2)
        if not (isinstance(module, str) and isinstance(name, str)):
            raise ValueError("a name is no text")
        self.stack.append(self.refer(f"{module}.{name}"))

    def op_inst(self, argument: str) -> None:
        self.apply(self.refer(argument.replace(" ", ".", 1)), tuple(self.to_mark()))

    def op_reduce(self, _: Any) -> None:
        function, arguments = self.take(2)
        self.apply(function, arguments)

    op_newobj = op_reduce

    def op_newobj_ex(self, _: Any) -> None:
        function, arguments, _names = self.take(3)
        self.apply(function, arguments)

    def op_obj(self, _: Any) -> None:
        function, *arguments = self.to_mark()
        self.apply(function, tuple(arguments))

    def apply(self, function: Any, arguments: Any) -> None:
        if isinstance(function, Opaque):
            self.stack.append(function)
            return
        stands_for = self.known.get(function.name) if isinstance(function, Global) else None
        if stands_for is None:
            called = function.name[:200] if isinstance(function, Global) else f"a {type(function).__name__}"
            raise Forbidden(f"its pickle calls {called}, which is not something to call; nothing was run")
        if type(arguments) is not tuple:
            raise ValueError("arguments are not a tuple")
        # Those of ours copy what they are given, and a pickle may give one long list many times.
        self.num_copied += sum(len(x) for x in arguments if isinstance(x, list | tuple | dict))
        if self.num_copied > _MOST_COPIED:
            raise Forbidden(f"its pickle copies more than {_MOST_COPIED:,} entries of lists")
        self.stack.append(stands_for(*arguments))

    def op_build(self, _: Any) -> None:
        self.stack.pop()  # attributes of an object, such as the versions of a state dict: no arrays

    def op_persid(self, _: Any) -> None:
        raise Forbidden("its pickle uses PERSID, which torch never writes; nothing was run")

    def op_binpersid(self, _: Any) -> None:
        self.stack.append(self.stored(self.stack.pop()))
