"""Fits with an optimizer made anew each time: ``python fresh_optimizers.py NUM`` prints bytes in memory as JSON."""

from __future__ import annotations

import gc
import json
import sys

import jax
import numpy as np
import optax
from memory_run import resident

import bayestl as btl


def main(num: int) -> None:
    net = btl.nets.mlp(jax.random.key(0), (20, 32, 3))
    data = btl.data.arrays(np.ones((64, 20), np.float32), np.arange(64, dtype=np.int32) % 3)
    prior = btl.gaussians.isotropic(net.params, 1.0)

    def fit() -> None:
        joint = btl.LogJoint(net, btl.likelihoods.categorical(), prior)
        inference = btl.infer.map_estimate(joint, optax.adam(1e-3))
        btl.fit(jax.random.key(0), inference, net.params, data, steps=2, progress=False)

    fit()
    start = measured()
    for _ in range(num):
        fit()
    print(json.dumps({"start": start, "end": measured()}))


def measured() -> int:
    gc.collect()
    return resident()


if __name__ == "__main__":
    main(int(sys.argv[1]))
