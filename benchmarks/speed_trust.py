"""What a call of ``btl.transfer`` costs beside fits by MAP; parts of ``benchmarks.speed``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax

import bayestl as btl
from benchmarks._speed_work import alternate, show, timed

# The network and the fits of the digits benchmark.
WIDTHS, CLASSES, STEPS = (64, 128, 64, 10), 10, 500
SIZES = (1, 3, 10)
# The last two blocks of MobileNet and a head, 1.6 million parameters, on the maps of pictures of 96 pixels.
CUT, MAPS, MANY = "conv_pw_11", (6, 6, 512), 1000


def rows(repeats: int) -> list[dict[str, Any]]:
    """(t) one call of transfer, trust and verdict included, against one MAP fit of the digits benchmark."""
    source = btl.nets.mlp(jax.random.key(1), WIDTHS).params
    compared = []
    for per_class in SIZES:
        data = _digits(per_class)
        times = alternate(_transferred(source, data), _fitted(source, data), repeats)
        name = f"(t) {per_class} labels a class: transfer / one MAP fit of {STEPS} steps"
        compared.append(show(name, times, 3.0))
    return compared


def large_rows(repeats: int) -> list[dict[str, Any]]:
    """(t) the same for 1.6 million parameters and 1000 examples; one fit sees batches of 64."""
    made = btl.pretrained.mobilenet(jax.random.key(0), num_classes=2)
    module = made.split(CUT)[1]
    module.eval()
    net = btl.nets.from_nnx(module)
    rng = np.random.default_rng(0)
    labels = np.arange(MANY, dtype=np.int32) % 2
    maps = np.maximum(rng.normal(size=(MANY, *MAPS)) + 0.1 * labels[:, None, None, None], 0)
    data = btl.data.arrays(maps.astype(np.float32), labels)
    source = jax.tree.map(np.asarray, net.params)
    likelihood = btl.likelihoods.categorical()
    transfer = timed(
        lambda: btl.transfer(jax.random.key(3), net, source, data, likelihood, new="head/**", progress=True).posterior
    )
    joint = btl.LogJoint(net, likelihood, btl.gaussians.isotropic(source, 0.1), num_data=MANY)
    method = btl.infer.map_estimate(joint, optax.adam(1e-4))
    options = {"steps": STEPS, "batch_size": 64, "progress": False}
    fit = timed(lambda: btl.fit(jax.random.key(3), method, source, data, **options).params)
    name = f"(t) MobileNet's last blocks, {MANY} examples: transfer / one MAP fit of {STEPS} steps"
    return [show(name, alternate(transfer, fit, min(repeats, 2)), 5.0)]


def _digits(per_class: int) -> Any:
    """Random pictures around one centre per class: what is timed does not look at them."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(CLASSES), per_class).astype(np.int32)
    centres = rng.normal(size=(CLASSES, WIDTHS[0]))
    return btl.data.arrays((centres[labels] + rng.normal(size=(labels.size, WIDTHS[0]))).astype(np.float32), labels)


def _transferred(source: Any, data: Any) -> Callable[[], float]:
    net = btl.nets.mlp(jax.random.key(2), WIDTHS)
    return timed(
        lambda: btl.transfer(jax.random.key(3), net, source, data, btl.likelihoods.categorical()).posterior,
    )


def _fitted(source: Any, data: Any) -> Callable[[], float]:
    net = btl.nets.mlp(jax.random.key(2), WIDTHS)
    prior = btl.gaussians.isotropic(source, 0.1)
    joint = btl.LogJoint(net, btl.likelihoods.categorical(), prior, num_data=data.num_examples)
    method = btl.infer.map_estimate(joint, optax.adam(1e-3))
    options = {"steps": STEPS, "batch_size": min(data.num_examples, 64), "progress": False}
    return timed(lambda: btl.fit(jax.random.key(3), method, source, data, **options).params)
