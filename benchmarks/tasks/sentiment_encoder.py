"""MiniLM for the task with sentences: what its frozen blocks give for every sentence, once, and the rest as a network.

The first five of six blocks stay as they are, so that no step pays for them: their outputs lie on disk, in float16.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import bayestl as btl
from benchmarks._published import stages
from benchmarks.tasks.sentiment_config import ENCODING, SOURCE, SPLIT_SEED, EncoderConfig

FOLDER, WEIGHTS, TOKENIZER = "minilm", "all-MiniLM-L6-v2.fp16.safetensors", "tokenizer.json"
CUT = "block4"
# Priors of the tail on the film reviews: around the published weights, and of the new head.
FILM_SCALE, FILM_HEAD_SCALE, FILM_HELD_OUT = 0.1, 1.0, 1000


class Activations(NamedTuple):
    """What the frozen blocks give.

    Attributes:
        hidden: (N, L, width), float16.
        mask: (N, L), True at tokens and False at padding.
    """

    hidden: Any
    mask: Any


class Encoded(NamedTuple):
    """A labelled set behind the frozen blocks.

    Attributes:
        data: :class:`Activations` and labels.
        cut_short: how many sentences had more tokens than there is room for.
    """

    data: Any
    cut_short: int


def encoder(data_dir: Path) -> btl.pretrained.Backbone:
    """The published encoder, one vector per sentence: the mean over its tokens."""
    folder = data_dir / FOLDER
    config = json.loads((folder / "config.json").read_text())
    skeleton = nnx.eval_shape(lambda: btl.pretrained.bert(jax.random.key(0), config))
    arrays = btl.pretrained.read(folder / WEIGHTS).arrays
    return btl.pretrained.load(skeleton, arrays, btl.pretrained.tables.bert(config["num_hidden_layers"])).net


def encoded(net: btl.pretrained.Backbone, path: Path, data_dir: Path, cache: Path, length: int) -> Encoded:
    """A labelled file behind the frozen blocks, from the cache where it is there."""
    labelled = btl.data.text.read_labelled(path, encoding=ENCODING)
    tokenizer = btl.data.text.tokenizer(data_dir / FOLDER / TOKENIZER)
    tokens, report = btl.data.text.encode(labelled.texts, tokenizer, length)
    file = cache / f"{path.stem}-{CUT}-{length}.npy"
    if not file.is_file():
        body = net.split(CUT)[0]
        hidden = btl.data.precompute(lambda ids: body(ids).hidden.astype(jnp.float16), tokens)
        cache.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part.npy")
        np.save(part, hidden)
        part.rename(file)  # whole or not there
    inputs = Activations(np.load(file), tokens != tokenizer.padding)
    return Encoded(btl.data.arrays(inputs, np.asarray(labelled.labels)), len(report.cut))


def widened(given: Activations) -> Activations:
    """The same in float32."""
    return Activations(given.hidden.astype(jnp.float32), given.mask)


def tail_net(net: btl.pretrained.Backbone, num_classes: int) -> btl.Net:
    """The last block, the mean over tokens, and a head at zero, on :class:`Activations`."""
    rest = {"widened": widened, **stages(net.split(CUT)[1])}
    return btl.nets.from_nnx(btl.pretrained.Backbone({**rest, "head": zero_head(net, num_classes)}))


def zero_head(net: btl.pretrained.Backbone, num_classes: int) -> nnx.Linear:
    """A linear layer that says nothing yet."""
    block = stages(net.split(CUT)[1])["block5"]
    return nnx.Linear(block.norm2.scale.shape[0], num_classes, kernel_init=nnx.initializers.zeros, rngs=nnx.Rngs(0))


def head_net(tail: btl.Net) -> btl.Net:
    """The head of a tail alone, on features."""

    def apply(params: Any, features: jax.Array) -> jax.Array:
        return features @ params["head"]["kernel"] + params["head"]["bias"]

    leaves = btl.tree.by_paths(tail.params)
    return btl.nets.from_function(apply, {"head": {name: leaves[f"head/{name}"] for name in ("kernel", "bias")}})


def features(tail: btl.Net, data: Any) -> Any:
    """The data set of what enters the head: of an identity in its place."""
    leaves = btl.tree.by_paths(tail.params)
    width = leaves["head/kernel"].shape[0]
    whole = {**leaves, "head/kernel": jnp.eye(width), "head/bias": jnp.zeros(width)}
    params = btl.tree.restructure(whole, tail.params)
    vectors = btl.data.precompute(lambda inputs: tail(params, inputs), data.inputs)
    return btl.data.arrays(vectors, data.targets)


class Films(NamedTuple):
    """The tail after film reviews.

    Attributes:
        net: tail and head of two classes.
        accuracy: on film reviews that it has not seen.
        seconds: of its training.
    """

    net: btl.Net
    accuracy: float
    seconds: float


def film_tail(
    config: EncoderConfig, net: btl.pretrained.Backbone, data_dir: Path, cache: Path, progress: bool
) -> Films:
    """The last block and a head trained on all film reviews but 1000, from the cache where it is there."""
    tail = tail_net(net, 2)
    told = {name: getattr(config, name) for name in ("length", "film_steps", "film_rate", "film_batch")}
    file = cache / "films.bayestl"
    if file.is_file():
        loaded = btl.load(file, tail)
        if all(loaded.settings.get(name) == value for name, value in told.items()):
            accuracy, seconds = loaded.settings["accuracy"], loaded.settings["seconds"]
            return Films(dataclasses.replace(tail, params=loaded.params), accuracy, seconds)
    films = encoded(net, data_dir / SOURCE, data_dir, cache, config.length).data
    rows = np.random.default_rng(SPLIT_SEED).permutation(films.num_examples)
    held_out, train = films.take(rows[:FILM_HELD_OUT]), films.take(rows[FILM_HELD_OUT:])
    head = btl.gaussians.isotropic(tail.params, FILM_HEAD_SCALE)
    prior = btl.gaussians.by_path(
        {"head/**": head, "**": btl.gaussians.isotropic(tail.params, FILM_SCALE)}, like=tail.params
    )
    joint = btl.LogJoint(tail, btl.likelihoods.categorical(), prior, num_data=train.num_examples)
    schedule = optax.cosine_decay_schedule(config.film_rate, config.film_steps)
    fitted = btl.fit(
        jax.random.key(1),
        btl.infer.map_estimate(joint, optax.adam(schedule)),
        tail.params,
        train,
        steps=config.film_steps,
        batch_size=config.film_batch,
        progress=progress,
    )
    logits = btl.data.precompute(lambda inputs: tail(fitted.params, inputs), held_out.inputs)
    accuracy = float((logits.argmax(-1) == held_out.targets).mean())
    fitted.save(file, settings={**told, "accuracy": accuracy})
    return Films(dataclasses.replace(tail, params=fitted.params), accuracy, fitted.seconds)
