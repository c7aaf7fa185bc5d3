"""Modes under every scale of some priors, each from the one before, and what a criterion says of each."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bayestl._arguments import check_arguments, check_at_least
from bayestl._log_joint import LogJoint
from bayestl._types import Batch, Data, Key, Numbers, Params
from bayestl.passes import whole
from bayestl.tune._criteria import Criterion
from bayestl.tune._edges import edges
from bayestl.tune._family import Family
from bayestl.tune._left_out import LeftOut
from bayestl.tune._path_checkpoint import PathCheckpoint, describe_call
from bayestl.tune._path_run import Member, PathRun, Target
from bayestl.tune._remaining_gain import remaining_gain

# Nats per example that a fit still gains on its way to the mode, above which it is said to have stopped before it.
_NEGLIGIBLE_GAIN = 0.05


class Path(NamedTuple):
    """The modes of a path, and their scores. Made by :func:`path`.

    Attributes:
        families: of priors, F.
        log_scales: natural logarithms of the factor on each family's covariance, (F, K), ascending.
        params: one list per family of K trees on the host: the modes.
        scores: what the criterion said, (F, K, M): log predictive probabilities in nats of M examples.
        likelihoods: one list per family of K likelihoods: those that were given, or learned.
        steps: gradient steps that were taken, those of the criterion's own fits included.
        seconds: of all.
        left_out: the predictions behind ``scores``, with leading axes F and K; None where the criterion gives none.
        unfinished: which families have not come to the mode at their best scale, in words.
    """

    families: tuple[Family, ...]
    log_scales: np.ndarray
    params: tuple[list[Params], ...]
    scores: np.ndarray
    likelihoods: tuple[list[Any], ...]
    steps: int
    seconds: float
    left_out: LeftOut | None = None
    unfinished: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be known about the best scale of each family: that it is at an edge, or not at its mode."""
        return (*edges([family.name for family in self.families], self.curve), *self.unfinished)

    @property
    def choice(self) -> tuple[int, int]:
        """The numbers of the family and the scale that score best."""
        family, scale = np.unravel_index(int(np.argmax(self.curve)), self.curve.shape)
        return int(family), int(scale)

    @property
    def curve(self) -> np.ndarray:
        """Mean score of each family at each scale, nats per example, (F, K)."""
        return self.scores.mean(-1)

    @property
    def errors(self) -> np.ndarray:
        """Standard errors of :attr:`curve` over the examples, (F, K); 0 where there is but one."""
        count = self.scores.shape[-1]
        return self.scores.std(-1, ddof=1) / np.sqrt(count) if count > 1 else np.zeros(self.curve.shape)

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
    batch_size: int | None = None,
    learning_rate: float | None = None,
    learn: Callable[[LogJoint, Params, Batch], Any] | None = None,
    report: Callable[[str], None] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
) -> Path:
    """The mode under every scale of every family, from the smallest scale on, each where the one before ended.

    Proximal steps with heavy ball, whose momentum is kept from scale to scale. All families of one structure and all
    fits that the criterion asks for beside that of all data run side by side in one program.

    Args:
        key: of the criterion, and of the learning rate's power iteration.
        joint: network and likelihood; its prior is not used.
        families: priors that are open in their scale.
        data: in memory.
        log_scales: ascending natural logarithms of the factors on the covariances, (K,) for all families or (F, K).
        criterion: what is asked at every mode.
        steps: gradient steps at each scale.
        batch_size: examples that a step sees, the same ones for all fits; None for all, which is best for few.
        learning_rate: of the loss per datum; None for one over the largest curvature, found anew at every scale.
        learn: ``(joint with a prior, mode, batch) -> likelihood`` of the same structure, such as
            :func:`noise_by_evidence`: asked halfway through the steps of every scale, and at their end.
        report: takes a line of text after every scale.
        checkpoint: a folder for this call alone, written to after every scale. The same call goes on from there after
            an interruption, to the same bits.

    Returns:
        A :class:`Path`. It holds F K copies of the parameters on the host.

    Raises:
        ValueError: no family, scales that do not ascend, groups of another number of examples; steps that diverge
            however small the rate; a checkpoint of another call.
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
    target = target_of(key, joint, families, data, log_scales, criterion)
    return paths([target], steps, batch_size, learning_rate, learn, report, checkpoint)[0]


def target_of(
    key: Key, joint: LogJoint, families: Sequence[Family], data: Data | Batch, log_scales: Any, criterion: Criterion
) -> Target:
    """What a path is made of, checked."""
    batch = whole(data)
    families, log_scales = tuple(families), _checked_scales(log_scales, len(families))
    num = len(jax.tree.leaves(batch.inputs)[0])
    _check_groups(criterion.groups, num)
    # Each example counts as often as its weight says.
    size = num if batch.weights is None else float(np.sum(np.asarray(batch.weights, np.float64)))
    joint = joint.replace(prior=None, num_data=jnp.asarray(size, jnp.result_type(float)))
    joint.check(families[0].prior.mean, batch.inputs, batch.targets, batch.weights)
    subsets = _subsets(criterion.groups, num, batch.weights)
    return Target(key, joint, families, batch, log_scales, criterion, subsets)


def paths(
    targets: Sequence[Target],
    steps: int,
    batch_size: int | None,
    learning_rate: float | None,
    learn: Callable[[LogJoint, Params, Batch], Any] | None,
    report: Callable[[str], None] | None,
    checkpoint: str | os.PathLike[str] | None,
) -> list[Path]:
    """The path of every target, with all fits of all of them side by side."""
    check_at_least(1, steps=steps)
    began = time.perf_counter()
    num, num_scales = targets[0].subsets.shape[1], targets[0].log_scales.shape[1]
    if batch_size is not None and not 1 <= batch_size <= num:
        raise ValueError(f"batch_size is {batch_size}; give 1 to {num}, as many as there are examples, or None for all")
    logs = [_Log(target) for target in targets]
    count, file_number = 0, 0
    files = PathCheckpoint(checkpoint, lambda: describe_call(targets, steps, batch_size, learning_rate, learn))
    for members in _alike(targets):
        run = PathRun(targets, members, learning_rate, batch_size)
        for number in range(num_scales):
            scales = np.exp([targets[m.target].log_scales[m.family, number] for m in members])
            saved = files.restored(file_number, run.saved)
            if saved is None:
                count += run.advance(scales, steps, learn)
                questions = zip(members, run.asked(number, scales), strict=True)
                each = [_asked(targets[m.target].criterion, *question) for m, question in questions]
                files.save(file_number, run.saved, each, count)
            else:
                run.saved, each, count = saved
            file_number += 1
            for place, (member, predictions) in enumerate(zip(members, each, strict=True)):
                logs[member.target].add(member.family, predictions, run.likelihoods[place], run.fitted(place).params)
            if report is not None:
                names = ", ".join(dict.fromkeys(family.name for family in run.families))
                report(f"scale {number + 1} of {num_scales}: {names}; {count} steps")
    shares = [len(target.families) for target in targets]
    made = [log.path(count * share // sum(shares)) for log, share in zip(logs, shares, strict=True)]
    if batch_size is None:
        made = [
            one._replace(unfinished=_unfinished(t.joint, one, t.batch)) for one, t in zip(made, targets, strict=True)
        ]
    return [one._replace(seconds=time.perf_counter() - began) for one in made]


class _Log:
    """What has come of one target so far: for each family a list that grows from scale to scale."""

    def __init__(self, target: Target):
        self.target = target
        self.params: list[list[Params]] = [[] for _ in target.families]
        self.said: list[list[LeftOut]] = [[] for _ in target.families]
        self.learned: list[list[Any]] = [[] for _ in target.families]

    def add(self, family: int, said: LeftOut, likelihood: Any, params: Params) -> None:
        self.said[family].append(said)
        self.learned[family].append(likelihood)
        self.params[family].append(jax.tree.map(np.asarray, params))

    def path(self, steps: int) -> Path:
        scores = np.array([[one.log_probs for one in of_family] for of_family in self.said])
        families, log_scales = self.target.families, self.target.log_scales
        modes, learned = tuple(self.params), tuple(self.learned)
        return Path(families, log_scales, modes, scores, learned, steps, 0.0, _together(self.said))


def _asked(criterion: Any, *at: Any) -> LeftOut:
    """The criterion's predictions; where it has none, its scores alone, of no row."""
    if hasattr(criterion, "predictions"):
        return criterion.predictions(*at)
    scores = np.asarray(criterion(*at))
    return LeftOut(np.zeros(0, int), np.zeros((len(scores), 0)), None, scores)


