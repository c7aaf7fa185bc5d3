"""Networks whose parameters enter them in every way that the search for layers must tell apart."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, nnx

import bayestl as btl


class Problem(NamedTuple):
    """A log joint, parameters, and a few examples of it."""

    joint: btl.LogJoint
    params: Any
    data: Any


def make(net: Any, inputs: Any, classes: int | None, dtype: Any = None) -> Problem:
    """Random parameters (none is zero, as biases are at the start), and labels or real targets."""
    rng = np.random.default_rng(0)

    def moved(x: Any) -> Any:
        x = jnp.asarray(x)
        return x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x

    dtype = jnp.result_type(float) if dtype is None else dtype
    params = jax.tree.map(lambda x: moved(x + 0.3 * rng.normal(size=x.shape)), net.params)
    net = btl.Net(params, jax.tree.map(moved, net.state), net.apply)
    num = len(jax.tree.leaves(inputs)[0])
    likelihood, targets = btl.likelihoods.categorical(), rng.integers(0, classes or 1, num)
    if classes is None:
        shape = jax.eval_shape(net, params, inputs).shape
        likelihood, targets = btl.likelihoods.normal(0.5), rng.normal(size=shape)
    joint = btl.LogJoint(net, likelihood, None, num_data=num)
    return Problem(joint, params, btl.data.arrays(inputs, jnp.asarray(targets)))


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=shape)


# ---------------------------------------------------------------- layers


def mlp() -> Problem:
    return make(btl.nets.mlp(jax.random.key(0), (3, 4, 3)), normal(5, 3), 3)


class _Pictures(nnx.Module):
    """Strides, paddings, dilations, groups, transposed convolution, normalisation, pooling, attention."""

    def __init__(self, rngs: nnx.Rngs):
        self.first = nnx.Conv(2, 4, (3, 3), strides=(2, 2), padding="SAME", rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.depthwise = nnx.Conv(4, 4, (3, 2), feature_group_count=4, padding="VALID", rngs=rngs)
        self.groups = nnx.Conv(4, 6, (1, 2), feature_group_count=2, kernel_dilation=(1, 2), use_bias=False, rngs=rngs)
        self.layer_norm = nnx.LayerNorm(6, rngs=rngs)
        self.transposed = nnx.ConvTranspose(6, 2, (2, 2), strides=(2, 2), rngs=rngs)
        self.token = nnx.Param(jnp.zeros((1, 1, 2)))
        self.attention = nnx.MultiHeadAttention(2, 2, qkv_features=4, decode=False, rngs=rngs)
        self.head = nnx.Linear(2, 3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = jax.nn.relu(self.norm(self.first(x)))
        x = self.layer_norm(self.groups(self.depthwise(x)))
        x = nnx.max_pool(x, (2, 2), strides=(1, 1), padding="SAME")
        x = nnx.avg_pool(x, (2, 1), strides=(1, 1), padding="SAME")
        x = nnx.max_pool(self.transposed(x), (2, 2), strides=(2, 2))
        x = x.reshape(x.shape[0], -1, 2)
        x = jnp.concatenate([x, jnp.broadcast_to(self.token[...], (x.shape[0], 1, 2))], 1)
        return self.head(self.attention(x)).mean(1)


def pictures() -> Problem:
    return make(btl.nets.from_nnx(_Pictures(nnx.Rngs(0))), normal(3, 9, 9, 2), 3)


class _Sequence(linen.Module):
    """A layer shared by a sequence, inside a checkpoint; patches; a norm of its own."""

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = linen.Conv(3, (2,), strides=(2,), padding="VALID")(x)
        x = linen.remat(linen.Dense)(4)(x)
        x = jnp.tanh(linen.RMSNorm()(x))
        return linen.DenseGeneral((2, 1))(x.mean(1)).reshape(x.shape[0], 2)


def sequence() -> Problem:
    x = normal(5, 6, 2)
    variables = _Sequence().init(jax.random.key(0), x[:1])
    return make(btl.nets.from_linen(_Sequence(), variables), x, None)


# ---------------------------------------------------------------- look-ups, normalisation, loops


def _normal_params(shapes: Any) -> Any:
    return jax.tree.map(jnp.zeros, shapes, is_leaf=lambda s: isinstance(s, tuple))


TOKENS = np.array([[0, 3, 3], [1, 1, 1], [2, 0, 3], [4, 2, 0], [3, 1, 4]])


def tokens_network(params: Any, inputs: Any) -> jax.Array:
    """One table for two sequences, positions, a layer applied twice, layer and root-mean-square normalisation."""
    first, second = (params["table"][x] + params["positions"][None, : x.shape[1]] for x in inputs)
    first, second = (jnp.tanh(x @ params["twice"]["kernel"] + params["twice"]["bias"]) for x in (first, second))
    x = first[:, :2] + second
    x = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-3)
    x = x * params["layer_norm"]["scale"] + params["layer_norm"]["bias"]
    x = x / jnp.sqrt((x * x).mean(-1, keepdims=True) + 1e-3) * (1 + params["rms_norm"])
    return x.mean(1) @ params["head"]


def tokens() -> Problem:
    shapes = {
        "head": (3, 2),
        "layer_norm": {"bias": (3,), "scale": (3,)},
        "positions": (4, 2),
        "rms_norm": (3,),
        "table": (6, 2),
        "twice": {"bias": (3,), "kernel": (2, 3)},
    }
    net = btl.nets.from_function(tokens_network, _normal_params(shapes))
    return make(net, (TOKENS, TOKENS[::-1, :2].copy()), 2)


def tied_network(params: Any, tokens: jax.Array) -> jax.Array:
    """A language model whose table is the output layer too, at two positions."""
    x = jnp.tanh(params["table"][tokens[:, :2]] @ params["kernel"])
    return (x @ params["table"].T).sum(1)


def tied() -> Problem:
    net = btl.nets.from_function(tied_network, _normal_params({"kernel": (2, 2), "table": (5, 2)}))
    return make(net, TOKENS, 5)


def scans_network(params: Any, x: jax.Array) -> jax.Array:
    """A recurrent cell over a sequence, from a learned start, and a stack of layers, both in loops with checkpoints."""
    cell = params["cell"]

    @jax.checkpoint
    def step(state: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        state = jnp.tanh(x @ cell["inner"] + state @ cell["outer"] + cell["bias"])
        return state, state

    start = jnp.broadcast_to(params["start"], (x.shape[0], 3))
    state, states = jax.lax.scan(step, start, x.swapaxes(0, 1))
    x = states.swapaxes(0, 1)

    @jax.checkpoint
    def layer(x: jax.Array, layer: Any) -> tuple[jax.Array, None]:
        y = jnp.einsum("bti,io->bto", x, layer["kernel"]) + layer["bias"]
        return x + jnp.tanh(y * layer["scale"]), None

    x, _ = jax.lax.scan(layer, x, params["stack"], reverse=True)
    return (x.mean(1) + state) @ params["head"]


def scans() -> Problem:
    shapes = {
        "cell": {"bias": (3,), "inner": (2, 3), "outer": (3, 3)},
        "head": (3, 2),
        "stack": {"bias": (2, 3), "kernel": (2, 3, 3), "scale": (2, 3)},
        "start": (3,),
    }
    return make(btl.nets.from_function(scans_network, _normal_params(shapes)), normal(5, 4, 2), 2)


# ---------------------------------------------------------------- other ways


@jax.custom_jvp
def _scaled(x: jax.Array, scale: jax.Array) -> jax.Array:
    return x * scale


@_scaled.defjvp
def _scaled_jvp(primals: Any, tangents: Any) -> Any:
    # On purpose not the derivative of what is inside: a rule of its own must be kept.
    (x, scale), (dx, dscale) = primals, tangents
    return x * scale, dx * scale + 3 * x * dscale


ODD = {
    "tied": (2, 2),
    "scanned": {"kernel": (2, 2, 2), "bias": (2, 2)},
    "embedding": (4, 2),
    "gamma": (2,),
    "beta": (2,),
    "own_rule": (2,),
    "half": (2, 2),
    "heads": (2, 1, 2),
    "positive": (),
    "slope": (),
    "output": (3,),
    "unused": (2,),
    "head": {"kernel": (2, 3)},
}


def odd_network(params: Any, inputs: Any) -> jax.Array:
    x, tokens = inputs
    x = jnp.tanh(x @ params["tied"]) @ params["tied"].T + params["embedding"][tokens]

    def layer(x: jax.Array, layer: Any) -> tuple[jax.Array, None]:
        return jnp.tanh(x @ layer["kernel"] + layer["bias"]), None

    x, _ = jax.lax.scan(layer, x, params["scanned"])
    inverse = params["gamma"] * 0.7
    x = x * inverse + (params["beta"] - 0.2 * inverse)
    x = _scaled(x, params["own_rule"]) @ (0.5 * params["half"])
    x = jnp.einsum("bhd,hde->bhe", x[:, :, None], params["heads"]).sum(1)
    x = x / (1 + jnp.exp(params["positive"]))
    x = jnp.where(x > 0, x, params["slope"] * x)
    return x @ params["head"]["kernel"] + params["output"]


def odd() -> Problem:
    shapes = jax.tree.map(jnp.zeros, ODD, is_leaf=lambda s: isinstance(s, tuple))
    inputs = (normal(5, 2), np.array([0, 3, 1, 1, 2]))
    return make(btl.nets.from_function(odd_network, shapes), inputs, 3)
