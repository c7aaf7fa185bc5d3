"""What may be predicted for."""

from __future__ import annotations

from bayestl._types import Inputs
from bayestl.passes import num_inputs


def check_inputs(inputs: Inputs) -> None:
    """Raise on inputs that are not arrays (B, ...) of one length, or hold no example.

    Raises:
        TypeError: what is no pytree of arrays.
        ValueError: no arrays, arrays of different lengths, or of length 0.
    """
    if not num_inputs(inputs):
        raise ValueError("inputs hold no example; give one or more, (B, ...)")
