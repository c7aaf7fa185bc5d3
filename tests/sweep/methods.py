"""What users call on the things that public functions give them, with valid arguments: swept like the functions."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import jax.numpy as jnp

import bayestl as btl
from tests.sweep.table import BATCH, INPUTS, KEY, LABELS, PARAMS, TARGETS, Case, shared

PICTURES = btl.Batch(jnp.ones((2, 4, 4, 1)), jnp.array([0, 1]))
TALL = {"w": jnp.ones((2, 1))}


def _gaussians() -> dict[str, Any]:
    """One of each structure, over the same parameters where it can be."""
    isotropic = btl.gaussians.isotropic(PARAMS, 1.0)
    return {
        "diagonal": isotropic,
        "low_rank": btl.gaussians.low_rank(PARAMS, 1.0, {"w": jnp.ones((1, 2))}),
        "dense": btl.gaussians.dense(PARAMS, jnp.eye(2)),
        "kronecker": btl.gaussians.kronecker(TALL, {"w": jnp.eye(2)}, {"w": jnp.eye(1)}),
        "blocks": btl.gaussians.by_path({"**": isotropic}),
    }


def _posteriors() -> dict[str, Any]:
    draws = btl.Samples({"w": jnp.array([[0.0, 1.0], [1.0, 0.0], [2.0, 1.0]])}, jnp.zeros(3))
    part = btl.infer.condition(shared()["joint"], PARAMS, "w")
    return {
        "Point": btl.Point(PARAMS),
        "Samples": draws,
        "Chain": btl.posteriors.Chain({"w": jnp.arange(20.0).reshape(10, 2)}, jnp.zeros(10), PARAMS),
        "Mixture": btl.posteriors.Mixture((_gaussians()["diagonal"], _gaussians()["dense"]), jnp.zeros(2)),
        "Part": part.whole(_gaussians()["diagonal"]),
    }


def _predictives() -> dict[str, tuple[Any, Any]]:
    """Predictives, each with targets that it can score."""
    joint, posterior = shared()["joint"], shared()["posterior"]
    return {
        "of classes": (shared()["predictive"], LABELS),
        "of numbers": (btl.predict.monte_carlo(KEY, joint, posterior, 2)(INPUTS), TARGETS),
        "Gaussian": (btl.predict.linearized(joint, posterior)(INPUTS), TARGETS),
        "of moments": (btl.predict.monte_carlo_average(KEY, joint, posterior, 2)(INPUTS), TARGETS),
        "joint": (btl.predict.linearized_joint(joint, posterior)(INPUTS), TARGETS),
    }


def _case(**arguments: Any) -> Case:
    return Case(lambda: arguments)


@cache
def methods() -> dict[str, tuple[Callable[..., Any], Case]]:
    """Name to a bound method, or to a function that was made, and its valid arguments by name."""
    joint, posterior = shared()["joint"], shared()["posterior"]
    table: dict[str, tuple[Callable[..., Any], Case]] = {
        "LogJoint.__call__": (joint, _case(params=PARAMS, batch=BATCH, key=None, state=None)),
        "LogJoint.log_likelihoods": (joint.log_likelihoods, _case(params=PARAMS, batch=BATCH, key=None, state=None)),
        "LogJoint.loss": (joint.loss, _case(params=PARAMS, batch=BATCH, key=None, state=None)),
        "LogJoint.check": (joint.check, _case(params=PARAMS, inputs=INPUTS, targets=TARGETS, weights=None)),
    }
    for name, gaussian in _gaussians().items():
        values = gaussian.mean
        for method, case in (
            ("log_prob", _case(params=values)),
            ("sample", _case(key=KEY, num_samples=2)),
            ("rescale", _case(c=2.0)),
            ("inflate", _case(eps=0.1)),
            ("restrict", _case(selection="w")),
            ("condition", _case(values=values, selection="w")),
        ):
            table[f"{name}.{method}"] = (getattr(gaussian, method), case)
    for name, one in _posteriors().items():
        table[f"{name}.sample"] = (one.sample, _case(key=KEY, num_samples=2))
    for name, predict in (
        ("linearized", btl.predict.linearized(joint, posterior)),
        ("linearized_joint", btl.predict.linearized_joint(joint, posterior)),
        ("monte_carlo", btl.predict.monte_carlo(KEY, joint, posterior, 2)),
        ("monte_carlo, in batches", btl.predict.monte_carlo(KEY, joint, posterior, 2, batch_size=2)),
        ("monte_carlo_average", btl.predict.monte_carlo_average(KEY, joint, posterior, 2)),
    ):
        table[f"predict of {name}"] = (predict, _case(inputs=INPUTS))
    for name, (predictive, targets) in _predictives().items():
        table[f"predictive {name}.log_prob"] = (predictive.log_prob, _case(targets=targets))
    numbers = _predictives()["of numbers"][0]
    table["predictive of numbers.cdf"] = (numbers.cdf, _case(values=TARGETS))
    table["predictive of numbers.quantile"] = (numbers.quantile, _case(q=0.5))
    table["predictive of numbers.sample"] = (numbers.sample, _case(key=KEY, num_samples=2))
    data = shared()["data"]
    table["data.first"] = (data.first, _case(num=2))
    table["data.batch"] = (data.batch, _case(key=KEY, step=1, batch_size=2))
    table["data.check_batch_size"] = (data.check_batch_size, _case(batch_size=2))
    for name, transform in (
        ("affine", btl.data.affine(horizontal_flip=True)),
        ("color_jitter", btl.data.color_jitter(brightness=0.1)),
        ("corrupt", btl.data.corrupt("contrast", 1)),
        ("normalize", btl.data.normalize(mean=0.0, std=1.0)),
        ("random_crop", btl.data.random_crop(padding=1)),
    ):
        table[f"transform {name}"] = (transform, _case(key=KEY, batch=PICTURES))
    return table
