"""Handwritten digits: a source that helps one target and misleads another.

Source: the first half of scikit-learn's 8x8 digits, all ten classes. Targets: the second half seen through a
low-resolution scanner, where the source helps, and with inverted contrast, where it misleads. Few labels, a fixed
validation set for every choice of hyperparameter, a test set that is touched once.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import bayestl as btl
from bayestl.tune import product
from benchmarks._held_out import stacked
from benchmarks._records import Rows, command_line, provenance
from benchmarks._tuning import BATCH_SIZE, HEAVY_BALL, nll, predict, scored

SIZES = (64, 128, 64, 10)
LOW_RESOLUTION, INVERTED = "low resolution", "inverted contrast"
INITIALISATION_ONLY = "initialisation only"
SOURCE_AS_IS = "source as it is"
TRANSFER, BY_LAYER = "transfer", "transfer, scales of layers"
FROM_SCRATCH, L2_SP = "from scratch", "L2-SP"
# Methods whose rows also hold the test NLL of each setting.
REFERENCES = (FROM_SCRATCH, L2_SP)
HEAD_VI, HEAD_NUTS = "head, mean-field VI", "head, NUTS"
RANK = 5
VALIDATION_PER_CLASS = 10
SPLIT_SEED = 0
# Draws that a prediction averages over, where the posterior is more than a point.
NUM_DRAWS = 64
NUTS_CHAINS = 2


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
    layers_at: tuple[int, ...] = (3, 10)


# What may differ between a run and an earlier one whose rows it takes up.
MAY_GROW = ("layers_at",)


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


def head_net(source: Source) -> btl.Net:
    """The source's head alone, on the features of its body."""
    head = btl.nets.mlp(jax.random.key(0), SIZES[-2:])
    return dataclasses.replace(head, params={"head": source.net.params["head"]})


def features(task: Target, source: Source) -> Target:
    """The task with its pictures replaced by what the source's body makes of them."""
    identity = {"kernel": jnp.eye(SIZES[-2]), "bias": jnp.zeros(SIZES[-2])}
    features = source.net({**source.net.params, "head": identity}, task.pool.inputs)
    return task._replace(pool=btl.data.arrays(features, task.pool.targets))


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
                **_test_row(joint, grid.posterior(run, place)[0], task, method.num_draws),
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
            row["test_nll_of_settings"] = _on_test(grid, run, score, task.pool.take(task.split.test))
    return rows


def _on_test(grid: btl.tune.Grid, run: int, score: Callable[[Any, Any], Any], test: Any) -> list[float]:
    """What every setting of a run would have scored on the test set: a yardstick, from which nothing is chosen."""
    places = np.ndindex(grid.curve.shape)
    return [float(score(grid.posterior(run, (step, setting))[0], test)) for step, setting in places]


