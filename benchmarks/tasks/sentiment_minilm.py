"""MiniLM in the task with sentences: which methods run, on what, and their rows."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import bayestl as btl
from benchmarks._records import Rows, command_line, provenance
from benchmarks.tasks.sentiment_config import (
    DEAR,
    FILMS,
    FILMS_AS_IS,
    FROZEN,
    HEAD_TRANSFERS,
    LAPLACE,
    MAP,
    MINILM,
    POSTERIORS,
    PROBE,
    TARGETS,
    EncoderConfig,
)
from benchmarks.tasks.sentiment_encoder import encoded, encoder, features, film_tail, tail_net
from benchmarks.tasks.sentiment_minilm_methods import (
    Sourced,
    Task,
    run_as_is,
    run_head,
    run_head_transfer,
    run_posterior,
    run_probe,
    way,
)


def rows_of(task: Task, method: str) -> list[dict[str, Any]]:
    """A row for each seed."""
    # The longer name first, since it begins with the other.
    name = FILMS if method.startswith(FILMS) else MINILM
    source, seeds = task.sources[name], range(task.config.seeds)
    if method in HEAD_TRANSFERS:
        return run_head_transfer(task, source)
    if method in (PROBE, FILMS_AS_IS, f"{name}, {FROZEN}"):
        run = {PROBE: run_probe, FILMS_AS_IS: run_as_is}.get(method, run_head)
        return [{"seed": seed, **run(task, source, seed)} for seed in seeds]
    part, how = method.removeprefix(f"{name}, ").rsplit(" ", 1)
    path = way(task, source, part, how)
    modes = way(task, source, part, MAP) if how == LAPLACE else path
    return [{"seed": seed, **run_posterior(task, source, path, modes, seed)} for seed in seeds]


def applies(method: str, num_classes: int) -> bool:
    """Whether a method is run: what is around the film reviews' head only where the classes are theirs."""
    around_films = method == FILMS_AS_IS or (method in POSTERIORS and method.startswith(FILMS))
    return not around_films or num_classes == TARGETS["custrev"][1]


def run(config: EncoderConfig, rows: Rows, data_dir: Path, cache: Path, progress: bool = True) -> None:
    """Run what is missing in ``rows``: a cell is one method on one target at one number of labels, for all seeds."""
    cells = {target: missing(config, rows, target) for target in config.targets}
    if not any(cells.values()):
        return
    provided, net = provenance(command_line()), encoder(data_dir)
    films = film_tail(config, net, data_dir, cache, progress)
    print(f"source: accuracy {films.accuracy:.3f} on film reviews, {films.seconds:.0f} s", flush=True)
    told = {"kappa": 1.0, "temperature": 1.0, "source_accuracy": films.accuracy, "source_seconds": films.seconds}
    for target, of_target in cells.items():
        if not of_target:
            continue
        path, num_classes = TARGETS[target]
        behind = encoded(net, data_dir / path, data_dir, cache, config.length)
        told |= {"cut_short": behind.cut_short, "sentences": behind.data.num_examples, **provided}
        sources = sources_of(net, films.net, behind.data, num_classes)
        for n in sorted({n for n, _ in of_target}):
            task = Task(config, behind.data, sources, n)
            for method in (method for num, method in of_target if num == n):
                print(f"{target}, {n} labels, {method}", flush=True)
                key = {"task": "sentiment", "target": target, "n": n, "method": method}
                rows.add([{**key, **each, **told} for each in rows_of(task, method)])


def missing(config: EncoderConfig, rows: Rows, target: str) -> list[tuple[int, str]]:
    """Number of labels and method of what is not there yet."""
    return [
        (n, method)
        for n in config.num_labels
        for method in config.methods
        if (method not in DEAR or n in config.dear_at)
        and applies(method, TARGETS[target][1])
        and not rows.have(target=target, n=n, method=method)
    ]


def sources_of(net: btl.pretrained.Backbone, films: btl.Net, data: Any, num_classes: int) -> dict[str, Sourced]:
    """Both sources for one target."""
    fresh = tail_net(net, num_classes)
    has_head = num_classes == TARGETS["custrev"][1]
    learned = btl.tree.by_paths(films.params)
    kept = {path: x for path, x in learned.items() if has_head or not path.startswith("head/")}
    after = dataclasses.replace(
        fresh, params=btl.tree.restructure({**btl.tree.by_paths(fresh.params), **kept}, fresh.params)
    )
    return {
        MINILM: Sourced(MINILM, fresh, features(fresh, data), False),
        FILMS: Sourced(FILMS, after, features(after, data), has_head),
    }
