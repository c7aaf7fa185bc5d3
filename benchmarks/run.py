"""Run a benchmark task: ``python -m benchmarks.run digits [--demo]``."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import jax

RESULTS = Path(__file__).parent / "results"
# What the short version of digits leaves out.
DIGITS_DEMO = {"sampled_at": (3,), "nuts_steps": 150}


def main() -> None:
    """Parse the command line, run, and write rows, table and figure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    tasks = parser.add_subparsers(dest="task", required=True)
    digits = tasks.add_parser("digits", help="handwritten digits: a source that helps one target and misleads another")
    digits.add_argument("--demo", action="store_true", help="5 seeds, about 2 minutes on two cores")
    digits.add_argument("--seeds", type=int, help="number of seeds (full: 10, demo: 5)")
    digits.add_argument("--steps", type=int, help="steps per run (full: 500, demo: 300)")
    digits.add_argument("--out", type=Path, help="where rows, table and figure go")
    digits.add_argument("--fresh", action="store_true", help="forget rows of an earlier, interrupted run")
    arguments = parser.parse_args()
    # Members of fit_many spread over one device per core; a GPU or TPU is left as it is.
    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    run_digits(arguments)


def run_digits(arguments: argparse.Namespace) -> None:
    """The digits task."""
    from benchmarks._records import Rows
    from benchmarks.tasks import digits, digits_report

    began = time.perf_counter()
    seeds = arguments.seeds if arguments.seeds is not None else (5 if arguments.demo else 10)
    steps = arguments.steps if arguments.steps is not None else (300 if arguments.demo else 500)
    if seeds < 1 or steps < 10 or steps % 10:
        raise SystemExit("--seeds must be at least 1, --steps a multiple of 10")
    config = digits.Config(seeds=seeds, steps=steps, **(DIGITS_DEMO if arguments.demo else {}))
    out = arguments.out or RESULTS / ("digits-demo" if arguments.demo else "digits")
    rows = Rows(out / "rows.jsonl", config._asdict(), fresh=arguments.fresh)
    digits.run(config, rows)
    report = digits_report.report(config, rows)
    (out / "table.md").write_text(report)
    digits_report.figure(config, rows, out / "figure.png")
    print(f"\n{report}\nrows, table and figure are in {_shown(out)}; {time.perf_counter() - began:.0f} s in all")


def _shown(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


if __name__ == "__main__":
    main()