def run_nuts(
    tasks: Sequence[Target], source: Source, num_labels: int, config: Config, tuned: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Draws from the head's posterior itself, under the prior that validation chose for mean-field VI of the head."""
    net, rows = head_net(source), []
    for task in [features(task, source) for task in tasks]:
        for seed in range(config.seeds):
            (chosen,) = [row for row in tuned if (row["target"], row["seed"]) == (task.name, seed)]
            train = training_set(task, num_labels, seed)
            prior = btl.sources.point(net.params, chosen["setting"]["scale"])
            joint = btl.LogJoint(net, btl.likelihoods.categorical(), prior, num_data=train.num_examples)
            began = time.perf_counter()
            chains = btl.bridges.nuts(
                jax.random.key(seed),
                joint,
                net.params,
                train,
                num_warmup=config.nuts_steps,
                num_samples=config.nuts_steps,
                num_chains=NUTS_CHAINS,
                progress=False,
            )
            seconds = time.perf_counter() - began
            num_draws, apart = NUTS_CHAINS * config.nuts_steps, btl.diagnostics.by_chain(chains)
            validation = task.pool.take(task.split.validation)
            rows.append(
                {
                    "target": task.name,
                    "seed": seed,
                    **_test_row(joint, chains, task, num_draws),
                    "setting": {"scale": chosen["setting"]["scale"]},
                    "validation_nll": float(nll(joint, chains, validation, num_draws)),
                    "settings_tried": 1,
                    "frozen_members": 0,
                    "r_hat": max(float(np.max(x)) for x in jax.tree.leaves(btl.diagnostics.r_hat(apart))),
                    "smallest_ess": min(float(np.min(x)) for x in jax.tree.leaves(btl.diagnostics.ess(apart))),
                    "divergences": int(chains.stats["diverging"].sum()),
                    "seconds": seconds,
                    # The first run's seconds hold it.
                    "compile_seconds": 0.0,
                }
            )
    return rows


def run_transfer(
    tasks: Sequence[Target], source: Source, num_labels: int, config: Config, progress: bool, by_layer: bool = False
) -> list[dict[str, Any]]:
    """All in one call, which sees no validation data: they are scored here for comparison alone."""
    rows = []
    for task in tasks:
        for seed in range(config.seeds):
            net = btl.nets.mlp(jax.random.fold_in(jax.random.key(4), seed), SIZES)
            result = btl.transfer(
                jax.random.key(seed),
                net,
                source.net,
                training_set(task, num_labels, seed),
                btl.likelihoods.categorical(),
                by_layer=by_layer,
                progress=progress,
            )
            validation, test = (task.pool.take(part) for part in (task.split.validation, task.split.test))
            single = predict(result.joint, result.single, test.inputs)
            rows.append(
                {
                    "target": task.name,
                    "seed": seed,
                    **scored(result.predict(test.inputs), test.targets),
                    "setting": {f"trust in {row.name}": row.weight for row in result.trust},
                    "validation_nll": float(btl.metrics.nll(result.predict(validation.inputs), validation.targets)),
                    "settings_tried": sum(len(row.weights) for row in result.trust),
                    "frozen_members": 0,
                    "single_nll": float(btl.metrics.nll(single, test.targets)),
                    "verdict": None if result.verdict is None else result.verdict.outcome,
                    "gradient_steps": result.steps,
                    "seconds": result.seconds,
                    # The first run's seconds hold it.
                    "compile_seconds": 0.0,
                }
            )
    return rows


def run_source(tasks: Sequence[Target], source: Source, config: Config) -> list[dict[str, Any]]:
    """The source network as it is; the same row for every seed."""
    joint = btl.LogJoint(source.net, btl.likelihoods.categorical(), None, num_data=1)
    point = btl.Point(source.net.params)
    none = {"setting": {}, "settings_tried": 0, "frozen_members": 0, "seconds": 0.0, "compile_seconds": 0.0}
    rows = []
    for task in tasks:
        validation = float(nll(joint, point, task.pool.take(task.split.validation)))
        row = {"target": task.name, **_test_row(joint, point, task), **none, "validation_nll": validation}
        rows.extend({**row, "seed": seed} for seed in range(config.seeds))
    return rows


def training_set(task: Target, num_labels: int, seed: int) -> Any:
    return task.pool.take(btl.data.few_shot(task.pool.targets, num_labels, seed, among=task.split.train))


def _start(method: Method, net: btl.Net, seed: int) -> Any:
    if method.from_source:
        return net.params
    return btl.nets.mlp(jax.random.fold_in(jax.random.key(4), seed), SIZES).params


def _test_row(joint: btl.LogJoint, posterior: Any, task: Target, num_draws: int = 1) -> dict[str, Any]:
    test = task.pool.take(task.split.test)
    return scored(predict(joint, posterior, test.inputs, num_draws), test.targets)


def all_methods() -> tuple[str, ...]:
    """The names of all methods, in the order of tables and figures."""
    return (
        TRANSFER,
        BY_LAYER,
        FROM_SCRATCH,
        SOURCE_AS_IS,
        INITIALISATION_ONLY,
        "zero-mean prior",
        L2_SP,
        "learned low rank",
        "L2-SP, mean-field VI",
        HEAD_VI,
        HEAD_NUTS,
    )


def run(config: Config, rows: Rows, progress: bool = True) -> None:
    """Run what is missing in ``rows``: a cell is one method at one number of labels, for all targets and seeds."""
    source, tasks = train_source(progress), targets()
    origin = provenance(command_line())
    trained = {method.name: method for method in methods(config, source)}
    drawn = {HEAD_NUTS, *(name for name, method in trained.items() if method.num_draws > 1)}
    cells = [(n, name) for n in config.num_labels for name in [SOURCE_AS_IS, TRANSFER, BY_LAYER, *trained, HEAD_NUTS]]
    cells = [(n, name) for n, name in cells if name not in drawn or n in config.sampled_at]
    cells = [(n, name) for n, name in cells if name != BY_LAYER or n in config.layers_at]
    for number, (n, name) in enumerate(cells, 1):
        print(f"[{number}/{len(cells)}] {n} labels per class, {name}", flush=True)
        if rows.have(method=name, n=n):
            continue
        if name == SOURCE_AS_IS:
            scored_rows = run_source(tasks, source, config)
        elif name in (TRANSFER, BY_LAYER):
            scored_rows = run_transfer(tasks, source, n, config, progress, by_layer=name == BY_LAYER)
        elif name == HEAD_NUTS:
            tuned = [row for row in rows.rows if (row["method"], row["n"]) == (HEAD_VI, n)]
            scored_rows = run_nuts(tasks, source, n, config, tuned)
        else:
            scored_rows = run_method(trained[name], tasks, source, n, config, progress)
        tempers = {"kappa": 1.0, "temperature": 1.0, "source_seconds": source.seconds}
        rows.add([{"task": "digits", "n": n, "method": name, **row, **tempers, **origin} for row in scored_rows])
