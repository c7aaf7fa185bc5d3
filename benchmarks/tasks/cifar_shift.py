"""CIFAR-10 behind JPEG compression, from a ResNet-20 that was trained without: confident, and often wrong.

Source: the published CIFAR-10 ResNet-20. Target: the same ten classes as JPEG pictures, with 1, 10 or 100 labels per
class. Fixed validation and test sets. The body up to the last blocks stays as it is, its maps are computed once.

All pictures are of CIFAR-10's test part: of the training part the source has seen the originals, and on those it is far
less wrong (NLL 0.57 in place of 0.89), so that labels from there would say little about the target.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import bayestl as btl
from bayestl.tune import product
from benchmarks._fisher import fisher_diagonal, fisher_prior
from benchmarks._records import Rows, command_line, provenance
from benchmarks._transfer_rows import run_transfer
from benchmarks._tuning import Method, View, adam_vi, proximal, run_fixed, run_method, sgd

PICTURES = "cifar10_jpeg.tar.gz"
WEIGHTS = "resnet20_cifar10.safetensors"
NORMALIZE = btl.data.normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

TRANSFER = "transfer, head"
SOURCE_AS_IS, TEMPERATURE = "source as it is", "temperature scaling"
HEAD, HEAD_VI = "head, L2-SP", "head, mean-field VI"
INITIALISATION_ONLY, L2_SP, BOTH = "initialisation only", "L2-SP", "L2-SP and temperature"
FISHER, BODY_VI = "learned, Fisher", "L2-SP, mean-field VI"
METHODS = (TRANSFER, SOURCE_AS_IS, TEMPERATURE, HEAD, HEAD_VI, INITIALISATION_ONLY, L2_SP, BOTH, FISHER, BODY_VI)

NUM_DRAWS = 32
SPLIT_SEED = 0
TEST_EVERY = 5


class Config(NamedTuple):
    """What is run.

    Attributes:
        methods: names of those that are run.
        num_labels: labels per class.
        seeds: number of seeds.
        steps: steps of every run.
        blocks: how many of the last three blocks are trained, 1 or 2.
        scales: standard deviations among which the scale of a prior around the source is chosen.
        rates: learning rates among which every method chooses.
        pool_per_class: training pool.
        validation_per_class: validation set.
        test_per_class: pictures of each class that are scored, of every fifth; None for all 200.
    """

    methods: tuple[str, ...] = METHODS
    num_labels: tuple[int, ...] = (1, 10, 100)
    seeds: int = 5
    steps: int = 500
    blocks: int = 2
    scales: tuple[float, ...] = (0.003, 0.01, 0.03, 0.1, 0.3)
    rates: tuple[float, ...] = (0.001, 0.003, 0.01)
    pool_per_class: int = 200
    validation_per_class: int = 20
    test_per_class: int | None = None


# What may differ between a run and an earlier one whose rows it takes up.
MAY_GROW = ("methods", "num_labels")


def demo(config: Config) -> Config:
    """A version for two cores: fewer steps and settings, one block."""
    return config._replace(steps=150, blocks=1, scales=(0.01, 0.03, 0.1, 0.3), rates=(0.003,))


def checked(config: Config) -> Config:
    """The configuration, when it can be run.

    Raises:
        SystemExit: an unknown method, or more labels than the pool has.
    """
    unknown = sorted(set(config.methods) - set(METHODS))
    if unknown:
        raise SystemExit(f"--methods has {', '.join(map(repr, unknown))}; there are {', '.join(map(repr, METHODS))}")
    if config.seeds < 1:
        raise SystemExit(f"--seeds is {config.seeds}; give at least 1")
    for n in config.num_labels:
        if not 1 <= n <= config.pool_per_class:
            raise SystemExit(f"--n has {n}; give labels per class from 1 to {config.pool_per_class}")
    return config


class Pictures(NamedTuple):
    """The target's pictures.

    Attributes:
        pictures: (N, 32, 32, 3), bytes.
        classes: (N,).
        names: of the classes.
        split: every fifth picture is for the test, the others are the training pool and for validation.
    """

    pictures: np.ndarray
    classes: np.ndarray
    names: tuple[str, ...]
    split: Any


class Views(NamedTuple):
    """The pictures as maps of the body, as features before the head, and as logits of the source."""

    maps: View
    features: View
    logits: View


def pictures(config: Config, data_dir: Path, cache: Path) -> Pictures:
    """The pictures that are used, and their fixed split."""
    records = btl.data.folder(data_dir / PICTURES, cache, root="test")
    names = tuple(records.features["label"].names)
    # Records lie in order of class, equally many of each.
    rows = np.arange(len(records)).reshape(len(names), -1)
    fifth = np.arange(rows.shape[1]) % TEST_EVERY == 0
    others = rows[:, ~fifth][:, : config.pool_per_class + config.validation_per_class]
    test = rows[:, fifth][:, : config.test_per_class]
    data = btl.data.load(records.take(np.concatenate([others.ravel(), test.ravel()])), _example)
    classes = np.asarray(data.targets)
    split = btl.data.split(
        classes,
        train_per_class=config.pool_per_class,
        validation_per_class=config.validation_per_class,
        seed=SPLIT_SEED,
        test=np.arange(others.size, len(classes)),
    )
    return Pictures(np.asarray(data.inputs), classes, names, split)


def _example(record: Any) -> tuple[np.ndarray, Any]:
    return btl.data.decode_picture(record["image"]), record["label"]


def source(config: Config, data_dir: Path) -> tuple[btl.pretrained.Backbone, btl.pretrained.Backbone]:
    """The published network as body and tail: the last blocks, pooling and head."""
    skeleton = nnx.eval_shape(lambda: btl.pretrained.cifar_resnet20(jax.random.key(0)))
    arrays = btl.pretrained.read(data_dir / WEIGHTS).arrays
    net: Any = btl.pretrained.load(skeleton, arrays, btl.pretrained.tables.CIFAR_RESNET20).net
    net.eval()
    stages: dict[str, Any] = {name: getattr(net, name) for name in ("stem", "layer1", "layer2")}
    stages |= {f"layer3_{number}": getattr(net.layer3, number) for number in net.layer3.names}
    stages |= {"pool": btl.pretrained.global_average, "head": net.head}
    body, tail = btl.pretrained.Backbone(stages).split(f"layer3_{2 - config.blocks}")
    # The body is run outside of loops, where such convolutions are faster as they are.
    return body, btl.pretrained.as_products(tail)


def views(shown: Pictures, body: Any, tail: Any) -> Views:
    """The pictures as maps, features and logits."""
    blocks, head = tail.split("pool")
    inputs = [np.asarray(NORMALIZE.apply(jnp.asarray(shown.pictures[rows]))) for rows in shown.split]
    three = []
    for module in (body, blocks, head):
        inputs = [btl.data.precompute(module, each) for each in inputs]
        parts = [btl.data.arrays(each, shown.classes[rows]) for each, rows in zip(inputs, shown.split, strict=True)]
        three.append(View(parts[0], 1, parts[1], parts[2]))
    return Views(*three)


class Temperature(nnx.Module):
    """Logits at a temperature that is learned, 1 at the start."""

    def __init__(self):
        self.log_temperature = nnx.Param(jnp.zeros(()))

    def __call__(self, logits: jax.Array) -> jax.Array:
        return logits * jnp.exp(-self.log_temperature[...])


def methods(config: Config, tail: Any, inputs: Views, fisher: Any) -> dict[str, Any]:
    """Name to function that makes the method; all have equally many settings."""
    scales, rates = np.array(config.scales), np.array(config.rates)
    whole, parts = (config.steps,), (config.steps // 2, config.steps)
    grid = product(scale=scales, learning_rate=rates)
    wide = {**grid, "scale": 10 * grid["scale"], "learning_rate": 10 * grid["learning_rate"]}
    for_vi = {**grid, "learning_rate": grid["learning_rate"] / 10}
    flat = product(learning_rate=np.geomspace(rates[0] / 10, rates[-1], len(grid["scale"]) // 2))
    nets = {
        "maps": btl.nets.from_nnx(tail),
        "features": btl.nets.from_nnx(tail.split("pool")[1]),
        "logits": btl.nets.from_nnx(Temperature()),
    }

    def method(
        name: str, view: str, settings: Any, infer: Any, prior: Any, num_draws: int = 1, at: Any = whole
    ) -> Method:
        net = nets[view]

        def make(joint: btl.LogJoint, setting: Any) -> btl.Inference:
            return infer(joint if prior is None else joint.replace(prior=prior(net.params, setting["scale"])), setting)

        return Method(name, getattr(inputs, view), net, lambda seed: net.params, settings, make, at, num_draws)

    def with_fisher(centre: Any, scale: Any) -> Any:
        blocks = {"head/**": btl.sources.point(centre, scale), "**": fisher_prior(fisher(), centre, scale)}
        return btl.gaussians.by_path(blocks, like=centre)

    def both() -> Method:
        """The last blocks and a temperature, with a standard normal prior on its logarithm."""
        stages = {stage: getattr(tail, stage) for stage in tail.stages}
        net = btl.nets.from_nnx(btl.pretrained.Backbone({**stages, "temperature": Temperature()}))

        def make(joint: btl.LogJoint, setting: Any) -> btl.Inference:
            log_temperature = btl.gaussians.isotropic(btl.tree.zeros_like(net.params), 1.0)
            blocks = {"temperature/**": log_temperature, "**": point(net.params, setting["scale"])}
            return proximal(joint.replace(prior=btl.gaussians.by_path(blocks, like=net.params)), setting)

        return Method(BOTH, inputs.maps, net, lambda seed: net.params, grid, make, whole)

    point = btl.sources.point
    return {
        TEMPERATURE: lambda: method(TEMPERATURE, "logits", wide, proximal, point),
        HEAD: lambda: method(HEAD, "features", wide, proximal, point),
        HEAD_VI: lambda: method(HEAD_VI, "features", wide, adam_vi, point, NUM_DRAWS),
        INITIALISATION_ONLY: lambda: method(INITIALISATION_ONLY, "maps", flat, sgd, None, at=parts),
        L2_SP: lambda: method(L2_SP, "maps", grid, proximal, point),
        BOTH: both,
        FISHER: lambda: method(FISHER, "maps", grid, proximal, with_fisher),
        BODY_VI: lambda: method(BODY_VI, "maps", for_vi, adam_vi, point, NUM_DRAWS),
    }


def run(config: Config, rows: Rows, data_dir: Path, cache: Path, progress: bool = True) -> Pictures:
    """Run what is missing in ``rows``: a cell is one method at one number of labels, for all seeds."""
    shown, origin = pictures(config, data_dir, cache), provenance(command_line())
    cells = [(n, name) for n in config.num_labels for name in METHODS if name in config.methods]
    missing = [(n, name) for n, name in cells if not rows.have(method=name, n=n)]
    if not missing:
        return shown
    body, tail = source(config, data_dir)
    inputs = views(shown, body, tail)
    fisher = functools.cache(lambda: fisher_diagonal(btl.nets.from_nnx(tail), inputs.maps.pool, jax.random.key(7)))
    made, likelihood = methods(config, tail, inputs, fisher), btl.likelihoods.categorical()
    pool = shown.classes[shown.split.train]
    for number, (n, name) in enumerate(cells, 1):
        print(f"[{number}/{len(cells)}] {n} labels per class, {name}", flush=True)
        if (n, name) not in missing:
            continue
        told = {"kappa": 1.0, "temperature": 1.0, **origin}
        if name == SOURCE_AS_IS:
            scored_rows = run_fixed(btl.nets.from_nnx(tail), likelihood, inputs.maps, config.seeds)
            rows.add([{"task": "cifar_shift", "n": n, "method": name, **_small(row), **told} for row in scored_rows])
            continue
        places = [btl.data.few_shot(pool, n, seed) for seed in range(config.seeds)]
        if name == TRANSFER:
            scored_rows = transfer_rows(tail, inputs, places)
        else:
            scored_rows = run_method(made[name](), likelihood, places, progress)
        rows.add([{"task": "cifar_shift", "n": n, "method": name, **_small(row), **told} for row in scored_rows])
    return shown


def transfer_rows(tail: Any, inputs: Views, places: list[np.ndarray]) -> list[dict[str, Any]]:
    """All in one call, of the head on features of the published body."""
    head = btl.nets.from_nnx(tail.split("pool")[1])
    view = inputs.features

    def fresh(seed: int) -> btl.Net:
        noise = jax.random.key(20 + seed)
        leaves = btl.tree.by_paths(head.params)
        new = {p: 0.125 * jax.random.normal(noise, x.shape, x.dtype) for p, x in leaves.items()}
        return dataclasses.replace(head, params=btl.tree.restructure(new, head.params))

    return run_transfer(fresh, head, btl.likelihoods.categorical(), view.pool, view.validation, view.test, places)


def _small(row: dict[str, Any]) -> dict[str, Any]:
    """Without the probabilities of all test pictures: 120 kB for each row, which no table and no figure reads."""
    return {name: value for name, value in row.items() if name != "probs"}
