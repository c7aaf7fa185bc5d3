"""Modes under every scale of some priors, each from the one before, and what a criterion says of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bayestl import _tree, infer
from bayestl._arguments import check_arguments
from bayestl._log_joint import LogJoint
from bayestl._static import Static, partition
from bayestl._types import Batch, Data, Key, Numbers, Params
from bayestl.infer import proximal_map
from bayestl.passes import whole
from bayestl.tune._criteria import Criterion, Fitted
from bayestl.tune._family import Family
from bayestl.tune._rate import safe_rate

MOMENTUM = 0.9
# How often a rate that diverged is halved before the path gives up.
_MOST_HALVINGS = 6


class Path(NamedTuple):
    """The modes of a path, and their scores. Made by :func:`path`.

    Attributes:
        families: of priors, F.
        log_scales: natural logarithms of the factor on each family's covariance, (F, K), ascending.
        params: one list per family of K trees on the host: the modes.
        scores: what the criterion said, (F, K, M): log predictive probabilities in nats of M examples.
        likelihoods: one list per family of K likelihoods: those that were given, or learned.
        steps: gradient steps over all data that were taken, those of the criterion's own fits included.
        seconds: of all.
    """

    families: tuple[Family, ...]
    log_scales: np.ndarray
    params: tuple[list[Params], ...]
    scores: np.ndarray
    likelihoods: tuple[list[Any], ...]
    steps: int
    seconds: float

    def prior(self, family: int, scale: int) -> Any:
        """The prior of one family at one scale."""
        return self.families[family].prior.rescale(float(np.exp(self.log_scales[family, scale])))


def path(
    key: Key,
    joint: LogJoint,
    families: Sequence[Family],
    data: Data | Batch,
    log_scales: Numbers,
    criterion: Criterion,
    *,
    steps: int = 60,
    learning_rate: float | None = None,
    learn: Callable[[LogJoint, Params, Batch], Any] | None = None,
    report: Callable[[str], None] | None = None,
) -> Path:
    """The mode under every scale of every family, from the smallest scale on, each where the one before ended.

    Full-batch proximal steps with heavy ball, whose momentum is kept from scale to scale. All families of one structure
    and all fits that the criterion asks for beside that of all data run side by side in one program.

    Args:
        key: of the criterion, and of the learning rate's power iteration.
        joint: network and likelihood; its prior is not used.
        families: priors that are open in their scale.
        data: in memory.
        log_scales: ascending natural logarithms of the factors on the covariances, (K,) for all families or (F, K).
        criterion: what is asked at every mode.
        steps: gradient steps at each scale.
        learning_rate: of the loss per datum; None for one over the largest curvature, found anew at every scale.
        learn: ``(joint with a prior, mode, batch) -> likelihood`` of the same structure, such as
            :func:`noise_by_evidence`: asked halfway through the steps of every scale, and at their end.
        report: takes a line of text after every scale.

    Returns:
        A :class:`Path`. It holds F K copies of the parameters on the host.

    Raises:
        ValueError: no family, scales that do not ascend, groups of another number of examples; steps that diverge
            however small the rate.
        TypeError: data that are not in memory.

    Example:
        >>> net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(1)})
        >>> joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), None, num_data=2)
        >>> batch = btl.Batch(jnp.ones((2, 1)), jnp.array([1.0, 3.0]))
        >>> family = btl.tune.isotropic_family("weight decay", net.params)
        >>> criterion = btl.tune.leave_out([0, 1])
        >>> result = btl.tune.path(jax.random.key(0), joint, [family], batch, [-2.0, 0.0, 2.0], criterion)
        >>> [round(float(params["w"][0]), 2) for params in result.params[0]]
        [0.43, 1.33, 1.87]
    """
    check_arguments(path, locals())
    began = time.perf_counter()
    batch = whole(data)
    families, log_scales = tuple(families), _checked_scales(log_scales, len(families))
    num = len(jax.tree.leaves(batch.inputs)[0])
    _check_groups(criterion.groups, num)
    joint = joint.replace(prior=None, num_data=jnp.asarray(num, jnp.result_type(float)))
    joint.check(families[0].prior.mean, batch.inputs, batch.targets, batch.weights)
    subsets = _subsets(criterion.groups, num, batch.weights)
    params: list[list[Params]] = [[] for _ in families]
    scores: list[list[np.ndarray]] = [[] for _ in families]
    learned: list[list[Any]] = [[] for _ in families]
    taken = 0
    for members in _alike(families):
        run = _Run(key, joint, [families[m] for m in members], batch, subsets, learning_rate)
        for number in range(log_scales.shape[1]):
            scales = np.exp(log_scales[members, number])
            if learn is None:
                taken += run.advance(scales, steps)
            else:
                for part in (steps - steps // 2, steps // 2):
                    taken += run.advance(scales, part)
                    run.learn(learn, scales)
            for place, member in enumerate(members):
                fitted = run.fitted(place)
                inner = jax.random.fold_in(jax.random.fold_in(key, member), number)
                at_scale = run.joint_of(place, scales)
                scores[member].append(criterion(inner, at_scale, fitted, batch))
                learned[member].append(at_scale.likelihood)
                params[member].append(jax.tree.map(np.asarray, fitted.params))
            if report is not None:
                names = ", ".join(families[m].name for m in members)
                report(f"scale {number + 1} of {log_scales.shape[1]}: {names}; {taken} steps")
    return Path(
        families, log_scales, tuple(params), np.array(scores), tuple(learned), taken, time.perf_counter() - began
    )


class _Run:
    """Families of one structure on their way from scale to scale."""

    def __init__(self, key: Key, joint: LogJoint, families: list[Family], batch: Batch, subsets: np.ndarray, rate: Any):
        self.key, self.joint, self.batch, self.families = key, joint, batch, families
        self.subsets = jnp.asarray(subsets, jnp.float32)
        self.priors = jax.tree.map(lambda *xs: jnp.stack(xs), *(family.prior for family in families))
        means = [_tree.at_least_float32(family.prior.mean) for family in families]
        each = [infer.ProximalMAPState(m, _tree.zeros_like(m), _zero(), joint.state, jnp.int32(0)) for m in means]
        stacked = jax.tree.map(lambda *xs: jnp.stack(xs), *each)
        self.states = jax.tree.map(lambda x: jnp.repeat(x[:, None], len(subsets), 1), stacked)
        self.likelihoods = [joint.likelihood] * len(families)
        self.given = rate
        self.slowest = jnp.full(len(families), jnp.inf if rate is None else rate, jnp.float32)

    def advance(self, scales: np.ndarray, steps: int) -> int:
        """To the modes at the next scales; how many steps that took."""
        arrays, static = partition(self.joint)
        likelihoods = jax.tree.map(lambda *xs: jnp.stack(xs), *self.likelihoods)
        if self.given is None:
            rates = _rates(static, arrays, self.key, likelihoods, self.states.params, self.batch)
            self.slowest = jnp.minimum(self.slowest, rates)
        taken = 0
        for _ in range(_MOST_HALVINGS):
            states = _run_scale(
                static,
                arrays,
                self.priors,
                jnp.asarray(scales, jnp.float32),
                self.slowest,
                likelihoods,
                self.states,
                self.subsets,
                self.batch,
                steps=steps,
            )
            taken += steps * self.subsets.shape[0] * len(scales)
            finite = np.asarray(_finite(states.params))
            if finite.all():
                self.states = states
                return taken
            self.slowest = jnp.where(jnp.asarray(finite), self.slowest, 0.25 * self.slowest)
        raise ValueError(
            f"the steps of the path diverge at learning rates down to {float(self.slowest.min()):.2g}; scale the "
            "inputs to numbers near 1, or give a learning_rate"
        )

    def learn(self, learn: Callable[[LogJoint, Params, Batch], Any], scales: np.ndarray) -> None:
        """Likelihoods anew, of every family by itself."""
        places = range(len(self.families))
        self.likelihoods = [
            learn(self.joint_of(place, scales), self.fitted(place).params, self.batch) for place in places
        ]

    def joint_of(self, place: int, scales: np.ndarray) -> LogJoint:
        """The log joint of one family at its scale, with the likelihood that it has learned."""
        prior = self.families[place].prior.rescale(float(scales[place]))
        return self.joint.replace(prior=prior, likelihood=self.likelihoods[place])

    def fitted(self, place: int) -> Fitted:
        """The fits of one family."""
        params = self.states.params
        return Fitted(jax.tree.map(lambda x: x[place, 0], params), jax.tree.map(lambda x: x[place, 1:], params))


@partial(jax.jit, static_argnums=0, static_argnames="steps")
def _run_scale(
    static: Static,
    arrays: list[Any],
    priors: Any,
    scales: jax.Array,
    rates: jax.Array,
    likelihoods: Any,
    states: Any,
    subsets: jax.Array,
    batch: Batch,
    *,
    steps: int,
) -> Any:
    """``steps`` steps of every family (leading axis F) on every subset of the examples (second axis)."""
    joint = static.combine(arrays)

    def one(prior: Any, scale: Any, rate: Any, likelihood: Any, state: Any, weights: jax.Array | None) -> Any:
        weights = None if subsets.shape[0] == 1 and batch.weights is None else weights
        num = joint.num_data if weights is None else jnp.sum(weights).astype(joint.num_data.dtype)
        own = joint.replace(prior=prior.rescale(scale), num_data=num, likelihood=likelihood)
        inference = proximal_map(own, rate, momentum=MOMENTUM)

        def body(state: Any, _: None) -> tuple[Any, None]:
            deterministic: Any = None
            state, _ = inference.step(deterministic, state, Batch(batch.inputs, batch.targets, weights))
            return state._replace(net_state=joint.state), None

        return jax.lax.scan(body, state, None, length=steps)[0]

    each = jax.vmap(one, (None, None, None, None, 0, 0))
    return jax.vmap(each, (0, 0, 0, 0, 0, None))(priors, scales, rates, likelihoods, states, subsets)


@partial(jax.jit, static_argnums=0)
def _rates(static: Static, arrays: list[Any], key: Key, likelihoods: Any, params: Params, batch: Batch) -> jax.Array:
    joint = static.combine(arrays)

    def one(pair: Any) -> jax.Array:
        likelihood, params = pair
        return safe_rate(key, joint.replace(likelihood=likelihood), params, batch)

    return jax.lax.map(one, (likelihoods, jax.tree.map(lambda x: x[:, 0], params)))


@jax.jit
def _finite(params: Params) -> jax.Array:
    """Which families (leading axis) are finite, (F,)."""
    checks = [jnp.all(jnp.isfinite(x).reshape(len(x), -1), 1) for x in jax.tree.leaves(params)]
    return jnp.all(jnp.stack(checks), 0)


def _zero() -> jax.Array:
    return jnp.zeros((), jnp.result_type(float))


def _subsets(groups: np.ndarray | None, num: int, given: Any) -> np.ndarray:
    """Weights of the examples in every fit, (1 + G, N): that of all data first."""
    weights = np.ones(num) if given is None else np.asarray(given, float)
    if groups is None or np.all(groups == 0):
        return weights[None]
    return np.stack([weights, *(np.where(groups == group, 0, weights) for group in range(groups.max() + 1))])


def _alike(families: Sequence[Family]) -> list[list[int]]:
    """Numbers of the families whose priors have one structure and run in one program."""
    kinds: dict[Any, list[int]] = {}
    for number, family in enumerate(families):
        leaves, treedef = jax.tree.flatten(family.prior)
        kinds.setdefault((treedef, tuple((jnp.shape(x), jnp.result_type(x)) for x in leaves)), []).append(number)
    return list(kinds.values())


def _checked_scales(log_scales: Any, num_families: int) -> np.ndarray:
    if num_families == 0:
        raise ValueError("families is empty; give at least one, such as tune.isotropic_family('source', params)")
    scales = np.asarray(log_scales, float)
    scales = np.broadcast_to(scales, (num_families, scales.shape[-1])) if scales.ndim else scales
    if scales.ndim != 2 or scales.shape[1] == 0 or not np.all(np.isfinite(scales)) or np.any(np.diff(scales) <= 0):
        raise ValueError(
            f"log_scales have shape {np.shape(log_scales)}; give natural logarithms of the factors on the covariances, "
            f"finite and ascending, (K,) for all families or ({num_families}, K)"
        )
    return scales


def _check_groups(groups: np.ndarray | None, num: int) -> None:
    if groups is not None and len(groups) != num:
        raise ValueError(
            f"the criterion has {len(groups)} group numbers and the data {num} examples; give one for each"
        )
