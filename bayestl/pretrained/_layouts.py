"""How the numbers of one layer lie in memory: from the original's order to ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np


class Layout(NamedTuple):
    """A change of the order of one array's numbers.

    Attributes:
        name: what it does, for the report; empty when it leaves the array as it is.
        apply: the original array to ours. Raises ``ValueError`` when it cannot be such an array.
    """

    name: str
    apply: Callable[[np.ndarray], np.ndarray]


def _dense_of_pictures(array: np.ndarray) -> np.ndarray:
    """The dense layer after a flattened (channels, 7, 7) map; as a 7 x 7 convolution it holds the same numbers."""
    outputs = array.shape[0]
    return array.reshape(outputs, -1, 7, 7).transpose(2, 3, 1, 0).reshape(-1, outputs)


def _one_by_one(array: np.ndarray) -> np.ndarray:
    if array.shape[:2] != (1, 1):
        raise ValueError("not a 1 x 1 convolution")
    return array[0, 0]


AS_IS = Layout("", lambda array: array)
CONV = Layout("OIHW -> HWIO", lambda array: array.transpose(2, 3, 1, 0))
DENSE = Layout("OI -> IO", lambda array: array.transpose(1, 0))
DENSE_OF_MAPS = Layout("O(CHW) -> (HWC)O", _dense_of_pictures)
DENSE_OF_CONV = Layout("OI11 -> IO", lambda array: array.reshape(array.shape[:2]).transpose(1, 0))
DEPTHWISE = Layout("HWC1 -> HW1C", lambda array: array.transpose(0, 1, 3, 2))
ONE_BY_ONE = Layout("11IO -> IO", _one_by_one)


class Entry(NamedTuple):
    """Where an array of a published checkpoint goes.

    Attributes:
        path: of our parameter or running statistic.
        layout: the change of its memory layout.
    """

    path: str
    layout: Layout


Table = Mapping[str, Entry | None]
"""Original name to :class:`Entry`; ``None`` marks an array that no network needs."""

Rows = dict[str, Entry | None]
"""A part of a table."""

VGG16_DEPTHS = (2, 2, 3, 3, 3)
"""Convolutions in each of VGG-16's blocks."""
