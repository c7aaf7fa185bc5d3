"""Families of one structure, of one target or several, on their way from scale to scale."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bayestl import _tree, infer
from bayestl._log_joint import LogJoint
from bayestl._static import partition
from bayestl._types import Batch, Key, Params
from bayestl.tune import _path_programs as programs
from bayestl.tune._criteria import Fitted
from bayestl.tune._family import Family
from bayestl.tune._rate import noise_bound

# How often a rate that diverged is made smaller before the path gives up.
_MOST_TRIES = 6


class Target(NamedTuple):
    """What one path is made of.

    Attributes:
        key: of the criterion, and of the learning rate's power iteration.
        joint: network and likelihood, of ``num_data`` examples, without a prior.
        families: of priors, F.
        batch: all examples.
        log_scales: (F, K).
        criterion: what is asked at every mode.
        subsets: weights of the examples in every fit, (1 + G, N): that of all data first.
    """

    key: Key
    joint: LogJoint
    families: tuple[Family, ...]
    batch: Batch
    log_scales: np.ndarray
    criterion: Any
    subsets: np.ndarray


class Member(NamedTuple):
    """One family of one target, both by their numbers."""

    target: int
    family: int


class PathRun:
    """Some families of some targets, with the states of all their fits: of all data first, then without each group.

    Several targets, whose examples differ, have batches and subsets with a leading axis, and each member the number of
    its own; with one target nothing is copied.
    """

    def __init__(self, targets: Sequence[Target], members: list[Member], rate: Any, batch_size: int | None = None):
        self.targets, self.members, self.joint = targets, members, targets[0].joint
        self.families = [targets[m.target].families[m.family] for m in members]
        self.keys = jnp.stack([targets[m.target].key for m in members])
        subsets = [jnp.asarray(target.subsets, jnp.float32) for target in targets]
        self.batch, self.subsets, self.which = targets[0].batch, subsets[0], None
        if len(targets) > 1:
            self.batch, self.subsets = programs.stacked([target.batch for target in targets]), jnp.stack(subsets)
            self.which = jnp.array([m.target for m in members])
        self.num_fits, num_examples = subsets[0].shape
        self.order = None if batch_size is None else _Order(targets[0].key, num_examples, batch_size)
        # Without weights the program is that of plain fits.
        if self.num_fits == 1 and self.batch.weights is None:
            self.subsets = None
        self.priors = programs.stacked([family.prior for family in self.families])
        means = [_tree.at_least_float32(family.prior.mean) for family in self.families]
        zero, moving = jnp.zeros((), jnp.result_type(float)), self.joint.moving_state
        each = [infer.ProximalMAPState(m, _tree.zeros_like(m), zero, moving, jnp.int32(0)) for m in means]
        self.states = jax.tree.map(lambda x: jnp.repeat(x[:, None], self.num_fits, 1), programs.stacked(each))
        self.likelihoods = [targets[m.target].joint.likelihood for m in members]
        self.given = rate
        self.slowest = jnp.full(len(members), jnp.inf if rate is None else rate, jnp.float32)
        self.one_by_one = programs.has_slow_loops(self.joint, self.families[0], targets[0].batch)
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
        likelihoods = programs.stacked(self.likelihoods)
        if self.given is None:
            modes = jax.tree.map(lambda x: x[:, 0], self.states.params)
            rates = programs.dispatched_rates if self.one_by_one else programs.rates
            # The curvature of a batch is on average larger than that of all examples: its rate errs on the safe side.
            rows, bound = None, None
            if self.order is not None:
                rows = self.order.rows(int(self.taken), 1)[0]
                bound = noise_bound(self.order.num_examples, self.order.batch_size, programs.MOMENTUM)
            members = (self.keys, likelihoods, modes, self.which)
            self.slowest = jnp.minimum(self.slowest, rates(static, arrays, members, self.batch, rows, bound))
        run = programs.one_by_one if self.one_by_one else programs.side_by_side
        rows = None if self.order is None else self.order.rows(int(self.taken), steps)
        count = 0
        for _ in range(_MOST_TRIES):
            common = (self.priors, jnp.asarray(scales, jnp.float32), self.slowest, likelihoods)
            given = (self.subsets, self.batch, self.which)
            states = run(static, arrays, common, self.states, *given, steps, rows)
            count += steps * self.num_fits * len(scales)
            finite = np.asarray(programs.finite(states.params))
            if finite.all():
                self.states, self.taken = states, self.taken + steps
                return count
            self.slowest = jnp.where(jnp.asarray(finite), self.slowest, 0.25 * self.slowest)
        raise ValueError(
            f"the steps of the path diverge at learning rates down to {float(self.slowest.min()):.2g}; scale the "
            "inputs to numbers near 1, or give a learning_rate"
        )

    def _learn(self, learn: Callable[[LogJoint, Params, Batch], Any], scales: np.ndarray) -> None:
        """Likelihoods anew, of every member by itself."""
        places = range(len(self.families))
        self.likelihoods = [
            learn(self.joint_of(place, scales), self.fitted(place).params, self.target_of(place).batch)
            for place in places
        ]

    def asked(self, number: int, scales: np.ndarray) -> list[tuple[Key, LogJoint, Fitted, Batch]]:
        """What a criterion is asked about each member at the scale of that number."""
        questions = []
        for place, member in enumerate(self.members):
            target = self.target_of(place)
            key = jax.random.fold_in(jax.random.fold_in(target.key, member.family), number)
            questions.append((key, self.joint_of(place, scales), self.fitted(place), target.batch))
        return questions

    def target_of(self, place: int) -> Target:
        """The target of one member."""
        return self.targets[self.members[place].target]

    @property
    def saved(self) -> Any:
        """All that changes from scale to scale."""
        return self.states, self.slowest, self.likelihoods, self.taken

    @saved.setter
    def saved(self, state: Any) -> None:
        self.states, self.slowest, self.likelihoods, self.taken = state

    def joint_of(self, place: int, scales: np.ndarray) -> LogJoint:
        """The log joint of one member at its scale, with the likelihood that it has learned."""
        prior = self.families[place].prior.rescale(float(scales[place]))
        return self.target_of(place).joint.replace(prior=prior, likelihood=self.likelihoods[place])

    def fitted(self, place: int) -> Fitted:
        """The fits of one member."""
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
