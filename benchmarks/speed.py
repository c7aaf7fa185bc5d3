"""What the package costs, as ratios measured in one run: ``python -m benchmarks.speed [PART ...]``.

Every ratio compares two programs that take turns, so that a machine whose speed drifts slows both; compile time is
apart. Targets are those the project set itself; a missed one is printed as missed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax

from benchmarks import speed_training
from benchmarks._records import provenance
from benchmarks._speed_table import table
from benchmarks._speed_work import alternate, show

RESULTS = Path(__file__).parent / "results" / "speed.jsonl"
REPEATS = 5


def resnet50(repeats: int) -> list[dict[str, Any]]:
    """(h) on an accelerator: MAP steps of a ResNet-50 in bfloat16 under a prior of rank 5, batches of 256 pictures."""
    from benchmarks import resnet50

    return resnet50.rows(repeats, batch_size=256, size=224, steps=20)


def imports(repeats: int) -> list[dict[str, Any]]:
    """(d) ``import bayestl``: seconds, against jax alone, and which heavy libraries it loads."""

    def seconds(module: str) -> float:
        code = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
        return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)

    times = alternate(partial(seconds, "bayestl"), partial(seconds, "jax"), repeats)
    heavy = ("tensorflow", "tensorflow_datasets", "matplotlib", "keras", "torch", "sklearn", "flax", "orbax")
    code = f"import bayestl, sys; print(*[m for m in {heavy!r} if m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    row = show("(d) import bayestl / import jax", times, None)
    print(f"(d) of {', '.join(heavy)} it loads: {', '.join(loaded) or 'none'}")
    return [{**row, "loads": loaded}]


def python(repeats: int) -> list[dict[str, Any]]:
    """(p) fit against a Python loop over a jitted step, (q) fit_many against as many loops."""
    from benchmarks import speed_python

    return speed_python.rows(repeats)


def full_size(repeats: int) -> list[dict[str, Any]]:
    """(p) again, and (b), for the ConvNet at full size."""
    from benchmarks import speed_python

    return speed_python.full_size(repeats)


def pictures(repeats: int) -> list[dict[str, Any]]:
    """(i) augmentation in the step, (j) a ResNet-50 beside torch's, (k) decoding."""
    from benchmarks import speed_pictures

    return [*speed_pictures.augmented(repeats), *speed_pictures.forward(repeats), *speed_pictures.decode(repeats)]


def posteriors(repeats: int) -> list[dict[str, Any]]:
    """(l) curvature, (m) linearised predictions, (n) steps of SGHMC and VI, (o) ensembles, beside peers in torch."""
    from benchmarks import speed_posteriors

    return speed_posteriors.rows(repeats)


def trust(repeats: int) -> list[dict[str, Any]]:
    """(t) a call of transfer against a MAP fit."""
    from benchmarks import speed_trust

    return speed_trust.rows(repeats)


def trust_large(repeats: int) -> list[dict[str, Any]]:
    """(t) the same where parameters and examples are many; several minutes."""
    from benchmarks import speed_trust

    return speed_trust.large_rows(repeats)


def judging(repeats: int) -> list[dict[str, Any]]:
    """(u) the table of evaluate against the forward passes."""
    from benchmarks import speed_judging

    return speed_judging.rows(repeats)


PARTS = {
    "loop": speed_training.loop,
    "many": speed_training.many,
    "python": python,
    "full_size": full_size,
    "imports": imports,
    "variational": speed_training.variational,
    "checkpoints": speed_training.checkpoints,
    "streamed": speed_training.streamed,
    "pictures": pictures,
    "posteriors": posteriors,
    "trust": trust,
    "trust_large": trust_large,
    "judging": judging,
}
# Hours on a CPU; `make gpu` asks for it.
ACCELERATOR_PARTS = {"resnet50": resnet50}


def main() -> None:
    """Run the parts, each in a process of its own: parts want different numbers of host devices."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument(
        "parts", nargs="*", choices=[*PARTS, *ACCELERATOR_PARTS, []], help="which parts; by default all"
    )
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        _run_here(arguments)
        return
    if not arguments.parts:
        arguments.out.unlink(missing_ok=True)
    for part in arguments.parts or PARTS:
        options = ["--here", "--repeats", str(arguments.repeats), "--out", str(arguments.out)]
        subprocess.run([sys.executable, "-m", "benchmarks.speed", part, *options], check=True)
    arguments.out.with_suffix(".md").write_text(table(arguments.out))


def _run_here(arguments: argparse.Namespace) -> None:
    (part,) = arguments.parts
    if part == "many":
        # One host device per core, over which members spread; a GPU or TPU is left as it is.
        jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    rows = {**PARTS, **ACCELERATOR_PARTS}[part](arguments.repeats)
    origin = provenance(f"python -m benchmarks.speed {part} --repeats {arguments.repeats}")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    names = {row["name"] for row in rows}
    other_rows = arguments.out.read_text().splitlines() if arguments.out.exists() else []
    other_rows = [line for line in other_rows if json.loads(line)["name"] not in names]
    with arguments.out.open("w") as file:
        file.writelines(line + "\n" for line in other_rows)
        file.writelines(json.dumps({**row, "repeats": arguments.repeats, **origin}) + "\n" for row in rows)


if __name__ == "__main__":
    main()
