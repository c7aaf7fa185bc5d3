"""Run a benchmark task: ``python -m benchmarks.run digits``, ``cats_vs_dogs``, ``cifar_shift``, ``control``, ..."""

from __future__ import annotations

import argparse
import importlib
import os
import time
from pathlib import Path
from typing import Any

import jax

RESULTS = Path(__file__).parent / "results"
# Those of benchmarks._published, which would import the package before the devices are known.
NETWORKS = ("mobilenet", "vgg16", "resnet18", "resnet50")
CACHE = Path(__file__).parent.parent / "build" / "pictures"
SENTENCES = CACHE.with_name("sentences")
# What the short version of digits leaves out.
DIGITS_DEMO = {"sampled_at": (3,), "nuts_steps": 150, "layers_at": ()}


def main() -> None:
    """Parse the command line, run, and write rows, table and figure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    tasks = parser.add_subparsers(dest="task", required=True)
    digits = tasks.add_parser("digits", help="handwritten digits: a source that helps one target and misleads another")
    digits.add_argument("--demo", action="store_true", help="5 seeds, some six minutes on two cores")
    digits.add_argument("--seeds", type=int, help="number of seeds (full: 10, demo: 5)")
    digits.add_argument("--steps", type=int, help="steps per run (full: 500, demo: 300)")
    digits.add_argument("--out", type=Path, help="where rows, table and figure go")
    digits.add_argument("--fresh", action="store_true", help="forget rows of an earlier, interrupted run")
    cats = tasks.add_parser("cats_vs_dogs", help="photographs of cats and dogs from ImageNet weights")
    cats.add_argument(
        "--network",
        default="mobilenet",
        choices=NETWORKS,
        help="published network; its weights are in the data directory",
    )
    cats.add_argument("--recipe-steps", type=int, help="steps of the original recipe (full: 3000, demo: 300)")
    shift = tasks.add_parser("cifar_shift", help="CIFAR-10 behind JPEG compression, from a ResNet-20 trained without")
    for task, labels in ((cats, "labelled photographs"), (shift, "labels per class")):
        task.add_argument("--data-dir", type=Path, help="directory of weights and pictures ($BAYESTL_DATA_DIR)")
        task.add_argument("--cache", type=Path, default=CACHE, help="where imported pictures are kept")
        task.add_argument("--demo", action="store_true", help="fewer seeds, steps and settings, for two cores")
        task.add_argument("--n", type=int, nargs="+", help=labels)
        task.add_argument("--seeds", type=int, help="number of seeds (5)")
        task.add_argument("--methods", nargs="+", metavar="NAME", help="only these, by their names in the table")
        task.add_argument("--out", type=Path, help="where rows, table and figures go")
        task.add_argument("--fresh", action="store_true", help="forget rows of an earlier, interrupted run")
    control = tasks.add_parser("control", help="CartPole under other physics, from policies that were trained on it")
    control.add_argument("--data-dir", type=Path, help="directory of the source's policies ($BAYESTL_DATA_DIR)")
    control.add_argument("--demo", action="store_true", help="settings that the full run chose, 3 minutes a target")
    control.add_argument("--targets", nargs="+", metavar="NAME", help="weak, gravity, long, swapped; by default all")
    control.add_argument("--seeds", type=int, help="number of seeds, one for each run of the source (full: 6, demo: 3)")
    control.add_argument("--out", type=Path, help="where rows, table and figure go")
    control.add_argument("--fresh", action="store_true", help="forget rows of an earlier, interrupted run")
    posteriors = tasks.add_parser("posteriors", help="every posterior around one prior, against NUTS")
    posteriors.add_argument("--data-dir", type=Path, help="directory of the regression data ($BAYESTL_DATA_DIR)")
    posteriors.add_argument("--seeds", type=int, default=5, help="number of seeds")
    posteriors.add_argument("--problems", nargs="+", default=["yacht", "moons"], choices=["yacht", "moons"])
    posteriors.add_argument("--methods", nargs="+", default=[], metavar="NAME", help="only these beside NUTS")
    posteriors.add_argument("--out", type=Path, default=RESULTS / "posteriors", help="where rows and table go")
    posteriors.add_argument("--fresh", action="store_true", help="forget rows of an earlier, interrupted run")
    sentiment = tasks.add_parser("sentiment", help="sentences: from film reviews to product reviews and to questions")
    sentiment.add_argument("--data-dir", type=Path, help="directory of vectors and texts ($BAYESTL_DATA_DIR)")
    sentiment.add_argument("--targets", nargs="+", metavar="NAME", help="custrev, TREC")
    sentiment.add_argument("--n", type=int, nargs="+", help="labels in all")
    sentiment.add_argument("--seeds", type=int, help="number of seeds (5)")
    sentiment.add_argument("--transfer-at", type=int, nargs="*", help="numbers of labels at which btl.transfer runs")
    sentiment.add_argument("--cnn-at", type=int, nargs="*", help="numbers of labels at which Kim's CNN runs")
    sentiment.add_argument("--minilm", nargs="*", metavar="NAME", help="only these methods on MiniLM, by their names")
    sentiment.add_argument("--cache", type=Path, default=SENTENCES, help="where activations of MiniLM are kept")
    sentiment.add_argument("--out", type=Path, default=RESULTS / "sentiment", help="where rows, table and figure go")
    sentiment.add_argument("--fresh", action="store_true", help="forget rows of an earlier, interrupted run")
    uci = tasks.add_parser("uci", help="small regressions on their standard splits, published numbers beside ours")
    uci.add_argument("--datasets", nargs="+", metavar="NAME", help="concrete, energy, yacht, wine-quality-red")
    shift_table = tasks.add_parser("shift", help="CIFAR-10, few labels, corrupted test pictures: priors and posteriors")
    fewshot = tasks.add_parser("fewshot", help="CIFAR-10 with 10 to 1000 labels: zero-mean and learned priors")
    for task in (shift_table, fewshot):
        task.add_argument("--n", type=int, nargs="+", help="labels in all")
        task.add_argument("--cache", type=Path, default=CACHE, help="where imported pictures are kept")
    for task in (uci, shift_table, fewshot):
        task.add_argument("--data-dir", type=Path, help="directory of weights and data ($BAYESTL_DATA_DIR)")
        task.add_argument("--demo", action="store_true", help="fewer settings, steps and data, a minute or two")
        task.add_argument("--seeds", type=int, help="number of seeds, or of splits (5)")
        task.add_argument("--out", type=Path, help="where rows and table go")
        task.add_argument("--fresh", action="store_true", help="forget rows of an earlier, interrupted run")
    arguments = parser.parse_args()
    if arguments.task in ("uci", "shift", "fewshot"):
        return run_table(arguments)
    if arguments.task == "posteriors":
        return run_posteriors(arguments)
    if arguments.task == "control":
        return run_control(arguments)
    if arguments.task == "sentiment":
        return run_sentiment(arguments)
    if arguments.task != "digits":
        # Convolutions of one program share all cores, so that one device is the faster layout here.
        return run_pictures(arguments)
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
    settings = {name: value for name, value in config._asdict().items() if name not in digits.MAY_GROW}
    rows = Rows(out / "rows.jsonl", settings, fresh=arguments.fresh)
    digits.run(config, rows)
    report = digits_report.report(config, rows)
    (out / "table.md").write_text(report)
    digits_report.figure(config, rows, out / "figure.png")
    print(f"\n{report}\nrows, table and figure are in {_shown(out)}; {time.perf_counter() - began:.0f} s in all")


def run_posteriors(arguments: argparse.Namespace) -> None:
    """The comparison with NUTS."""
    from benchmarks._records import Rows
    from benchmarks.tasks import posteriors, posteriors_report

    unknown = sorted(set(arguments.methods) - set(posteriors.METHODS))
    if unknown or arguments.seeds < 1:
        raise SystemExit(
            f"--methods has {unknown}, --seeds {arguments.seeds}; there are {', '.join(posteriors.METHODS)}"
        )
    began = time.perf_counter()
    config = posteriors.Config(tuple(arguments.problems), tuple(arguments.methods), arguments.seeds)
    settings = {k: v for k, v in config._asdict().items() if k not in ("problems", "methods", "seeds")}
    rows = Rows(arguments.out / "rows.jsonl", settings, fresh=arguments.fresh)
    posteriors.run(config, rows, _data_dir(arguments.data_dir))
    report = posteriors_report.report(config, rows)
    (arguments.out / "table.md").write_text(report)
    print(f"\n{report}\nrows and table are in {_shown(arguments.out)}; {time.perf_counter() - began:.0f} s in all")


def run_table(arguments: argparse.Namespace) -> None:
    """The tables of the field."""
    from benchmarks._records import Rows

    began = time.perf_counter()
    task, reports = (importlib.import_module(f"benchmarks.tasks.{arguments.task}{end}") for end in ("", "_report"))
    config = task.demo(task.Config()) if arguments.demo else task.Config()
    given = {"num_labels": getattr(arguments, "n", None), "datasets": getattr(arguments, "datasets", None)}
    given["seeds"] = arguments.seeds
    config = task.checked(config._replace(**{k: _frozen(v) for k, v in given.items() if v is not None}))
    out = arguments.out or RESULTS / (arguments.task + ("-demo" if arguments.demo else ""))
    # Data sets, numbers of labels and seeds may be added to an earlier run: its rows stay.
    settings = {k: v for k, v in config._asdict().items() if k not in task.MAY_GROW}
    rows = Rows(out / "rows.jsonl", settings, fresh=arguments.fresh)
    where = [_data_dir(arguments.data_dir), *([arguments.cache] if hasattr(arguments, "cache") else [])]
    task.run(config, rows, *where)
    report = reports.report(config, rows)
    (out / "table.md").write_text(report)
    print(f"\n{report}\nrows and table are in {_shown(out)}; {time.perf_counter() - began:.0f} s in all")


def run_control(arguments: argparse.Namespace) -> None:
    """Policies on CartPole."""
    from benchmarks._records import Rows
    from benchmarks.tasks import control, control_cloning, control_config, control_demo, control_report
    from benchmarks.tasks import control_sequential as sequential

    began = time.perf_counter()
    seeds = arguments.seeds if arguments.seeds is not None else (3 if arguments.demo else 6)
    config = control_config.Config(seeds=seeds)
    if arguments.targets:
        config = config._replace(targets=tuple(arguments.targets))
    if unknown := sorted(set(config.targets) - set(control_config.TARGETS)):
        raise SystemExit(f"--targets has {', '.join(unknown)}; there are {', '.join(control_config.TARGETS)}")
    if len(config.targets) == 1 and not arguments.demo:
        raise SystemExit("--targets names one target, and its settings are chosen on others; give two, or --demo")
    out = arguments.out or RESULTS / ("control-demo" if arguments.demo else "control")
    settings = {k: v for k, v in config._asdict().items() if k != "targets"}
    rows = Rows(out / "rows.jsonl", settings, fresh=arguments.fresh)
    later = Rows(out / "sequential_rows.jsonl", settings | sequential.settings(), fresh=arguments.fresh)
    data_dir = _data_dir(arguments.data_dir)
    if arguments.demo:
        searched, chosen, pairs = control_demo.choices(RESULTS / "control")
        control.run(config, rows, data_dir, chosen)
        sequential.run(config, later, data_dir, chosen.shared[control_config.TUNED_EM], pairs)
        tables = [control_demo.NOTE, control_report.report(config, rows, searched)]
    else:
        control.run(config, rows, data_dir)
        shared = control.shared(config, rows, control_config.TUNED_EM)
        control_cloning.run(config, rows, control.source(data_dir, config.seeds), shared)
        sequential.run(config, later, data_dir, shared)
        tables = [control_report.report(config, rows)]
    report = "\n".join([*tables, sequential.report(config, later), control_report.speed(config)]) + "\n"
    (out / "table.md").write_text(report)
    control_report.figure(config, rows, later, out)
    print(f"\n{report}\nrows, table and figure are in {_shown(out)}; {time.perf_counter() - began:.0f} s in all")


def run_sentiment(arguments: argparse.Namespace) -> None:
    """The task with sentences."""
    from benchmarks._records import Rows
    from benchmarks.tasks import (
        sentiment,
        sentiment_config,
        sentiment_minilm,
        sentiment_minilm_report,
        sentiment_report,
    )

    began = time.perf_counter()
    given = {"num_labels": arguments.n, "seeds": arguments.seeds, "targets": arguments.targets}
    given |= {"transfer_at": arguments.transfer_at, "cnn_at": arguments.cnn_at}
    config = sentiment_config.checked(
        sentiment_config.Config()._replace(**{k: _frozen(v) for k, v in given.items() if v is not None})
    )
    # Targets and numbers of labels may be added to an earlier run: its rows stay.
    settings = {k: v for k, v in config._asdict().items() if k not in sentiment_config.MAY_GROW}
    rows = Rows(arguments.out / "rows.jsonl", settings, fresh=arguments.fresh)
    data_dir = _data_dir(arguments.data_dir)
    sentiment.run(config, rows, data_dir)
    given = {name: given[name] for name in ("num_labels", "seeds", "targets")}
    given |= {"methods": arguments.minilm, "dear_at": None if arguments.minilm is None else arguments.n}
    encoder = sentiment_config.checked_encoder(
        sentiment_config.EncoderConfig()._replace(**{k: _frozen(v) for k, v in given.items() if v is not None})
    )
    settings = {k: v for k, v in encoder._asdict().items() if k not in sentiment_config.ENCODER_MAY_GROW}
    encoder_rows = Rows(arguments.out / "minilm.jsonl", settings, fresh=arguments.fresh)
    sentiment_minilm.run(encoder, encoder_rows, data_dir, arguments.cache)
    parts = sentiment_report.report(config, rows), sentiment_minilm_report.report(encoder, encoder_rows)
    report = "\n".join(part for part in parts if part)
    (arguments.out / "table.md").write_text(report)
    sentiment_report.figure(config, rows, arguments.out / "figure.png")
    print(
        f"\n{report}\nrows, table and figure are in {_shown(arguments.out)}; {time.perf_counter() - began:.0f} s in all"
    )


def run_pictures(arguments: argparse.Namespace) -> None:
    """The tasks with published weights and pictures."""
    from benchmarks._records import Rows

    began = time.perf_counter()
    task, reports = (importlib.import_module(f"benchmarks.tasks.{arguments.task}{end}") for end in ("", "_report"))
    data_dir = _data_dir(arguments.data_dir)
    config = task.demo(task.Config()) if arguments.demo else task.Config()
    given = {"num_labels": arguments.n, "seeds": arguments.seeds, "methods": arguments.methods}
    given |= {name: getattr(arguments, name, None) for name in ("network", "recipe_steps")}
    config = task.checked(config._replace(**{k: _frozen(v) for k, v in given.items() if v is not None}))
    out = arguments.out or RESULTS / (arguments.task + ("-demo" if arguments.demo else ""))
    # Methods and numbers of labels may be added to an earlier run: its rows stay.
    settings = {k: v for k, v in config._asdict().items() if k not in task.MAY_GROW}
    rows = Rows(out / "rows.jsonl", settings, fresh=arguments.fresh)
    pictures = task.run(config, rows, data_dir, arguments.cache)
    report = reports.report(config, rows, pictures)
    (out / "table.md").write_text(report)
    reports.figures(config, rows, pictures, out)
    print(f"\n{report}\nrows, table and figures are in {_shown(out)}; {time.perf_counter() - began:.0f} s in all")


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _data_dir(given: Path | None) -> Path:
    """The directory of published weights and pictures."""
    directory = given or os.environ.get("BAYESTL_DATA_DIR")
    if directory is None or not Path(directory).is_dir():
        raise SystemExit(
            f"the data directory is {directory}; give the folder of weights and pictures as --data-dir, or set "
            "BAYESTL_DATA_DIR"
        )
    return Path(directory)


def _shown(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


if __name__ == "__main__":
    main()
