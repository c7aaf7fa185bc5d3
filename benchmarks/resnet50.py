"""A step that fills an accelerator: MAP of a ResNet-50 in bfloat16, under a low-rank prior and without."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import bayestl as btl
from benchmarks._speed_work import Workload, alternate, by_fit, low_rank_prior, map_under, show

RANK = 5
SCALED = btl.data.normalize(0.5, 0.5)
# Dense bfloat16 products, floating-point operations per second, from the makers' data sheets.
PEAKS = {
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "L4": 121e12,
    "V100": 125e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
}


def rows(repeats: int, batch_size: int, size: int, steps: int) -> list[dict[str, Any]]:
    """The prior's overhead, pictures per second and the share of the device's peak.

    A picture counts three times the operations of the forward pass, as the compiler counts those: one for the outputs
    and two for the gradients of inputs and parameters. The prior's own operations do not count.
    """
    net = network()
    work = Workload("ResNet-50", net, pictures(2 * batch_size, size), batch_size, steps)
    with_prior, without = (
        by_fit(work, map_under(work, prior, 1e-4), transform=SCALED, chunk_size=steps)
        for prior in (low_rank_prior(net, RANK), None)
    )
    times = alternate(with_prior, without, repeats)
    row = show(f"(h) ResNet-50, bfloat16, batch {batch_size}: MAP with rank-{RANK} prior / without", times, 1.02)
    per_second = batch_size / times["a"]
    operations = 3 * forward_operations(net, size)
    kind = jax.devices()[0].device_kind
    peak = next((value for name, value in PEAKS.items() if name in kind), None)
    share = None if peak is None else per_second * operations / peak
    print(
        f"(h) {per_second:,.0f} pictures/s, {per_second * operations / 1e12:.2f} TFLOP/s on {kind}"
        + ("; its peak is not known here" if share is None else f", {share:.0%} of its peak (aim: 40%)")
    )
    about = {"pictures_per_second": per_second, "operations_per_picture": operations, "share_of_peak": share}
    return [{**row, **about, "picture_size": size, "batch_size": batch_size}]


def network() -> btl.Net:
    """The network with random weights, which cost as much as published ones; running statistics frozen."""
    return btl.nets.from_nnx(btl.pretrained.resnet50(jax.random.key(0), dtype=jnp.bfloat16))


def pictures(num: int, size: int) -> Any:
    """Noise, bytes on the device."""
    rng = np.random.default_rng(0)
    return btl.data.arrays(rng.integers(0, 256, (num, size, size, 3), dtype=np.uint8), rng.integers(0, 1000, num))


def forward_operations(net: btl.Net, size: int) -> float:
    """Floating-point operations of one picture's forward pass."""
    pictures = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    arguments = (net.params, net.state, pictures)
    compiled = jax.jit(lambda params, state, x: net.apply(params, state, x, None)[0]).lower(*arguments).compile()
    analysis: Any = compiled.cost_analysis()
    return float((analysis[0] if isinstance(analysis, list) else analysis)["flops"])
