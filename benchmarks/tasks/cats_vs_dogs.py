"""Cats against dogs, the Bayesian way: ImageNet weights, a new head, and a few labelled photographs.

Source: MobileNet's published ImageNet weights. Target: photographs of cats and dogs, a Bernoulli likelihood on one
logit. The body below a cut stays as it is and its feature maps are computed once; what is trained is the last block and
a new head. Fixed validation and test sets. There is one set of ImageNet weights, so the shape of a learned prior comes
from pictures like the source's: CIFAR-10 enlarged, classified by a temporary head.
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
from benchmarks._convs import as_products, forward, frozen
from benchmarks._fisher import fisher_diagonal, fisher_prior
from benchmarks._records import Rows, command_line, provenance
from benchmarks._tuning import BATCH_SIZE, HEAVY_BALL, Method, View, adam_vi, product, proximal, run_method, sgd

PHOTOGRAPHS = "cats_vs_dogs.tar"
SOURCE_LIKE = "cifar10_jpeg.tar.gz"
LINEAR, DENSE = "linear", "dense 256"
HIDDEN = {LINEAR: None, DENSE: 256}

SCRATCH, FROZEN, FROZEN_PRIOR = "from scratch", "frozen body", "frozen body, head prior"
RECIPE, INITIALISATION_ONLY = "fine-tuning, RMSprop 2e-5", "initialisation only"
ZERO_MEAN, L2_SP = "zero-mean prior", "L2-SP"
FISHER, ITERATES = "learned, Fisher", "learned, iterates"
BODY_VI, HEAD_VI = "L2-SP, mean-field VI", "head, mean-field VI"
METHODS = (
    SCRATCH,
    FROZEN,
    FROZEN_PRIOR,
    RECIPE,
    INITIALISATION_ONLY,
    ZERO_MEAN,
    L2_SP,
    FISHER,
    ITERATES,
    BODY_VI,
    HEAD_VI,
)

RANK = 5
NUM_DRAWS = 32
# Standard deviation of the head's prior where only the body's is chosen, and steps of the head's mode under it, from
# which all methods that train the tail start.
HEAD_SCALE, HEAD_STEPS, HEAD_RATE = 1.0, 300, 0.01
RECIPE_RATE, RECIPE_BATCH = 2e-5, 20
# A weight that the iterates never moved has at least this times the variance of an average one.
ITERATES_FLOOR = 0.1
AUGMENT = btl.data.affine(
    rotation=40, width_shift=0.2, height_shift=0.2, shear=0.2, zoom=0.2, horizontal_flip=True
)  # of the original recipe
NORMALIZE = btl.data.normalize(0.5, 0.5)
SPLIT_SEED = 0


class Network(NamedTuple):
    """A published network, and where it is cut.

    Attributes:
        make: key, cut -> backbone.
        table: names and layouts of the published weights.
        weights: file name in the data directory.
        cut: the last stage that stays as it is.
        end: the last stage that is used.
    """

    make: Any
    table: Any
    weights: str
    cut: str
    end: str


NETWORKS = {
    "mobilenet": Network(
        btl.pretrained.mobilenet,
        btl.pretrained.tables.MOBILENET,
        "mobilenet_1.0_224_imagenet_to_conv_pw_12.safetensors",
        cut="conv_pw_11",
        end="conv_pw_12",
    )
}


class Config(NamedTuple):
    """What is run.

    Attributes:
        network: one of ``NETWORKS``.
        methods: names of those that are run with the linear head.
        dense_methods: names of those that are run with the dense head.
        num_labels: labelled photographs, half of them cats.
        dense_at: the numbers of labels at which the dense head is run.
        seeds: number of seeds.
        steps: steps of a run on cached feature maps, after those of the head alone.
        copies: augmented copies of each photograph that are cached.
        scales: standard deviations among which the scale of a prior around the source is chosen; 300 times these
            for weights around zero (less takes the features apart), 100 times for a head.
        rates: learning rates among which every method chooses.
        recipe_at: numbers of labels at which the original recipe is run, always with the dense head.
        recipe_steps: its steps, each with augmentation and the whole network.
        scratch_at: numbers of labels at which the network from scratch is run.
        scratch_rates: its learning rates.
        scratch_steps: its steps; it is read at a third, two thirds and the end.
        size: height and width of the pictures.
        channels: features after the pooling.
        pool_per_class: training pool.
        validation_per_class: validation set; the rest is the test set.
        per_class: photographs of each class that are used at all; None for all.
        source_pictures: pictures of CIFAR-10 that give a learned prior its shape.
        source_epochs: passes over them whose iterates are collected in the second half.
    """

    network: str = "mobilenet"
    methods: tuple[str, ...] = METHODS
    dense_methods: tuple[str, ...] = METHODS
    num_labels: tuple[int, ...] = (20, 100, 500)
    dense_at: tuple[int, ...] = (20, 100, 500)
    seeds: int = 5
    steps: int = 400
    copies: int = 8
    scales: tuple[float, ...] = (0.001, 0.003, 0.01, 0.03)
    rates: tuple[float, ...] = (0.003, 0.01, 0.03)
    recipe_at: tuple[int, ...] = (100,)
    recipe_steps: int = 3000
    scratch_at: tuple[int, ...] = (20, 100, 500)
    scratch_rates: tuple[float, ...] = (0.0003, 0.001, 0.003, 0.01)
    scratch_steps: int = 1200
    size: int = 96
    channels: int = 1024
    pool_per_class: int = 310
    validation_per_class: int = 50
    per_class: int | None = None
    source_pictures: int = 5000
    source_epochs: int = 20


def demo(config: Config) -> Config:
    """A version for two cores: fewer seeds, steps and settings."""
    return config._replace(
        dense_methods=(FROZEN, FROZEN_PRIOR, HEAD_VI, L2_SP),
        dense_at=(100,),
        seeds=3,
        steps=100,
        copies=4,
        scales=(0.003, 0.01, 0.03, 0.1),
        rates=(0.02,),
        recipe_steps=300,
        scratch_at=(100,),
        scratch_rates=(0.001,),
        scratch_steps=60,
        source_pictures=1000,
        source_epochs=10,
    )


# What may differ between a run and an earlier one whose rows it takes up.
MAY_GROW = ("methods", "dense_methods", "num_labels", "dense_at", "recipe_at", "scratch_at")


def checked(config: Config) -> Config:
    """The configuration, when it can be run.

    Raises:
        SystemExit: an unknown method, or numbers that do not fit the photographs.
    """
    unknown = sorted(set(config.methods) - set(METHODS))
    if unknown:
        raise SystemExit(f"--methods has {', '.join(map(repr, unknown))}; there are {', '.join(map(repr, METHODS))}")
    if config.seeds < 1:
        raise SystemExit(f"--seeds is {config.seeds}; give at least 1")
    most = 2 * config.pool_per_class
    for n in config.num_labels:
        if n < 2 or n % 2 or n > most:
            raise SystemExit(f"--n has {n}; half of the photographs are cats: give even numbers from 2 to {most}")
    return config


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


class Source(NamedTuple):
    """What the published weights, and pictures like those they were trained on, say.

    Attributes:
        body: the stages that stay as they are.
        tail: the stages that are trained, with the published weights.
        fisher: diagonal Fisher information per picture, in the tree of the tail (and of a temporary head).
        iterates: iterates of SGD in that tree.
        seconds: how long both took.
    """

    body: btl.pretrained.Backbone
    tail: btl.pretrained.Backbone
    fisher: Any
    iterates: Any
    seconds: float


class Head(nnx.Module):
    """One logit per picture, (B,): linear, or with a hidden layer of ReLUs before it."""

    def __init__(self, key: Any, inputs: int, hidden: int | None):
        rngs = nnx.Rngs(params=key)
        self.dense = nnx.Linear(inputs, hidden, rngs=rngs) if hidden else None
        self.out = nnx.Linear(hidden or inputs, 1, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x if self.dense is None else nnx.relu(self.dense(x))
        return self.out(x)[..., 0]


def photographs(config: Config, data_dir: Path, cache: Path) -> Photographs:
    """All photographs, resized, and their fixed split."""
    records = btl.data.folder(data_dir / PHOTOGRAPHS, cache)
    if config.per_class is not None:
        records = records.take(btl.data.few_shot(records.column("label"), config.per_class, SPLIT_SEED))
    data = btl.data.load(records, functools.partial(_example, config.size))
    labels = np.asarray(data.targets)
    split = btl.data.split(
        labels,
        train_per_class=config.pool_per_class,
        validation_per_class=config.validation_per_class,
        seed=SPLIT_SEED,
    )
    return Photographs(np.asarray(data.inputs), labels, split)


def _example(size: int, record: Any) -> tuple[np.ndarray, Any]:
    return btl.data.decode_picture(record["image"], (size, size)), record["label"]


def published(config: Config, data_dir: Path) -> tuple[btl.pretrained.Backbone, btl.pretrained.Backbone]:
    """Body and tail with the published weights, convolutions written as products."""
    network = NETWORKS[config.network]
    skeleton = nnx.eval_shape(lambda: network.make(jax.random.key(0), cut=network.end))
    arrays = btl.pretrained.read(data_dir / network.weights).arrays
    net, _ = btl.pretrained.load(skeleton, arrays, network.table)
    net.eval()
    return as_products(net).split(network.cut)


def stages(backbone: Any) -> dict[str, Any]:
    """The stages of a backbone by name."""
    return {name: getattr(backbone, name) for name in backbone.stages}


def source(config: Config, data_dir: Path, cache: Path, progress: bool) -> Source:
    """Published weights, and the shape of a prior around them from pictures like the source's."""
    body, tail = published(config, data_dir)
    if not {FISHER, ITERATES} & set(config.methods):
        return Source(body, tail, None, None, 0.0)
    began = time.perf_counter()
    data = _source_like(config, body, data_dir, cache)
    channels = tail(data.inputs[:1]).shape[-1]
    head = nnx.Linear(channels, 10, rngs=nnx.Rngs(0))
    net = btl.nets.from_nnx(
        btl.pretrained.Backbone({**stages(tail), "pool": btl.pretrained.global_average, "head": head})
    )
    net = dataclasses.replace(net, params=_with_temporary_head(net, tail, data, progress))
    fisher = fisher_diagonal(net, data, jax.random.key(7))
    iterates = _iterates(net, data, config.source_epochs, progress)
    return Source(body, tail, fisher, iterates, time.perf_counter() - began)


