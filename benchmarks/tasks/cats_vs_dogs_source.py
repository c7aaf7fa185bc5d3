"""What the source of the cats-against-dogs task leaves behind: published weights, and the shape of a prior around them.

There is one set of ImageNet weights, so the shape comes from pictures: CIFAR-10 enlarged, which is like the source's,
under a temporary head of ten classes; or the target's own photographs, without their labels.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from flax import nnx

import bayestl as btl
from benchmarks._fisher import fisher_diagonal
from benchmarks._published import NETWORKS, Network, published, stages
from benchmarks._tuning import HEAVY_BALL
from benchmarks.tasks.cats_vs_dogs_config import FISHER, FISHER_OF_TARGET, ITERATES, Config
from benchmarks.tasks.cats_vs_dogs_views import Features, Photographs, example

SOURCE_LIKE = "cifar10_jpeg.tar.gz"
RANK = 5
# A weight that the iterates never moved has at least this times the variance of an average one.
ITERATES_FLOOR = 0.1


class Source(NamedTuple):
    """What the published weights and some pictures say.

    Attributes:
        body: the stages that stay as they are.
        tail: the stages that are trained, with the published weights.
        fisher: diagonal Fisher information per picture like the source's, in the tree of the tail (and of a temporary
            head).
        fisher_of_target: the same per photograph of the target's training pool, whose labels nobody looks at.
        iterates: iterates of SGD on pictures like the source's, in that tree.
        seconds: how long all of it took.
    """

    body: btl.pretrained.Backbone
    tail: btl.pretrained.Backbone
    fisher: Any
    fisher_of_target: Any
    iterates: Any
    seconds: float


def source(config: Config, photos: Photographs, data_dir: Path, cache: Path, progress: bool) -> Source:
    """Published weights, and the shapes that a prior around them may have."""
    network = NETWORKS[config.network]
    body, tail = published(network, data_dir)
    if not {FISHER, FISHER_OF_TARGET, ITERATES} & set(config.methods):
        return Source(body, tail, None, None, None, 0.0)
    began = time.perf_counter()
    data = _source_like(config, body, data_dir, cache)
    head = nnx.Linear(network.channels, 10, rngs=nnx.Rngs(0))
    net = btl.nets.from_nnx(
        btl.pretrained.Backbone({**stages(tail), "pool": btl.pretrained.global_average, "head": head})
    )
    net = dataclasses.replace(net, params=_with_temporary_head(net, tail, data, progress))
    unlabelled = photos.pictures[photos.split.train]
    of_target = btl.data.arrays(_maps(network, body, unlabelled), np.zeros(len(unlabelled), int))
    return Source(
        body,
        tail,
        fisher_diagonal(net, data, jax.random.key(7)),
        fisher_diagonal(net, of_target, jax.random.key(11)),
        _iterates(net, data, config.source_epochs, progress),
        time.perf_counter() - began,
    )


def _maps(network: Network, body: Any, pictures: Any) -> np.ndarray:
    return btl.data.precompute(body, np.asarray(network.normalize.apply(pictures)))


def _source_like(config: Config, body: Any, data_dir: Path, cache: Path) -> Any:
    """CIFAR-10 enlarged, seen by the body: equally many pictures of each class, which lie in order of class."""
    records = btl.data.folder(data_dir / SOURCE_LIKE, cache, root="train")
    rows = np.linspace(0, len(records) - 1, config.source_pictures).astype(int)
    data = btl.data.load(records.take(rows), functools.partial(example, config.size))
    return btl.data.arrays(_maps(NETWORKS[config.network], body, data.inputs), data.targets)


def _with_temporary_head(net: btl.Net, tail: Any, data: Any, progress: bool) -> Any:
    """The published weights with a ten-class head that was trained on top of them."""
    features = btl.data.precompute(Features(tail), np.asarray(data.inputs))
    head = btl.nets.mlp(jax.random.key(0), (features.shape[-1], 10))
    prior = btl.gaussians.isotropic(btl.tree.zeros_like(head.params), 0.1)
    joint = btl.LogJoint(head, btl.likelihoods.categorical(), prior, num_data=data.num_examples)
    fitted = btl.fit(
        jax.random.key(6),
        btl.infer.map_estimate(joint, optax.sgd(0.03, momentum=HEAVY_BALL)),
        head.params,
        btl.data.arrays(features, data.targets),
        steps=500,
        batch_size=min(64, data.num_examples),
        progress=progress,
    )
    return btl.tree.restructure({**btl.tree.by_paths(net.params), **btl.tree.by_paths(fitted.params)}, net.params)


def _iterates(net: btl.Net, data: Any, epochs: int, progress: bool) -> Any:
    """Iterates of SGD around the published weights, once per epoch in the second half."""
    batch_size = min(64, data.num_examples)
    epoch = data.steps_per_epoch(batch_size)
    collector = btl.sources.IterateCollector(keep=RANK, after=epochs // 2 * epoch)
    joint = btl.LogJoint(net, btl.likelihoods.categorical(), None, num_data=data.num_examples)
    btl.fit(
        jax.random.key(2),
        btl.infer.map_estimate(joint, optax.sgd(0.01, momentum=HEAVY_BALL)),
        net.params,
        data,
        steps=epochs * epoch,
        batch_size=batch_size,
        chunk_size=epoch,
        callbacks=[collector],
        progress=progress,
    )
    return collector.iterates


def iterates_prior(iterates: Any, centre: Any, scale: Any) -> Any:
    """Around the published weights, the covariance of the iterates: scaled to ``scale^2`` on average, with a floor."""
    variances = btl.tree.select_where(iterates.variance, lambda path: not path.startswith("head/"))
    average = sum(x.sum() for x in jax.tree.leaves(variances)) / btl.tree.size(variances)
    prior = btl.sources.from_iterates(
        iterates, rank=RANK, covariance_scale=scale**2 / average, eps=ITERATES_FLOOR * scale**2
    )
    # Only the shape of the temporary network's posterior is used; its mean stays at the published weights.
    weights = {path: x for path, x in btl.tree.by_paths(centre).items() if not path.startswith("head/")}
    mean = btl.tree.restructure({**btl.tree.by_paths(prior.mean), **weights}, prior.mean)
    return prior.around(mean)
