"""One method on one target at one number of labels: all seeds, all settings, the choice by validation data."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import bayestl as btl

BATCH_SIZE = 32
RELIABILITY_BINS = 10
HEAVY_BALL = 0.9
# Standard deviation at which VI starts: a tenth of the prior's, and at most this, so that no layer drowns in noise.
VI_START = 1e-2
# Pictures that a network sees at once when it predicts, so that the maps inside it stay small.
PREDICTION_BATCH = 64


class View(NamedTuple):
    """A target's examples as one network sees them: pictures, feature maps of a frozen body, or features.

    Attributes:
        pool: the training pool, ``copies`` examples in a row for each picture of ``split.train``.
        copies: augmented copies of each picture.
        validation: every choice is made on these.
        test: scored once.
        transform: what happens to a batch inside the step.
    """

    pool: Any
    copies: int
    validation: Any
    test: Any
    transform: Any = None

    def train(self, places: np.ndarray) -> Any:
        """The training set of the pictures at these places of the pool, with all their copies."""
        return self.pool.take((np.asarray(places)[:, None] * self.copies + np.arange(self.copies)).ravel())


class Method(NamedTuple):
    """A way to the target's posterior, with the settings among which validation data choose.

    Attributes:
        name: its name.
        view: the examples as its network sees them.
        net: the network; what is not among its parameters stays as the source left it.
        start: seed -> where a run starts.
        grid: setting name to values, all of one length.
        make: ``(log joint without prior, setting) -> Inference``.
        read_at: the step counts at which a run is read, of which the last is its length; they are part of the settings.
        num_draws: draws that a prediction averages over; 1 for a point.
        batch_size: examples per step.
        vectorize: how settings share a device, as for ``fit_many``.
    """

    name: str
    view: View
    net: btl.Net
    start: Callable[[int], Any]
    grid: dict[str, np.ndarray]
    make: Callable[[btl.LogJoint, Any], btl.Inference]
    read_at: tuple[int, ...]
    num_draws: int = 1
    batch_size: int = BATCH_SIZE
    vectorize: Any = jax.vmap


def sgd(joint: btl.LogJoint, setting: Any) -> btl.Inference:
    """Maximum likelihood, or the mode under the joint's prior."""
    return btl.infer.map_estimate(joint, optax.sgd(setting["learning_rate"], momentum=HEAVY_BALL))


def proximal(joint: btl.LogJoint, setting: Any) -> btl.Inference:
    """The mode, by steps that no sharp prior of a grid can make unstable."""
    return btl.infer.proximal_map(joint, setting["learning_rate"], momentum=HEAVY_BALL)


def adam_vi(joint: btl.LogJoint, setting: Any) -> btl.Inference:
    """Mean-field VI, by Adam, since gradients of means and log scales differ by orders of magnitude."""
    start = jnp.minimum(0.1 * setting["scale"], VI_START)
    return btl.infer.mean_field_vi(joint, optax.adam(setting["learning_rate"]), initial_scale=start)


def annealed(make: Callable[[btl.LogJoint, Any], btl.Inference], steps: int) -> Callable[..., btl.Inference]:
    """The same with learning rates that fall to zero, so that a run ends at its mode and not somewhere around it."""

    def with_schedule(joint: btl.LogJoint, setting: Any) -> btl.Inference:
        return make(joint, {**setting, "learning_rate": optax.cosine_decay_schedule(setting["learning_rate"], steps)})

    return with_schedule


def run_method(method: Method, likelihood: Any, places: Sequence[np.ndarray], progress: bool) -> list[dict[str, Any]]:
    """A row for each seed, at the setting with the lowest validation NLL.

    Args:
        method: what is run.
        likelihood: of the target.
        places: of each seed's labelled pictures in the pool; equally many.
        progress: show progress bars.
    """
    # Augmented copies do not count as examples.
    joint = btl.LogJoint(method.net, likelihood, None, num_data=len(places[0]), allow_other_size=True)
    # One function for all seeds, so that they share a program.
    make = functools.partial(method.make, joint)
    score = jax.jit(functools.partial(nll, num_draws=method.num_draws, batch_size=PREDICTION_BATCH))
    return [_run_seed(method, joint, make, score, seed, rows, progress) for seed, rows in enumerate(places)]


