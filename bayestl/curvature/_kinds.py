"""Kinds of curvature: columns in output space whose outer products, pulled back to the parameters, are the curvature.

A *kind* is a function ``(key, likelihood, outputs, targets) -> columns``. For outputs with leaves (B, ...) the columns
have leaves (K, B, ...), of at least float32: ``s_nj`` for example n and column j. The curvature of
``-log p(D | theta)`` is then ``H = sum_n sum_j (J_n^T s_nj)(J_n^T s_nj)^T``: a sum over the examples, never a mean.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from bayestl import _tree, likelihoods
from bayestl._arguments import check_arguments
from bayestl._types import Key, Likelihood, Outputs, Targets


class Kind(Protocol):
    """Which curvature: ``(key, likelihood, outputs, targets) -> columns``, outputs (B, ...) to columns (K, B, ...).

    With ``s_nj`` the column j of example n, in output space, ``H = sum_n sum_j (J_n^T s_nj)(J_n^T s_nj)^T``.
    """

    def __call__(self, key: Key, likelihood: Likelihood, outputs: Outputs, targets: Targets, /) -> Any: ...


def ggn(key: Key, likelihood: Likelihood, outputs: Outputs, targets: Targets) -> Any:
    """The generalised Gauss-Newton matrix: ``H = sum_n J_n^T L_n L_n^T J_n``, with ``L_n L_n^T`` the Hessian of
    ``-log p(y_n | f)`` in the outputs f.

    It leaves out the curvature of the network itself and is positive semi-definite. If the likelihood knows its
    expected Hessian (:func:`bayestl.likelihoods.categorical`, ``bernoulli``, ``normal`` with a given or a learned
    scale, functions that return numpyro's distributions of these names, any likelihood with a ``hessian_root``), it is
    the true Fisher information and does not depend on the targets:

    * categorical: ``L = diag(sqrt p) - p sqrt(p)^T``, C columns
    * bernoulli: ``sqrt(p (1 - p))``, one column per yes-or-no
    * normal: ``1 / scale_j`` along output j, and for a learned scale ``sqrt 2`` along each log scale

    Every other likelihood is differentiated automatically, at the targets, and the negative eigenvalues of its output
    Hessians become 0 (:func:`bayestl.likelihoods.hessian_root`); :func:`clipped_share` says how much that changes.

    Args:
        key: not used.
        likelihood: outputs to a distribution.
        outputs: raw outputs, leaves (B, ...).
        targets: (B, ...); used only if the likelihood does not know its expected Hessian.

    Reference:
        Martens 2020, "New Insights and Perspectives on the Natural Gradient Method", sections 8 and 9.

    Example:
        >>> columns = btl.curvature.ggn(jax.random.key(0), btl.likelihoods.bernoulli(), jnp.zeros(3), None)
        >>> print(columns)
        [[0.5 0.5 0.5]]
    """
    check_arguments(ggn, locals())
    return likelihoods.hessian_root(likelihood, outputs, targets)


def empirical_fisher(key: Key, likelihood: Likelihood, outputs: Outputs, targets: Targets) -> Any:
    """The empirical Fisher: ``H = sum_n g_n g_n^T``, ``g_n`` the gradient of ``log p(y_n | x_n, theta)``.

    It works for any likelihood and is cheap: one column. Away from a good fit it does not approximate the Hessian, and
    it vanishes where every example is fitted exactly. The gradients are those of single examples, neither scaled nor
    averaged.

    Args:
        key: not used.
        likelihood: outputs to a distribution.
        outputs: raw outputs, leaves (B, ...).
        targets: (B, ...).

    Reference:
        Kunstner, Balles and Hennig 2019, "Limitations of the Empirical Fisher Approximation", equation 3.

    Example:
        >>> likelihood = btl.likelihoods.normal(1.0)
        >>> print(btl.curvature.empirical_fisher(jax.random.key(0), likelihood, jnp.zeros(2), jnp.array([1.0, 3.0])))
        [[1. 3.]]
    """
    check_arguments(empirical_fisher, locals())
    likelihoods.check_shapes(likelihood, outputs, targets)
    gradient = _score(likelihood, _tree.at_least_float32(outputs), targets)
    return jax.tree.map(lambda g: g[None], gradient)


def fisher(num_samples: int) -> Kind:
    """The Fisher information from labels sampled from the model: ``H = 1/S sum_n sum_s g_ns g_ns^T``.

    It works for any likelihood that numpyro can sample from, with one column per sample; in expectation it is the exact
    Fisher information. The density has to be normalised: labels drawn from one distribution and scored by another's
    ``log_prob`` give the Fisher information of neither.

    Args:
        num_samples: S >= 1 labels per example. The key of the curvature fixes them: every product with H uses the same
            matrix.

    Raises:
        ValueError: num_samples below 1.
        TypeError: raised by the kind, for a density that is not that of its samples (one with class weights, say).

    Example:
        >>> kind = btl.curvature.fisher(5)
        >>> kind(jax.random.key(0), btl.likelihoods.categorical(), jnp.zeros((2, 3)), None).shape
        (5, 2, 3)
    """
    check_arguments(fisher, locals())
    if num_samples < 1:
        raise ValueError(f"num_samples is {num_samples}; at least 1 sampled label per example is needed")
    return Partial(_sampled_fisher, num_samples)


def _sampled_fisher(num_samples: int, key: Key, likelihood: Likelihood, outputs: Outputs, targets: Targets) -> Any:
    outputs = _tree.at_least_float32(outputs)
    likelihoods.check_samples(likelihood, outputs, "curvature.fisher")

    def one(key: Key) -> Any:
        labels = jax.lax.stop_gradient(likelihood(outputs).sample(key))
        return jax.tree.map(lambda g: g / math.sqrt(num_samples), _score(likelihood, outputs, labels))

    return jax.vmap(one)(jax.random.split(key, num_samples))


def _score(likelihood: Likelihood, outputs: Outputs, targets: Targets) -> Any:
    """Gradient of every example's log likelihood in its own outputs, leaves (B, ...)."""
    return jax.grad(lambda outputs: jnp.sum(likelihood(outputs).log_prob(targets)))(outputs)
