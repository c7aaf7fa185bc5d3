"""Sentences as the mean of their word vectors: sources, priors, and the methods around them.

All methods of one target and number of labels share a program, and differ in the mean and the scales of a prior alone:
frozen is a table with scale 0, initialisation only a prior that is flat.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import bayestl as btl
from benchmarks._held_out import stacked
from benchmarks._tuning import proximal, scored
from benchmarks.tasks.sentiment_config import (
    AS_IS,
    DIMENSION,
    FLAT,
    FROZEN,
    HEAD_SCALE,
    HOWS,
    INIT_KEY,
    INITIALISATION,
    L2_SP,
    ROW_WISE,
    SCRATCH,
    SPLIT_SEED,
    TRANSFER,
    TRANSFER_KEY,
    TYPICAL_COUNT,
    WORDS_KEY,
    ZERO,
    Config,
)
from benchmarks.tasks.sentiment_data import Sentences, split, training_set


class Source(NamedTuple):
    """What a source left behind, for one target.

    Attributes:
        name: of the source.
        params: the mean of the prior of the target's network; 0 for what is new.
        is_known: (V, 1), whether the word of a row has a vector.
        has_head: whether the source's head serves the target.
    """

    name: str
    params: Any
    is_known: jax.Array
    has_head: bool


class Origin(NamedTuple):
    """The network that was trained on film reviews, its words, and what it took."""

    net: btl.Net
    vocab: btl.data.text.Vocabulary
    accuracy: float
    seconds: float


def train_source(
    config: Config, films: Sentences, vectors: Any, progress: bool, network: Any = btl.nets.bag_of_words
) -> Origin:
    """The source network, from GloVe; the scale of its prior by its own accuracy on a tenth of the film reviews."""
    began = time.perf_counter()
    net = network(jax.random.key(0), len(films.vocab), DIMENSION, 2)
    rows = np.random.default_rng(SPLIT_SEED).permutation(films.data.num_examples)
    train, held_out = films.data.take(rows[1000:]), films.data.take(rows[:1000])
    words = btl.sources.word_vectors(jax.random.key(WORDS_KEY), vectors, films.vocab, 1.0)
    head = btl.gaussians.isotropic(btl.tree.zeros_like(net.params), HEAD_SCALE)
    joint = btl.LogJoint(net, btl.likelihoods.categorical(), None, num_data=train.num_examples)

    def make(scale: jax.Array) -> btl.Inference:
        table = words.prior.rescale(jnp.square(scale))
        prior = btl.gaussians.by_path({"embedding/**": table, "**": head}, like=net.params)
        return btl.infer.map_estimate(joint.replace(prior=prior), optax.adam(0.01))

    scales = jnp.array([0.1, 0.3])
    # Words that the reviews do not hold stay where GloVe has them, to the last bit.
    start = {**net.params, "embedding": words.prior.mean["embedding"]}
    fitted = btl.fit_many(
        jax.random.split(jax.random.key(1), len(scales)),
        make,
        scales,
        start,
        train,
        steps=config.source_steps,
        batch_size=64,
        progress=progress,
    )
    trained: Any = fitted.posterior
    logits = jax.vmap(lambda params: net(params, held_out.inputs))(trained.params)
    accuracies = np.asarray((logits.argmax(-1) == held_out.targets).mean(-1))
    params = jax.tree.map(lambda x: x[int(accuracies.argmax())], trained.params)
    accuracy = float(accuracies.max())
    return Origin(btl.Net(params, (), net.apply), films.vocab, accuracy, time.perf_counter() - began)


def fresh(target: Sentences, seed: int, network: Any = btl.nets.bag_of_words) -> btl.Net:
    """The target's network as it is initialised."""
    key = jax.random.fold_in(jax.random.key(INIT_KEY), seed)
    return network(key, len(target.vocab), DIMENSION, target.num_classes)


def from_vectors(target: Sentences, vectors: Any) -> Source:
    """GloVe as a source: the table, with a head at zero."""
    net = fresh(target, 0)
    words = btl.sources.word_vectors(jax.random.key(WORDS_KEY), vectors, target.vocab, 1.0)
    params = {**btl.tree.zeros_like(net.params), "embedding": words.prior.mean["embedding"]}
    return Source("GloVe", params, jnp.asarray(words.report.is_known)[:, None], False)


