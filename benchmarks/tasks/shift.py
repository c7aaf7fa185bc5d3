"""Priors and posteriors where the pictures degrade, in the shape of Shwartz-Ziv et al. (2022), "Pre-Train Your Loss".

The last layer of a published ResNet-20 is learned from few labels, and scored on the same test pictures as they are and
corrupted at three severities: from the source's weights as a start alone, under priors that the source left behind, and
under one that knows nothing; the mode alone, and the average over a Laplace posterior around it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

import bayestl as btl
from benchmarks._records import Rows, command_line, provenance
from benchmarks.tasks import cifar_features as pictures
from benchmarks.tasks.cifar_features import Features, Learned
from benchmarks.tasks.fewshot import PRIORS, SCORES, joint_of, labelled, modes, priors, under

SOURCE_AS_IS, INITIALISATION = "source as it is", "initialisation only"
POSTERIOR = ", posterior"
METHODS = (SOURCE_AS_IS, INITIALISATION, *PRIORS, *(name + POSTERIOR for name in PRIORS))
CORRUPTIONS = ("gaussian_noise", "defocus_blur", "contrast")


class Config(NamedTuple):
    """What is run.

    Attributes:
        num_labels: in all, a multiple of ten.
        seeds: number of seeds.
        scales: standard deviations of the prior among which held-out labels choose.
        rates: as many learning rates, among which they choose where there is no prior.
        steps: gradient steps of one run.
        batch_size: examples per step, or all where there are fewer.
        severities: of the corruptions.
        per_class: pictures of each class: of the source, of the pool and for the test.
    """

    num_labels: tuple[int, ...] = (100,)
    seeds: int = 5
    scales: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
    rates: tuple[float, ...] = (0.0001, 0.001, 0.01, 0.03, 0.1, 0.3)
    steps: int = 300
    batch_size: int = 100
    severities: tuple[int, ...] = (1, 3, 5)
    per_class: tuple[int, int, int] = (200, pictures.POOL_PER_CLASS, 50)


# What may differ between a run and an earlier one whose rows it takes up.
MAY_GROW = ("num_labels", "seeds")


def demo(config: Config) -> Config:
    """A version of a minute or two."""
    return config._replace(
        scales=(0.03, 0.1, 0.3), rates=(0.001, 0.01, 0.1), steps=100, severities=(3,), per_class=(50, 20, 20)
    )


def checked(config: Config) -> Config:
    """The configuration, when it can be run.

    Raises:
        SystemExit: numbers of labels that are no multiples of ten, or more than the pool has; no seeds.
    """
    largest = 10 * config.per_class[1]
    for n in config.num_labels:
        if n % 10 or not 10 <= n <= largest:
            raise SystemExit(f"--n has {n}; give labels in all, a multiple of 10 up to {largest}")
    if config.seeds < 1:
        raise SystemExit(f"--seeds is {config.seeds}; give at least 1")
    return config


def test_sets(features: Features, severities: tuple[int, ...]) -> dict[str, Any]:
    """The test pictures as they are, and for each severity all their corruptions together."""
    sets = {pictures.CLEAN: features.tests[pictures.CLEAN]}
    for severity in severities:
        each = [features.tests[pictures.name_of(name, severity)] for name in CORRUPTIONS]
        inputs, targets = (np.concatenate([np.asarray(part) for part in parts]) for parts in zip(
            *((data.inputs, data.targets) for data in each), strict=True
        ))  # fmt: skip
        sets[f"shift/severity-{severity}"] = btl.data.arrays(inputs, targets)
    return sets


def run(config: Config, rows: Rows, data_dir: Path, cache: Path) -> None:
    """Run what is missing in ``rows``: one prior at one number of labels, its mode and its posterior, for all seeds."""
    seeds = list(range(config.seeds))
    names = (SOURCE_AS_IS, INITIALISATION, *PRIORS)
    cells = [(n, name) for n in config.num_labels for name in names]
    missing = [(n, m) for n, m in cells if not all(rows.have(n=n, method=m, seed=seed) for seed in seeds)]
    if not missing:
        return
    origin = provenance(command_line())
    features = pictures.features(
        data_dir, cache, per_class=config.per_class, corruptions=CORRUPTIONS, severities=config.severities
    )
    made, tests = priors(features), test_sets(features, config.severities)
    for n, name in missing:
        print(f"{n} labels, {name}", flush=True)
        needed = [seed for seed in seeds if not rows.have(n=n, method=name, seed=seed)]
        for row in cell_rows(config, features, made, tests, n, name, needed):
            rows.add([{"task": "shift", "n": n, **row, **origin}])


def cell_rows(
    config: Config,
    features: Features,
    made: dict[str, Learned],
    tests: dict[str, Any],
    n: int,
    name: str,
    seeds: list[int],
) -> list[dict[str, Any]]:
    """Rows of the mode of each seed, and of the posterior around it where there is a prior."""
    head = features.head

    def predict_at(params: Any) -> Callable[[Any], Any]:
        return btl.predict.monte_carlo(jax.random.key(0), joint_of(head, None, 1), btl.Point(params))

    if name == SOURCE_AS_IS:
        told = {"scores": scored(predict_at(head.params), tests), "setting": {}, "gradient_steps": 0, "seconds": 0.0}
        return [{"method": name, "seed": seed, **told} for seed in seeds]
    labels, prior = labelled(features, n, seeds), made.get(name)
    if prior is None:
        make, settings, start = without_prior(head), {"learning_rate": np.array(config.rates)}, head.params
    else:
        make, settings = under(head, prior, config.steps), {"scale": np.array(config.scales)}
        start = prior.gaussian.mean
    found = modes(head, make, settings, start, labels, seeds, config.steps, config.batch_size)
    rows = []
    for run, seed in enumerate(seeds):
        params = jax.tree.map(lambda x: x[0], found.posterior(run).params)
        row = {
            "seed": seed,
            "setting": found.settings[run],
            "validation_nll": found.validation[run],
            "gradient_steps": (found.num_tried + 1) * config.steps,
            "seconds": sum(found.seconds) / len(seeds),
        }
        rows.append({"method": name, "scores": scored(predict_at(params), tests), **row})
        if prior is not None:
            joint = joint_of(head, prior(found.settings[run]["scale"]), n)
            posterior = btl.infer.laplace(jax.random.key(4), joint, params, labels.train[run])
            predict = btl.predict.linearized(joint, posterior)
            rows.append({"method": name + POSTERIOR, "scores": scored(predict, tests), **row})
    return rows


def without_prior(head: btl.Net) -> Callable[[int, Any], btl.Inference]:
    """Maximum likelihood from the source's weights, which small learning rates hardly leave."""

    def make(num_data: int, setting: Any) -> btl.Inference:
        return btl.infer.map_estimate(joint_of(head, None, num_data), optax.sgd(setting["learning_rate"], momentum=0.9))

    return make


def scored(predict: Callable[[Any], Any], tests: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Data set to scores; nothing is resampled, since the rows of all seeds give the standard errors."""
    table = btl.metrics.evaluate(jax.random.key(9), predict, tests, batch_size=500, num_bootstrap=0)
    return {name: {metric: table[name, metric].value for metric in SCORES} for name in tests}
