"""Digits: the source, and its two targets with few labels."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import bayestl as btl
from benchmarks._tuning import HEAVY_BALL

SIZES = (64, 128, 64, 10)
LOW_RESOLUTION, INVERTED = "low resolution", "inverted contrast"
RANK = 5
VALIDATION_PER_CLASS = 10
SPLIT_SEED = 0


class Target(NamedTuple):
    """One target task.

    Attributes:
        name: its name.
        pool: all its examples.
        split: training pool, validation, test.
    """

    name: str
    pool: Any
    split: Any


class Source(NamedTuple):
    """What the source task left behind.

    Attributes:
        net: the network, with its trained parameters.
        iterates: the last iterates of SGD.
        seconds: how long it took.
    """

    net: btl.Net
    iterates: Any
    seconds: float


def halves() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Pictures (N, 8, 8) in [0, 1] and labels: the source's half and the target's."""
    from sklearn.datasets import load_digits

    rows, labels = load_digits(return_X_y=True)
    pictures, labels = (rows / 16).reshape(-1, 8, 8).astype(np.float32), np.asarray(labels, np.int32)
    middle = len(labels) // 2
    return (pictures[:middle], labels[:middle]), (pictures[middle:], labels[middle:])


def low_resolution(pictures: np.ndarray) -> np.ndarray:
    """Every 2x2 block replaced by its mean, still 8x8."""
    blocks = pictures.reshape(len(pictures), 4, 2, 4, 2).mean(axis=(2, 4))
    return blocks.repeat(2, axis=1).repeat(2, axis=2)


def targets() -> list[Target]:
    """Both targets, with the same split."""
    _, (pictures, labels) = halves()
    split = btl.data.split(labels, train_per_class=15, validation_per_class=VALIDATION_PER_CLASS, seed=SPLIT_SEED)
    views = {LOW_RESOLUTION: low_resolution(pictures), INVERTED: 1 - pictures}
    return [Target(name, btl.data.arrays(view, labels), split) for name, view in views.items()]


def train_source(progress: bool) -> Source:
    """The source network, from scratch by SGD, and its iterates once per epoch in the second half of the run.

    Learning rate and length were chosen by the source network's own NLL on unaltered validation pictures.
    """
    (pictures, labels), _ = halves()
    data = btl.data.arrays(pictures, labels)
    net = btl.nets.mlp(jax.random.key(1), SIZES)
    joint = btl.LogJoint(net, btl.likelihoods.categorical(), None, num_data=data.num_examples)
    epoch = data.steps_per_epoch(64)
    collector = btl.sources.IterateCollector(keep=RANK, after=20 * epoch)
    fitted = btl.fit(
        jax.random.key(2),
        btl.infer.map_estimate(joint, optax.sgd(0.01, momentum=HEAVY_BALL)),
        net.params,
        data,
        steps=40 * epoch,
        batch_size=64,
        chunk_size=epoch,
        callbacks=[collector],
        progress=progress,
    )
    return Source(dataclasses.replace(net, params=fitted.params), collector.iterates, fitted.seconds)


def head_net(source: Source) -> btl.Net:
    """The source's head alone, on the features of its body."""
    head = btl.nets.mlp(jax.random.key(0), SIZES[-2:])
    return dataclasses.replace(head, params={"head": source.net.params["head"]})


def features(task: Target, source: Source) -> Target:
    """The task with its pictures replaced by what the source's body makes of them."""
    identity = {"kernel": jnp.eye(SIZES[-2]), "bias": jnp.zeros(SIZES[-2])}
    features = source.net({**source.net.params, "head": identity}, task.pool.inputs)
    return task._replace(pool=btl.data.arrays(features, task.pool.targets))


def training_set(task: Target, num_labels: int, seed: int) -> Any:
    return task.pool.take(btl.data.few_shot(task.pool.targets, num_labels, seed, among=task.split.train))
