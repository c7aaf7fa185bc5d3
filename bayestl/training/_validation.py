"""The score of a run on validation data during training."""

from __future__ import annotations

import numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from bayestl import _tree
from bayestl._placement import replicate
from bayestl._static import Static, partition
from bayestl._types import Batch, Data, Inference, Params
from bayestl.passes import Batches, batches, first_examples
from bayestl.training._programs import program


def check_every(every: int | None, steps: int, steps_per_epoch: int) -> int:
    """Steps between validations, checked; by default those of an epoch."""
    if every is None:
        every = steps_per_epoch
        name = f"every is an epoch of {every} steps by default"
    else:
        name = f"every is {every!r}"
    if not isinstance(every, numbers.Integral) or every < 1:
        raise ValueError(f"{name}; give a whole number of steps between validations, at least 1")
    if every > steps:
        raise ValueError(f"{name}, but the run has {steps} steps and would never be scored; give {steps} or less")
    return int(every)


def check_validate(inference: Inference, params: Params, validate: Data | Batch | Batches, train_inputs: Any) -> Any:
    """Refuse a run that cannot be scored on these data.

    Args:
        inference: the method.
        params: where the run starts.
        validate: the validation data.
        train_inputs: inputs as a training step sees them, or their shapes.

    Returns:
        What ``Inference.check`` gave.

    Raises:
        ValueError: a method without log likelihoods; data that do not fit the network or the likelihood.
    """
    if inference.log_likelihoods is None:
        raise ValueError(
            "validate needs a method that gives Inference.log_likelihoods, and this one does not; give it, or score "
            "the posterior in a callback"
        )
    examples = first_examples(validate)
    here, there = _tree.by_paths(examples.inputs), _tree.by_paths(train_inputs)
    for path in here.keys() & there.keys():
        if _is_floating(there[path]) and not _is_floating(here[path]):
            raise ValueError(
                f"validate has inputs of {here[path].dtype.name} at {path!r}, where training sees "
                f"{there[path].dtype.name}; transform is not applied to it, so give inputs as the network takes them"
            )
    try:
        return inference.check(params, examples.inputs, examples.targets)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"validate does not fit the method; its inputs are {_shapes(here)} per example, and {_shapes(there)} in "
            f"training: {error}"
        ) from error


class Score:
    """The mean negative log likelihood per example over a data set, of a method's state; compiled at construction.

    Args:
        inference: the method.
        state: its start.
        validate: the data.
        batch_size: examples at once.
        sharding: how a batch lies on a mesh, or None.
        check: what :func:`check_validate` gave; of the targets that are read, when they are for the first time.
    """

    def __init__(
        self,
        inference: Inference,
        state: Any,
        validate: Data | Batch | Batches,
        batch_size: int,
        sharding: NamedSharding | None,
        check: Any = None,
    ):
        # Passes do not keep a stream alive; this object has to.
        self._validate, self._passes = validate, batches(validate, batch_size, sharding=sharding)
        self._check = None if self._passes.reader is None else check
        arrays, static = partition(inference.log_likelihoods)
        self._arrays = arrays if sharding is None else replicate(arrays, sharding.mesh)
        self._program = program(_total, static, self._arrays, *_point(state), next(iter(self._passes)))
        self._weight = float(self._passes.total_weight())

    def __call__(self, state: Any) -> float:
        """The score of ``state``, nats per example, each counted by its weight."""
        # Batches are dispatched one by one, not looped over in a program; see bayestl._dispatch.
        point = _point(state)
        totals = []
        for number, batch in enumerate(self._passes):
            if self._check is not None:
                targets, weights = self._passes.to_host((batch.targets, batch.weights))
                self._check(targets, weights, rows=number * self._passes.batch_size + np.arange(len(weights)))
            totals.append(self._program(self._arrays, *point, batch))
        self._check = None  # rows do not change
        return float(np.sum([np.asarray(total, np.float64) for total in totals])) / self._weight


def point_of(state: Any) -> Params:
    """One set of parameters of a method's state: where its chain or optimizer is, or the mean of its Gaussian."""
    return state.params if hasattr(state, "params") else state.mean


def _point(state: Any) -> tuple[Params, Any]:
    """The parameters that are scored, and the network's state there (None for that of the log joint)."""
    return point_of(state), getattr(state, "net_state", None)


def _total(static: Static, arrays: list[Any], params: Params, net_state: Any, batch: Batch) -> jax.Array:
    each = -static.combine(arrays)(params, batch._replace(weights=None), state=net_state)
    weights = jnp.asarray(batch.weights)
    return jnp.sum(jnp.where(weights > 0, each, 0) * weights)


def _is_floating(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)


def _shapes(inputs: dict[str, Any]) -> str:
    return ", ".join(f"{path}{': ' if path else ''}{x.shape[1:]}" for path, x in inputs.items())