def _together(said: list[list[LeftOut]]) -> LeftOut | None:
    """The predictions of every family and scale, leading axes (F, K)."""
    first = said[0][0]
    if not len(first.rows):
        return None

    def stacked(name: str) -> np.ndarray:
        return np.array([[getattr(one, name) for one in of_family] for of_family in said])

    deviations = None if first.deviations is None else stacked("deviations")
    return LeftOut(first.rows, stacked("outputs"), deviations, stacked("log_probs"))


def _unfinished(joint: LogJoint, path: Path, batch: Batch) -> tuple[str, ...]:
    """Which families have not come to the mode at their best scale."""
    notes, num = [], len(jax.tree.leaves(batch.inputs)[0])
    for number, family in enumerate(path.families):
        best = int(np.argmax(path.curve[number]))
        own = joint.replace(prior=path.prior(number, best), likelihood=path.likelihoods[number][best])
        gain = remaining_gain(own, jax.tree.map(jnp.asarray, path.params[number][best]), batch) / num
        if not gain < _NEGLIGIBLE_GAIN:
            notes.append(
                f"{family.name!r} has not come to its mode at its best scale: about {gain:.2g} nats per example are "
                "left to gain; what it predicts depends on where its steps end. More steps bring it nearer"
            )
    return tuple(notes)


def _subsets(groups: np.ndarray | None, num: int, given: Any) -> np.ndarray:
    """Weights of the examples in every fit, (1 + G, N): that of all data first."""
    weights = np.ones(num) if given is None else np.asarray(given, float)
    if groups is None or np.all(groups == 0):
        return weights[None]
    return np.stack([weights, *(np.where(groups == group, 0, weights) for group in range(groups.max() + 1))])


def _alike(targets: Sequence[Target]) -> list[list[Member]]:
    """The families whose priors have one structure and run in one program."""
    kinds: dict[Any, list[Member]] = {}
    for number, target in enumerate(targets):
        for place, family in enumerate(target.families):
            leaves, treedef = jax.tree.flatten(family.prior)
            kind = (treedef, tuple((jnp.shape(x), jnp.result_type(x)) for x in leaves))
            kinds.setdefault(kind, []).append(Member(number, place))
    return list(kinds.values())


def _checked_scales(log_scales: Any, num_families: int) -> np.ndarray:
    if num_families == 0:
        raise ValueError("families is empty; give at least one, such as tune.isotropic_family('source', params)")
    scales = np.asarray(log_scales, float)
    if scales.ndim == 1 or (scales.ndim == 2 and len(scales) == 1):
        scales = np.broadcast_to(scales, (num_families, scales.shape[-1]))
    is_of_families = scales.ndim == 2 and len(scales) == num_families and scales.shape[1] > 0
    if not is_of_families or not np.all(np.isfinite(scales)) or np.any(np.diff(scales) <= 0):
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
