"""The layers of a log joint's network, and the gradients of a curvature's columns there."""

from __future__ import annotations

import jax

from bayestl import layers
from bayestl._arguments import check_arguments
from bayestl._log_joint import LogJoint
from bayestl._types import Batch, Inputs, Key, Params
from bayestl.curvature._kinds import Kind
from bayestl.curvature._products import num_columns, weighted_columns
from bayestl.passes import Batches, batches

# How many numbers one batch may take up: what fits into the caches of a CPU, or into part of an accelerator's memory.
_ON_CPU, _ELSEWHERE = 2**22, 2**28


def layers_of(joint: LogJoint, params: Params, inputs: Inputs) -> layers.LayeredNetwork:
    """The deterministic network of a log joint with its layers; see :func:`bayestl.layers.find`."""
    return layers.find(lambda p, x: joint.outputs(p, x)[0], params, inputs)


def find_layers(joint: LogJoint, params: Params, inputs: Inputs) -> layers.Inventory:
    """How :func:`diagonal` and :func:`kronecker` would handle every parameter, without computing anything.

    Args:
        joint: the log joint.
        params: its parameters.
        inputs: some inputs, leading axis of any length; only their shapes matter.

    Example:
        >>> net = btl.nets.mlp(jax.random.key(0), (4, 8, 3))
        >>> joint = btl.LogJoint(net, btl.likelihoods.categorical(), None, num_data=10)
        >>> print(btl.curvature.find_layers(joint, net.params, jnp.ones((1, 4))))
        dense_0/bias    bias   of 'dense_0/kernel'
        dense_0/kernel  dense  4 inputs, 8 outputs
        head/bias       bias   of 'head/kernel'
        head/kernel     dense  8 inputs, 3 outputs
    """
    check_arguments(find_layers, locals())
    inventories = []

    def shapes_only(joint: LogJoint, params: Params, inputs: Inputs) -> None:
        inventories.append(layers_of(joint, params, inputs).inventory)

    jax.eval_shape(shapes_only, joint, params, inputs)
    return inventories[0]


def column_gradients(
    network: layers.LayeredNetwork, joint: LogJoint, kind: Kind, key: Key, batch: Batch
) -> layers.Gradients:
    """For one batch: layer inputs, and gradients of ``kind``'s columns, times the root of each example's weight."""
    return layers.gradients(network, batch.inputs, lambda outputs: weighted_columns(joint, kind, key, outputs, batch))


def in_small_batches(
    network: layers.LayeredNetwork,
    joint: LogJoint,
    kind: Kind,
    params: Params,
    passes: Batches,
    per_column: int = 0,
) -> Batches:
    """The same data in batches no larger than before, and small enough for everything that is stored per example.

    Args:
        network: that of the log joint.
        joint: the log joint.
        kind: the kind of curvature.
        params: the parameters.
        passes: the data.
        per_column: further numbers that are stored for every column of every example.
    """
    of_example, of_column = layers.held_numbers(network)
    of_example += (of_column + per_column) * num_columns(joint, kind, params, passes)
    most = (_ON_CPU if jax.default_backend() == "cpu" else _ELSEWHERE) // max(of_example, 1)
    return batches(passes, max(min(passes.batch_size, most), 1))
