"""Cats against dogs, the Bayesian way: ImageNet weights, a new head, and a few labelled photographs.

Source: published ImageNet weights. Target: photographs of cats and dogs, a Bernoulli likelihood on one logit. The body
below a cut stays as it is and its feature maps are computed once; what is trained is the last block and a new head.
Fixed validation and test sets.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

import bayestl as btl
from bayestl.tune import product
from benchmarks._fisher import fisher_prior
from benchmarks._records import Rows, command_line, provenance
from benchmarks._transfer_rows import run_transfer
from benchmarks._tuning import (
    BATCH_SIZE,
    HEAVY_BALL,
    Method,
    adam_vi,
    annealed,
    proximal,
    run_method,
    sgd,
)
from benchmarks.tasks.cats_vs_dogs_config import (
    BODY_VI,
    DENSE,
    FISHER,
    FISHER_OF_TARGET,
    FROZEN,
    FROZEN_PRIOR,
    HEAD_VI,
    HIDDEN,
    INITIALISATION_ONLY,
    ITERATES,
    L2_SP,
    LINEAR,
    MAY_GROW,
    METHODS,
    RECIPE,
    SCRATCH,
    TRANSFER,
    TRANSFER_HEAD,
    ZERO_MEAN,
    Config,
    checked,
    demo,
)
from benchmarks.tasks.cats_vs_dogs_nets import fresh_net, head_net, tail_net, whole_net
from benchmarks.tasks.cats_vs_dogs_source import Source, iterates_prior, source
from benchmarks.tasks.cats_vs_dogs_views import Photographs, Views, photographs, plain, views

__all__ = ["MAY_GROW", "Config", "Task", "cells", "checked", "demo", "methods", "run"]

NUM_DRAWS = 32
# Standard deviation of the head's prior where only the body's is chosen, and steps of the head's mode under it, from
# which all methods that train the tail start.
HEAD_SCALE, HEAD_STEPS, HEAD_RATE = 1.0, 300, 0.01
RECIPE_RATE, RECIPE_BATCH = 2e-5, 20


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
    views: Views
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
    around_zero = product(scale=100 * scales, learning_rate=rates / 5)
    of_head = product(scale=10 * scales, learning_rate=rates)
    # Without a prior: more learning rates, and two lengths of the run.
    flat = product(learning_rate=np.geomspace(rates[0] / 5, rates[-1] * 2, len(around_source["scale"]) // 2))
    for_vi = {**around_source, "learning_rate": around_source["learning_rate"] / 30}
    head_for_vi = {**of_head, "learning_rate": of_head["learning_rate"] / 5}
    centre = tail_net(config, task.source, task.hidden).params
    zeros, head_zeros = btl.tree.zeros_like(centre), btl.tree.zeros_like(head_net(config, task.hidden).params)
    l2_sp = functools.partial(btl.sources.point, centre)
    at_zero, head_at_zero = (functools.partial(btl.gaussians.isotropic, tree) for tree in (zeros, head_zeros))
    fisher, fisher_of_target = (
        functools.partial(fisher_prior, learned, centre)
        for learned in (task.source.fisher, task.source.fisher_of_target)
    )
    iterates = functools.partial(iterates_prior, task.source.iterates, centre)

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
    head_sgd, head_proximal, head_adam_vi = (annealed(make, head_steps) for make in (sgd, proximal, adam_vi))
    tail_sgd, tail_proximal, tail_adam_vi = (annealed(make, config.steps) for make in (sgd, proximal, adam_vi))
    return {
        SCRATCH: lambda: from_scratch(task),
        FROZEN: lambda: on_head(task, FROZEN, flat, head_sgd, head_parts),
        FROZEN_PRIOR: lambda: on_head(task, FROZEN_PRIOR, of_head, alone(head_proximal), head_whole),
        RECIPE: lambda: recipe(task),
        INITIALISATION_ONLY: lambda: on_tail(task, INITIALISATION_ONLY, flat, tail_sgd, parts),
        ZERO_MEAN: lambda: on_tail(task, ZERO_MEAN, around_zero, tail(at_zero, tail_proximal), whole),
        L2_SP: lambda: on_tail(task, L2_SP, around_source, tail(l2_sp, tail_proximal), whole),
        FISHER: lambda: on_tail(task, FISHER, around_source, tail(fisher, tail_proximal), whole),
        FISHER_OF_TARGET: lambda: on_tail(
            task, FISHER_OF_TARGET, around_source, tail(fisher_of_target, tail_proximal), whole
        ),
        ITERATES: lambda: on_tail(task, ITERATES, around_source, tail(iterates, tail_proximal), whole),
        BODY_VI: lambda: on_tail(task, BODY_VI, for_vi, tail(l2_sp, tail_adam_vi), whole, NUM_DRAWS),
        HEAD_VI: lambda: on_head(task, HEAD_VI, head_for_vi, alone(head_adam_vi), head_whole, NUM_DRAWS),
    }


def on_head(task: Task, name: str, grid: Any, make: Any, read_at: Any, num_draws: int = 1) -> Method:
    """A method that trains the head on cached features."""

    def start(seed: int) -> Any:
        return head_net(task.config, task.hidden, seed).params

    return Method(name, task.views.features, head_net(task.config, task.hidden), start, grid, make, read_at, num_draws)


def on_tail(task: Task, name: str, grid: Any, make: Any, read_at: Any, num_draws: int = 1) -> Method:
    """A method that trains tail and head on cached maps, from the published weights and the head's own mode."""

    def start(seed: int) -> Any:
        params = tail_net(task.config, task.source, task.hidden, seed).params
        head = head_mode(task, seed)
        return btl.tree.restructure({**btl.tree.by_paths(params), **btl.tree.by_paths(head)}, params)

    net = tail_net(task.config, task.source, task.hidden)
    return Method(name, task.views.maps, net, start, grid, make, read_at, num_draws)


