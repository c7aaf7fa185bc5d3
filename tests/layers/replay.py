"""Whether a network replayed from its traced program is the network: its outputs, and its parameters' gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayestl import layers


def assert_replays(function: Callable[[Any, Any], Any], params: Any, inputs: Any, rtol: float) -> None:
    """One program of JAX's own, the network with its gradient along random columns, against one of the replay.

    The replay's gradient is put together from what enters every layer and what its columns leave there, so that all
    that curvature and linearised predictions read is compared.

    Args:
        function: ``(params, inputs) -> outputs``.
        params: where.
        inputs: a batch.
        rtol: of the largest number of every output and of every parameter's gradient.
    """
    shapes = jax.eval_shape(function, params, inputs)
    rng = np.random.default_rng(0)
    columns = jax.tree.map(lambda s: jnp.asarray(rng.normal(size=s.shape), s.dtype), shapes)

    @jax.jit
    def own(params: Any, inputs: Any) -> tuple[Any, list[jax.Array]]:
        outputs, pull_back = jax.vjp(lambda params: function(params, inputs), params)
        return outputs, jax.tree.leaves(pull_back(columns)[0])

    @jax.jit
    def replayed(params: Any, inputs: Any) -> tuple[Any, list[jax.Array]]:
        outputs = []

        def of_outputs(replayed_outputs: Any) -> Any:
            outputs.append(replayed_outputs)
            return jax.tree.map(lambda c: c[None], columns)

        network = layers.find(function, params, inputs)
        gradients = layers.gradients(network, inputs, of_outputs)
        sums = {leaf: jnp.sum(each[0], 0) for leaf, each in gradients.leaves.items()}
        for layer, of_layer in zip(network.layers, gradients.layers, strict=True):
            sums[layer.leaf] = jnp.sum(layers.weight_gradients(layer, of_layer)[0], 0)
        return outputs[0], [sums.get(leaf, jnp.zeros_like(x)) for leaf, x in enumerate(jax.tree.leaves(params))]

    ours, theirs = replayed(params, inputs), own(params, inputs)
    assert jax.tree.structure(ours[0]) == jax.tree.structure(theirs[0])
    for x, y in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=rtol * max(float(jnp.max(jnp.abs(y))), 1e-30))
