"""The photographs of the cats-against-dogs task, and what a network and the parts of it see of them."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

import bayestl as btl
from benchmarks._published import NETWORKS
from benchmarks._tuning import View
from benchmarks.tasks.cats_vs_dogs_config import Config

PHOTOGRAPHS = "cats_vs_dogs.tar"
SPLIT_SEED = 2
AUGMENT = btl.data.affine(
    rotation=40, width_shift=0.2, height_shift=0.2, shear=0.2, zoom=0.2, horizontal_flip=True
)  # of the original recipe


class Photographs(NamedTuple):
    """The target's photographs.

    Attributes:
        pictures: (N, size, size, 3), bytes.
        labels: (N,), 1 for a dog.
        split: training pool, validation, test.
    """

    pictures: np.ndarray
    labels: np.ndarray
    split: Any


def photographs(config: Config, data_dir: Path, cache: Path) -> Photographs:
    """All photographs, resized, and their fixed split."""
    records = btl.data.folder(data_dir / PHOTOGRAPHS, cache)
    if config.per_class is not None:
        records = records.take(btl.data.few_shot(records.column("label"), config.per_class, SPLIT_SEED))
    data = btl.data.load(records, functools.partial(example, config.size))
    labels = np.asarray(data.targets)
    split = btl.data.split(
        labels,
        train_per_class=config.pool_per_class,
        validation_per_class=config.validation_per_class,
        seed=SPLIT_SEED,
    )
    return Photographs(np.asarray(data.inputs), labels, split)


def example(size: int, record: Any) -> tuple[np.ndarray, Any]:
    """A record as a picture of that size, and its label."""
    return btl.data.decode_picture(record["image"], (size, size)), record["label"]


class Features(nnx.Module):
    """The features of a tail: its last map averaged over the picture."""

    def __init__(self, tail: Any):
        self.tail = tail

    def __call__(self, x: jax.Array) -> jax.Array:
        return btl.pretrained.global_average(self.tail(x))


class Views(NamedTuple):
    """The photographs as pictures, as maps of the frozen body, and as features of body and tail."""

    pictures: View
    maps: View
    features: View


def views(config: Config, photos: Photographs, body: Any, tail: Any) -> Views:
    """All three, with augmented copies where the body is cached and augmentation in the step where it is not."""
    normalize = NETWORKS[config.network].normalize
    augment = btl.data.compose(AUGMENT, normalize)
    train, validation, test = (btl.data.arrays(photos.pictures[rows], photos.labels[rows]) for rows in photos.split)
    held_out = [data_of(normalize.apply(part.inputs), part) for part in (validation, test)]
    pictures = View(train, 1, *held_out, transform=augment)
    copies = [_augmented(augment, train, jax.random.key(8 + number)) for number in range(config.copies)]
    # Copies of one picture lie side by side.
    feature_maps = np.stack([btl.data.precompute(body, copy) for copy in copies], axis=1)
    feature_maps = feature_maps.reshape(-1, *feature_maps.shape[2:])
    pool = btl.data.arrays(feature_maps, np.repeat(np.asarray(train.targets), config.copies))
    held_out = [data_of(btl.data.precompute(body, np.asarray(part.inputs)), part) for part in held_out]
    feature_maps = View(pool, config.copies, *held_out)
    last = Features(tail)
    features = [data_of(btl.data.precompute(last, np.asarray(part.inputs)), part) for part in (pool, *held_out)]
    return Views(pictures, feature_maps, View(features[0], config.copies, *features[1:]))


def plain(config: Config, photos: Photographs, body: Any, tail: Any) -> tuple[Any, Any]:
    """The training pool without augmentation: as maps of the frozen body, and as features of body and tail."""
    rows = photos.split.train
    normalized = np.asarray(NETWORKS[config.network].normalize.apply(photos.pictures[rows]))
    maps = btl.data.precompute(body, normalized)
    features = btl.data.precompute(Features(tail), maps)
    return btl.data.arrays(maps, photos.labels[rows]), btl.data.arrays(features, photos.labels[rows])


def data_of(inputs: Any, like: Any) -> Any:
    """A data set with other inputs."""
    return btl.data.arrays(inputs, like.targets)


def _augmented(augment: Any, data: Any, key: Any) -> np.ndarray:
    """One augmented copy of every picture."""
    augment = jax.jit(augment)
    parts = []
    for number, rows in enumerate(np.array_split(np.arange(data.num_examples), -(-data.num_examples // 64))):
        parts.append(np.asarray(augment(jax.random.fold_in(key, number), data.gather(rows)).inputs))
    return np.concatenate(parts)
