"""A convolutional network over word vectors (Kim 2014) in the task with sentences, from film reviews."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

import bayestl as btl
from benchmarks._tuning import Method, View, proximal, run_method
from benchmarks.tasks.sentiment_config import (
    CNN_BATCH,
    CNN_RATE,
    CNN_SCALES,
    CNN_STEPS,
    CNN_TRANSFER,
    HEAD_SCALE,
    Config,
)
from benchmarks.tasks.sentiment_data import Sentences, split, training_places
from benchmarks.tasks.sentiment_words import Source, fresh


def run_cnn(config: Config, target: Sentences, source: Source, num: int) -> list[dict[str, Any]]:
    """The mode around the film network, at the scale with the lowest validation NLL: a row for each seed.

    The head, where it is new, and words that the films lack have priors of their own around zero."""
    parts, num_examples = split(target.data.num_examples), target.data.num_examples
    view = View(target.data, 1, target.data.take(parts.validation), target.data.take(parts.test))
    net = btl.Net(source.params, (), fresh(target, 0, btl.nets.text_cnn).apply)
    typical = jnp.sqrt(jnp.mean(jnp.square(source.params["embedding"]["table"])))

    def make(joint: btl.LogJoint, setting: Any) -> btl.Inference:
        scale = setting["scale"]
        table = jnp.where(source.is_known, scale, jnp.maximum(scale, typical))
        head = scale if source.has_head else jnp.maximum(scale, HEAD_SCALE)
        spread = {path: jnp.square(scale) for path in btl.tree.paths(net.params)}
        spread |= {"embedding/table": jnp.square(table)}
        spread |= {path: jnp.square(head) for path in spread if path.startswith("head/")}
        prior = btl.gaussians.diagonal(net.params, btl.tree.restructure(spread, net.params))
        rate = optax.cosine_decay_schedule(CNN_RATE, CNN_STEPS)
        return proximal(joint.replace(prior=prior), {"learning_rate": rate})

    method = Method(
        CNN_TRANSFER,
        view,
        net,
        lambda seed: source.params,
        {"scale": np.array(CNN_SCALES)},
        make,
        (CNN_STEPS,),
        batch_size=CNN_BATCH,
        vectorize=btl.sequentially,
    )
    places = [training_places(num_examples, num, seed) for seed in range(config.seeds)]
    rows = run_method(method, btl.likelihoods.categorical(), places, progress=False)
    return [{"method": CNN_TRANSFER, **{k: v for k, v in row.items() if k != "probs"}} for row in rows]
