"""The Hessian of a likelihood in a network's outputs, and columns whose outer products give it."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from bayestl._arguments import check_arguments
from bayestl._types import Likelihood, Outputs, Targets
from bayestl.likelihoods._check_shapes import check_outputs, check_shapes
from bayestl.likelihoods._methods import own
from bayestl.likelihoods._raw import at_least_float32


class Spectrum(NamedTuple):
    """The output Hessians that automatic differentiation gives.

    Attributes:
        eigenvalues: those of every example's Hessian, (B, F).
        eigenvectors: (B, F, F), in columns.
    """

    eigenvalues: Float[Array, "B F"]
    eigenvectors: Float[Array, "B F F"]


def hessian_root(likelihood: Likelihood, outputs: Outputs, targets: Targets) -> Any:
    """Columns ``s_nj`` in output space with ``sum_j s_nj s_nj^T`` the Hessian of ``-log p(y_n | f_n)`` in the outputs.

    A likelihood with its own ``hessian_root`` gives the expected Hessian, its Fisher information, which does not depend
    on the targets. For every other likelihood, the Hessian at the targets is computed by automatic differentiation of
    the log density and projected: negative eigenvalues become 0 (:func:`clipped_share` says how much that changes).
    This costs F Hessian-vector products and an eigendecomposition of an F x F matrix per example.

    Args:
        likelihood: outputs to a distribution, with examples independent of each other.
        outputs: F numbers per example, leaves (B, ...).
        targets: (B, ...); used only if the Hessian is computed by automatic differentiation.

    Returns:
        Columns with leaves (K, B, ...), of at least float32.

    Raises:
        ValueError: automatic differentiation without targets; outputs with a leaf that has no batch axis.

    Example:
        >>> import numpyro.distributions as dist
        >>> counts = btl.likelihoods.from_function(lambda f: dist.Poisson(jnp.exp(f)))
        >>> print(btl.likelihoods.hessian_root(counts, jnp.log(jnp.array([4.0, 9.0])), jnp.array([3, 10])))
        [[2. 3.]]
    """
    check_arguments(hessian_root, locals())
    check_outputs(likelihood, outputs)
    outputs = at_least_float32(outputs)
    columns = known_root(likelihood, outputs)
    if columns is not None:
        return columns
    spectrum = _spectrum(likelihood, outputs, targets)
    scaled = spectrum.eigenvectors * jnp.sqrt(jnp.maximum(spectrum.eigenvalues, 0))[:, None, :]
    return _unflat(jnp.moveaxis(scaled, -1, 0), outputs)


def clipped_share(likelihood: Likelihood, outputs: Outputs, targets: Targets) -> Float[Array, ""]:
    """The share of negative eigenvalues in the output Hessians that :func:`hessian_root` sets to 0.

    ``sum max(-lambda, 0) / sum |lambda|`` over all examples; 0 for likelihoods that know their expected Hessian.

    Example:
        >>> import numpyro.distributions as dist
        >>> tails = btl.likelihoods.from_function(lambda f: dist.StudentT(1.0, f, 1.0))
        >>> share = btl.likelihoods.clipped_share(tails, jnp.zeros(2), jnp.array([0.0, 2.0]))
        >>> print(f"{share:.3f}")  # eigenvalues 2 and -6/25
        0.107
    """
    check_arguments(clipped_share, locals())
    check_outputs(likelihood, outputs)
    negative, absolute = negative_and_absolute(likelihood, outputs, targets)
    total = jnp.sum(absolute)
    return jnp.sum(negative) / jnp.where(total > 0, total, 1)


def negative_and_absolute(
    likelihood: Likelihood, outputs: Outputs, targets: Targets
) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """For every example's output Hessian, the sums of ``|lambda|`` over negative and over all eigenvalues."""
    outputs = at_least_float32(outputs)
    if known_root(likelihood, outputs) is not None:
        nothing = jnp.zeros(jax.tree.leaves(outputs)[0].shape[0])
        return nothing, nothing
    eigenvalues = _spectrum(likelihood, outputs, targets).eigenvalues
    return jnp.sum(jnp.maximum(-eigenvalues, 0), axis=-1), jnp.sum(jnp.abs(eigenvalues), axis=-1)


def knows_hessian(likelihood: Likelihood, outputs_shape: Any) -> bool:
    """Whether the likelihood knows its expected Hessian; then nothing is clipped."""
    return jax.eval_shape(lambda outputs: known_root(likelihood, at_least_float32(outputs)), outputs_shape) is not None


def known_root(likelihood: Likelihood, outputs: Outputs) -> Any:
    """The likelihood's own root of its expected Hessian; None if it does not have one."""
    method = own(likelihood, "hessian_root")
    return None if method is None else method(outputs)


def _spectrum(likelihood: Likelihood, outputs: Outputs, targets: Targets) -> Spectrum:
    if targets is None:
        raise ValueError(
            f"targets are None, but the Hessian of a {type(likelihood).__name__} likelihood is taken by automatic "
            "differentiation of its log density, at the targets; give them"
        )
    check_shapes(likelihood, outputs, targets)
    flat = _flat(outputs)

    def score(flat: jax.Array) -> jax.Array:
        return jax.grad(lambda flat: -jnp.sum(likelihood(_unflat(flat, outputs)).log_prob(targets)))(flat)

    def column(direction: jax.Array) -> jax.Array:
        return jax.jvp(score, (flat,), (jnp.broadcast_to(direction, flat.shape),))[1]

    hessians = jnp.moveaxis(jax.vmap(column)(jnp.eye(flat.shape[1], dtype=flat.dtype)), 0, 1)
    return Spectrum(*jnp.linalg.eigh(0.5 * (hessians + jnp.swapaxes(hessians, 1, 2))))


def _flat(outputs: Outputs) -> Float[Array, "B F"]:
    leaves = jax.tree.leaves(outputs)
    lengths = {jnp.shape(leaf)[:1] for leaf in leaves}
    if len(lengths) != 1 or () in lengths:
        shapes = [jnp.shape(leaf) for leaf in leaves]
        raise ValueError(
            f"outputs have leaves of shapes {shapes}, but the Hessian of every example needs one leading axis B on "
            "all; broadcast what the examples share"
        )
    return jnp.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], axis=1)


def _unflat(flat: Float[Array, "... F"], like: Any) -> Any:
    """Vectors (..., B, F) as outputs with leaves (..., B, *)."""
    leaves, treedef = jax.tree.flatten(like)
    parts, start = [], 0
    for leaf in leaves:
        size = leaf[0].size
        part = flat[..., start : start + size]
        parts.append(part.reshape(*flat.shape[:-1], *leaf.shape[1:]).astype(leaf.dtype))
        start += size
    return jax.tree.unflatten(treedef, parts)
