"""Whether the source helped: held-out predictions with and without it, example by example, and the answer in words."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from bayestl import _tree
from bayestl._arguments import check_arguments
from bayestl._types import Key
from bayestl.transferability._bootstrap import bootstrap_means, expanded_interval

HELPS, UNCLEAR, HURTS = "helps", "no clear difference", "hurts"
# All differences of fewer than 6 examples have one sign with probability above 1/32 when there is no difference at all.
_FEWEST = 6


class Pair(NamedTuple):
    """Two candidates compared.

    Attributes:
        candidate: the one that is asked about.
        reference: what it is compared with.
        difference: mean held-out log predictive of the candidate minus that of the reference, nats per example.
        interval: bootstrap interval of the difference.
        outcome: of the candidate: "helps", "no clear difference" or "hurts", where it matters.
    """

    candidate: str
    reference: str
    difference: float
    interval: tuple[float, float]
    outcome: str


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether the source helped; printed, the answer in words and what to do.

    Attributes:
        text: the answer in words, with what to do.
        outcome: "helps", "no clear difference" or "hurts": of the chosen candidate against the baseline.
        difference: mean held-out log predictive of the chosen candidate minus that of the baseline, nats per example.
        interval: bootstrap interval of the difference.
        pairs: every pair of candidates; the first is the chosen one against the baseline.
        num_examples: N, the examples that were held out.
        level: of the intervals.
        margin: the smallest difference that matters, nats per example.
    """

    text: str
    outcome: str
    difference: float
    interval: tuple[float, float]
    pairs: tuple[Pair, ...]
    num_examples: int
    level: float
    margin: float

    def __str__(self) -> str:
        return self.text

    def table(self) -> str:
        """One line per pair: difference, interval, outcome."""
        names = [f"{pair.candidate} against {pair.reference}" for pair in self.pairs]
        width = max(map(len, names))
        lines = []
        for name, pair in zip(names, self.pairs, strict=True):
            low, high = pair.interval
            lines.append(f"{name:<{width}}  {pair.difference:+8.3f}  [{low:+8.3f}, {high:+8.3f}]  {pair.outcome}")
        return "\n".join(lines)


def verdict(
    key: Key,
    log_predictive: Mapping[str, Any],
    *,
    baseline: str = "from scratch",
    chosen: str = "transfer",
    margin: float = 0.02,
    num_bootstrap: int = 2000,
    level: float = 0.95,
) -> Verdict:
    """Whether a source helped: paired differences of held-out log predictives, with a bootstrap interval, in words.

    Examples differ far more from each other than candidates do, so the candidates are compared example by example. The
    source helps (hurts) where the interval of the mean difference lies above (below) 0, and the difference is at least
    ``margin``. A smaller one is none that matters, however sure: the text then says "helps, but by less than matters".

    The interval is about other examples like these, given this training set. It does not know how the numbers came
    about: where the chosen candidate was picked by the same held-out predictions, hold it against the baseline's best,
    picked in the same way.

    Args:
        key: randomness of the bootstrap.
        log_predictive: name to held-out log predictive of each training example, (N,), nats: what was predicted for it
            by a fit that had not seen it. The same examples in the same order for all.
        baseline: the candidate that knows nothing of the source.
        chosen: the candidate in question. Others (as "initialisation only") are compared with both.
        margin: the smallest difference that matters, nats per example, >= 0. The default, 0.02, is 2% more probability
            for what happens: about as much as a fit changes with its random seed, and too little to change a decision.
            With 0 every difference matters that is not chance.
        num_bootstrap: draws of N examples.
        level: of the intervals.

    Returns:
        A :class:`Verdict`.

    Raises:
        ValueError: a name that is not among the candidates, arrays that are not (N,) with one N, values that are not
            finite, a margin below 0.

    Reference:
        The interval is the expanded percentile interval of Hesterberg 2015.

    Example:
        >>> held_out = {"from scratch": np.log([0.4, 0.5, 0.3, 0.6, 0.2, 0.5, 0.4, 0.3]),
        ...             "transfer": np.log([0.8, 0.7, 0.6, 0.7, 0.5, 0.9, 0.6, 0.8])}
        >>> verdict = btl.transferability.verdict(jax.random.key(0), held_out)
        >>> print(verdict.outcome, round(verdict.difference, 3))
        helps 0.596
    """
    check_arguments(verdict, locals())
    values = _checked(log_predictive, baseline, chosen)
    if num_bootstrap < 100:
        raise ValueError(f"num_bootstrap is {num_bootstrap}; an interval needs at least 100 draws")
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; give a number between 0 and 1, such as 0.95")
    if not 0 <= margin < math.inf:
        raise ValueError(f"margin is {margin}; give the smallest difference that matters, in nats per example, from 0")
    others = [name for name in values if name not in (chosen, baseline)]
    names = [(chosen, baseline), *((chosen, other) for other in others), *((other, baseline) for other in others)]
    differences = np.stack([values[candidate] - values[reference] for candidate, reference in names])
    draws = bootstrap_means(key, differences, num_bootstrap)
    num = differences.shape[1]
    pairs = tuple(
        _pair(*pair, difference, draw, num, level, margin)
        for pair, difference, draw in zip(names, differences, draws, strict=True)
    )
    first = pairs[0]
    text = _words(pairs, len(others), num, level, margin)
    return Verdict(text, first.outcome, first.difference, first.interval, pairs, num, level, margin)


