"""Jacobians of a network's outputs in its parameters, whitened by a Gaussian over them."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bayestl import _tree
from bayestl._applied import call_network
from bayestl._condition import for_draws, without_rest
from bayestl._log_joint import LogJoint
from bayestl._types import Apply, Inputs, Params, Posterior
from bayestl.gaussians import Gaussian
from bayestl.passes import num_inputs
from bayestl.predict._gaussian_outputs import flat

# Numbers in the Jacobians that are held at once when nobody says otherwise: 64 MiB of float32.
_NUMBERS = 2**24


class Linearization(NamedTuple):
    """A network around the mean of a Gaussian: ``f(x; theta) ~ f(x; mu) + J(x) (theta - mu)``.

    Attributes:
        gaussian: over the parameters of the network.
        state: the network's state.
    """

    gaussian: Gaussian
    state: Any

    def outputs(self, apply: Apply, params: Params, inputs: Inputs) -> Any:
        """Raw outputs in at least float32, at some value of the Gaussian's parameters."""
        outputs, _ = call_network(lambda: apply(params, self.state, inputs, None), params, inputs)
        return _tree.at_least_float32(outputs)


def linearization(joint: LogJoint, posterior: Posterior) -> tuple[Apply, Linearization]:
    """The network around the mean of a posterior that is a Gaussian, of all parameters or of a part.

    Raises:
        TypeError: another posterior.
        ValueError: a posterior and a log joint of different parameters.
    """
    joint, gaussian = without_rest(joint, posterior)
    if not isinstance(gaussian, Gaussian):
        within = " of a part" if gaussian is not posterior else ""
        raise TypeError(
            f"the posterior is a {type(gaussian).__name__}{within}, but a linearised network needs a Gaussian (or a "
            "Mixture of Gaussians); use predict.monte_carlo, or fit a Gaussian to draws with sources.from_samples"
        )
    joint = for_draws(joint, gaussian.mean)
    return joint.apply, Linearization(gaussian, joint.state)


def whitened_rows(apply: Apply, linear: Linearization, inputs: Inputs) -> tuple[Any, Params]:
    """Outputs (B, ...) at the mean, and ``S^T J^T`` with ``S S^T = Sigma``: leaves (B, F, *shape).

    A Gram matrix of these rows is ``J Sigma J^T``, symmetric and positive semi-definite to the last bit, for every
    covariance structure that can multiply by S.
    """
    if num_inputs(inputs) > 1:
        each = jax.tree.map(lambda x: x[:, None], inputs)
        outputs, rows = jax.vmap(lambda x: _rows_of_one(apply, linear, x))(each)
        return jax.tree.map(lambda y: y[:, 0], outputs), rows
    # Without the outer vmap, under which the gradient of a convolution becomes one with a group per example: slow.
    outputs, rows = _rows_of_one(apply, linear, inputs)
    return outputs, jax.tree.map(lambda row: row[None], rows)


def _rows_of_one(apply: Apply, linear: Linearization, example: Any) -> tuple[Any, Params]:
    """The rows of one example, whose inputs and outputs have a leading axis of 1."""

    def vector(part: Params) -> tuple[jax.Array, Any]:
        outputs = linear.outputs(apply, part, example)
        return flat(outputs, 1)[0], outputs

    values, pull_back, outputs = jax.vjp(vector, linear.gaussian.mean, has_aux=True)
    transposed = transposed_unwhiten(linear.gaussian)

    def row(direction: jax.Array) -> Params:
        return transposed(pull_back(direction)[0])

    return outputs, jax.vmap(row)(jnp.eye(values.size, dtype=values.dtype))


def transposed_unwhiten(gaussian: Gaussian) -> Callable[[Params], Params]:
    """The function ``v -> S^T v``."""
    _, transposed = jax.vjp(gaussian.unwhiten, _tree.zeros_like(gaussian.mean))
    return lambda v: transposed(v)[0]


@partial(jax.jit, static_argnames="apply")
def rows_of_chunk(linear: Linearization, inputs: Inputs, *, apply: Apply) -> Params:
    """The rows of :func:`whitened_rows`."""
    return whitened_rows(apply, linear, inputs)[1]


@partial(jax.jit, static_argnames="apply")
def moments_of_chunk(linear: Linearization, inputs: Inputs, *, apply: Apply) -> tuple[Any, jax.Array]:
    """Outputs at the mean, leaves (B, ...), and ``J Sigma J^T``, (B, F, F)."""
    outputs, rows = whitened_rows(apply, linear, inputs)
    return outputs, jax.vmap(_tree.columns_gram)(rows, rows)


def held_batch_size(linear: Linearization, outputs_shape: Any) -> int:
    """How many examples at once: as many as keep their Jacobians small."""
    numbers = sum(math.prod(leaf.shape[1:]) for leaf in jax.tree.leaves(outputs_shape))
    return max(_NUMBERS // max(numbers * _tree.size(linear.gaussian.mean), 1), 1)


def is_faster_alone(apply: Apply, linear: Linearization, inputs: Inputs) -> bool:
    """Whether examples are best taken one by one: on a CPU, where kernels of convolutions may be random."""
    if jax.default_backend() != "cpu" or all(leaf.ndim < 3 for leaf in jax.tree.leaves(linear.gaussian.mean)):
        return False
    # As text, since a convolution may lie inside a function of a function.
    traced = jax.make_jaxpr(partial(linear.outputs, apply))(linear.gaussian.mean, inputs)
    return "conv_general_dilated" in str(traced)


def checked_outputs_shape(apply: Apply, linear: Linearization, inputs: Inputs) -> Any:
    """Shapes of the outputs, leaves (B, ...).

    Raises:
        ValueError: a leaf without the axis of the examples.
    """
    shapes = jax.eval_shape(lambda x: linear.outputs(apply, linear.gaussian.mean, x), inputs)
    num = num_inputs(inputs)
    for path, leaf in _tree.by_paths(shapes).items():
        if leaf.shape[:1] != (num,):
            raise ValueError(
                f"outputs{f' at {path!r}' if path else ''} have shape {leaf.shape}, but must begin with the {num} "
                "examples of the inputs; broadcast what is shared, as nets.with_log_scale does"
            )
    return shapes


def check_batch_size(batch_size: int | None) -> None:
    """Raise on a batch size below 1."""
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
