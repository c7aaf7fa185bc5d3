"""Families of one structure on their way from scale to scale: all fits side by side in one program, or one by one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayestl import _tree, infer
from bayestl._dispatch import loops_on_host
from bayestl._log_joint import LogJoint
from bayestl._static import Static, partition
from bayestl._types import Batch, Key, Params
from bayestl.infer import proximal_map
from bayestl.tune._criteria import Fitted
from bayestl.tune._family import Family
from bayestl.tune._rate import dispatched_safe_rate, noise_bound, safe_rate

MOMENTUM = 0.9
# How often a rate that diverged is made smaller before the path gives up.
_MOST_TRIES = 6


class PathRun:
    """Some families, with the states of all their fits: that of all data first, then those without each group."""

    def __init__(
        self,
        key: Key,
        joint: LogJoint,
        families: list[Family],
        batch: Batch,
        subsets: np.ndarray,
        rate: Any,
        batch_size: int | None = None,
    ):
        self.key, self.joint, self.batch, self.families = key, joint, batch, families
        self.order = None if batch_size is None else _Order(key, subsets.shape[1], batch_size)
        # Without weights the program is that of plain fits.
        self.subsets = None if len(subsets) == 1 and batch.weights is None else jnp.asarray(subsets, jnp.float32)
        self.num_fits = len(subsets)
        self.priors = _stacked([family.prior for family in families])
        means = [_tree.at_least_float32(family.prior.mean) for family in families]
        zero = jnp.zeros((), jnp.result_type(float))
        each = [infer.ProximalMAPState(m, _tree.zeros_like(m), zero, joint.moving_state, jnp.int32(0)) for m in means]
        self.states = jax.tree.map(lambda x: jnp.repeat(x[:, None], len(subsets), 1), _stacked(each))
        self.likelihoods = [joint.likelihood] * len(families)
        self.given = rate
        self.slowest = jnp.full(len(families), jnp.inf if rate is None else rate, jnp.float32)
        self.one_by_one = _has_slow_loops(joint, families[0], batch)
        self.taken = np.int64(0)

    def advance(self, scales: np.ndarray, steps: int, learn: Callable[[LogJoint, Params, Batch], Any] | None) -> int:
        """To the modes at the next scales, with likelihoods learned halfway and at the end; how many steps that took.

        Raises:
            ValueError: steps that diverge at every rate.
        """
        if learn is None:
            return self._advance(scales, steps)
        count = 0
        for part in (steps - steps // 2, steps // 2):
            count += self._advance(scales, part)
            self._learn(learn, scales)
        return count

    def _advance(self, scales: np.ndarray, steps: int) -> int:
        """Steps at these scales; how many.

        Raises:
            ValueError: steps that diverge at every rate.
        """
        arrays, static = partition(self.joint)
        likelihoods = _stacked(self.likelihoods)
        if self.given is None:
            modes = jax.tree.map(lambda x: x[:, 0], self.states.params)
            rates = _dispatched_rates if self.one_by_one else _rates
            # The curvature of a batch is on average larger than that of all examples: its rate errs on the safe side.
            part, bound = self.batch, None
            if self.order is not None:
                part = _rows(self.batch, self.order.rows(int(self.taken), 1)[0])
                bound = noise_bound(self.order.num_examples, self.order.batch_size, MOMENTUM)
            self.slowest = jnp.minimum(self.slowest, rates(static, arrays, self.key, likelihoods, modes, part, bound))
        run = _one_by_one if self.one_by_one else _side_by_side
        rows = None if self.order is None else self.order.rows(int(self.taken), steps)
        count = 0
        for _ in range(_MOST_TRIES):
            common = (self.priors, jnp.asarray(scales, jnp.float32), self.slowest, likelihoods)
            states = run(static, arrays, common, self.states, self.subsets, self.batch, steps, rows)
            count += steps * self.num_fits * len(scales)
            finite = np.asarray(_finite(states.params))
            if finite.all():
                self.states, self.taken = states, self.taken + steps
                return count
            self.slowest = jnp.where(jnp.asarray(finite), self.slowest, 0.25 * self.slowest)
        raise ValueError(
            f"the steps of the path diverge at learning rates down to {float(self.slowest.min()):.2g}; scale the "
            "inputs to numbers near 1, or give a learning_rate"
        )

    def _learn(self, learn: Callable[[LogJoint, Params, Batch], Any], scales: np.ndarray) -> None:
        """Likelihoods anew, of every family by itself."""
        places = range(len(self.families))
        self.likelihoods = [
            learn(self.joint_of(place, scales), self.fitted(place).params, self.batch) for place in places
        ]

    def asked(
        self, key: Key, members: list[int], number: int, scales: np.ndarray
    ) -> list[tuple[Key, LogJoint, Fitted, Batch]]:
        """What a criterion is asked about each family, whose numbers are ``members``, at the scale of that number."""
        keys = [jax.random.fold_in(jax.random.fold_in(key, member), number) for member in members]
        return [(k, self.joint_of(p, scales), self.fitted(p), self.batch) for p, k in enumerate(keys)]

    @property
    def saved(self) -> Any:
        """All that changes from scale to scale."""
        return self.states, self.slowest, self.likelihoods, self.taken

    @saved.setter
    def saved(self, state: Any) -> None:
        self.states, self.slowest, self.likelihoods, self.taken = state

    def joint_of(self, place: int, scales: np.ndarray) -> LogJoint:
        """The log joint of one family at its scale, with the likelihood that it has learned."""
        prior = self.families[place].prior.rescale(float(scales[place]))
        return self.joint.replace(prior=prior, likelihood=self.likelihoods[place])

    def fitted(self, place: int) -> Fitted:
        """The fits of one family."""
        params = self.states.params
        return Fitted(jax.tree.map(lambda x: x[place, 0], params), jax.tree.map(lambda x: x[place, 1:], params))


class _Order:
    """Which examples each step sees: all of them once in every epoch, in an order of its own."""

    def __init__(self, key: Key, num_examples: int, batch_size: int):
        self.words = [int(word) for word in np.asarray(jax.random.key_data(key)).ravel()]
        self.num_examples, self.batch_size = num_examples, batch_size

    def rows(self, first: int, num_steps: int) -> np.ndarray:
        """Of the steps from ``first`` on, (steps, B)."""
        begin, end = first * self.batch_size, (first + num_steps) * self.batch_size
        epochs = range(begin // self.num_examples, -(-end // self.num_examples))
        orders = [np.random.default_rng([*self.words, epoch]).permutation(self.num_examples) for epoch in epochs]
        start = begin - epochs[0] * self.num_examples
        return np.concatenate(orders)[start : start + end - begin].reshape(num_steps, -1).astype(np.int32)


def _rows(batch: Batch, rows: Any) -> Batch:
    return jax.tree.map(lambda x: jnp.asarray(x)[rows], batch)


def _step(joint: LogJoint, common: Any, state: Any, weights: jax.Array | None, batch: Batch, rows: Any) -> Any:
    """One step of one fit, which sees these rows of the examples; None for all."""
    prior, scale, rate, likelihood = common
    num = joint.num_data if weights is None else jnp.sum(weights).astype(joint.num_data.dtype)
    own = joint.replace(prior=prior.rescale(scale), num_data=num, likelihood=likelihood)
    deterministic: Any = None
    given = Batch(batch.inputs, batch.targets, weights)
    given = given if rows is None else _rows(given, rows)
    state, _ = proximal_map(own, rate, momentum=MOMENTUM).step(deterministic, state, given)
    return state._replace(net_state=joint.moving_state)


@partial(jax.jit, static_argnums=(0, 6))
def _side_by_side(
    static: Static,
    arrays: list[Any],
    common: Any,
    states: Any,
    subsets: jax.Array | None,
    batch: Batch,
    steps: int,
    rows: Any,
) -> Any:
    """``steps`` steps of every family (leading axis F) on every subset of the examples (second axis)."""
    joint = static.combine(arrays)

    def one(common: Any, state: Any, weights: jax.Array | None) -> Any:
        def body(state: Any, rows: Any) -> tuple[Any, None]:
            return _step(joint, common, state, weights, batch, rows), None

        return jax.lax.scan(body, state, rows, length=steps)[0]

    return jax.vmap(jax.vmap(one, (None, 0, 0)), (0, 0, None))(common, states, subsets)


def _one_by_one(
    static: Static,
    arrays: list[Any],
    common: Any,
    states: Any,
    subsets: jax.Array | None,
    batch: Batch,
    steps: int,
    rows: Any,
) -> Any:
    """The same by one dispatch per step and fit: on CPUs convolutions are slow inside of loops, and side by side."""
    num_families, num_fits = states.reach.shape

    def one(family: int, fit: int) -> Any:
        own = jax.tree.map(lambda x: x[family], common)
        state = jax.tree.map(lambda x: x[family, fit], states)
        for step in range(steps):
            at = None if rows is None else rows[step]
            state = _dispatched(static, arrays, own, state, None if subsets is None else subsets[fit], batch, at)
        return state

    return _stacked([_stacked([one(family, fit) for fit in range(num_fits)]) for family in range(num_families)])


@partial(jax.jit, static_argnums=0)
def _dispatched(
    static: Static, arrays: list[Any], common: Any, state: Any, weights: Any, batch: Batch, rows: Any
) -> Any:
    return _step(static.combine(arrays), common, state, weights, batch, rows)


def _has_slow_loops(joint: LogJoint, family: Family, batch: Batch) -> bool:
    return loops_on_host(jax.make_jaxpr(lambda params: joint.outputs(params, batch.inputs)[0])(family.prior.mean))


@partial(jax.jit, static_argnums=(0, 6))
def _rates(
    static: Static,
    arrays: list[Any],
    key: Key,
    likelihoods: Any,
    params: Params,
    batch: Batch,
    per_trace: float | None,
) -> jax.Array:
    joint = static.combine(arrays)

    def one(pair: Any) -> jax.Array:
        likelihood, params = pair
        return safe_rate(key, joint.replace(likelihood=likelihood), params, batch, per_trace)

    return jax.lax.map(one, (likelihoods, params))


def _dispatched_rates(
    static: Static,
    arrays: list[Any],
    key: Key,
    likelihoods: Any,
    params: Params,
    batch: Batch,
    per_trace: float | None,
) -> jax.Array:
    num_families = len(jax.tree.leaves(params)[0])
    each = [jax.tree.map(lambda x, n=number: x[n], (likelihoods, params)) for number in range(num_families)]
    return jnp.stack([dispatched_safe_rate(static, arrays, key, one, at, batch, per_trace) for one, at in each])


@jax.jit
def _finite(params: Params) -> jax.Array:
    """Which families (leading axis) are finite, (F,)."""
    checks = [jnp.all(jnp.isfinite(x).reshape(len(x), -1), 1) for x in jax.tree.leaves(params)]
    return jnp.all(jnp.stack(checks), 0)


def _stacked(trees: list[Any]) -> Any:
    return jax.tree.map(lambda *xs: jnp.stack(xs), *trees)
