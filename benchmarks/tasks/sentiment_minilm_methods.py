"""MiniLM on few labelled sentences: a linear probe, the head, low-rank adapters and the last block, and posteriors.

Two sources: MiniLM as it was published, with a new head, and after film reviews, with the head that came of them. The
head's scale is chosen first, with the body as the source left it. From its mode adapters and the last block start, and
their scale is chosen at the head's. Every choice is by validation data, but that of the probe, which is a reference.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.linear_model import LogisticRegression

import bayestl as btl
from benchmarks import _tuning
from benchmarks._transfer_rows import run_transfer
from benchmarks.tasks.sentiment_config import (
    ADAPTER,
    LAPLACE,
    MAP,
    VI,
    EncoderConfig,
)
from benchmarks.tasks.sentiment_data import split, training_places
from benchmarks.tasks.sentiment_encoder import head_net

PREDICTION_BATCH = 50
ADAPTER_KEY, RUN_KEY, LAPLACE_KEY = 11, 12, 13
# Of log standard deviations, falling to zero, so that 40 steps come near the spreads that the bound asks for; at the
# rate of the means these would stay where they start.
VI_SPREAD_RATE = 0.1


class Sourced(NamedTuple):
    """A source of one target: what it left behind, and the target's sentences as its head sees them.

    Attributes:
        name: of the source.
        tail: last block and head; the head at zero where the classes are new.
        features: of all sentences, and their labels.
        has_head: whether the source's head serves the target.
    """

    name: str
    tail: btl.Net
    features: Any
    has_head: bool


@dataclasses.dataclass
class Task:
    """One target at one number of labels.

    Attributes:
        config: what is run.
        activations: of all sentences of the target, behind the frozen blocks.
        sources: by name.
        num: number of labels.
        heads: what was found of the head, for each source and seed.
        makers: of inferences of the head, for each source.
        grids: what was found of modes, for each source, part and seed, around which Laplace posteriors lie.
    """

    config: EncoderConfig
    activations: Any
    sources: dict[str, Sourced]
    num: int
    heads: dict[Any, btl.tune.Grid] = dataclasses.field(default_factory=dict)
    makers: dict[str, Any] = dataclasses.field(default_factory=dict)
    grids: dict[Any, btl.tune.Grid] = dataclasses.field(default_factory=dict)

    def parts(self, data: Any, seed: int) -> tuple[Any, Any, Any]:
        """Training, validation and test set of one seed."""
        places = split(data.num_examples)
        rows = (training_places(data.num_examples, self.num, seed), places.validation, places.test)
        train, validation, test = (data.take(each) for each in rows)
        return train, validation, test


def joint_of(net: btl.Net, num: int) -> btl.LogJoint:
    """Without a prior."""
    return btl.LogJoint(net, btl.likelihoods.categorical(), None, num_data=num)


def head_found(task: Task, source: Sourced, seed: int) -> btl.tune.Grid:
    """The head alone on features of the source, around the source's head, or zero, at the best of its scales."""
    if (source.name, seed) not in task.heads:
        config, net = task.config, head_net(source.tail)
        joint, (train, validation, _) = joint_of(net, task.num), task.parts(source.features, seed)
        held_out = btl.Batch(validation.inputs, validation.targets)
        if source.name not in task.makers:
            task.makers[source.name] = head_maker(config, net, joint)
        task.heads[source.name, seed] = btl.tune.grid(
            jax.random.fold_in(jax.random.key(RUN_KEY), seed)[None],
            task.makers[source.name],
            {"scale": np.array(config.head_scales)},
            net.params,
            train,
            lambda posterior, state, run: joint.log_likelihoods(_mode(posterior), held_out),
            steps=config.head_steps,
            batch_size=min(task.num, _tuning.BATCH_SIZE),
        )
    return task.heads[source.name, seed]


def head_maker(config: EncoderConfig, net: btl.Net, joint: btl.LogJoint) -> Any:
    """From the scale of the head's prior to its inference: one function for all seeds, so that they share a program."""
    schedule = optax.cosine_decay_schedule(config.head_rate, config.head_steps)

    def make(setting: Any) -> btl.Inference:
        prior = btl.gaussians.isotropic(net.params, setting["scale"])
        return btl.infer.proximal_map(joint.replace(prior=prior), schedule, momentum=_tuning.HEAVY_BALL)

    return make


