"""Paths of several targets at once: seeds, draws of the labels, or tasks of one shape."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from bayestl._arguments import check_arguments
from bayestl._log_joint import LogJoint
from bayestl._types import Batch, Data, Key, Numbers, Params
from bayestl.tune._criteria import Criterion
from bayestl.tune._family import Family
from bayestl.tune._path import Path, paths, target_of
from bayestl.tune._path_run import Target


def path_many(
    keys: Key,
    joint: LogJoint,
    families: Sequence[Sequence[Family]],
    data: Sequence[Data | Batch],
    log_scales: Sequence[Numbers],
    criteria: Sequence[Criterion],
    *,
    steps: int = 60,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    learn: Callable[[LogJoint, Params, Batch], Any] | None = None,
    report: Callable[[str], None] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
) -> tuple[Path, ...]:
    """:func:`path` for several targets in one program: seeds, draws of the labels, or tasks of one shape.

    Each path is what :func:`path` gives for its target alone, up to the order of sums; with ``batch_size`` the steps of
    all targets see the same rows, those of the first key. It is for devices that one target leaves idle: on two CPU
    cores ten draws of digits' labels took as long together as one after the other.

    Args:
        keys: (R,), one for each target.
        joint: network and likelihood of all; its prior is not used.
        families: of each target; those of one structure run side by side, over targets too.
        data: of each target, in memory; equally many examples of one shape.
        log_scales: of each target, (K,) or (its families, K), with one K for all.
        criteria: of each target, with equally many groups, since the fits without a group run side by side too.
        steps: gradient steps at each scale; this and what follows is as for :func:`path`.
        batch_size: examples that a step sees; None for all.
        learning_rate: of the loss per datum; None for one over the largest curvature of each family.
        learn: ``(joint with a prior, mode, batch) -> likelihood``, asked for each target and family.
        report: takes a line of text after every scale.
        checkpoint: a folder for this call alone, from which the same call goes on after an interruption.

    Returns:
        One :class:`Path` for each target; their ``seconds`` are those of all together.

    Raises:
        ValueError: no target, arguments of different lengths, targets that differ in shapes, numbers of scales or
            groups; and what :func:`path` raises.
        TypeError: data that are not in memory.

    Example:
        >>> net = btl.nets.from_function(lambda params, x: x @ params["w"], {"w": jnp.zeros(1)})
        >>> joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), None, num_data=2)
        >>> draws = [btl.Batch(jnp.ones((2, 1)), jnp.array(y)) for y in ([1.0, 3.0], [0.0, 1.0])]
        >>> family = btl.tune.isotropic_family("weight decay", net.params)
        >>> many = btl.tune.path_many(
        ...     jax.random.split(jax.random.key(0), 2), joint, [[family]] * 2, draws, [[-2.0, 0.0, 2.0]] * 2,
        ...     [btl.tune.leave_out([0, 1])] * 2,
        ... )
        >>> [[round(float(params["w"][0]), 2) for params in one.params[0]] for one in many]
        [[0.43, 1.33, 1.87], [0.11, 0.33, 0.47]]
    """
    check_arguments(path_many, locals())
    given = {
        "keys": len(keys),
        "families": len(families),
        "data": len(data),
        "log_scales": len(log_scales),
        "criteria": len(criteria),
    }
    if len(set(given.values())) > 1 or len(keys) == 0:
        counts = ", ".join(f"{count} {name}" for name, count in given.items())
        raise ValueError(f"there are {counts}; give each target one of each, and at least one target")
    each = zip(keys, families, data, log_scales, criteria, strict=True)
    targets = [target_of(k, joint, own, batch, scales, criterion) for k, own, batch, scales, criterion in each]
    for number, target in enumerate(targets):
        _check_alike(number, target, targets[0])
    return tuple(paths(targets, steps, batch_size, learning_rate, learn, report, checkpoint))


def _check_alike(number: int, target: Target, first: Target) -> None:
    """Raise unless both fit into one program."""
    for name, own, other in (
        ("data", _shapes(target.batch), _shapes(first.batch)),
        ("log_scales", target.log_scales.shape[1], first.log_scales.shape[1]),
        ("criteria", f"{len(target.subsets) - 1} groups", f"{len(first.subsets) - 1} groups"),
    ):
        if own != other:
            raise ValueError(
                f"{name}[{number}] has {own}, and {name}[0] {other}; targets of one program agree in these: give the "
                "others to tune.path one by one"
            )


def _shapes(batch: Batch) -> str:
    shapes = {name: [jnp.shape(x) for x in jax.tree.leaves(part)] for name, part in batch._asdict().items()}
    return ", ".join(f"{name} {' '.join(map(str, shape))}" for name, shape in shapes.items() if shape)
