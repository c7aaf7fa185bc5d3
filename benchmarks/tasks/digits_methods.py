"""Digits: the methods whose settings validation data choose, all seeds and settings of one side by side."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import bayestl as btl
from bayestl.tune import product
from benchmarks._held_out import stacked
from benchmarks._tuning import BATCH_SIZE, HEAVY_BALL, nll, predict, scored
from benchmarks.tasks.digits_source import RANK, SIZES, Source, Target, features, head_net, training_set

INITIALISATION_ONLY = "initialisation only"
FROM_SCRATCH, L2_SP = "from scratch", "L2-SP"
# Methods whose rows also hold the test NLL of each setting.
REFERENCES = (FROM_SCRATCH, L2_SP)
HEAD_VI = "head, mean-field VI"
# Draws that a prediction averages over, where the posterior is more than a point.
NUM_DRAWS = 64


class Config(NamedTuple):
    """What is run.

    Attributes:
        num_labels: labels per class.
        seeds: number of seeds.
        steps: steps of every target run.
        sampled_at: labels per class at which methods run whose predictions average over draws, the dear ones.
        nuts_steps: steps of each chain of NUTS that adapt it, and as many that are kept.
        layers_at: labels per class at which transfer also learns scales of layers.
    """

    num_labels: tuple[int, ...] = (1, 3, 10)
    seeds: int = 5
    steps: int = 500
    sampled_at: tuple[int, ...] = (1, 3, 10)
    nuts_steps: int = 300
    layers_at: tuple[int, ...] = (3,)


class Method(NamedTuple):
    """A way to the target's posterior, with the settings among which validation data choose.

    Attributes:
        name: its name.
        grid: setting name to values, all of one length.
        make: ``(log joint without prior, setting) -> Inference``.
        from_source: start at the source's weights, or at a random initialisation.
        read_at: the step counts at which a run is read; they are part of the number of settings.
        num_draws: draws that a prediction averages over; 1 for a point.
        head_only: the body stays as the source left it, and only the head has a posterior.
    """

    name: str
    grid: dict[str, np.ndarray]
    make: Callable[[btl.LogJoint, Any], btl.Inference]
    from_source: bool
    read_at: tuple[int, ...]
    num_draws: int = 1
    head_only: bool = False


def methods(config: Config, source: Source) -> list[Method]:
    """All methods that are trained, each with the same number of settings."""
    weights = source.net.params
    zeros = btl.tree.zeros_like(weights)
    steps = config.steps
    whole, parts = (steps,), (steps // 5, steps // 2, steps)
    multiples = (1.0, 1e2, 1e4, 1e6, 1e8)
    rates = (0.003, 0.01, 0.03)
    wide, near = (0.1, 0.3, 1.0, 3.0, 10.0), (0.03, 0.1, 0.3, 1.0, 3.0)

    def sgd(joint: btl.LogJoint, setting: Any) -> btl.Inference:
        return btl.infer.map_estimate(joint, optax.sgd(setting["learning_rate"], momentum=HEAVY_BALL))

    def under(prior: btl.gaussians.Gaussian, joint: btl.LogJoint, setting: Any) -> btl.Inference:
        # Proximal, so that no sharp prior of the grid is lost to the stability bound of SGD.
        return btl.infer.proximal_map(joint.replace(prior=prior), setting["learning_rate"], momentum=HEAVY_BALL)

    def zero_mean(joint: btl.LogJoint, setting: Any) -> btl.Inference:
        return under(btl.gaussians.isotropic(zeros, setting["scale"]), joint, setting)

    def l2_sp(joint: btl.LogJoint, setting: Any) -> btl.Inference:
        return under(btl.sources.point(weights, setting["scale"]), joint, setting)

    def variational(centre: Any, joint: btl.LogJoint, setting: Any) -> btl.Inference:
        # Adam, since the gradients of means and log scales differ by orders of magnitude.
        joint = joint.replace(prior=btl.sources.point(centre, setting["scale"]))
        return btl.infer.mean_field_vi(joint, optax.adam(setting["learning_rate"]), initial_scale=1e-2)

    def learned(joint: btl.LogJoint, setting: Any) -> btl.Inference:
        # Its floor keeps SGD stable, and a low-rank proximal step would rebuild the canonical form every time.
        prior = btl.sources.from_iterates(
            source.iterates, rank=RANK, covariance_scale=setting["scale"], eps=setting["eps"]
        )
        return sgd(joint.replace(prior=prior), {"learning_rate": 0.01})

    return [
        Method(FROM_SCRATCH, product(scale=wide, learning_rate=rates), zero_mean, False, whole),
        Method(INITIALISATION_ONLY, product(learning_rate=(0.001, 0.003, 0.01, 0.03, 0.1)), sgd, True, parts),
        Method("zero-mean prior", product(scale=wide, learning_rate=rates), zero_mean, True, whole),
        Method(L2_SP, product(scale=near, learning_rate=rates), l2_sp, True, whole),
        Method("learned low rank", product(scale=multiples, eps=(1e-3, 1e-2, 1e-1)), learned, True, whole),
        Method(
            "L2-SP, mean-field VI",
            product(scale=near, learning_rate=(0.001, 0.003, 0.01)),
            functools.partial(variational, weights),
            True,
            whole,
            NUM_DRAWS,
        ),
        Method(
            HEAD_VI,
            product(scale=near, learning_rate=(0.003, 0.01, 0.03)),
            functools.partial(variational, head_net(source).params),
            True,
            whole,
            NUM_DRAWS,
            head_only=True,
        ),
    ]


def run_method(
    method: Method, tasks: Sequence[Target], source: Source, num_labels: int, config: Config, progress: bool
) -> list[dict[str, Any]]:
    """All targets, seeds and settings of one method at once; a row per target and seed, at the setting chosen."""
    if method.head_only:
        tasks = [features(task, source) for task in tasks]
    net = head_net(source) if method.head_only else source.net
    runs = [(task, seed) for task in tasks for seed in range(config.seeds)]
    train = [training_set(task, num_labels, seed) for task, seed in runs]
    joint = btl.LogJoint(net, btl.likelihoods.categorical(), None, num_data=train[0].num_examples)
    score = jax.jit(functools.partial(nll, joint, num_draws=method.num_draws))
    validation = [task.pool.take(task.split.validation) for task, _ in runs]
    grid = btl.tune.grid(
        jnp.stack([jax.random.fold_in(jax.random.key(3), seed) for _, seed in runs]),
        functools.partial(method.make, joint),
        method.grid,
        stacked([_start(method, net, seed) for _, seed in runs]),
        btl.data.stack(train),
        lambda posterior, state, run: -score(posterior, validation[run]),
        steps=config.steps,
        read_at=method.read_at,
        batch_size=min(train[0].num_examples, BATCH_SIZE),
        progress=progress,
        params_axis=0,
        data_axis=0,
    )
    rows = []
    for run, (task, seed) in enumerate(runs):
        place = grid.best(run)
        rows.append(
            {
                "target": task.name,
                "seed": seed,
                **on_test(joint, grid.posterior(run, place)[0], task, method.num_draws),
                "setting": grid.setting(run),
                "validation_nll": -float(grid.scores[(run, *place)]),
                "settings_tried": grid.curve.size,
                "frozen_members": int((grid.failed[run] >= 0).sum()),
                "seconds": grid.seconds / len(runs),
                "compile_seconds": grid.compile_seconds,
            }
        )
    if method.name in REFERENCES:
        for run, (row, (task, _)) in enumerate(zip(rows, runs, strict=True)):
            row["test_nll_of_settings"] = _of_settings(grid, run, score, task.pool.take(task.split.test))
    return rows


def _of_settings(grid: btl.tune.Grid, run: int, score: Callable[[Any, Any], Any], test: Any) -> list[float]:
    """What every setting of a run would have scored on the test set: a yardstick, from which nothing is chosen."""
    places = np.ndindex(grid.curve.shape)
    return [float(score(grid.posterior(run, (step, setting))[0], test)) for step, setting in places]


def _start(method: Method, net: btl.Net, seed: int) -> Any:
    if method.from_source:
        return net.params
    return btl.nets.mlp(jax.random.fold_in(jax.random.key(4), seed), SIZES).params


def on_test(joint: btl.LogJoint, posterior: Any, task: Target, num_draws: int = 1) -> dict[str, Any]:
    test = task.pool.take(task.split.test)
    return scored(predict(joint, posterior, test.inputs, num_draws), test.targets)