def _mode(posterior: Any) -> Any:
    return posterior.params


class Way(NamedTuple):
    """A part of the network to learn, and a method for it.

    Attributes:
        part: adapter or last block.
        net: its parameters are the mean of the prior.
        how: MAP, Laplace or VI.
        scales: among which is chosen.
        make: setting -> inference.
        prior: setting -> prior.
        score: log joint, posterior, data -> mean NLL, compiled.
    """

    part: str
    net: btl.Net
    how: str
    scales: tuple[float, ...]
    make: Any
    prior: Any
    score: Any


def way(task: Task, source: Sourced, part: str, how: str) -> Way:
    """One function for all seeds, so that they share a program."""
    config = task.config
    net = source.tail
    if part == ADAPTER:
        some = jax.tree.map(lambda x: x[:2], task.activations.inputs)
        key = jax.random.key(ADAPTER_KEY)
        net = btl.nets.adapt(key, net, some, config.rank, where="block*/**", trained="head/**")
    is_adapter = part == ADAPTER
    scales, rate = (
        (config.adapter_scales, config.adapter_rate) if is_adapter else (config.block_scales, config.block_rate)
    )
    joint, schedule = joint_of(net, task.num), optax.cosine_decay_schedule(rate, config.steps)

    def prior(setting: Any) -> Any:
        head, rest = (btl.gaussians.isotropic(net.params, setting[name]) for name in ("head", "scale"))
        return btl.gaussians.by_path({"head/**": head, "**": rest}, like=net.params)

    def make(setting: Any) -> btl.Inference:
        posed, optimizer = joint.replace(prior=prior(setting)), optax.adam(schedule)
        if how == VI:
            start = jnp.minimum(0.1 * setting["scale"], _tuning.VI_START)
            return btl.infer.mean_field_vi(posed, _for_vi(optimizer, config.steps), initial_scale=start)
        return btl.infer.map_estimate(posed, optimizer)

    draws = config.draws if how == VI else 1
    score = jax.jit(functools.partial(_tuning.nll, num_draws=draws, batch_size=PREDICTION_BATCH))
    return Way(part, net, how, scales, make, prior, score)


def _for_vi(means: optax.GradientTransformation, steps: int) -> optax.GradientTransformation:
    """The same for the means, and a rate for the log scales at which so few steps lead from the start to the prior."""
    schedule = optax.cosine_decay_schedule(VI_SPREAD_RATE, steps)
    return optax.multi_transform({"mean": means, "log_scale": optax.adam(schedule)}, ("mean", "log_scale"))


def grid_of(task: Task, source: Sourced, path: Way, seed: int) -> btl.tune.Grid:
    """All scales, from the head's mode, at its scale."""
    key = (source.name, path.part, seed)
    if path.how == MAP and key in task.grids:
        return task.grids[key]
    config, joint = task.config, joint_of(path.net, task.num)
    head = head_found(task, source, seed)
    mode, scale = head.posterior(place=head.best())[0], head.setting()["scale"]
    whole = {**btl.tree.by_paths(path.net.params), **btl.tree.by_paths(_mode(mode))}
    train, validation, _ = task.parts(task.activations, seed)
    grid = btl.tune.grid(
        jax.random.fold_in(jax.random.key(RUN_KEY), seed)[None],
        path.make,
        {"scale": np.array(path.scales), "head": np.full(len(path.scales), scale)},
        btl.tree.restructure(whole, path.net.params),
        train,
        lambda posterior, state, run: -path.score(joint, posterior, validation),
        steps=config.steps,
        batch_size=min(task.num, config.batch_size),
        vectorize=btl.sequentially,
    )
    if path.how == MAP:
        task.grids[key] = grid
    return grid


def row(predictive: Any, validation: float | None, targets: Any, setting: Any, tried: int, began: float) -> dict:
    """The metrics of one prediction of the test set."""
    return {
        **_tuning.scored(predictive, targets),
        "setting": setting,
        "validation_nll": validation,
        "settings_tried": tried,
        "seconds": time.perf_counter() - began,
    }


