"""Kinds of curvature: columns in output space whose outer products, pulled back to the parameters, are the curvature.

A *kind* is a function ``(likelihood, outputs, targets, key) -> columns``. For outputs with leaves (B, ...) the columns
have leaves (K, B, ...), of at least float32: ``s_nj`` for example n and column j, so that the curvature of
``-log p(D | theta)`` is ``H = sum_n sum_j (J_n^T s_nj)(J_n^T s_nj)^T``. Sums over the examples, never means.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.tree_util import Partial
from jaxtyping import Array, Float

from bayestl import _tree, likelihoods
from bayestl._types import Key


class Kind(Protocol):
    """Which curvature: ``(likelihood, outputs, targets, key) -> columns``, outputs (B, ...) to columns (K, B, ...).

    With ``s_nj`` the column j of example n, in output space, ``H = sum_n sum_j (J_n^T s_nj)(J_n^T s_nj)^T``.
    """

    def __call__(self, likelihood: Any, outputs: Any, targets: Any, key: Key, /) -> Any: ...


def ggn(likelihood: Any, outputs: Any, targets: Any, key: Key) -> Any:
    """The generalised Gauss-Newton matrix: ``H = sum_n J_n^T L_n L_n^T J_n``, with ``L_n L_n^T`` the Hessian of
    ``-log p(y_n | f)`` in the outputs f.

    It leaves out the curvature of the network itself, is positive semi-definite, and does not depend on the targets.
    For these likelihoods it is the true Fisher information. Square roots of the output Hessians:

    * categorical: ``L = diag(sqrt p) - p sqrt(p)^T``, C columns
    * bernoulli: ``sqrt(p (1 - p))``, one column per yes-or-no
    * normal with a given scale: ``1 / scale_j`` along output j, one column per output

    Args:
        likelihood: one of these; a function whose distribution is categorical or Bernoulli counts as one (the Hessian
            is then that of the logits, pulled back to the outputs).
        outputs: raw outputs, leaves (B, ...).
        targets: not looked at.
        key: not used.

    Raises:
        ValueError: another likelihood.

    Reference:
        Martens 2020, "New Insights and Perspectives on the Natural Gradient Method", sections 8 and 9.

    Example:
        >>> columns = btl.curvature.ggn(btl.likelihoods.bernoulli(), jnp.zeros(3), None, jax.random.key(0))
        >>> print(columns)
        [[0.5 0.5 0.5]]
    """
    outputs = _tree.at_least_float32(outputs)
    family = likelihoods.describe(likelihood, outputs).family
    if isinstance(likelihood, likelihoods.Normal) and likelihood.scale is not None:
        return _one_each(1 / likelihoods.base(likelihood(outputs)).scale)
    if issubclass(family, dist.CategoricalLogits):
        root = _categorical_root
    elif issubclass(family, dist.BernoulliLogits):
        root = _bernoulli_root
    else:
        raise ValueError(_unknown(likelihood, family))

    def logits(outputs: Any) -> jax.Array:
        return likelihoods.base(likelihood(outputs)).logits

    value, pull_back = jax.vjp(logits, outputs)
    return jax.vmap(lambda column: pull_back(column)[0])(root(value).astype(value.dtype))


def empirical_fisher(likelihood: Any, outputs: Any, targets: Any, key: Key) -> Any:
    """The empirical Fisher: ``H = sum_n g_n g_n^T``, ``g_n`` the gradient of ``log p(y_n | x_n, theta)``.

    For any likelihood, and cheap: one column. It is no approximation of the Hessian away from a good fit, and vanishes
    where every example is fitted exactly. The gradients are those of single examples, neither scaled nor averaged.

    Args:
        likelihood: outputs to a distribution.
        outputs: raw outputs, leaves (B, ...).
        targets: (B, ...).
        key: not used.

    Reference:
        Kunstner, Balles and Hennig 2019, "Limitations of the Empirical Fisher Approximation", equation 3.

    Example:
        >>> likelihood = btl.likelihoods.normal(1.0)
        >>> print(btl.curvature.empirical_fisher(likelihood, jnp.zeros(2), jnp.array([1.0, 3.0]), jax.random.key(0)))
        [[1. 3.]]
    """
    gradient = _score(likelihood, _tree.at_least_float32(outputs), targets)
    return jax.tree.map(lambda g: g[None], gradient)


def fisher(num_samples: int) -> Kind:
    """The Fisher information from labels sampled from the model: ``H = 1/S sum_n sum_s g_ns g_ns^T``.

    For any likelihood numpyro can sample from, among them those with a learned noise; in expectation it is the exact
    Fisher information. One column per sample.

    Args:
        num_samples: S >= 1 labels per example. The key of the curvature fixes them, so that every product with H is
            one with the same matrix.

    Raises:
        ValueError: num_samples below 1.

    Example:
        >>> kind = btl.curvature.fisher(5)
        >>> kind(btl.likelihoods.categorical(), jnp.zeros((2, 3)), None, jax.random.key(0)).shape
        (5, 2, 3)
    """
    if num_samples < 1:
        raise ValueError(f"num_samples is {num_samples}; at least 1 sampled label per example is needed")
    return Partial(_sampled_fisher, num_samples)


def _sampled_fisher(num_samples: int, likelihood: Any, outputs: Any, targets: Any, key: Key) -> Any:
    outputs = _tree.at_least_float32(outputs)

    def one(key: Key) -> Any:
        labels = jax.lax.stop_gradient(likelihood(outputs).sample(key))
        return jax.tree.map(lambda g: g / math.sqrt(num_samples), _score(likelihood, outputs, labels))

    return jax.vmap(one)(jax.random.split(key, num_samples))


def _score(likelihood: Any, outputs: Any, targets: Any) -> Any:
    """Gradient of every example's log likelihood in its own outputs, leaves (B, ...)."""
    return jax.grad(lambda outputs: jnp.sum(likelihood(outputs).log_prob(targets)))(outputs)