def head_mode(task: Task, seed: int) -> Any:
    """The mode of the head on features of the published weights (Kumar et al. 2022 start fine-tuning from it)."""
    net, places = head_net(task.config, task.hidden, seed), task.places[seed]
    prior = btl.gaussians.isotropic(btl.tree.zeros_like(net.params), HEAD_SCALE)
    joint = btl.LogJoint(net, btl.likelihoods.bernoulli(), prior, num_data=len(places), allow_other_size=True)
    return btl.fit(
        jax.random.fold_in(jax.random.key(10), seed),
        btl.infer.proximal_map(joint, optax.cosine_decay_schedule(HEAD_RATE, HEAD_STEPS), momentum=HEAVY_BALL),
        net.params,
        task.views.features.train(places),
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
        RECIPE, task.views.pictures, net, start, grid, make, read_at, 1, RECIPE_BATCH, vectorize=btl.sequentially
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
    return Method(SCRATCH, task.views.pictures, net, start, grid, make, read_at, vectorize=btl.sequentially)


def transfer_rows(task: Task, photos: Photographs, head_only: bool) -> list[dict[str, Any]]:
    """All in one call, on the photographs as they are: of the head on features, or of the last block and the head.

    For the head alone the source is what a published body says of it, nothing: a mean of zero."""
    config, origin = task.config, task.source
    maps, features = plain(config, photos, origin.body, origin.tail)
    view, pool = (task.views.features, features) if head_only else (task.views.maps, maps)

    def fresh(seed: int) -> btl.Net:
        if head_only:
            return head_net(config, None, seed)
        net = tail_net(config, origin, None, seed)
        return dataclasses.replace(net, params=_as_random(jax.random.key(30 + seed), net.params))

    if head_only:
        source, new = btl.tree.zeros_like(head_net(config, None).params), ()
    else:
        source, new = tail_net(config, origin, None).params, "head/**"
    return run_transfer(
        fresh, source, btl.likelihoods.bernoulli(), pool, view.validation, view.test, task.places, new=new
    )


def _as_random(key: Any, params: Any) -> Any:
    """Kernels at random with the spread of those given; biases and scales of normalisations as they are."""
    leaves = btl.tree.by_paths(params)
    random = {
        path: np.std(x) * jax.random.normal(jax.random.fold_in(key, number), x.shape) if x.ndim > 1 else x
        for number, (path, x) in enumerate(leaves.items())
    }
    return btl.tree.restructure(random, params)


def cells(config: Config) -> list[tuple[int, str, str]]:
    """Number of labels, head, method, of all that is run."""
    listed = []
    for n in config.num_labels:
        here = [name for name in METHODS if name in config.methods and (name != SCRATCH or n in config.scratch_at)]
        listed.extend((n, LINEAR, name) for name in here if name != RECIPE)
        dense = config.dense_methods if n in config.dense_at else ()
        listed.extend(
            (n, DENSE, name) for name in here if name in dense and name not in (RECIPE, TRANSFER, TRANSFER_HEAD)
        )
        listed.extend((n, DENSE, name) for name in here if name == RECIPE and n in config.recipe_at)
    return listed


def run(config: Config, rows: Rows, data_dir: Path, cache: Path, progress: bool = True) -> Photographs:
    """Run what is missing in ``rows``: a cell is one method with one head at one number of labels, for all seeds."""
    photos, origin = photographs(config, data_dir, cache), provenance(command_line())
    all_cells = cells(config)
    missing = [(n, head, name) for n, head, name in all_cells if not rows.have(method=name, n=n, head=head)]
    if not missing:
        return photos
    print("features of the published network, and the shape of a prior around it", flush=True)
    published = source(config, photos, data_dir, cache, progress)
    shown = views(config, photos, published.body, published.tail)
    labels = photos.labels[photos.split.train]
    for number, (n, head, name) in enumerate(all_cells, 1):
        print(f"[{number}/{len(all_cells)}] {n} photographs, {head} head, {name}", flush=True)
        if (n, head, name) not in missing:
            continue
        places = [btl.data.few_shot(labels, n // 2, seed) for seed in range(config.seeds)]
        task = Task(config, published, shown, head, places)
        shared = {"task": "cats_vs_dogs", "n": n, "head": head, "method": name}
        told = {"kappa": 1.0, "temperature": 1.0, "source_seconds": published.seconds, **origin}
        if name in (TRANSFER, TRANSFER_HEAD):
            result = transfer_rows(task, photos, name == TRANSFER_HEAD)
        else:
            result = run_method(methods(task)[name](), btl.likelihoods.bernoulli(), places, progress)
        rows.add([{**shared, **row, **told} for row in result])
    return photos