def _source_like(config: Config, body: Any, data_dir: Path, cache: Path) -> Any:
    """CIFAR-10 enlarged, seen by the body: equally many pictures of each class, which lie in order of class."""
    records = btl.data.folder(data_dir / SOURCE_LIKE, cache, root="train")
    rows = np.linspace(0, len(records) - 1, config.source_pictures).astype(int)
    data = btl.data.load(records.take(rows), functools.partial(_example, config.size))
    maps = forward(body, np.asarray(NORMALIZE.apply(data.inputs)))
    return btl.data.arrays(maps, data.targets)


def _with_temporary_head(net: btl.Net, tail: Any, data: Any, progress: bool) -> Any:
    """The published weights with a ten-class head that was trained on top of them."""
    features = forward(Features(tail), np.asarray(data.inputs))
    head = btl.nets.mlp(jax.random.key(0), (features.shape[-1], 10))
    prior = btl.gaussians.isotropic(btl.tree.zeros_like(head.params), 0.1)
    joint = btl.LogJoint(head, btl.likelihoods.categorical(), prior, num_data=data.num_examples)
    fitted = btl.fit(
        btl.infer.map_estimate(joint, optax.sgd(0.03, momentum=HEAVY_BALL)),
        jax.random.key(6),
        head.params,
        btl.data.arrays(features, data.targets),
        steps=500,
        batch_size=min(64, data.num_examples),
        progress=progress,
    )
    return btl.tree.restructure({**btl.tree.by_paths(net.params), **btl.tree.by_paths(fitted.params)}, net.params)


