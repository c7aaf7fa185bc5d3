"""What the target's examples allow: which are left out together, and what is to be said about them."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bayestl import _tree, likelihoods
from bayestl._dispatch import loops_on_host
from bayestl._log_joint import LogJoint
from bayestl._types import Batch, Key, Outputs, Params
from bayestl.tune import Criterion, groups_by_class, k_fold, leave_out, random_groups

# Numbers a side of the matrices of the closed form: where they are larger, fits without each group are cheaper,
# even of networks that take one dispatch for each step.
_MOST_IN_CLOSED_FORM = 500
# Examples above which 5 groups do, instead of 10: sooner where each costs a fit. On digits with 100 examples 5 cost
# half as much as 10, and .005 +- .004 and .001 +- .001 nats (6 seeds of two targets).
_MANY_IN_CLOSED_FORM, _MANY_FITTED = 200, 50
# Parameters times examples from which on a path that sees all of them at every step is dear.
_LARGE = 5e7
# Operations of one pass over all examples from which on fits without each group take more than a minute or so on a CPU:
# ten times as many fits, three times that for a gradient, some 2,000 steps, at some 20 billion operations a second.
_MOST_ARITHMETIC = 3e7
# A second difference as small as this, relative to the first, comes from float32 alone.
_ROUNDING = 1e-3
_BATCH_SIZE = 64


class Plan(NamedTuple):
    """How a transfer judges its candidates.

    Attributes:
        criterion: what is asked at every mode.
        name: in words.
        notes: about the examples.
        is_untrained: whether all examples are left out together, so that the prior's mean predicts.
        batch_size: examples that a step of the path sees; None for all.
        num_scales: how many scales each family has by default.
    """

    criterion: Criterion
    name: str
    notes: tuple[str, ...]
    is_untrained: bool
    batch_size: int | None = None
    num_scales: int = 13


def plan_for(key: Key, joint: LogJoint, outputs: Outputs, batch: Batch, params: Params) -> Plan:
    """Groups by class for classes, random ones else; fits without each group, or the closed form where that will do.

    The closed form makes the network linear where all examples have brought it. It is exact where outputs are linear in
    the parameters. Elsewhere it leaves in what two layers have learned together of the example that is left out, and
    is too hopeful of wide priors; so it is used only where one fit without each group would be dear: for networks of
    much arithmetic, and for convolutions, whose fits do not run side by side on a CPU.

    Where parameters and examples are many, steps see batches, scales are fewer, and one group, a fifth of the examples,
    is left out: what is then scored is enough to tell scales apart.

    Raises:
        ValueError: real targets that are all the same, of which nothing can be learned; fewer than 2 examples.
    """
    num = len(jax.tree.leaves(batch.inputs)[0])
    if num < 2:
        raise ValueError(f"train has {num} example; at least 2 are needed, so that one can be left out")
    is_large = num * _tree.size(params) > _LARGE
    batch_size, num_scales = (_BATCH_SIZE if is_large and num >= 2 * _BATCH_SIZE else None), 7 if is_large else 13
    is_class = likelihoods.describe(joint.likelihood, outputs).is_class
    width = sum(x.size // len(x) for x in jax.tree.leaves(outputs))
    is_small = is_class and batch_size is None and num * width <= _MOST_IN_CLOSED_FORM
    is_closed = is_small and (_is_linear(key, joint, params, batch) or _is_dear(joint, params, batch))
    most = 10 if num <= (_MANY_IN_CLOSED_FORM if is_closed else _MANY_FITTED) else 5
    if is_class:
        labels = np.asarray(batch.targets)
        groups, notes = groups_by_class(labels, most), _about_classes(labels, max(width, 2))
    else:
        _check_varied(batch.targets)
        groups, notes = random_groups(key, num, most), ()
    if batch_size is not None:
        groups = np.where(groups == 0, 0, -1)
        name = f"A fifth of the examples, {int(np.sum(groups == 0))}, left out once and fitted again"
        return Plan(k_fold(groups), name, notes, False, batch_size, num_scales)
    if np.all(groups == 0):
        return Plan(leave_out(groups), "Predicted at the prior means: one example of each class", notes, True)
    size = f"{int(groups.max()) + 1} groups of {'examples of every class' if is_class else 'random examples'}"
    if is_closed:
        return Plan(leave_out(groups), f"Left out in closed form: {size}", notes, False, None, num_scales)
    return Plan(k_fold(groups), f"Left out and fitted again: {size}", notes, False, None, num_scales)


def _is_linear(key: Key, joint: LogJoint, params: Params, batch: Batch) -> bool:
    """Whether outputs are linear in the parameters, by second differences along a random line."""
    leaves, treedef = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    line = [jax.random.normal(k, x.shape, x.dtype) * (jnp.std(x) + 0.1) for k, x in zip(keys, leaves, strict=True)]

    def at(step: float) -> np.ndarray:
        moved = jax.tree.unflatten(treedef, [x + step * d for x, d in zip(leaves, line, strict=True)])
        outputs = jax.tree.leaves(joint.outputs(moved, batch.inputs)[0])
        return np.concatenate([np.asarray(x, np.float64).ravel() for x in outputs])

    before, middle, after = at(-1.0), at(0.0), at(1.0)
    return bool(np.max(np.abs(before - 2 * middle + after)) <= _ROUNDING * np.max(np.abs(after - before)))


def _is_dear(joint: LogJoint, params: Params, batch: Batch) -> bool:
    """Whether fits without each group would take minutes on a CPU; asked of every device, so that all judge alike."""

    def outputs(params: Params, inputs: Any) -> Outputs:
        return joint.outputs(params, inputs)[0]

    if loops_on_host(jax.make_jaxpr(outputs)(params, batch.inputs), "cpu"):
        return True
    cost: Any = jax.jit(outputs).lower(params, batch.inputs).cost_analysis()
    return (cost or {}).get("flops", 0.0) > _MOST_ARITHMETIC


def _about_classes(labels: np.ndarray, num_classes: int) -> tuple[str, ...]:
    """What there is to say about how many examples the classes have."""
    counts = np.bincount(labels, minlength=num_classes)
    notes = []
    absent, single = np.flatnonzero(counts == 0), np.flatnonzero(counts == 1)
    if len(absent):
        notes.append(
            f"there is no example of {_classes(absent)}: what is predicted of {_it(absent)} comes from the prior "
            "alone, and no criterion can tell whether it is right; label some, or leave the class out of the network"
        )
    if counts.max() == 1:
        notes.append(
            "there is one example of each class, so that leaving examples out leaves nothing: the families are "
            "weighed by what their means predict, and within each the scale is one at which outputs vary as a trained "
            "network's, not chosen by the data"
        )
    elif len(single):
        notes.append(
            f"{_classes(single)} {'has' if len(single) == 1 else 'have'} one example, which is never left out: how "
            f"well {_it(single)} {'is' if len(single) == 1 else 'are'} predicted is not known"
        )
    return tuple(notes)


def _classes(numbers: np.ndarray) -> str:
    shown = ", ".join(str(number) for number in numbers[:8]) + (", ..." if len(numbers) > 8 else "")
    return f"class {shown}" if len(numbers) == 1 else f"classes {shown}"


def _it(numbers: np.ndarray) -> str:
    return "it" if len(numbers) == 1 else "them"


def _check_varied(targets: Any) -> None:
    for leaf in jax.tree.leaves(targets):
        values = np.asarray(leaf, np.float64)
        if np.all(values == values[:1]):
            raise ValueError(
                f"the targets of all {len(values)} examples are the same, {values.ravel()[0]:.4g}: nothing can be "
                "learned from them, neither a noise nor a scale; look at how they were read"
            )
