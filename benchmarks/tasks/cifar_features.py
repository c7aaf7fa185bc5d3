"""CIFAR-10 as a frozen published ResNet-20 sees it, and priors for its last layer that the source task left behind.

The body's 64 features are computed once. What is learned is the last layer, 650 numbers: so that every run of a method,
all seeds and all settings, is one small program. The source task is CIFAR-10's training part, the target its test part
after JPEG compression. The published network has seen no JPEG; what is learned anew from the source, iterates and
curvature, comes from training pictures behind JPEG, the only ones at hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import bayestl as btl
from benchmarks.tasks import cifar_shift

POOL_PER_CLASS = 150
SOURCE_STEPS, SOURCE_RATE, EVERY, RANK = 3000, 0.1, 20, 20
# Share of the average variance that every direction keeps.
FLOOR = 0.1
CLEAN = "test"


class Features(NamedTuple):
    """What the body makes of pictures.

    Attributes:
        source: of the source's training part, with labels.
        pool: of the target, from which labels are given.
        tests: name to features of test pictures, as they are and corrupted.
        head: the published last layer.
    """

    source: Any
    pool: Any
    tests: dict[str, Any]
    head: btl.Net


def name_of(corruption: str, severity: int) -> str:
    """Of a corrupted test set, as ``metrics.evaluate`` calls them."""
    return f"shift/{corruption}-{severity}"


def features(
    data_dir: Path,
    cache: Path,
    *,
    per_class: tuple[int, int, int],
    corruptions: tuple[str, ...] = (),
    severities: tuple[int, ...] = (),
) -> Features:
    """Features of the source's pictures, of the pool and of the test pictures.

    Args:
        data_dir: holds the published network and the pictures.
        cache: where imported pictures are kept.
        per_class: pictures of each class: of the source, of the pool and for the test.
        corruptions: of the test pictures, each at each severity.
        severities: from 1 to 5.
    """
    body, tail = cifar_shift.source(cifar_shift.Config(blocks=1), data_dir)
    blocks, head = tail.split("pool")

    def seen(pictures: np.ndarray) -> np.ndarray:
        normalized = np.asarray(cifar_shift.NORMALIZE.apply(jnp.asarray(pictures)))
        return np.asarray(btl.data.precompute(blocks, btl.data.precompute(body, normalized)))

    num_source, num_pool, num_test = per_class
    shown, known = _pictures(data_dir, cache, "train", 0, num_source)
    tests, labels = _pictures(data_dir, cache, "test", 0, num_test)
    pool, pool_labels = _pictures(data_dir, cache, "test", num_test, num_pool)
    sets = {CLEAN: tests}
    for number, name in enumerate(corruptions):
        for severity in severities:
            # The same noise at every severity.
            transform = btl.data.corrupt(name, severity, maximum=255)
            sets[name_of(name, severity)] = np.asarray(transform.apply(jax.random.key(number), jnp.asarray(tests)))
    return Features(
        btl.data.arrays(seen(shown), known),
        btl.data.arrays(seen(pool), pool_labels),
        {name: btl.data.arrays(seen(pictures), labels) for name, pictures in sets.items()},
        btl.nets.from_nnx(head),
    )


def _pictures(data_dir: Path, cache: Path, root: str, first: int, per_class: int) -> tuple[np.ndarray, np.ndarray]:
    records = btl.data.folder(data_dir / cifar_shift.PICTURES, cache, root=root)
    # Records lie in order of class, equally many of each.
    rows = np.arange(len(records)).reshape(10, -1)[:, first : first + per_class].ravel()
    data = btl.data.load(records.take(rows), lambda r: (btl.data.decode_picture(r["image"]), r["label"]))
    return np.asarray(data.inputs), np.asarray(data.targets)


class Learned(NamedTuple):
    """A prior without its scale: ``prior(scale)`` has the average variance ``scale^2``.

    Attributes:
        gaussian: mean and shape, of average variance 1.
    """

    gaussian: Any

    def __call__(self, scale: Any) -> Any:
        return self.gaussian.rescale(scale**2)


def zero_mean(head: btl.Net) -> Learned:
    """Around zero."""
    return Learned(btl.gaussians.isotropic(btl.tree.zeros_like(head.params), 1.0))


def around(params: Any) -> Learned:
    """Around these weights, each as likely to move as any other."""
    return Learned(btl.sources.point(params, 1.0))


def with_shape(gaussian: Any) -> Learned:
    """A Gaussian with a floor on its variances, scaled to an average variance of 1."""
    average = sum(float(x.sum()) for x in jax.tree.leaves(gaussian.variance)) / btl.tree.size(gaussian.mean)
    return Learned(gaussian.inflate(FLOOR * average).rescale(1 / ((1 + FLOOR) * average)))


def from_iterates(head: btl.Net, source: Any) -> Learned:
    """Mean and low-rank shape of SGD's iterates on the source task, from the published weights on."""
    joint = btl.LogJoint(head, btl.likelihoods.categorical(), None, num_data=source.num_examples)
    collector = btl.sources.IterateCollector(keep=RANK, after=SOURCE_STEPS // 3)
    btl.fit(
        jax.random.key(11),
        btl.infer.map_estimate(joint, optax.sgd(SOURCE_RATE)),
        head.params,
        source,
        steps=SOURCE_STEPS,
        batch_size=min(64, source.num_examples),
        chunk_size=EVERY,
        callbacks=[collector],
        progress=False,
    )
    assert collector.iterates is not None
    return with_shape(btl.sources.from_iterates(collector.iterates, rank=RANK, eps=0.0))


def from_laplace(head: btl.Net, source: Any) -> Learned:
    """The published weights, with the variances of the source's own Laplace posterior of diagonal curvature."""
    wide = btl.sources.point(head.params, 1.0)
    joint = btl.LogJoint(head, btl.likelihoods.categorical(), wide, num_data=source.num_examples)
    curvature = btl.curvature.diagonal()
    return with_shape(btl.infer.laplace(jax.random.key(12), joint, head.params, source, curvature=curvature))
