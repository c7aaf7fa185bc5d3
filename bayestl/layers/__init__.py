"""The layers of a network, found in its traced program: their inputs and outputs, and replay with changes."""

from bayestl.layers._added import BatchNetwork, LowRankProduct, add_products, trace_products
from bayestl.layers._find import Layer, Site
from bayestl.layers._gradients import (
    Gradients,
    LayerGradients,
    ProductGradients,
    RowGradients,
    TiedGradients,
    gradients,
    held_numbers,
    once_per_row,
    same_rows,
    weight_gradient,
    weight_gradients,
)
from bayestl.layers._inventory import Entry, Inventory
from bayestl.layers._network import LayeredNetwork, find
from bayestl.layers._replay import replay

__all__ = [
    "BatchNetwork",
    "Entry",
    "Gradients",
    "Inventory",
    "Layer",
    "LayerGradients",
    "LayeredNetwork",
    "LowRankProduct",
    "ProductGradients",
    "RowGradients",
    "Site",
    "TiedGradients",
    "add_products",
    "find",
    "gradients",
    "held_numbers",
    "once_per_row",
    "replay",
    "same_rows",
    "trace_products",
    "weight_gradient",
    "weight_gradients",
]
