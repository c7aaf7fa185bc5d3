"""Ordered passes over data in batches: held or read, on one device or a mesh, each example with its weight."""

from bayestl.passes._batches import Batches, batches, first_examples, whole
from bayestl.passes._inputs import in_turn, joined, looped, mapped, num_inputs, scanned, split
from bayestl.passes._reader import HostReader
from bayestl.passes._weights import check_weights

__all__ = [
    "Batches",
    "HostReader",
    "batches",
    "check_weights",
    "first_examples",
    "in_turn",
    "joined",
    "looped",
    "mapped",
    "num_inputs",
    "scanned",
    "split",
    "whole",
]
