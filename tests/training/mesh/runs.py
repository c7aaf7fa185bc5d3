"""The runs that test_mesh.py compares: ``python runs.py OUT DEVICES [PROCESS_ID PORT]``, results to OUT as npz.

With a process id, two processes join that own DEVICES devices each, and the first one writes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

STEPS, BATCH, NUM = 40, 16, 100


def main(out: Path, devices: int, process: int | None, port: str | None) -> None:
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_num_cpu_devices", devices)
    if process is not None:
        jax.distributed.initialize(f"localhost:{port}", num_processes=2, process_id=process)
    from jax.experimental.multihost_utils import process_allgather

    results: dict[str, np.ndarray] = {}
    for name, fitted in every_run(out.parent / "checkpoints").items():
        whole = jax.tree.map(lambda x: process_allgather(x, tiled=True), fitted.state)
        for i, leaf in enumerate(jax.tree.leaves(whole)):
            results[f"{name}/state/{i}"] = np.asarray(leaf)
        results |= {f"{name}/{key}": values for key, values in fitted.history.items()}
    if not process:
        np.savez(out, allow_pickle=False, **results)


def every_run(checkpoints: Path) -> dict[str, Any]:
    """MAP and VI: on one device, or on all of them with parameters replicated, sharded, and resumed half way."""
    import jax.numpy as jnp
    import optax
    from jax.sharding import AxisType, NamedSharding, PartitionSpec

    import bayestl as btl

    net = btl.nets.mlp(jax.random.key(0), (16, 32, 4))
    params = jax.tree.map(lambda x: x.astype(jnp.float64), net.params)
    rng = np.random.default_rng(0)
    data = btl.data.arrays(rng.normal(size=(NUM, 16)), rng.integers(0, 4, NUM))
    factor = jax.tree.map(lambda x: 0.3 * x, btl.tree.normal_like(jax.random.key(1), params, 3))
    joint = btl.LogJoint(net, btl.likelihoods.categorical(), btl.gaussians.low_rank(params, 0.5, factor), num_data=NUM)
    methods = {
        "map": btl.infer.map_estimate(joint, optax.sgd(3e-2, momentum=0.9)),
        "vi": btl.infer.mean_field_vi(joint, optax.adam(1e-2)),
    }

    def fit(method: str, start: Any, steps: int = STEPS, **options: Any) -> Any:
        options = {"batch_size": BATCH, "chunk_size": 15, "progress": False, **options}
        return btl.fit(jax.random.key(3), methods[method], start, data, steps=steps, **options)

    if jax.device_count() == 1:
        return {method: fit(method, params) for method in methods}
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    over = NamedSharding(mesh, PartitionSpec("data"))
    sharded = btl.shard_params(params, mesh, "data")
    runs = {}
    for method in methods:
        runs[f"{method}, replicated"] = fit(method, params, sharding=over)
        runs[f"{method}, sharded"] = fit(method, sharded, sharding=over)
        # The second half goes on from what the first one saved.
        saved = btl.Checkpoint(checkpoints / method, every=15)
        fit(method, sharded, steps=20, sharding=over, checkpoint=saved)
        runs[f"{method}, resumed"] = fit(method, sharded, sharding=over, checkpoint=saved)
    if jax.process_count() == 1:
        # What one device saved goes on over all of them.
        saved = btl.Checkpoint(checkpoints / "one device", every=15)
        fit("map", params, steps=20, checkpoint=saved)
        runs["map, moved"] = fit("map", sharded, sharding=over, checkpoint=saved)
    return runs


if __name__ == "__main__":
    rest = sys.argv[3:]
    main(Path(sys.argv[1]), int(sys.argv[2]), int(rest[0]) if rest else None, rest[1] if rest else None)
