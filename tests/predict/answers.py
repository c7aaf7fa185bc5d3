"""What a predictive says under a name, whether that is an attribute or a function of no arguments."""

from __future__ import annotations

from typing import Any


def answer(predictive: Any, name: str) -> Any:
    value = getattr(predictive, name)
    return value() if callable(value) else value
