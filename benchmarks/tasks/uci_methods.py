"""Ways to a posterior for a small regression, all splits in one program: by validation data, or by the evidence."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import bayestl as btl
from benchmarks._held_out import search, stacked
from benchmarks.tasks.uci_data import Split

HIDDEN = 50
MEMBERS = 5
DRAWS = 100
RANK = 20
RATE = 0.01
SWAG_RATES = (0.001, 0.003)
# Of the prior on the log of the noise, which is to say little.
LOG_NOISE = 3.0
NOISE_START = 0.3
SCALE_START = 0.5
FIXED_POINT_STEPS = 3
# The hyperparameter of each layer's scale, and the layer.
LAYERS = {"hidden": "dense_0", "head": "head"}

MAP, ENSEMBLE = "MAP", "deep ensemble"
MAP_OF_INPUT, ENSEMBLE_OF_INPUT = "MAP, noise of the input", "deep ensemble, noise of the input"
VI, SWAG = "mean-field VI", "SWAG"
MAP_EVIDENCE = "MAP, by evidence"
LAPLACE, KRONECKER, LAST_LAYER = "Laplace, dense", "Laplace, Kronecker", "Laplace, last layer"


class Outcome(NamedTuple):
    """A method on one split.

    Attributes:
        method: its name.
        predict: inputs to predictive, both scaled.
        setting: what was chosen.
        validation_nll: of the chosen setting on held-out training rows, scaled; None where the evidence chose.
        gradient_steps: all that were taken for it, those of other settings among them.
        seconds: for all of it, compilation and the share of all splits included.
    """

    method: str
    predict: Callable[[Any], Any]
    setting: dict[str, float]
    validation_nll: float | None
    gradient_steps: int
    seconds: float


def network(key: Any, num_inputs: int, num_outputs: int = 1) -> btl.Net:
    """One hidden layer of 50 ReLU units."""
    return btl.nets.mlp(key, (num_inputs, HIDDEN, num_outputs))


def with_one_noise(key: Any, num_inputs: int) -> btl.Net:
    """One noise for all examples, learned."""
    return btl.nets.with_log_scale(network(key, num_inputs), NOISE_START)


def with_noise_of_input(key: Any, num_inputs: int) -> btl.Net:
    """Location and log noise for each example."""
    net = network(key, num_inputs, 2)
    return btl.nets.from_function(functools.partial(_as_event, net), net.params)


def _as_event(net: btl.Net, params: Any, inputs: jax.Array) -> Any:
    return net(params, inputs)[:, None, :]


def zero_mean(params: Any, scale: Any) -> btl.gaussians.Gaussian:
    """Independent weights of one scale; next to nothing about the noise, where it is a parameter."""
    weights = btl.gaussians.isotropic(btl.tree.zeros_like(params), scale)
    if "log_scale" not in params:
        return weights
    vague = btl.gaussians.isotropic(btl.tree.zeros_like(params), LOG_NOISE)
    return btl.gaussians.by_path({"log_scale": vague, "**": weights})


def map_by_adam(joint: btl.LogJoint, setting: Any, steps: int) -> btl.Inference:
    """The mode, by a rate that falls to zero."""
    return btl.infer.map_estimate(joint, optax.adam(optax.cosine_decay_schedule(RATE, steps)))


def vi_by_adam(joint: btl.LogJoint, setting: Any, steps: int) -> btl.Inference:
    """Independent parameters."""
    optimizer = optax.adam(optax.cosine_decay_schedule(RATE, steps))
    return btl.infer.mean_field_vi(joint, optimizer, initial_scale=0.03)


def swag(joint: btl.LogJoint, setting: Any, steps: int) -> btl.Inference:
    """Iterates of the second half of SGD at a constant rate."""
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(setting["learning_rate"], momentum=0.9))
    return btl.infer.swag(joint, optimizer, rank=RANK, start=steps // 2, every=max(steps // 100, 1), eps=1e-6)


class Family(NamedTuple):
    """Methods that share one search.

    Attributes:
        net: key, number of inputs -> network.
        likelihood: of the targets.
        infer: joint, setting, steps -> inference.
        settings: scales -> settings, as many as there are scales.
        num_draws: None for a point.
        names: of the method, and of its ensemble where there is one.
    """

    net: Callable[[Any, int], btl.Net]
    likelihood: Any
    infer: Callable[[btl.LogJoint, Any, int], btl.Inference]
    settings: Callable[[tuple[float, ...]], dict[str, np.ndarray]]
    num_draws: int | None
    names: tuple[str, ...]


def _scales(scales: tuple[float, ...]) -> dict[str, np.ndarray]:
    return {"scale": np.array(scales)}


def _scales_and_rates(scales: tuple[float, ...]) -> dict[str, np.ndarray]:
    return btl.tune.product(scale=np.array(scales[:: len(SWAG_RATES)]), learning_rate=np.array(SWAG_RATES))


FAMILIES = (
    Family(with_one_noise, btl.likelihoods.normal(), map_by_adam, _scales, None, (MAP, ENSEMBLE)),
    Family(
        with_noise_of_input,
        btl.likelihoods.heteroscedastic_normal(),
        map_by_adam,
        _scales,
        None,
        (MAP_OF_INPUT, ENSEMBLE_OF_INPUT),
    ),
    Family(with_one_noise, btl.likelihoods.normal(), vi_by_adam, _scales, DRAWS, (VI,)),
    Family(with_one_noise, btl.likelihoods.normal(), swag, _scales_and_rates, DRAWS, (SWAG,)),
)
EVIDENCE_NAMES = (MAP_EVIDENCE, LAPLACE, KRONECKER, LAST_LAYER)
METHODS = (*(name for family in FAMILIES for name in family.names), *EVIDENCE_NAMES)


def data_of(each: Sequence[Any]) -> Any:
    """The examples of all splits, for runs side by side."""
    return btl.data.stack([btl.data.arrays(*examples) for examples in each])


def starts_of(make: Callable[[Any, int], btl.Net], num_inputs: int, seeds: Sequence[int], member: int = 0) -> list[Any]:
    """A fresh network for each seed."""
    return [make(jax.random.fold_in(jax.random.key(seed), member), num_inputs).params for seed in seeds]


def by_validation(
    family: Family,
    splits: Sequence[Split],
    seeds: Sequence[int],
    scales: tuple[float, ...],
    steps: int,
    batch_size: int,
) -> list[list[Outcome]]:
    """All settings without the held-out rows, then the best setting of each split on its whole training part."""
    num_inputs = splits[0].train.inputs.shape[1]
    net = family.net(jax.random.key(0), num_inputs)
    keys = jnp.stack([jax.random.fold_in(jax.random.key(2), seed) for seed in seeds])
    settings = family.settings(scales)

    def joint_of(scale: Any, num_data: int) -> btl.LogJoint:
        return btl.LogJoint(net, family.likelihood, zero_mean(net.params, scale), num_data=num_data)

    def inference(num_data: int, setting: Any) -> btl.Inference:
        return family.infer(joint_of(setting["scale"], num_data), setting, steps)

    @jax.jit
    def nll(posterior: Any, inputs: jax.Array, targets: jax.Array) -> jax.Array:
        predict = btl.predict.monte_carlo(jax.random.key(5), joint_of(1.0, 1), posterior, family.num_draws)
        return btl.metrics.nll(predict(inputs), targets)

    method, *of_ensemble = family.names
    members = MEMBERS if of_ensemble else 1
    found = search(
        keys,
        inference,
        settings,
        [starts_of(family.net, num_inputs, seeds, member) for member in range(members)],
        [btl.data.arrays(*split.train) for split in splits],
        [(split.fitted, split.held_out) for split in splits],
        nll,
        steps=steps,
        batch_size=batch_size,
    )
    searched, refitted = (seconds / len(splits) for seconds in found.seconds)
    joint, key, outcomes = joint_of(1.0, 1), jax.random.key(6), []
    for run in range(len(splits)):
        posterior, told = found.posterior(run), (found.settings[run], found.validation[run])
        first = jax.tree.map(lambda x: x[0], posterior)
        predict = btl.predict.monte_carlo(key, joint, first, family.num_draws)
        taken = (found.num_tried + 1) * steps
        each = [Outcome(method, predict, *told, taken, searched + refitted / members)]
        for ensemble in of_ensemble:
            together = btl.Samples(posterior.params, jnp.zeros(members))
            predict = btl.predict.monte_carlo(key, joint, together, None)
            taken = (found.num_tried + members) * steps
            each.append(Outcome(ensemble, predict, *told, taken, searched + refitted))
        outcomes.append(each)
    return outcomes


def by_evidence(
    splits: Sequence[Split], seeds: Sequence[int], rounds: int, steps: int, batch_size: int
) -> list[list[Outcome]]:
    """Scales of both layers and the noise climb the Laplace evidence between runs; no data are held out."""
    num_inputs, num_data = splits[0].train.inputs.shape[1], len(splits[0].train.targets)
    net = network(jax.random.key(0), num_inputs)
    joint_of = functools.partial(with_hyperparameters, net, num_data)

    def inference(logs: Any) -> btl.Inference:
        return map_by_adam(joint_of(logs), None, steps)

    keys = jnp.stack([jax.random.fold_in(jax.random.key(2), seed) for seed in seeds])
    data = data_of([split.train for split in splits])
    start = {"hidden": np.log(SCALE_START), "head": np.log(SCALE_START), "noise": np.log(NOISE_START)}
    logs = stacked([{name: jnp.float32(value) for name, value in start.items()} for _ in splits])
    params = stacked(starts_of(network, num_inputs, seeds))
    seconds = 0.0
    for number in range(rounds):
        fitted = btl.fit_many(
            keys, inference, logs, params, data, steps=steps, batch_size=batch_size, params_axis=0, data_axis=0,
            progress=False,
        )  # fmt: skip
        params, seconds = fitted.params, seconds + fitted.seconds + fitted.compile_seconds
        if number < rounds - 1:
            logs = stacked([_climbed(net, split, *_member((logs, params), r)) for r, split in enumerate(splits)])
    outcomes = []
    for run, split in enumerate(splits):
        own, mode = _member((logs, params), run)
        joint, train = joint_of(own), btl.data.arrays(*split.train)
        laplace = functools.partial(btl.infer.laplace, jax.random.key(4), joint, mode, train, batch_size=None)
        predicts = {
            MAP_EVIDENCE: btl.predict.monte_carlo(jax.random.key(6), joint, btl.Point(mode)),
            LAPLACE: btl.predict.linearized(joint, laplace()),
            KRONECKER: btl.predict.linearized(joint, laplace(curvature=btl.curvature.kronecker())),
            LAST_LAYER: btl.predict.linearized(joint, laplace(selection="head/**")),
        }
        told = {name: float(jnp.exp(value)) for name, value in own.items()}
        cost = seconds / len(splits)
        outcomes.append([Outcome(name, predicts[name], told, None, rounds * steps, cost) for name in EVIDENCE_NAMES])
    return outcomes


def with_hyperparameters(net: btl.Net, num_data: int, logs: Any) -> btl.LogJoint:
    """The log joint at these logarithms of the layers' scales and of the noise."""
    zeros = btl.tree.zeros_like(net.params)
    blocks = {
        "dense_0/**": btl.gaussians.isotropic(zeros, jnp.exp(logs["hidden"])),
        "head/**": btl.gaussians.isotropic(zeros, jnp.exp(logs["head"])),
    }
    likelihood = btl.likelihoods.normal(jnp.exp(logs["noise"]))
    return btl.LogJoint(net, likelihood, btl.gaussians.by_path(blocks), num_data=num_data)


