"""Targets whose source is known to be useful, useless or misleading, judged by ``btl.transfer``."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import log_softmax

import bayestl as btl

KINDS = ("useful", "useless", "misleading")
INPUTS, HIDDEN, CLASSES, TEST = 20, 12, 3, 4000
NET = btl.nets.mlp(jax.random.key(0), (INPUTS, HIDDEN, CLASSES))


def by_transfer(seed: int, kind: str, labels: int) -> dict[str, Any]:
    """The verdict of one transfer, and what test examples say.

    A teacher network labels inputs, and the classes are drawn from its probabilities. The source is the teacher with an
    error of a tenth in every weight (useful), a network that nothing was taught (useless), or another teacher, whose
    features and classes have nothing to do with the target's (misleading).
    """
    rng = np.random.default_rng([seed, KINDS.index(kind), labels, 1])
    teacher, other = _teacher(rng), _teacher(rng)
    source = {
        "useful": jax.tree.map(lambda x: x + 0.1 * np.std(x) * rng.normal(size=x.shape), teacher),
        "useless": btl.nets.mlp(jax.random.key(1000 + seed), (INPUTS, HIDDEN, CLASSES)).params,
        "misleading": other,
    }[kind]

    def draw(num: int) -> tuple[np.ndarray, np.ndarray]:
        inputs = rng.normal(size=(num, INPUTS)).astype(np.float32)
        noise = rng.gumbel(size=(num, CLASSES))
        return inputs, np.argmax(np.asarray(NET(_floats(teacher), inputs)) + noise, axis=1)

    pool, pool_labels = draw(400 * labels)
    rows = np.concatenate([np.flatnonzero(pool_labels == c)[:labels] for c in range(CLASSES)])
    train = btl.Batch(jnp.asarray(pool[rows]), jnp.asarray(pool_labels[rows]))
    test, test_labels = draw(TEST)
    net = dataclasses.replace(NET, params=btl.nets.mlp(jax.random.key(2000 + seed), (INPUTS, HIDDEN, CLASSES)).params)
    result = btl.transfer(jax.random.key(seed), net, _floats(source), train, btl.likelihoods.categorical())

    def on_test(log_probs: np.ndarray) -> float:
        return float(np.mean(log_probs[np.arange(TEST), test_labels]))

    transferred = on_test(np.log(np.asarray(result.predict(test).probs, np.float64)))
    verdict = result.verdict
    assert verdict is not None
    return {
        "outcome": verdict.outcome,
        "on_test": transferred - on_test(_from_scratch(net, result, train, test)),
        "difference": verdict.difference,
        "interval": list(verdict.interval),
        "trust": sum(row.weight for row in result.trust if row.kind == "source"),
        "seconds": result.seconds,
    }


def _from_scratch(net: btl.Net, result: btl.TransferResult, train: btl.Batch, test: np.ndarray) -> np.ndarray:
    """Log probabilities by the mixture that a transfer without a source would give: what the verdict compares with."""
    head = {**net.params, "head": btl.tree.zeros_like(net.params["head"])}
    family = btl.tune.isotropic_family("fresh, head at zero", head)
    criterion = btl.tune.leave_out(btl.tune.groups_by_class(np.asarray(train.targets)))
    joint = btl.LogJoint(net, btl.likelihoods.categorical(), None, num_data=len(train.targets))
    scales = np.array(result.trust[-1].log_scales)
    path = btl.tune.path(jax.random.key(0), joint, [family], train, scales, criterion)
    # The same weak prior over the scales as that of `transfer`, around the scale of typical outputs.
    middle = scales[0] - btl.tune.scales_around(np.ones(1), 1.0, len(scales))[0, 0]
    log_prior = btl.tune.scale_prior(scales[None] - middle, np.ones(1), 1.0)[0]
    weights = btl.tune.average(jax.random.key(0), path.scores[0], log_prior).weights
    logits = np.stack([np.asarray(net(params, test), np.float64) for params in path.params[0]])
    return np.log(np.einsum("k,knc->nc", weights, np.exp(log_softmax(logits, axis=-1))))


def _teacher(rng: np.random.Generator) -> Any:
    """A network whose logits differ by several nats."""
    return {
        "dense_0": {"kernel": rng.normal(size=(INPUTS, HIDDEN)) / np.sqrt(INPUTS / 2), "bias": np.zeros(HIDDEN)},
        "head": {"kernel": 2.0 * rng.normal(size=(HIDDEN, CLASSES)) / np.sqrt(HIDDEN / 4), "bias": np.zeros(CLASSES)},
    }


def _floats(params: Any) -> Any:
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
