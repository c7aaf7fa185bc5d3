"""Whether outputs, likelihood, targets and mask fit together, checked before training."""

from __future__ import annotations

from bayestl._arguments import check_arguments
from bayestl._types import Likelihood, Numbers, Outputs, Targets
from bayestl.likelihoods._check_shapes import check_shapes
from bayestl.likelihoods._check_values import check_values


def check(likelihood: Likelihood, outputs_shape: Outputs, targets: Targets, mask: Numbers | None = None) -> None:
    """Refuse a batch that does not fit the likelihood, and say why; call it outside ``jit``.

    A distribution of batch shape (B, 1) against targets (B,) would otherwise broadcast silently. Examples that the mask
    leaves out may hold anything.

    Args:
        likelihood: outputs to a numpyro distribution.
        outputs_shape: the network's outputs for B examples as ``jax.ShapeDtypeStruct``, from ``jax.eval_shape``.
        targets: (B, ...).
        mask: None or (B,).

    Raises:
        ValueError: batch shape other than (B,); targets or mask of another shape; non-finite targets; values outside
            the support (labels outside the classes).
        TypeError: float targets for a discrete distribution; a likelihood that does not return a distribution.

    Example:
        >>> outputs = jax.ShapeDtypeStruct((32, 10), jnp.float32)
        >>> btl.likelihoods.check(btl.likelihoods.categorical(), outputs, jnp.zeros(32, int))
    """
    check_arguments(check, locals())
    check_shapes(likelihood, outputs_shape, targets, mask)
    check_values(likelihood, outputs_shape, targets, mask)
