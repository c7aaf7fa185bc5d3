"""What low-rank adapters cost beside training all weights: ``python -m benchmarks.speed_adapters``; needs MiniLM
in BAYESTL_DATA_DIR.

Ratios within one run, as in ``benchmarks.speed``: a step of adapters against a step of the whole network, and eight
members at once against one. Memory is printed beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx

import bayestl as btl
from benchmarks._records import provenance
from benchmarks._speed_table import table
from benchmarks._speed_work import alternate, show

RESULTS = Path(__file__).parent / "results" / "speed_adapters.jsonl"
BATCH, TOKENS, RANK, MEMBERS = 16, 32, 8, 8


def minilm() -> btl.Net:
    """all-MiniLM-L6-v2 with a new head for two classes."""
    folder = Path(os.environ["BAYESTL_DATA_DIR"]) / "minilm"
    config = json.loads((folder / "config.json").read_text())
    skeleton = nnx.eval_shape(lambda: btl.pretrained.bert(jax.random.key(0), config))
    arrays = btl.pretrained.read(folder / "all-MiniLM-L6-v2.fp16.safetensors").arrays
    encoder = btl.pretrained.load(skeleton, arrays, btl.pretrained.tables.bert(config["num_hidden_layers"])).net
    return btl.nets.from_nnx(encoder.with_head(nnx.Linear(config["hidden_size"], 2, rngs=nnx.Rngs(0))))


def texts() -> Any:
    """Random token numbers and labels."""
    rng = np.random.default_rng(0)
    return btl.data.arrays(rng.integers(1, 30_000, (256, TOKENS)).astype(np.int32), rng.integers(0, 2, 256))


def method(net: btl.Net) -> btl.Inference:
    """MAP under an isotropic prior, by Adam."""
    prior = btl.gaussians.isotropic(net.params, 0.1)
    return btl.infer.map_estimate(btl.LogJoint(net, btl.likelihoods.categorical(), prior), optax.adam(1e-4))


def one(net: btl.Net, data: Any, steps: int) -> Callable[..., float]:
    """Seconds per step of ``fit``, which may be given callbacks."""
    inference = method(net)

    def run(*callbacks: Any) -> float:
        fitted = btl.fit(
            jax.random.key(0), inference, net.params, data, steps=steps, batch_size=BATCH, callbacks=callbacks,
            progress=False,
        )  # fmt: skip
        return fitted.seconds / steps

    return run


def at_once(net: btl.Net, data: Any, steps: int) -> Callable[..., float]:
    """Seconds per step of all members together, side by side in one program."""
    inference = method(net)

    def run(*callbacks: Any) -> float:
        keys = jax.random.split(jax.random.key(0), MEMBERS)
        fitted = btl.fit_many(
            keys, lambda _: inference, None, net.params, data, steps=steps, batch_size=BATCH, vectorize=jax.vmap,
            callbacks=callbacks, progress=False,
        )  # fmt: skip
        return fitted.seconds / steps

    return run


def peak() -> int:
    """The most memory that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def num_bytes(tree: Any) -> int:
    """Bytes of all arrays."""
    return sum(x.nbytes for x in jax.tree.leaves(tree))


def mib(number: int) -> str:
    """Bytes in MiB."""
    return f"{number / 2**20:.1f}"


def rows(repeats: int, steps: int) -> list[dict[str, Any]]:
    """All comparisons."""
    net, data = minilm(), texts()
    attention = btl.nets.adapt(
        jax.random.key(1), net, data.inputs[:1], RANK, where="**/attention/**", trained="head/**"
    )
    every = btl.nets.adapt(jax.random.key(1), net, data.inputs[:1], RANK, trained="head/**")
    sizes = {name: btl.tree.size(n.params) for name, n in (("all", net), ("attention", attention), ("dense", every))}
    print(f"parameters: {sizes}; batch {BATCH}, {TOKENS} tokens, rank {RANK}, Adam")
    # The members come first, since memory that was used once does not all go back to the system.
    single, members = one(attention, data, steps), at_once(attention, data, steps)
    memory: dict[str, Any] = {"frozen": num_bytes(attention.state), "adapters": MEMBERS * num_bytes(attention.params)}
    outside = num_bytes(net.params)  # the network itself, of which the adapted one holds the same arrays
    for name, run in (("one", single), (f"{MEMBERS} members", members)):
        arrays: list[int] = []
        run(lambda _, arrays=arrays: arrays.append(num_bytes(jax.live_arrays())))
        memory[name] = {"arrays": max(arrays) - outside, "peak": peak()}
    plan = btl.estimate_memory(method(attention), attention.params, data, batch_size=BATCH)
    memory["activations"] = plan.scratch
    print(
        f"memory in MiB: the frozen weights are {mib(memory['frozen'])}, the adapters of {MEMBERS} members "
        f"{mib(memory['adapters'])}; all arrays held during a run, without the network itself, are "
        f"{mib(memory['one']['arrays'])} for one and {mib(memory[f'{MEMBERS} members']['arrays'])} for {MEMBERS}; the "
        f"process has had {mib(memory['one']['peak'])} and {mib(memory[f'{MEMBERS} members']['peak'])} at the most, of "
        f"which a step's activations are {mib(plan.scratch)} a member"
    )
    result = [
        show(f"{MEMBERS} adapter members at once / one", alternate(members, single, repeats), float(MEMBERS)) | memory
    ]
    full = one(net, data, steps)
    for name, adapted in (("attention", attention), ("every dense product", every)):
        times = alternate(one(adapted, data, steps), full, repeats)
        result.append(show(f"adapter step ({name}) / full fine-tuning step", times, 0.75))
    return result


def main() -> None:
    """Measure, print, and write the rows and their table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=4, help="steps per timing")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    if "BAYESTL_DATA_DIR" not in os.environ:
        parser.error("set BAYESTL_DATA_DIR to the directory that holds minilm/")
    source = provenance(f"python -m benchmarks.speed_adapters --repeats {args.repeats} --steps {args.steps}")
    found = [{**row, **source, "repeats": args.repeats, "steps": args.steps} for row in rows(args.repeats, args.steps)]
    args.out.write_text("".join(json.dumps(row) + "\n" for row in found))
    args.out.with_suffix(".md").write_text(table(args.out))


if __name__ == "__main__":
    main()
