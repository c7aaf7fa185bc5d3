"""What a learned prior adds to few labels, in the shape of Harvey, Petrov and Hughes (2024).

Ten classes, n labels in all, the mode under a zero-mean prior, under a learned mean, and under a learned mean and
covariance; hyperparameters by a fifth of the n labels, then one run with all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import bayestl as btl
from benchmarks._held_out import Search, search
from benchmarks._records import Rows, command_line, provenance
from benchmarks.tasks import cifar_features as pictures
from benchmarks.tasks.cifar_features import Features, Learned

NUM_CLASSES = 10
RATE = 0.03
SOURCE_AS_IS = "source as it is"
ZERO_MEAN, ISOTROPIC = "zero mean, isotropic", "learned mean, isotropic"
# The mean of SGD's iterates without their covariance: what the low-rank prior is to be held against.
ITERATES = "mean of iterates, isotropic"
LOW_RANK, DIAGONAL = "learned mean and low-rank covariance", "learned mean and variances"
PRIORS = (ZERO_MEAN, ISOTROPIC, ITERATES, LOW_RANK, DIAGONAL)
METHODS = (SOURCE_AS_IS, *PRIORS)
SCORES = ("accuracy", "nll", "brier", "ece")


class Config(NamedTuple):
    """What is run.

    Attributes:
        num_labels: in all, a multiple of ten.
        seeds: number of seeds.
        scales: standard deviations of the prior, on average over parameters, among which held-out labels choose.
        steps: gradient steps of one run.
        batch_size: examples per step, or all where there are fewer.
        per_class: pictures of each class: of the source, of the pool and for the test.
    """

    num_labels: tuple[int, ...] = (10, 30, 100, 300, 1000)
    seeds: int = 5
    scales: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
    steps: int = 300
    batch_size: int = 100
    per_class: tuple[int, int, int] = (200, pictures.POOL_PER_CLASS, 200)


# What may differ between a run and an earlier one whose rows it takes up.
MAY_GROW = ("num_labels", "seeds")


def demo(config: Config) -> Config:
    """A version of a minute or two."""
    return config._replace(
        num_labels=(10, 100), scales=(0.03, 0.1, 0.3, 1.0), steps=200, per_class=(50, pictures.POOL_PER_CLASS, 50)
    )


def checked(config: Config) -> Config:
    """The configuration, when it can be run.

    Raises:
        SystemExit: numbers of labels that are no multiples of ten, or more than the pool has; no seeds.
    """
    largest = NUM_CLASSES * config.per_class[1]
    for n in config.num_labels:
        if n % NUM_CLASSES or not NUM_CLASSES <= n <= largest:
            raise SystemExit(f"--n has {n}; give labels in all, a multiple of {NUM_CLASSES} up to {largest}")
    if config.seeds < 1:
        raise SystemExit(f"--seeds is {config.seeds}; give at least 1")
    return config


def priors(features: Features) -> dict[str, Learned]:
    """Name to prior without its scale."""
    low_rank = pictures.from_iterates(features.head, features.source)
    return {
        ZERO_MEAN: pictures.zero_mean(features.head),
        ISOTROPIC: pictures.around(features.head.params),
        ITERATES: pictures.around(low_rank.gaussian.mean),
        LOW_RANK: low_rank,
        DIAGONAL: pictures.from_laplace(features.head, features.source),
    }


class Labels(NamedTuple):
    """The labelled examples of each seed.

    Attributes:
        train: all of them.
        places: rows that are fitted while settings are chosen, and the fifth that chooses.
    """

    train: list[Any]
    places: list[tuple[np.ndarray, np.ndarray]]


def labelled(features: Features, num_labels: int, seeds: list[int]) -> Labels:
    """Equally many labels of each class, larger sets holding the smaller ones."""
    per_class = num_labels // NUM_CLASSES
    train = [features.pool.take(btl.data.few_shot(features.pool.targets, per_class, seed)) for seed in seeds]
    orders = [np.random.default_rng(100 + seed).permutation(num_labels) for seed in seeds]
    return Labels(train, [(order[num_labels // 5 :], order[: num_labels // 5]) for order in orders])


def joint_of(head: btl.Net, prior: Any, num_data: int) -> btl.LogJoint:
    """The log joint of the last layer."""
    return btl.LogJoint(head, btl.likelihoods.categorical(), prior, num_data=num_data)


def modes(
    head: btl.Net,
    make: Callable[[int, Any], btl.Inference],
    settings: dict[str, np.ndarray],
    start: Any,
    labels: Labels,
    seeds: list[int],
    steps: int,
    batch_size: int,
) -> Search:
    """The chosen setting of each seed, and the mode on all of its labels."""

    @jax.jit
    def nll(posterior: Any, inputs: jax.Array, targets: jax.Array) -> jax.Array:
        predict = btl.predict.monte_carlo(jax.random.key(0), joint_of(head, None, 1), posterior)
        return btl.metrics.nll(predict(inputs), targets)

    keys = jnp.stack([jax.random.fold_in(jax.random.key(3), seed) for seed in seeds])
    starts = [[start for _ in seeds]]
    return search(keys, make, settings, starts, labels.train, labels.places, nll, steps=steps, batch_size=batch_size)


def under(head: btl.Net, prior: Learned, steps: int) -> Callable[[int, Any], btl.Inference]:
    """The mode under a prior, by Adam with a rate that falls to zero."""

    def make(num_data: int, setting: Any) -> btl.Inference:
        joint = joint_of(head, prior(setting["scale"]), num_data)
        return btl.infer.map_estimate(joint, optax.adam(optax.cosine_decay_schedule(RATE, steps)))

    return make


def run(config: Config, rows: Rows, data_dir: Path, cache: Path) -> None:
    """Run what is missing in ``rows``: one prior at one number of labels, for all seeds side by side."""
    cells = [(n, name) for n in config.num_labels for name in METHODS]
    seeds = list(range(config.seeds))
    missing = [(n, m) for n, m in cells if not all(rows.have(n=n, method=m, seed=seed) for seed in seeds)]
    if not missing:
        return
    origin = provenance(command_line())
    features = pictures.features(data_dir, cache, per_class=config.per_class)
    made = priors(features)
    for n, name in missing:
        print(f"{n} labels, {name}", flush=True)
        needed = [seed for seed in seeds if not rows.have(n=n, method=name, seed=seed)]
        for row in cell_rows(config, features, made, n, name, needed):
            rows.add([{"task": "fewshot", "n": n, "method": name, **row, **origin}])


def cell_rows(
    config: Config, features: Features, made: dict[str, Learned], n: int, name: str, seeds: list[int]
) -> list[dict[str, Any]]:
    """A row for each seed."""
    head, test = features.head, features.tests[pictures.CLEAN]
    if name == SOURCE_AS_IS:
        scores = scored(head, btl.Point(head.params), test)
        return [{"seed": seed, **scores, "setting": {}, "gradient_steps": 0, "seconds": 0.0} for seed in seeds]
    labels, prior = labelled(features, n, seeds), made[name]
    # All start at the prior's mean, which for the zero-mean prior is a last layer that knows nothing.
    found = modes(
        head,
        under(head, prior, config.steps),
        {"scale": np.array(config.scales)},
        prior.gaussian.mean,
        labels,
        seeds,
        config.steps,
        config.batch_size,
    )
    return [
        {
            "seed": seed,
            **scored(head, btl.Point(jax.tree.map(lambda x: x[0], found.posterior(run).params)), test),
            "setting": found.settings[run],
            "validation_nll": found.validation[run],
            "gradient_steps": (found.num_tried + 1) * config.steps,
            "seconds": sum(found.seconds) / len(seeds),
        }
        for run, seed in enumerate(seeds)
    ]


def scored(head: btl.Net, posterior: Any, test: Any) -> dict[str, float]:
    """Scores on the test pictures."""
    predict = btl.predict.monte_carlo(jax.random.key(0), joint_of(head, None, 1), posterior)
    report = btl.metrics.report(predict(test.inputs), test.targets)
    return {name: report[name] for name in SCORES}
