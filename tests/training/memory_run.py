"""fit on 5,000,000 parameters under a prior of rank 20: ``python memory_run.py METHOD`` prints bytes as JSON."""

from __future__ import annotations

import gc
import json
import sys
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

import bayestl as btl

SHAPE, RANK = (50_000, 100), 20


def resident() -> int:
    """Bytes of this process in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


class Peak(threading.Thread):
    """The most that was resident since the start, looked at every millisecond."""

    def __init__(self):
        super().__init__(daemon=True)
        self.bytes, self._over = 0, threading.Event()

    def run(self) -> None:
        while not self._over.is_set():
            self.bytes = max(self.bytes, resident())
            time.sleep(0.001)

    def stop(self) -> int:
        self._over.set()
        self.join()
        return self.bytes


def main(method: str) -> None:
    params = {"w": jnp.ones(SHAPE)}
    net = btl.nets.from_function(lambda params, x: x @ params["w"].mean(0), params)
    data = btl.data.arrays(np.ones((64, SHAPE[1]), np.float32), np.zeros(64, np.float32))
    factor = {"w": 0.1 * jax.random.normal(jax.random.key(0), (RANK, *SHAPE))}
    prior = btl.gaussians.low_rank(params, 1.0, factor)
    del factor
    joint = btl.LogJoint(net, btl.likelihoods.normal(1.0), prior, num_data=64)
    inference = {
        "map": lambda: btl.infer.map_estimate(joint, optax.sgd(1e-2, momentum=0.9)),
        "vi": lambda: btl.infer.mean_field_vi(joint, optax.adam(1e-3)),
    }[method]()
    estimate = btl.estimate_memory(inference, params, data)
    jax.block_until_ready(prior)
    gc.collect()
    before, peak = resident(), Peak()
    peak.start()
    btl.fit(jax.random.key(0), inference, params, data, steps=30, chunk_size=10, progress=False)
    rise = peak.stop() - before
    print(json.dumps({"rise": rise, "total": estimate.total, **estimate._asdict()}))


if __name__ == "__main__":
    main(sys.argv[1])