class Features(nnx.Module):
    """The features of a tail: its last map averaged over the picture."""

    def __init__(self, tail: Any):
        self.tail = tail

    def __call__(self, x: jax.Array) -> jax.Array:
        return btl.pretrained.global_average(self.tail(x))


def _iterates(net: btl.Net, data: Any, epochs: int, progress: bool) -> Any:
    """Iterates of SGD around the published weights, once per epoch in the second half."""
    batch_size = min(64, data.num_examples)
    epoch = data.steps_per_epoch(batch_size)
    collector = btl.sources.IterateCollector(keep=RANK, after=epochs // 2 * epoch)
    joint = btl.LogJoint(net, btl.likelihoods.categorical(), None, num_data=data.num_examples)
    btl.fit(
        btl.infer.map_estimate(joint, optax.sgd(0.01, momentum=HEAVY_BALL)),
        jax.random.key(2),
        net.params,
        data,
        steps=epochs * epoch,
        batch_size=batch_size,
        chunk_size=epoch,
        callbacks=[collector],
        progress=progress,
    )
    return collector.iterates


class Views(NamedTuple):
    """The photographs as pictures, as maps of the frozen body, and as features of body and tail."""

    pictures: View
    maps: View
    features: View


def views(config: Config, photos: Photographs, found: Source) -> Views:
    """All three, with augmented copies where the body is cached and augmentation in the step where it is not."""
    train, validation, test = (btl.data.arrays(photos.pictures[rows], photos.labels[rows]) for rows in photos.split)
    held_out = [data_of(NORMALIZE.apply(part.inputs), part) for part in (validation, test)]
    pictures = View(train, 1, *held_out, transform=btl.data.compose(AUGMENT, NORMALIZE))
    copies = [_augmented(train, jax.random.key(8 + number)) for number in range(config.copies)]
    # Copies of one picture lie side by side.
    seen = np.stack([forward(found.body, copy) for copy in copies], axis=1)
    seen = seen.reshape(-1, *seen.shape[2:])
    pool = btl.data.arrays(seen, np.repeat(np.asarray(train.targets), config.copies))
    held_out = [data_of(forward(found.body, np.asarray(part.inputs)), part) for part in held_out]
    maps = View(pool, config.copies, *held_out)
    last = Features(found.tail)
    features = [data_of(forward(last, np.asarray(part.inputs)), part) for part in (pool, *held_out)]
    return Views(pictures, maps, View(features[0], config.copies, *features[1:]))


def data_of(inputs: Any, like: Any) -> Any:
    """A data set with other inputs."""
    return btl.data.arrays(inputs, like.targets)


def _augmented(data: Any, key: Any) -> np.ndarray:
    """One augmented copy of every picture."""
    augment = jax.jit(btl.data.compose(AUGMENT, NORMALIZE))
    parts = []
    for number, rows in enumerate(np.array_split(np.arange(data.num_examples), -(-data.num_examples // 64))):
        parts.append(np.asarray(augment(jax.random.fold_in(key, number), data.gather(rows)).inputs))
    return np.concatenate(parts)


def new_head(config: Config, hidden: int | None, seed: int) -> Head:
    """The head that the runs of one seed start from."""
    return Head(jax.random.fold_in(jax.random.key(4), seed), config.channels, hidden)


def head_net(config: Config, hidden: int | None, seed: int = 0) -> btl.Net:
    """The head alone, on features."""
    return btl.nets.from_nnx(btl.pretrained.Backbone({"head": new_head(config, hidden, seed)}))


def tail_net(config: Config, found: Source, hidden: int | None, seed: int = 0) -> btl.Net:
    """Tail and head, on maps of the body."""
    pool = {"pool": btl.pretrained.global_average, "head": new_head(config, hidden, seed)}
    return btl.nets.from_nnx(btl.pretrained.Backbone({**stages(found.tail), **pool}))


def whole_net(config: Config, found: Source, hidden: int | None, seed: int = 0) -> btl.Net:
    """Body, tail and head on pictures; the body is constant."""
    pool = {"pool": btl.pretrained.global_average, "head": new_head(config, hidden, seed)}
    return btl.nets.from_nnx(btl.pretrained.Backbone({**stages(frozen(found.body)), **stages(found.tail), **pool}))


def fresh_net(config: Config, hidden: int | None, seed: int = 0) -> btl.Net:
    """The same network from a random initialisation, all of it trained, its running statistics too."""
    network = NETWORKS[config.network]
    body = as_products(network.make(jax.random.fold_in(jax.random.key(9), seed), cut=network.end))
    for _, part in nnx.iter_modules(body):
        if isinstance(part, nnx.BatchNorm):
            part.momentum = 0.9  # the original's 0.99 would need more steps than a run has
    pool = {"pool": btl.pretrained.global_average, "head": new_head(config, hidden, seed)}
    return btl.nets.trained_state(btl.nets.from_nnx(btl.pretrained.Backbone({**stages(body), **pool})))


class Task(NamedTuple):
    """All that the methods of one head share.

    Attributes:
        config: what is run.
        source: what the source left behind.
        seen: the photographs.
        head: name of the head.
        places: of each seed's labelled photographs in the training pool.
    """

    config: Config
    source: Source
    seen: Views
    head: str
    places: Any

    @property
    def hidden(self) -> int | None:
        """Units of the head's hidden layer."""
        return HIDDEN[self.head]


def methods(task: Task) -> dict[str, Any]:
    """Name to function that makes the method; those of head and tail have equally many settings."""
    config = task.config
    scales, rates = np.array(config.scales), np.array(config.rates)
    around_source = product(scale=scales, learning_rate=rates)
    # Nothing holds these weights but small steps.
    around_zero = product(scale=300 * scales, learning_rate=rates / 5)
    of_head = product(scale=100 * scales, learning_rate=rates)
    # Without a prior: more learning rates, and two lengths of the run.
    flat = product(learning_rate=np.geomspace(rates[0] / 5, rates[-1] * 2, len(around_source["scale"]) // 2))
    for_vi = {**around_source, "learning_rate": around_source["learning_rate"] / 30}
    head_for_vi = {**of_head, "learning_rate": of_head["learning_rate"] / 5}
    centre = tail_net(config, task.source, task.hidden).params
    zeros, head_zeros = btl.tree.zeros_like(centre), btl.tree.zeros_like(head_net(config, task.hidden).params)
    l2_sp = functools.partial(btl.sources.point, centre)
    at_zero, head_at_zero = (functools.partial(btl.gaussians.isotropic, tree) for tree in (zeros, head_zeros))
    fisher, iterates = (
        functools.partial(prior, learned, centre)
        for prior, learned in ((fisher_prior, task.source.fisher), (iterates_prior, task.source.iterates))
    )

    def tail(body_prior: Any, infer: Any) -> Any:
        """The body's prior, with the chosen scale, beside that of the head."""

        def make(joint: btl.LogJoint, setting: Any) -> btl.Inference:
            blocks = {"head/**": btl.gaussians.isotropic(zeros, HEAD_SCALE), "**": body_prior(setting["scale"])}
            return infer(joint.replace(prior=btl.gaussians.by_path(blocks, like=centre)), setting)

        return make

    def alone(infer: Any) -> Any:
        def make(joint: btl.LogJoint, setting: Any) -> btl.Inference:
            return infer(joint.replace(prior=head_at_zero(setting["scale"])), setting)

        return make

    whole, parts = (config.steps,), (config.steps // 2, config.steps)
    # As many steps as the head has where the block is trained, too.
    head_steps = HEAD_STEPS + config.steps
    head_whole, head_parts = (head_steps,), (head_steps // 2, head_steps)
    return {
        SCRATCH: lambda: from_scratch(task),
        FROZEN: lambda: on_head(task, FROZEN, flat, sgd, head_parts),
        FROZEN_PRIOR: lambda: on_head(task, FROZEN_PRIOR, of_head, alone(proximal), head_whole),
        RECIPE: lambda: recipe(task),
        INITIALISATION_ONLY: lambda: on_tail(task, INITIALISATION_ONLY, flat, sgd, parts),
        ZERO_MEAN: lambda: on_tail(task, ZERO_MEAN, around_zero, tail(at_zero, proximal), whole),
        L2_SP: lambda: on_tail(task, L2_SP, around_source, tail(l2_sp, proximal), whole),
        FISHER: lambda: on_tail(task, FISHER, around_source, tail(fisher, proximal), whole),
        ITERATES: lambda: on_tail(task, ITERATES, around_source, tail(iterates, proximal), whole),
        BODY_VI: lambda: on_tail(task, BODY_VI, for_vi, tail(l2_sp, adam_vi), whole, NUM_DRAWS),
        HEAD_VI: lambda: on_head(task, HEAD_VI, head_for_vi, alone(adam_vi), head_whole, NUM_DRAWS),
    }


def on_head(task: Task, name: str, grid: Any, make: Any, read_at: Any, num_draws: int = 1) -> Method:
    """A method that trains the head on cached features."""

    def start(seed: int) -> Any:
        return head_net(task.config, task.hidden, seed).params

    return Method(name, task.seen.features, head_net(task.config, task.hidden), start, grid, make, read_at, num_draws)


def on_tail(task: Task, name: str, grid: Any, make: Any, read_at: Any, num_draws: int = 1) -> Method:
    """A method that trains tail and head on cached maps, from the published weights and the head's own mode."""

    def start(seed: int) -> Any:
        params = tail_net(task.config, task.source, task.hidden, seed).params
        head = head_mode(task, seed)
        return btl.tree.restructure({**btl.tree.by_paths(params), **btl.tree.by_paths(head)}, params)

    net = tail_net(task.config, task.source, task.hidden)
    return Method(name, task.seen.maps, net, start, grid, make, read_at, num_draws)


def head_mode(task: Task, seed: int) -> Any:
    """The mode of the head on features of the published weights (Kumar et al. 2022 start fine-tuning from it)."""
    net, places = head_net(task.config, task.hidden, seed), task.places[seed]
    prior = btl.gaussians.isotropic(btl.tree.zeros_like(net.params), HEAD_SCALE)
    joint = btl.LogJoint(net, btl.likelihoods.bernoulli(), prior, num_data=len(places))
    return btl.fit(
        btl.infer.proximal_map(joint, HEAD_RATE, momentum=HEAVY_BALL),
        jax.random.fold_in(jax.random.key(10), seed),
        net.params,
        task.seen.features.train(places),
        steps=HEAD_STEPS,
        batch_size=min(len(places), BATCH_SIZE),
        progress=False,
    ).params


def recipe(task: Task) -> Method:
    """The original: RMSprop at 2e-5 from a random head, augmentation in every step, no prior, nothing to choose."""
    config = task.config

    def start(seed: int) -> Any:
        return whole_net(config, task.source, task.hidden, seed).params

    def make(joint: btl.LogJoint, setting: Any) -> btl.Inference:
        return btl.infer.map_estimate(joint, optax.rmsprop(setting["learning_rate"], decay=0.9, eps=1e-7))

    net = whole_net(config, task.source, task.hidden)
    grid, read_at = product(learning_rate=(RECIPE_RATE,)), (config.recipe_steps,)
    return Method(
        RECIPE, task.seen.pictures, net, start, grid, make, read_at, 1, RECIPE_BATCH, vectorize=btl.sequentially
    )


def from_scratch(task: Task) -> Method:
    """All of the network from a random initialisation, running statistics too, augmentation in every step."""
    config = task.config

    def start(seed: int) -> Any:
        return fresh_net(config, task.hidden, seed).params

    def make(joint: btl.LogJoint, setting: Any) -> btl.Inference:
        return btl.infer.map_estimate(joint, optax.adam(setting["learning_rate"]))

    net, third = fresh_net(config, task.hidden), config.scratch_steps // 3
    grid, read_at = product(learning_rate=config.scratch_rates), (third, 2 * third, 3 * third)
    return Method(SCRATCH, task.seen.pictures, net, start, grid, make, read_at, vectorize=btl.sequentially)


def iterates_prior(iterates: Any, centre: Any, scale: Any) -> Any:
    """Around the published weights, the covariance of the iterates: scaled to ``scale^2`` on average, with a floor."""
    variances = btl.tree.select_where(iterates.variance(), lambda path: not path.startswith("head/"))
    average = sum(x.sum() for x in jax.tree.leaves(variances)) / btl.tree.size(variances)
    prior = btl.sources.from_iterates(iterates, rank=RANK, scale=scale**2 / average, eps=ITERATES_FLOOR * scale**2)
    # The shape is what is taken; a temporary head has no say in where the weights should lie.
    taken = {path: x for path, x in btl.tree.by_paths(centre).items() if not path.startswith("head/")}
    return dataclasses.replace(prior, mean=btl.tree.restructure({**btl.tree.by_paths(prior.mean), **taken}, prior.mean))


def cells(config: Config) -> list[tuple[int, str, str]]:
    """Number of labels, head, method, of all that is run."""
    found = []
    for n in config.num_labels:
        here = [name for name in METHODS if name in config.methods and (name != SCRATCH or n in config.scratch_at)]
        found.extend((n, LINEAR, name) for name in here if name != RECIPE)
        dense = config.dense_methods if n in config.dense_at else ()
        found.extend((n, DENSE, name) for name in here if name in dense and name != RECIPE)
        found.extend((n, DENSE, name) for name in here if name == RECIPE and n in config.recipe_at)
    return found


def run(config: Config, rows: Rows, data_dir: Path, cache: Path, progress: bool = True) -> Photographs:
    """Run what is missing in ``rows``: a cell is one method with one head at one number of labels, for all seeds."""
    photos, origin = photographs(config, data_dir, cache), provenance(command_line())
    wanted = cells(config)
    missing = [(n, head, name) for n, head, name in wanted if not rows.have(method=name, n=n, head=head)]
    if not missing:
        return photos
    print("features of the published network, and the shape of a prior around it", flush=True)
    found = source(config, data_dir, cache, progress)
    seen = views(config, photos, found)
    labels = photos.labels[photos.split.train]
    for number, (n, head, name) in enumerate(wanted, 1):
        print(f"[{number}/{len(wanted)}] {n} photographs, {head} head, {name}", flush=True)
        if (n, head, name) not in missing:
            continue
        places = [btl.data.few_shot(labels, n // 2, seed) for seed in range(config.seeds)]
        method = methods(Task(config, found, seen, head, places))[name]()
        shared = {"task": "cats_vs_dogs", "n": n, "head": head, "method": name}
        told = {"kappa": 1.0, "temperature": 1.0, "source_seconds": found.seconds, **origin}
        result = run_method(method, btl.likelihoods.bernoulli(), places, progress)
        rows.add([{**shared, **row, **told} for row in result])
    return photos