def _member(tree: Any, number: int) -> Any:
    return jax.tree.map(lambda x: x[number], tree)


def _climbed(net: btl.Net, split: Split, logs: Any, params: Any) -> Any:
    """Hyperparameters nearer to the largest evidence, the mode held fixed: the fixed points of MacKay 1992.

    With ``gamma`` the number of parameters that the data determine, ``D - trace(Sigma) / scale^2`` of each layer:
    ``scale^2 = |theta|^2 / gamma`` and ``noise^2 = residuals / (N - sum of gamma)``.
    """
    train = btl.data.arrays(*split.train)
    squares = {layer: float(btl.tree.squared_norm(params[path])) for layer, path in LAYERS.items()}
    sizes = {layer: btl.tree.size(params[path]) for layer, path in LAYERS.items()}
    residuals = float(jnp.sum((net(params, split.train.inputs) - split.train.targets) ** 2))
    for _ in range(FIXED_POINT_STEPS):
        joint = with_hyperparameters(net, len(split.train.targets), logs)
        posterior = btl.infer.laplace(jax.random.key(4), joint, params, train, batch_size=None)
        variance = posterior.variance
        gamma = {}
        for layer, path in LAYERS.items():
            trace = sum(float(jnp.sum(x)) for x in jax.tree.leaves(variance[path]))
            gamma[layer] = max(sizes[layer] - trace * float(jnp.exp(-2 * logs[layer])), 1e-3)
        noise = residuals / max(len(split.train.targets) - sum(gamma.values()), 1.0)
        logs = {layer: jnp.float32(0.5 * np.log(squares[layer] / gamma[layer])) for layer in LAYERS}
        logs["noise"] = jnp.float32(0.5 * np.log(noise))
    return logs
