"""The layers of a network, found in its traced program: what enters them, what leaves them, and replay with changes."""

from bayestl.layers._find import Operation, Weights
from bayestl.layers._inventory import Entry, Inventory
from bayestl.layers._network import LayeredNetwork, find
from bayestl.layers._replay import Gradients, LayerGradients, gradients, held_numbers

__all__ = [
    "Entry",
    "Gradients",
    "Inventory",
    "LayerGradients",
    "LayeredNetwork",
    "Operation",
    "Weights",
    "find",
    "gradients",
    "held_numbers",
]