def _one_each(root: Float[Array, "B ..."]) -> Float[Array, "K B ..."]:
    """A column for every number in an example's event, zero in all others."""
    size = math.prod(root.shape[1:])
    eye = jnp.eye(size, dtype=root.dtype).reshape(size, 1, *root.shape[1:])
    return eye * root


def _bernoulli_root(logits: Float[Array, "B ..."]) -> Float[Array, "K B ..."]:
    return _one_each(jnp.exp(0.5 * (jax.nn.log_sigmoid(logits) + jax.nn.log_sigmoid(-logits))))


def _categorical_root(logits: Float[Array, "B ... C"]) -> Float[Array, "K B ... C"]:
    """``sqrt(p_j) (e_j - p)`` for every class j, for every one of the event's labels."""
    log_p = jax.nn.log_softmax(logits)
    centred = jnp.eye(logits.shape[-1], dtype=logits.dtype) - jnp.exp(log_p)[..., None, :]
    columns = jnp.exp(0.5 * log_p)[..., None] * centred  # (B, ..., j, c)
    columns = jnp.moveaxis(columns, -2, 0)  # (j, B, ..., c)
    labels = math.prod(logits.shape[1:-1])
    if labels == 1:
        return columns
    eye = jnp.eye(labels, dtype=logits.dtype).reshape(labels, 1, 1, *logits.shape[1:-1], 1)
    return (eye * columns).reshape(-1, *logits.shape)


def _unknown(likelihood: Any, family: type) -> str:
    name = f"likelihoods.{type(likelihood).__name__.lower()}" if _is_ours(likelihood) else type(likelihood).__name__
    if isinstance(likelihood, likelihoods.FromFunction):
        name = "likelihoods.from_function"
    if isinstance(likelihood, likelihoods.Normal):
        name += " with a learned noise, outputs (location, log_scale),"
    return (
        f"{name} (a {family.__name__}) has no known output Hessian for a GGN, which knows categorical, bernoulli and "
        "normal(scale) likelihoods; give kind=curvature.fisher(num_samples) or kind=curvature.empirical_fisher, or one "
        "of those likelihoods"
    )


def _is_ours(likelihood: Any) -> bool:
    return type(likelihood).__module__.startswith("bayestl.")
