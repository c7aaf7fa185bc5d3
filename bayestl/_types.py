"""The words the rest of the package is written in: parameters, keys, batches, networks, priors, posteriors."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np

Params = Any
"""Any pytree of floating-point arrays."""

Key = jax.Array
"""A JAX random key, as made by ``jax.random.key``."""

Scalar = jax.Array | float | int

Numbers = Any
"""An array of numbers, or nested lists of them."""

Arrays = Any
"""Any pytree of arrays."""

DType = Any
"""A dtype, or the name of one."""

Inputs = Any
"""Any pytree of arrays with a leading axis B: what a network is applied to."""

Targets = Any
"""An array (B, ...), or a pytree of such: what a likelihood gives probabilities of."""

Outputs = Any
"""What a network gives back, an array (B, ...) or a pytree of such; raw, never probabilities."""

NetState = Any
"""What a network carries beside its parameters, any pytree; ``()`` for nothing."""

State = Any
"""What a method carries from step to step, a pytree of its own kind."""

Selection = Any
"""A part of the parameters: path patterns, or the tree of the parameters with ``None`` at the leaves left out."""

Apply = Callable[[Params, Any, Any, Key | None], tuple[Any, Any]]
"""``(params, state, inputs, key) -> (outputs, state)``; raw outputs, never probabilities. ``key=None`` asks for the
deterministic network with its state left as it is."""


class Batch(NamedTuple):
    """Examples that are seen together.

    Attributes:
        inputs: any pytree whose leaves have a leading axis of length B.
        targets: array (B, ...), or a pytree of such.
        weights: None, or (B,) numbers of at least 0, how often each example counts: 1 for one that counts once, 0 for
            padding, 2 for one that counts as two rows would.
    """

    inputs: Inputs
    targets: Targets
    weights: jax.Array | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, repr=False)
class Net:
    """A network: how to apply it, the parameters it starts from, and the state it carries.

    Attributes:
        params: pytree of parameters, those that a prior is about.
        state: pytree of everything else that the network carries (running statistics); ``()`` when there is none.
        apply: ``(params, state, inputs, key) -> (outputs, state)``, static.
    """

    params: Params
    state: Any
    apply: Apply = dataclasses.field(metadata={"static": True})

    def __call__(self, params: Params, inputs: Inputs) -> Any:
        """Outputs at ``params``, deterministic, with the state frozen."""
        return self.apply(params, self.state, inputs, None)[0]

    def __repr__(self) -> str:
        params, state = jax.tree.leaves(self.params), jax.tree.leaves(self.state)
        size = sum(getattr(leaf, "size", 1) for leaf in params)
        return f"Net({size:,} parameters in {len(params)} arrays, a state of {len(state)} arrays)"


@runtime_checkable
class Prior(Protocol):
    """What a prior must offer. ``None`` stands for the flat prior wherever a prior is asked for."""

    def log_prob(self, params: Params) -> jax.Array: ...

    def sample(self, key: Key, num_samples: int) -> Params: ...


@runtime_checkable
class Posterior(Protocol):
    """What every inference method gives back. ``sample`` returns parameters with a leading axis of ``num_samples``."""

    def sample(self, key: Key, num_samples: int) -> Params: ...


class Likelihood(Protocol):
    """Raw outputs to a numpyro distribution over the targets, whose ``batch_shape`` is exactly (B,)."""

    def __call__(self, outputs: Outputs) -> Any: ...


class Window(Protocol):
    """The batches of some steps in a row, as a pytree that a compiled program takes.

    ``indices`` gives, for each step, what ``gather`` makes its batch from.
    """

    def indices(self, key: Key, step: Any, num_steps: int, batch_size: int) -> jax.Array: ...

    def gather(self, indices: jax.Array) -> Batch: ...


@runtime_checkable
class Data(Protocol):
    """A data set: how long it is, how it starts, the batches of a run, and its examples in their order.

    Held or read, a data set answers the same questions, and only ``resident`` tells which of the two it is. Loops over
    all examples are not its business: ``bayestl.passes`` makes them from ``resident`` and ``rows``.

    *For training.* ``batch`` is a pure function of ``(key, step)``, so a run can be resumed anywhere. ``max_steps`` is
    how many steps a window may hold, None for any number. ``open`` is a context that gives the function
    ``start -> Window`` of steps ``start, ..., start + num_steps - 1``; a data set on the device is its own window. Its
    key is that of the order, and ``sharding`` says how a batch lies on a mesh.
    """

    @property
    def num_examples(self) -> int:
        """N."""
        ...

    def first(self, num: int) -> Batch:
        """The first ``num`` examples, or all N where there are fewer: they show what all of them look like."""
        ...

    def resident(self) -> Batch | None:
        """All examples in their order, as arrays on the device; None where they are read and not held."""
        ...

    def rows(self, rows: np.ndarray) -> tuple[Any, Any]:
        """``(inputs, targets)`` of these rows, pytrees of numpy arrays (len(rows), ...): the same whenever asked."""
        ...

    def check_batch_size(self, batch_size: int) -> None:
        """Raise where ``batch_size`` is not in 1, ..., N."""
        ...

    def max_steps(self, batch_size: int) -> int | None:
        """How many steps a window may hold, None for any number."""
        ...

    def open(
        self, key: Key, batch_size: int, num_steps: int, sharding: Any = None, check: Callable[..., None] | None = None
    ) -> AbstractContextManager[Callable[[int], Window]]:
        """A context that gives the function from a first step to the window that starts there.

        ``check(targets, rows=...)`` raises on targets, numpy (n, ...), that do not fit; data that are read call it for
        all that they read.
        """
        ...

    def batch(self, key: Key, step: int, batch_size: int) -> Batch:
        """The batch of step ``step``."""
        ...


def _no_check(params: Params, inputs: Inputs, targets: Targets) -> None:
    """Nothing to check."""


class Inference(NamedTuple):
    """A method that streams over batches, in optax's rhythm: three functions and no hidden state.

    Attributes:
        init: ``(key, params) -> State``; checks its arguments, then starts.
        step: ``(key, state, batch) -> (State, Info)``; ``Info`` holds a scalar ``objective``, which is minimised.
        posterior: ``(state) -> Posterior``.
        check: ``(params, inputs, targets) -> check of further targets, or None``; raises on a start or a data set that
            does not fit. ``fit`` calls it once, before anything is compiled. What it returns is called with ``(targets,
            rows=their numbers)`` of every block that a stream reads, in another thread and with numpy arrays.
        log_likelihoods: ``(params, batch, state=the network's) -> (B,)``, nats, for the validation score of ``fit``;
            None for a method that cannot be scored. ``params`` are the ``params`` or the ``mean`` of its state.
    """

    init: Callable[[Key, Params], Any]
    step: Callable[[Key, Any, Batch], tuple[Any, Any]]
    posterior: Callable[[Any], Posterior]
    check: Callable[[Params, Any, Any], Any] = _no_check
    log_likelihoods: Callable[..., jax.Array] | None = None