def _run_seed(
    method: Method, joint: btl.LogJoint, make: Any, score: Any, seed: int, places: np.ndarray, progress: bool
) -> dict[str, Any]:
    def on_validation(posterior: Any, state: Any, run: int) -> jax.Array:
        return -score(joint.replace(state=state), posterior, method.view.validation)

    grid = btl.tune.grid(
        jax.random.fold_in(jax.random.key(3), seed)[None],
        make,
        method.grid,
        method.start(seed),
        method.view.train(places),
        on_validation,
        steps=max(method.read_at),
        read_at=method.read_at,
        batch_size=min(len(places), method.batch_size),
        transform=method.view.transform,
        progress=progress,
        vectorize=method.vectorize,
    )
    best = grid.best()
    posterior, state = grid.posterior(place=best)
    return {
        "seed": seed,
        **scores(joint.replace(state=state), posterior, method.view.test, method.num_draws),
        "setting": grid.setting(),
        "validation_nll": -float(grid.curve[best]),
        "settings_tried": int(grid.curve.size),
        "frozen_members": int((grid.failed >= 0).sum()),
        "parameters": btl.tree.size(method.net.params),
        "state_policy": btl.nets.state_policy(method.net),
        "seconds": grid.seconds,
        "compile_seconds": grid.compile_seconds,
    }


def run_fixed(net: btl.Net, likelihood: Any, view: View, seeds: int) -> list[dict[str, Any]]:
    """A network as it is; the same row for every seed."""
    joint, point = btl.LogJoint(net, likelihood, None, num_data=1), btl.Point(net.params)
    row = {
        **scores(joint, point, view.test),
        "setting": {},
        "validation_nll": float(nll(joint, point, view.validation, batch_size=PREDICTION_BATCH)),
        "settings_tried": 0,
        "frozen_members": 0,
        "parameters": 0,
        "state_policy": btl.nets.state_policy(net),
        "seconds": 0.0,
        "compile_seconds": 0.0,
    }
    return [{**row, "seed": seed} for seed in range(seeds)]


def scores(joint: btl.LogJoint, posterior: Any, data: Any, num_draws: int = 1) -> dict[str, Any]:
    """The metrics of a posterior on some examples, reliability bins, and the probabilities of each example."""
    predictive = predict(joint, posterior, data.inputs, num_draws, PREDICTION_BATCH)
    return {**scored(predictive, data.targets), "probs": np.asarray(predictive.probs, float).round(4).tolist()}


def scored(predictive: Any, targets: Any) -> dict[str, Any]:
    """The metrics of predictions, and reliability bins, for a row."""
    bins = btl.metrics.reliability_bins(predictive, targets, num_bins=RELIABILITY_BINS)
    return {
        **btl.metrics.report(predictive, targets),
        "bins": {name: np.nan_to_num(np.asarray(values)).tolist() for name, values in bins._asdict().items()},
    }


def predict(joint: btl.LogJoint, posterior: Any, inputs: Any, num_draws: int = 1, batch_size: int | None = None) -> Any:
    """The predictive for some inputs, with the same draws wherever it is asked for."""
    return btl.predict.monte_carlo(jax.random.key(5), joint, posterior, num_draws, batch_size=batch_size)(inputs)


def nll(joint: btl.LogJoint, posterior: Any, data: Any, num_draws: int = 1, batch_size: int | None = None) -> jax.Array:
    """Mean negative log likelihood of a posterior's predictive."""
    return btl.metrics.nll(predict(joint, posterior, data.inputs, num_draws, batch_size), data.targets)
