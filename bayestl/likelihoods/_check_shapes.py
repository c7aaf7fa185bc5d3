"""Whether the shapes and dtypes of outputs, likelihood, targets and mask fit together."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from bayestl._types import Likelihood, Numbers, Outputs, Targets
from bayestl.likelihoods._distribution import Description, describe
from bayestl.likelihoods._methods import defining_class


def check_shapes(likelihood: Likelihood, outputs_shape: Outputs, targets: Targets, mask: Numbers | None = None) -> None:
    """The part of :func:`check` that needs only shapes and dtypes; it may be called while tracing.

    Args:
        likelihood: outputs to a numpyro distribution.
        outputs_shape: pytree of arrays, tracers or ``jax.ShapeDtypeStruct``, leaves (B, ...).
        targets: (B, ...), array, tracer or ``jax.ShapeDtypeStruct``.
        mask: None or (B,).

    Raises:
        ValueError: batch shape other than (B,); targets or mask of another shape.
        TypeError: float targets for a discrete distribution; a likelihood that does not return a distribution.

    Example:
        >>> outputs = jax.ShapeDtypeStruct((32, 10), jnp.float32)
        >>> labels = jax.ShapeDtypeStruct((32,), jnp.int32)
        >>> btl.likelihoods.check_shapes(btl.likelihoods.categorical(), outputs, labels)
    """
    description = check_outputs(likelihood, outputs_shape)
    check_is_array(description, targets)
    if is_array(targets):
        check_targets_shape(tuple(np.shape(targets)), description.batch_shape + description.event_shape)
        check_targets_dtype(description, targets)
    if mask is not None and tuple(np.shape(mask)) != description.batch_shape:
        raise ValueError(
            f"mask has shape {tuple(np.shape(mask))}, but must have {description.batch_shape}, one number per example"
        )


def check_outputs(likelihood: Likelihood, outputs_shape: Outputs) -> Description:
    """Refuse outputs from which the likelihood does not make one distribution per example; while tracing, too.

    Raises:
        TypeError, ValueError: outputs that it cannot be applied to, or whose distribution has another batch shape
            than (B,).
    """
    description = describe(likelihood, outputs_shape)
    lengths = [np.shape(leaf)[0] for leaf in jax.tree.leaves(outputs_shape) if np.shape(leaf)]
    if len(description.batch_shape) != 1 or description.batch_shape[0] not in lengths:
        raise ValueError(_batch_shape_message(outputs_shape, lengths, description.batch_shape))
    return description


def check_is_array(description: Description, targets: Targets) -> None:
    """Refuse several arrays, or none, as targets of a distribution that is over one array.

    Only a distribution of the user's own, with a ``log_prob`` of its own, may be over several.
    """
    if is_array(targets):
        return
    density = defining_class(description.family, "log_prob")
    if density is not None and density.__module__.startswith(("numpyro.", "bayestl.")):
        shapes = jax.tree.map(lambda x: tuple(np.shape(x)), targets)
        raise TypeError(
            f"targets are a {type(targets).__name__}, {shapes}, but a {description.family.__name__} is over one array; "
            "give an array (B, ...) with one row per example"
        )


def is_array(targets: Targets) -> bool:
    """Whether the targets are one array, and not a pytree of several."""
    return jax.tree.structure(targets) == jax.tree.structure(0)


def check_targets_shape(have: tuple[int, ...], want: tuple[int, ...]) -> None:
    """Refuse targets whose shape is not the one that the likelihood expects.

    Args:
        have: shape of the targets.
        want: shape that the likelihood expects.
    """
    if have == want:
        return
    fix = "give one target per example"
    if have == (*want, 1):
        fix = "drop the last axis of the targets: targets[..., 0]"
    elif want == (*have, 1):
        fix = "drop the last axis of the outputs, outputs[..., 0], or add one to the targets, targets[..., None]"
    elif len(have) == len(want) + 1:
        fix = "one-hot labels become integers with argmax(-1)"
    raise ValueError(f"targets have shape {have}, but the likelihood is over {want}; {fix}")


def check_targets_dtype(description: Description, targets: Targets) -> None:
    """Refuse targets that are not integers if the distribution is discrete."""
    dtype = np.dtype(targets.dtype if hasattr(targets, "dtype") else np.asarray(targets).dtype)
    if description.is_discrete and not (jnp.issubdtype(dtype, jnp.integer) or dtype.kind == "b"):
        raise TypeError(
            f"targets have dtype {dtype}, but the likelihood is {description.family.__name__}, which takes integers; "
            "convert labels with astype(int)"
        )


def _batch_shape_message(outputs_shape: Outputs, lengths: list[int], batch_shape: tuple[int, ...]) -> str:
    shapes = jax.tree.map(lambda x: tuple(np.shape(x)), outputs_shape)
    one_each = f"({lengths[0]},)" if lengths else "(B,)"
    fix = "move every other axis into the event: likelihoods.from_function with .to_event(...)"
    if len(batch_shape) == 2 and batch_shape[1] == 1:
        fix = "for a network with one output per example drop the last axis: outputs[..., 0]"
    return (
        f"the likelihood on outputs of shape {shapes} has batch shape {batch_shape}, but must have {one_each}, one per "
        f"example; {fix}"
    )
