"""A network replayed with layers replaced, and the rows of tables that get gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import layer_networks as networks
import numpy as np
import pytest

from bayestl import layers


def network_of(problem):
    return lambda params, inputs: problem.joint.outputs(params, inputs)[0]


@pytest.mark.x64
@pytest.mark.parametrize(
    ("name", "path"), [("tokens", "twice/kernel"), ("pictures", "first/kernel"), ("scans", "cell/outer")]
)
def test_an_adapter_beside_a_layer_is_a_change_of_its_weights(name, path):
    """``x W + (x A) B`` is the network at ``W + A B``: dense layers applied twice or in a loop, and convolutions."""
    problem = getattr(networks, name)()
    inputs, own = problem.data.inputs, network_of(problem)
    network = layers.find(own, problem.params, inputs)
    layer = next(layer for layer in network.layers if network.paths[layer.leaf] == path)
    _, count, outputs = layer.rearrangement.result
    rng = np.random.default_rng(0)
    a, b = jnp.asarray(rng.normal(size=(count, 2))), jnp.asarray(rng.normal(size=(2, outputs)))
    leaves = list(network.leaves)
    leaves[layer.leaf] = leaves[layer.leaf] + layer.rearrangement.back((a @ b)[None])
    changed = jax.tree.unflatten(jax.tree.structure(problem.params), leaves)
    given = layers.replay(network, inputs, {path: lambda x, w: x @ w[0] + (x @ a) @ b})
    rtol = 1e-5 if name == "pictures" else 1e-10
    np.testing.assert_allclose(given, own(changed, inputs), rtol=rtol, atol=rtol)
    assert np.max(np.abs(given - own(problem.params, inputs))) > 0.01


def test_only_products_are_replaced():
    problem = networks.tokens()
    network = layers.find(network_of(problem), problem.params, problem.data.inputs)
    for path in ("table", "rms_norm", "nowhere"):
        with pytest.raises(ValueError, match=f"replaced names '{path}', .* network are 'head', 'twice/kernel'"):
            layers.replay(network, problem.data.inputs, {path: lambda x, w: x @ w[0]})


def test_rows_outside_of_a_table_get_no_gradient():
    params = {"table": jnp.ones((3, 2))}
    tokens = jnp.array([[0, 7], [-9, 2], [-1, 1]])
    network = layers.find(lambda params, x: jnp.nan_to_num(params["table"][x]).sum(1), params, tokens)
    (table,) = layers.gradients(network, tokens, lambda outputs: jnp.ones_like(outputs)[None]).layers
    assert isinstance(table, layers.RowGradients)
    # As numpy has it, -1 is the last row.
    np.testing.assert_array_equal(table.rows, [[0, 3], [3, 2], [2, 1]])
    whole = layers.weight_gradients(network.layers[0], table).sum((0, 1))
    own = jax.grad(lambda p: jnp.nan_to_num(p["table"].at[tokens].get(mode="fill")).sum())(params)["table"]
    np.testing.assert_array_equal(whole, own)
