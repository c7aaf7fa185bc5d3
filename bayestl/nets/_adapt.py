"""A network with low-rank adapters: of every weight matrix only a change of low rank is learned."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bayestl import _tree, layers
from bayestl._arguments import check_arguments
from bayestl._part import FixedApply, with_fixed
from bayestl._rearrangement import Rearrangement
from bayestl._types import Inputs, Key, Net, Params


class AdaptedWeights(NamedTuple):
    """Attributes:
    path: of the weights in the network that was adapted.
    matrix: from the weights to W (g, I, O).
    """

    path: str
    matrix: Rearrangement


@dataclasses.dataclass(frozen=True)
class AdaptedApply(FixedApply):
    """Attributes:
    weights: those that are adapted.
    structure: of the parameters of the network that was adapted.
    paths: of their leaves.
    scale: s.
    """

    weights: tuple[AdaptedWeights, ...]
    structure: Any
    paths: tuple[str, ...]
    scale: float

    def __call__(self, params: Params, state: Any, inputs: Inputs, key: Key | None) -> tuple[Any, Any]:
        outputs, own = _applied(self, params, state, inputs, key)
        return outputs, {**state, "net": own}

    def whole(self, params: Params, state: Any) -> Params:
        """The parameters of the network that was adapted: those that are held fixed, and those that are trained."""
        values = {**_tree.by_paths(params), **_tree.by_paths(state["frozen"])}
        return jax.tree.unflatten(self.structure, [values[path] for path in self.paths])


@partial(jax.jit, static_argnums=0, inline=True)
def _applied(apply: AdaptedApply, params: Params, state: Any, inputs: Inputs, key: Key | None) -> tuple[Any, Any]:
    # Compiled, so that what is traced for inputs of one shape is not traced again.
    def network(whole: Params, others: tuple[Any, Any, Any]) -> tuple[Any, Any]:
        state, inputs, key = others
        return apply.apply(whole, state, inputs, key)

    whole, others = apply.whole(params, state), (state["net"], inputs, key)
    traced = layers.trace_products(network, whole, others)
    factors = _tree.by_paths(params)
    added = {w.path: layers.LowRankProduct(factors[f"{w.path}/a"], factors[f"{w.path}/b"]) for w in apply.weights}
    absent = [path for path in added if path not in traced.layers]
    if absent:
        raise ValueError(
            f"for inputs of shapes {[jnp.shape(x) for x in jax.tree.leaves(inputs)]} the network has no matrix product "
            f"or convolution with {_tree.shown(absent)}, as it had for those that nets.adapt was given; adapt it for "
            "inputs of this kind"
        )
    return layers.add_products(traced, whole, others, added, apply.scale)


def adapt(
    key: Key,
    net: Net,
    inputs: Inputs,
    rank: int,
    *,
    where: str | Sequence[str] | None = None,
    scale: float = 1.0,
    trained: str | Sequence[str] = (),
) -> Net:
    """``net`` with low-rank adapters (LoRA) as its only parameters, besides those that are named as ``trained``.

    Where the network computes ``x W``, the result computes ``x W + s (x A) B`` with A (I, r) and B (r, O): few numbers,
    so that a posterior over them is cheap, with W as a constant. The network may be of any library, since its products
    are found in its traced program; see :func:`bayestl.layers.find`. Of a convolution A is a convolution like it with r
    channels, and B acts on channels alone.

    A starts as noise of variance 1 / I and B as 0, so that the network starts as the source. These parameters,
    ``(A, 0)``, are also the prior mean to take, as in ``gaussians.isotropic(net.params, scale)``: under any Gaussian in
    which A and B are independent and B has mean 0, the mean of ``A B`` is 0, and W is exactly the prior mean of the
    weights. Around a prior mean of A = 0 that would be true as well, but there neither factor has a gradient, so that
    the source is a saddle point of the log joint. A standard deviation t of B moves an output by ``s t sqrt(r)`` for
    inputs x of mean square 1.

    The paths of the parameters are those of the weights with ``/a`` and ``/b`` behind them, in nested dicts. W lies in
    the state, under ``"frozen"``, and is no part of what a run carries from step to step.

    Args:
        key: of A.
        net: any network.
        inputs: some inputs, leading axis of any length; only their shapes and dtypes matter.
        rank: r, at least 1. A layer with fewer inputs or outputs has that many.
        where: path patterns of the weights to adapt, such as ``"**/attention/**"``: of what they match, all matrix
            products and convolutions. By default every matrix product.
        scale: s, above 0; the standard deviation of ``s x A`` at the start, for inputs x of mean square 1.
        trained: path patterns of parameters that stay as they are and are trained too, such as ``"head/**"``.

    Raises:
        TypeError: ``net`` is not a network.
        ValueError: a pattern without a match, or none among weights that can be adapted; ``rank`` or ``scale`` out of
            range; when called: inputs for which the network lacks one of these products.

    Example:
        >>> net = btl.nets.mlp(jax.random.key(0), (3, 8, 8, 1))
        >>> adapted = btl.nets.adapt(jax.random.key(1), net, jnp.ones((1, 3)), rank=2, trained="head/**")
        >>> print(btl.tree.summary(adapted.params))
        dense_0/kernel/a  (3, 2)  float32   6
        dense_0/kernel/b  (2, 8)  float32  16
        dense_1/kernel/a  (8, 2)  float32  16
        dense_1/kernel/b  (2, 8)  float32  16
        head/bias         (1,)    float32   1
        head/kernel       (8, 1)  float32   8
        total                              63
        >>> jnp.allclose(adapted(adapted.params, jnp.ones((5, 3))), net(net.params, jnp.ones((5, 3)))).item()
        True

    References:
        Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", equation 3, whose alpha / r is s here.
    """
    check_arguments(adapt, locals(), skip=("rank",))
    if not isinstance(net, Net):
        raise TypeError(f"net is {type(net).__name__}; give a Net, as made by nets.from_function and its like")
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise ValueError(f"rank is {rank!r}; give a whole number, at least 1")
    if not (math.isfinite(scale) and scale > 0):
        raise ValueError(f"scale is {scale}; give a finite number above 0")
    kept = _tree.by_paths(_tree.select(net.params, trained)) if trained else {}
    weights = _chosen(net, inputs, where, set(kept))
    values = _tree.by_paths(net.params)
    params: dict[str, Any] = {}
    for one, key_of_one in zip(weights, jax.random.split(key, len(weights)), strict=True):
        _put(params, one.path, _start(key_of_one, one.matrix.result, rank, values[one.path].dtype))
    for path, value in kept.items():
        _put(params, path, value)
    frozen = _tree.select_where(net.params, lambda path: path not in kept)
    apply = AdaptedApply(
        net.apply, weights, jax.tree.structure(net.params), tuple(_tree.paths(net.params)), float(scale)
    )
    return Net(params, with_fixed(net.state, frozen), apply)


def _chosen(
    net: Net, inputs: Inputs, where: str | Sequence[str] | None, trained: set[str]
) -> tuple[AdaptedWeights, ...]:
    """The weights to adapt, in the order of the parameters."""

    def network(params: Params, others: tuple[Any, Any]) -> tuple[Any, Any]:
        state, inputs = others
        return net.apply(params, state, inputs, None)

    found = layers.trace_products(network, net.params, (net.state, inputs)).layers
    names = [path for path in _tree.paths(net.params) if path in found and path not in trained]
    patterns = ["**"] if where is None else [where] if isinstance(where, str) else list(where)
    if where is None:
        names = [path for path in names if all(site.form.kind == "dense" for site in found[path].sites)]
    for pattern in patterns:
        if not any(_tree.matches(pattern, path) for path in names):
            raise ValueError(
                f"where: pattern {pattern!r} matches no weights that can be adapted; "
                f"{'matrix products' if where is None else 'matrix products and convolutions'} that are not trained as "
                f"they are have {_tree.shown(names)}"
            )
    chosen = [path for path in names if any(_tree.matches(pattern, path) for pattern in patterns)]
    return tuple(AdaptedWeights(path, found[path].rearrangement) for path in chosen)


def _start(key: Key, shape: Sequence[int], rank: int, dtype: Any) -> dict[str, jax.Array]:
    """A and B for weights W (g, I, O)."""
    groups, inputs, outputs = shape
    rank, lead = min(rank, inputs, outputs), () if groups == 1 else (groups,)
    a = jax.random.normal(key, (*lead, inputs, rank), dtype) / math.sqrt(inputs)
    return {"a": a, "b": jnp.zeros((*lead, rank, outputs), dtype)}


def _put(tree: dict[str, Any], path: str, value: Any) -> None:
    """Store a value under a path in nested dicts, whose keys are those of the path as they were before it was
    written down."""
    *parents, last = (part.replace("~1", "/").replace("~0", "~") for part in path.split("/"))
    for part in parents:
        tree = tree.setdefault(part, {})
    tree[last] = value