def run_posterior(task: Task, source: Sourced, path: Way, modes: Way, seed: int) -> dict[str, Any]:
    """An adapter's, or the last block's, posterior at the scale that predicts the validation set best.

    A Laplace posterior is one around each mode, with its own choice of the scale, and predicts as the linearised
    network."""
    began = time.perf_counter()
    joint, (train, validation, test) = joint_of(path.net, task.num), task.parts(task.activations, seed)
    if path.how != LAPLACE:
        grid = grid_of(task, source, path, seed)
        posterior = grid.posterior(place=grid.best())[0]
        draws = task.config.draws if path.how == VI else 1
        predictive = _tuning.predict(joint, posterior, test.inputs, draws, PREDICTION_BATCH)
        return row(predictive, -float(grid.curve[grid.best()]), test.targets, grid.setting(), len(path.scales), began)
    grid = grid_of(task, source, modes, seed)
    began = time.perf_counter() - grid.seconds - grid.compile_seconds
    head = head_found(task, source, seed).setting()["scale"]
    fitted = []
    for number, scale in enumerate(path.scales):
        mode, setting = grid.posterior(place=(0, number))[0], {"scale": scale, "head": head}
        posed = joint.replace(prior=path.prior(setting))
        posterior = btl.infer.laplace(
            jax.random.key(LAPLACE_KEY), posed, _mode(mode), train, curvature=btl.curvature.kronecker(), batch_size=20
        )
        predict = btl.predict.linearized(joint, posterior, batch_size=PREDICTION_BATCH)
        fitted.append((float(btl.metrics.nll(predict(validation.inputs), validation.targets)), setting, predict))
    nll, setting, predict = min(fitted, key=lambda each: each[0])
    return row(predict(test.inputs), nll, test.targets, setting, len(path.scales), began)


def run_probe(task: Task, source: Sourced, seed: int) -> dict[str, Any]:
    """Logistic regression on the published features, with the penalty that is best on the test set: a reference that
    is too good by that choice."""
    began = time.perf_counter()
    train, _, test = (jax.tree.map(np.asarray, (x.inputs, x.targets)) for x in task.parts(source.features, seed))
    num_classes, scored = btl.tree.by_paths(source.tail.params)["head/kernel"].shape[1], []
    for penalty in task.config.penalties:
        model = LogisticRegression(C=penalty, max_iter=2000).fit(*train)
        probs = np.full((len(test[1]), num_classes), 1e-6)
        probs[:, model.classes_] = model.predict_proba(test[0])
        predictive = btl.predict.from_probabilities(jnp.asarray(probs / probs.sum(-1, keepdims=True)))
        scored.append((float(btl.metrics.nll(predictive, test[1])), penalty, predictive))
    _, penalty, predictive = min(scored, key=lambda each: each[0])
    return row(predictive, None, test[1], {"penalty": penalty}, len(scored), began)


def run_head(task: Task, source: Sourced, seed: int) -> dict[str, Any]:
    """The head alone."""
    began, (_, _, test) = time.perf_counter(), task.parts(source.features, seed)
    grid, joint = head_found(task, source, seed), joint_of(head_net(source.tail), task.num)
    predictive = _tuning.predict(joint, grid.posterior(place=grid.best())[0], test.inputs)
    nll = -float(grid.curve[grid.best()])
    return row(predictive, nll, test.targets, grid.setting(), len(task.config.head_scales), began)


def run_as_is(task: Task, source: Sourced, seed: int) -> dict[str, Any]:
    """The source without a label of the target."""
    began, (_, validation, test) = time.perf_counter(), task.parts(source.features, seed)
    net = head_net(source.tail)
    each = [btl.predict.from_probabilities(jax.nn.softmax(net(net.params, x.inputs))) for x in (validation, test)]
    return row(each[1], float(btl.metrics.nll(each[0], validation.targets)), test.targets, {}, 0, began)


def run_head_transfer(task: Task, source: Sourced) -> list[dict[str, Any]]:
    """``btl.transfer`` of the head: for all seeds, no validation data."""
    net = head_net(source.tail)
    places = [training_places(source.features.num_examples, task.num, seed) for seed in range(task.config.seeds)]
    _, validation, test = task.parts(source.features, 0)
    rows = run_transfer(
        lambda seed: net, net.params, btl.likelihoods.categorical(), source.features, validation, test, places
    )
    return [{name: value for name, value in each.items() if name != "probs"} for each in rows]
