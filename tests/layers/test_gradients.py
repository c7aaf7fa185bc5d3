"""A network replayed with layers replaced, and the rows of tables that get gradients."""

from __future__ import annotations

import os

import jax
import jax.numpy as jnp
import layer_networks as networks
import numpy as np
import pytest
from flax import linen, nnx

import bayestl as btl
from bayestl import layers

os.environ.setdefault("KERAS_BACKEND", "jax")


class _Linen(linen.Module):
    @linen.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        return linen.Dense(3)(linen.LayerNorm()(linen.Embed(6, 4)(tokens)).mean(1))


class _NNX(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.table, self.norm = nnx.Embed(6, 4, rngs=rngs), nnx.RMSNorm(4, rngs=rngs)
        self.head = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        return self.head(self.norm(self.table(tokens)).mean(1))


def _linen() -> btl.Net:
    return btl.nets.from_linen(_Linen(), _Linen().init(jax.random.key(0), jnp.zeros((1, 3), int)))


def _nnx() -> btl.Net:
    return btl.nets.from_nnx(_NNX(nnx.Rngs(0)))


def _keras() -> btl.Net:
    keras = pytest.importorskip("keras")
    table, norm = keras.layers.Embedding(6, 4), keras.layers.LayerNormalization()
    pool, head = keras.layers.GlobalAveragePooling1D(), keras.layers.Dense(3)
    return btl.nets.from_keras(keras.Sequential([keras.Input((3,), dtype="int32"), table, norm, pool, head]))


def _equinox() -> btl.Net:
    eqx = pytest.importorskip("equinox")

    class Bag(eqx.Module):
        table: eqx.nn.Embedding
        norm: eqx.nn.LayerNorm
        head: eqx.nn.Linear

        def __call__(self, tokens: jax.Array) -> jax.Array:
            return self.head(jax.vmap(lambda token: self.norm(self.table(token)))(tokens).mean(0))

    first, second = jax.random.split(jax.random.key(0))
    return btl.nets.from_equinox(
        Bag(eqx.nn.Embedding(6, 4, key=first), eqx.nn.LayerNorm(4), eqx.nn.Linear(4, 3, key=second))
    )


NETS = {"linen": _linen, "nnx": _nnx, "keras": _keras, "equinox": _equinox}


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


@pytest.mark.parametrize("library", ["linen", "nnx", "keras", "equinox"])
def test_every_library_looks_up_rows(library):
    net = NETS[library]()
    tokens = np.array([[0, 3, 3], [1, 2, 5]])
    network = layers.find(lambda params, x: net(params, x), net.params, tokens)
    tables = [layer for layer in network.layers if layer.is_lookup]
    assert [layer.rearrangement.result for layer in tables] == [(6, 1, 4)]
    assert network.inventory.fallbacks == ()
    gradients = layers.gradients(network, tokens, lambda outputs: outputs[None])
    (table,) = (of for layer, of in zip(network.layers, gradients.layers, strict=True) if layer.is_lookup)
    own = jax.grad(lambda params: 0.5 * jnp.sum(net(params, tokens) ** 2))(net.params)
    given = jnp.sum(layers.weight_gradients(tables[0], table), (0, 1))
    np.testing.assert_array_equal(table.rows, tokens)
    np.testing.assert_allclose(given, jax.tree.leaves(own)[tables[0].leaf], rtol=1e-4, atol=1e-6)