def from_network(target: Sentences, origin: Origin, network: Any = btl.nets.bag_of_words) -> Source:
    """The network for films as a source: its table row by row, and its head where the classes are the same."""
    net = fresh(target, 0, network)
    has_head = target.num_classes == origin.net.params["head"]["bias"].shape[0]
    rows = {"embedding/table": (origin.vocab, target.vocab)}
    zeros = btl.tree.zeros_like(net.params)
    new = () if has_head else ("head/**",)
    match = btl.sources.match(origin.net.params, zeros, new=new, rows=rows, verbose=False)
    return Source("rt-polarity", match.params, jnp.asarray(match.rows["embedding/table"])[:, None], has_head)


class Tuned(NamedTuple):
    """A method, with the settings among which validation data choose.

    Attributes:
        name: its name.
        grid: name to values, all of one length. ``source`` is the number of the source whose weights are the mean, 0
            for zero; ``table``, ``new`` and ``head`` are standard deviations of known words, of new words, and of the
            head; ``rarity`` is the power of the rarity of a word that multiplies the first, 0 or 1/2; and
            ``learning_rate`` is the one at the start.
        source: the number of the source at whose weights runs start, 0 for a fresh network.
    """

    name: str
    grid: dict[str, np.ndarray]
    source: int


def tuned_methods(config: Config, sources: list[Source]) -> list[Tuned]:
    """All tuned methods, in the order of ``TUNED``, with equally many settings each."""
    scales, rates = np.array(config.scales), np.array(config.rates)
    rate = np.full(len(scales), config.learning_rate)

    def grid(number: int, table: Any, rarity: float, new: Any, head: Any, learning_rate: Any = rate) -> Any:
        columns = {"table": table, "rarity": rarity, "new": new, "head": head, "learning_rate": learning_rate}
        whole = {name: np.broadcast_to(np.asarray(x, float), scales.shape) for name, x in columns.items()}
        return {"source": np.full(len(scales), number), **whole}

    methods = [Tuned(SCRATCH, grid(0, 10 * scales, 0, 10 * scales, 10 * scales), 0)]
    for number, source in enumerate(sources, 1):
        typical = float(jnp.sqrt(jnp.mean(jnp.square(source.params["embedding"]["table"]))))
        # A head that is known is as uncertain as the table, but for its size; a new one knows nothing.
        head = 10 * scales if source.has_head else np.maximum(scales, HEAD_SCALE)
        new = np.maximum(scales, typical)
        grids = {
            FROZEN: grid(number, ZERO, 0, ZERO, 10 * scales),
            INITIALISATION: grid(number, FLAT, 0, FLAT, FLAT, rates),
            L2_SP: grid(number, scales, 0, new, head),
            ROW_WISE: grid(number, scales, 0.5, new, head),
        }
        methods += [Tuned(f"{source.name}, {how}", grids[how], number) for how in HOWS]
    return methods


def program(config: Config, target: Sentences, sources: list[Source], num: int) -> Any:
    """The function from a setting to a method, one for all methods and seeds, so that they share a program."""
    net = fresh(target, 0)
    zeros = btl.tree.zeros_like(net.params)
    means = jax.tree.map(lambda *xs: jnp.stack(xs), zeros, *(source.params for source in sources))
    is_known = jnp.stack([jnp.ones_like(sources[0].is_known), *(source.is_known for source in sources)])
    rarity = TYPICAL_COUNT / jnp.maximum(jnp.asarray(target.vocab.counts, jnp.float32), 1)[:, None]
    joint = btl.LogJoint(net, btl.likelihoods.categorical(), None, num_data=num)

    def make(setting: Any) -> btl.Inference:
        mean = jax.tree.map(lambda x: x[setting["source"]], means)
        rows = jnp.where(is_known[setting["source"]], setting["table"] * rarity ** setting["rarity"], setting["new"])
        head = jax.tree.map(lambda x: jnp.square(setting["head"]), mean["head"])
        prior = btl.gaussians.diagonal(mean, {"embedding": {"table": jnp.square(rows)}, "head": head})
        schedule = optax.cosine_decay_schedule(setting["learning_rate"], config.steps)
        return proximal(joint.replace(prior=prior), {"learning_rate": schedule})

    return make


