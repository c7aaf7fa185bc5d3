"""What judging a predictive costs beside its forward passes; a part of ``benchmarks.speed``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import bayestl as btl
from benchmarks._speed_work import alternate, show, timed

EXAMPLES, CLASSES, DRAWS, BATCH = 10_000, 10, 32, 250


def rows(repeats: int) -> list[dict[str, Any]]:
    """(u) the table of ``metrics.evaluate``, bootstrap included, against the forward passes of its predictions."""
    networks = {
        "MLP of the digits benchmark": (btl.nets.mlp(jax.random.key(0), (64, 128, 64, CLASSES)), (64,)),
        "MLP, 265,000 parameters": (btl.nets.mlp(jax.random.key(0), (784, 256, 200, 64, CLASSES)), (784,)),
        "ConvNet, 8 pixels, 16 and 32 channels": (
            btl.nets.conv_net(jax.random.key(0), (8, 8, 1), (16, 32), CLASSES),
            (8, 8, 1),
        ),
    }
    compared = []
    for name, (net, shape) in networks.items():
        posterior = btl.gaussians.isotropic(net.params, 0.05)
        draws = posterior.sample(jax.random.key(1), DRAWS)
        data = _pictures(shape)
        times = alternate(_evaluated(net, draws, data), _forward(net, draws, data), repeats)
        title = f"(u) {name}: evaluate on {EXAMPLES:,} x {CLASSES}, {DRAWS} draws / forward passes"
        compared.append(show(title, times, 1.3))
    return compared


def _pictures(shape: tuple[int, ...]) -> Any:
    """Random pictures and labels: what is timed does not look at them."""
    rng = np.random.default_rng(0)
    pictures = rng.normal(size=(EXAMPLES, *shape)).astype(np.float32)
    return btl.data.arrays(pictures, rng.integers(0, CLASSES, EXAMPLES))


def _evaluated(net: btl.Net, draws: Any, data: Any) -> Callable[[], float]:
    joint = btl.LogJoint(net, btl.likelihoods.categorical(), None)
    posterior = btl.Samples(draws, jnp.zeros(DRAWS))
    predict = btl.predict.monte_carlo(jax.random.key(2), joint, posterior)
    return timed(lambda: btl.metrics.evaluate(jax.random.key(3), predict, data, batch_size=BATCH).scores[0].value)


def _forward(net: btl.Net, draws: Any, data: Any) -> Callable[[], float]:
    """Every draw on every batch, the network compiled and nothing else: outputs are made and let go."""
    apply = jax.jit(lambda params, inputs: net.apply(params, (), inputs, None)[0])
    each = [jax.tree.map(lambda x, number=number: x[number], draws) for number in range(DRAWS)]
    batches = [data.inputs[start : start + BATCH] for start in range(0, EXAMPLES, BATCH)]
    return timed(lambda: [apply(params, inputs) for inputs in batches for params in each])
