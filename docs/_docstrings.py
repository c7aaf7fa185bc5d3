"""How docstrings become pages: Sphinx roles as plain code, what only JAX calls left out, first things first."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import griffe

# As a section of its own an example is code; as an admonition, which "Example:" is to griffe, its outputs such as [0]
# are taken for links that lead nowhere.
EXAMPLE = re.compile(r"^( *)Example:$", re.MULTILINE)
ROLE = re.compile(r":(?:class|func|meth|mod|attr|data):`~?([^`]+)`")
FOR_JAX = {"tree_flatten", "tree_flatten_with_keys", "tree_unflatten"}
PAGES = Path(__file__).parent / "api"


def in_order(names: list[str], page: str) -> list[str]:
    """Names in the order in which a reader needs them.

    First those that the page mentions, in the order in which it does; then functions; then classes; then the states and
    infos of methods, which few readers look up.
    """

    def rank(name: str) -> tuple[int, int, str]:
        mention = re.search(rf"`(?:\w+\.)?{re.escape(name)}\b", page)
        if mention:
            return 0, mention.start(), name
        if name.endswith(("State", "Info")):
            return 3, 0, name
        return (2 if name[0].isupper() else 1), 0, name

    return sorted(names, key=rank)


class Docstrings(griffe.Extension):
    """Overrides whose docstring only points to the base class, and what JAX alone calls, are not shown."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called once for each object that was read."""
        if obj.docstring is None:
            return
        if obj.name in FOR_JAX or obj.docstring.value.startswith("See :meth:"):
            obj.docstring = None
        else:
            obj.docstring.value = EXAMPLE.sub(r"\1Examples:", ROLE.sub(r"`\1`", obj.docstring.value))

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Called once the package has been read: order the names of every room as its page does."""
        for room in pkg.modules.values():
            page = PAGES / f"{room.name}.md"
            if page.exists():
                room.docstring = None  # the page says it
            if room.exports and page.exists():
                room.exports = in_order([str(name) for name in room.exports], page.read_text())
