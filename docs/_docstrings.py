"""How docstrings become pages: Sphinx roles as plain code, and methods that say nothing to a reader left out."""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|func|meth|mod|attr|data):`~?([^`]+)`")


FOR_JAX = {"tree_flatten", "tree_flatten_with_keys", "tree_unflatten"}


class Docstrings(griffe.Extension):
    """Overrides whose docstring only points to the base class, and what JAX alone calls, are not shown."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called once for each object that was read."""
        if obj.docstring is None:
            return
        if obj.name in FOR_JAX or obj.docstring.value.startswith("See :meth:"):
            obj.docstring = None
        else:
            obj.docstring.value = ROLE.sub(r"`\1`", obj.docstring.value)