def run_tuned(config: Config, target: Sentences, sources: list[Source], num: int) -> list[dict[str, Any]]:
    """All tuned methods, each at the setting with the lowest validation NLL: a row for each seed and method."""
    make, net = program(config, target, sources, num), fresh(target, 0)
    joint = btl.LogJoint(net, btl.likelihoods.categorical(), None, num_data=num)
    parts, seeds = split(target.data.num_examples), range(config.seeds)
    validation, test = target.data.take(parts.validation), target.data.take(parts.test)
    held_out = btl.Batch(validation.inputs, validation.targets)
    log_likelihoods = jax.jit(lambda posterior: joint.log_likelihoods(posterior.params, held_out))
    probs = jax.jit(lambda params: jax.nn.softmax(net(params, test.inputs)))
    train = btl.data.stack([training_set(target, num, seed) for seed in seeds])
    rows = []
    for method in tuned_methods(config, sources):
        starts = [sources[method.source - 1].params if method.source else fresh(target, seed).params for seed in seeds]
        found = btl.tune.grid(
            jnp.stack([jax.random.fold_in(jax.random.key(3), seed) for seed in seeds]),
            make,
            method.grid,
            stacked(starts),
            train,
            lambda posterior, state, run: log_likelihoods(posterior),
            steps=config.steps,
            batch_size=min(num, 64),
            params_axis=0,
            data_axis=0,
        )
        for seed in seeds:
            place = found.best(seed)
            chosen: Any = found.posterior(seed, place)[0]
            rows.append(
                {
                    "method": method.name,
                    "seed": seed,
                    **scored(btl.predict.from_probabilities(probs(chosen.params)), test.targets),
                    "setting": found.setting(seed),
                    "validation_nll": -float(found.scores[(seed, *place)]),
                    "settings_tried": found.curve.size,
                    "frozen_members": int((found.failed[seed] >= 0).sum()),
                    "seconds": found.seconds / config.seeds,
                    "compile_seconds": found.compile_seconds,
                }
            )
    return rows


def run_as_is(config: Config, target: Sentences, source: Source) -> list[dict[str, Any]]:
    """The source network without a label of the target; the same row for every seed."""
    parts, net = split(target.data.num_examples), fresh(target, 0)
    test, validation = target.data.take(parts.test), target.data.take(parts.validation)
    predict = [btl.predict.from_probabilities(jax.nn.softmax(net(source.params, x.inputs))) for x in (test, validation)]
    row = {
        "method": AS_IS,
        **scored(predict[0], test.targets),
        "setting": {},
        "validation_nll": float(btl.metrics.nll(predict[1], validation.targets)),
        "settings_tried": 0,
        "frozen_members": 0,
        "seconds": 0.0,
        "compile_seconds": 0.0,
    }
    return [{**row, "seed": seed} for seed in range(config.seeds)]


def run_transfer(config: Config, target: Sentences, source: Source, num: int) -> list[dict[str, Any]]:
    """All in one call, which sees no validation data: they are scored here for comparison alone."""
    parts, rows = split(target.data.num_examples), []
    validation, test = target.data.take(parts.validation), target.data.take(parts.test)
    for seed in range(config.seeds):
        result = btl.transfer(
            jax.random.fold_in(jax.random.key(TRANSFER_KEY), seed),
            fresh(target, seed),
            source.params if source.has_head else {"embedding": source.params["embedding"]},
            training_set(target, num, seed),
            btl.likelihoods.categorical(),
            new=() if source.has_head else "head/**",
            num_scales=7,
        )
        rows.append(
            {
                "method": TRANSFER,
                "seed": seed,
                **scored(result.predict(test.inputs), test.targets),
                "setting": {f"trust in {row.name}": row.weight for row in result.trust},
                "validation_nll": float(btl.metrics.nll(result.predict(validation.inputs), validation.targets)),
                "settings_tried": sum(len(row.weights) for row in result.trust),
                "frozen_members": 0,
                "verdict": None if result.verdict is None else result.verdict.outcome,
                "seconds": result.seconds,
                "compile_seconds": 0.0,
            }
        )
    return rows