def _checked(log_predictive: Mapping[str, Any], baseline: str, chosen: str) -> dict[str, np.ndarray]:
    if not isinstance(log_predictive, Mapping):
        raise TypeError(
            f"log_predictive is a {type(log_predictive).__name__}; give a dict of candidate name to (N,) numbers"
        )
    for argument, name in (("baseline", baseline), ("chosen", chosen)):
        if name not in log_predictive:
            raise ValueError(
                f"{argument} is {name!r}, which is not in log_predictive; it holds {_tree.shown(list(log_predictive))}"
            )
    if baseline == chosen:
        raise ValueError(f"baseline and chosen are both {chosen!r}; name two candidates")
    values = {name: np.asarray(value, np.float64) for name, value in log_predictive.items()}
    shape = values[baseline].shape
    for name, value in values.items():
        if value.ndim != 1 or not value.size or value.shape != shape:
            raise ValueError(
                f"log_predictive[{name!r}] has shape {value.shape} and that of {baseline!r} {shape}; give one number "
                "per example, (N,), of the same N >= 1 examples in the same order"
            )
        bad = int(np.sum(~np.isfinite(value)))
        if bad:
            raise ValueError(
                f"log_predictive[{name!r}] has {bad} non-finite of {value.size} values; keep probabilities above 0 "
                "before the logarithm, as by np.clip(p, 1e-14, 1)"
            )
    return values


def _pair(
    candidate: str, reference: str, difference: np.ndarray, draws: np.ndarray, num: int, level: float, margin: float
) -> Pair:
    mean = float(np.mean(difference))
    if num < _FEWEST:
        return Pair(candidate, reference, mean, (-math.inf, math.inf), UNCLEAR)
    low, high = expanded_interval(draws, num, level)
    matters = abs(mean) >= margin
    outcome = HELPS if low > 0 and matters else HURTS if high < 0 and matters else UNCLEAR
    return Pair(candidate, reference, mean, (low, high), outcome)


def _words(pairs: tuple[Pair, ...], num_others: int, num: int, level: float, margin: float) -> str:
    first = pairs[0]
    low, high = first.interval
    amount = f"{abs(first.difference):.3g} nats per example"
    if math.isfinite(low):
        within = f"{level:.0%} interval {low:+.3g} to {high:+.3g}, {num} examples"
    else:
        within = f"{num} example{'s' if num > 1 else ''}"
    direction = "better" if first.difference > 0 else "worse"
    compared = f"held-out predictions of {first.candidate!r} are {amount} {direction} than those of {first.reference!r}"
    if first.outcome == HELPS:
        lines = [f"The source helps: {compared} ({within}). Keep it."]
    elif first.outcome == HURTS:
        lines = [
            f"The source hurts: {compared} ({within}). Use {first.reference!r}, or look for a better source with "
            "transferability.rank_sources; transferability.conflict shows which layers fight this one, and these can "
            "be given a wider prior or a mean of zero."
        ]
    elif num < _FEWEST:
        lines = [
            f"No clear difference: {compared} ({within}), and fewer than {_FEWEST} examples cannot tell. Decide by "
            "what you know of the source, or label more examples."
        ]
    elif low > 0 or high < 0:
        effect = "helps" if low > 0 else "hurts"
        lines = [
            f"The source {effect}, but by less than matters: {compared} ({within}), and what is below {margin:g} "
            "changes few decisions. Either will do."
        ]
    elif -margin < low and high < margin:
        lines = [f"No difference that matters: {compared} ({within}), less than {margin:g} either way. Either will do."]
    else:
        lines = [f"No clear difference: {compared} ({within}). Either will do. {_labels_needed(first, num, margin)}"]
    for with_other, alone in zip(pairs[1 : 1 + num_others], pairs[1 + num_others :], strict=True):
        lines.append(_about_another(first, with_other, alone))
    return "\n".join(lines)


def _labels_needed(pair: Pair, num: int, margin: float) -> str:
    """How many examples would tell, if the difference stayed what it is: its sign, or that it is below the margin."""
    half, size = 0.5 * (pair.interval[1] - pair.interval[0]), abs(pair.difference)
    if half == 0:
        return "They predict the same."
    # Whichever is nearer: an interval without 0, or one within the margin.
    needed = num * (half / max(size, margin - size)) ** 2
    if needed > 1e4:
        return "If they differ at all, it is by too little to matter."
    digits = max(0, math.floor(math.log10(needed)) - 1)
    labels = f"about {round(needed, -digits):.0f} labels"
    if size < margin - size:
        return f"To show that they differ by less than {margin:g} would need {labels}."
    return f"To tell them apart, a difference of this size would need {labels}."


def _about_another(first: Pair, with_other: Pair, alone: Pair) -> str:
    """One sentence on a third candidate, such as the source as initialisation only."""
    difference, (low, high) = with_other.difference, with_other.interval
    numbers = f"{difference:+.3g} nats per example, {low:+.3g} to {high:+.3g}"
    if with_other.outcome == HELPS:
        return f"{first.candidate!r} is better than {with_other.reference!r}, too ({numbers})."
    if with_other.outcome == HURTS:
        return f"But {with_other.reference!r} is better than {first.candidate!r} ({numbers}): use that."
    if alone.outcome == HELPS:
        return f"{with_other.reference!r} does about as well ({numbers}), and also better than {alone.reference!r}."
    return f"Against {with_other.reference!r} there is no clear difference ({numbers})."
