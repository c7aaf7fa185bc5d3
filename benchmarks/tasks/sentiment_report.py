"""What the task with sentences found: tables, verdicts and a figure."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import bayestl as btl
from benchmarks._records import Rows
from benchmarks._tables import markdown, of, verdict
from benchmarks.tasks.sentiment_config import (
    AS_IS,
    CNN_SCALES,
    CNN_STEPS,
    CNN_TRANSFER,
    FROZEN,
    INITIALISATION,
    L2_SP,
    METHODS,
    ROW_WISE,
    SCRATCH,
    SOURCES,
    TEST,
    TRANSFER,
    VALIDATION,
    Config,
)

CAPTION = """\
Test scores over {seeds} seeds (which labels, initialisation, order of batches), mean ± standard error; lower is better
but for accuracy. Network: the mean of 50 numbers per word and a linear head. Sources: GloVe 6B (the first 60,000
words), and the same network trained on film reviews (rt-polarity) from GloVe, {accuracy:.3f} accurate there. {test}
sentences for the test, scored once; labels in all, drawn from the other sentences; every choice by the NLL of
{validation} more, which a user with few labels would not have. Every method has {settings} settings, each of {steps}
steps: scales of the prior at one learning rate, or learning rates where there is no prior. Row-wise: the scale of a
word grows with the root of its rarity. The scale of a head of other classes is chosen where the table is frozen; else
it is 1, or that of the table where that is larger. Seconds are for all settings of one seed, of all seeds side by side,
compilation apart."""


ABOUT_TRANSFER = """\
Transfer is one call of `btl.transfer` from the film network, which sees no validation data."""


ABOUT_CNN = """\
Kim CNN is a convolutional network over the same vectors (Kim 2014), trained on the film reviews ({accuracy:.3f}
accurate there): its mode on the target around the film network, with {settings} scales and {steps} steps each."""


def report(config: Config, rows: Rows) -> str:
    """Tables in Markdown: one per target and number of labels, and what they say."""
    accuracy = rows.rows[0]["source_accuracy"] if rows.rows else float("nan")
    parts = [
        CAPTION.format(
            seeds=config.seeds,
            accuracy=accuracy,
            test=TEST,
            validation=VALIDATION,
            settings=len(config.scales),
            steps=config.steps,
        )
    ]
    if any(row["method"] == TRANSFER for row in rows.rows):
        parts.append(ABOUT_TRANSFER)
    convolutional = [row for row in rows.rows if row["method"] == CNN_TRANSFER]
    if convolutional:
        learned = convolutional[0]["source_accuracy"]
        parts.append(ABOUT_CNN.format(accuracy=learned, settings=len(CNN_SCALES), steps=CNN_STEPS))
    for target in config.targets:
        for n in config.num_labels:
            parts.append(f"### {target}, {n} labels")
            parts.append(markdown(rows.rows, {"target": target, "n": n}, METHODS, f"GloVe, {FROZEN}"))
        parts.append(_verdicts(config, rows, target))
    return "\n\n".join(part for part in parts if part) + "\n"


def _verdicts(config: Config, rows: Rows, target: str) -> str:
    """Paired differences in NLL that answer a question each."""
    film, glove = SOURCES[1], SOURCES[0]
    pairs = [
        (f"{glove}, {L2_SP}", SCRATCH),
        (f"{film}, {L2_SP}", f"{glove}, {L2_SP}"),
        (f"{film}, {L2_SP}", f"{film}, {INITIALISATION}"),
        (f"{film}, {L2_SP}", f"{film}, {FROZEN}"),
        (f"{film}, {ROW_WISE}", f"{film}, {L2_SP}"),
        (f"{glove}, {ROW_WISE}", f"{glove}, {L2_SP}"),
        (TRANSFER, f"{film}, {L2_SP}"),
        (f"{film}, {L2_SP}", AS_IS),
        (CNN_TRANSFER, f"{film}, {L2_SP}"),
    ]
    lines = []
    for n in config.num_labels:
        for mine, other in pairs:
            a, b = (of(rows.rows, "nll", target=target, n=n, method=method) for method in (mine, other))
            if len(a) and len(a) == len(b):
                lines.append(f"* {target}, n = {n}: {mine} minus {other}: {verdict(a - b)}.")
    return "\n".join(lines)


def figure(config: Config, rows: Rows, path: Path) -> None:
    """NLL against the number of labels, a panel for each target."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    canvas, axes = plt.subplots(1, len(config.targets), figsize=(6 * len(config.targets), 5.6), layout="constrained")
    panels = np.atleast_1d(axes)
    values = {target: {m: _by_labels(config, rows, target, m) for m in METHODS} for target in config.targets}
    # A method that one target lacks keeps its place there, so that colours mean the same in all panels.
    present = [m for m in METHODS if not all(np.isnan(of_target[m]).all() for of_target in values.values())]
    for ax, target in zip(panels, config.targets, strict=True):
        lines = {m: values[target][m] for m in present}
        btl.plots.metric_against_n(config.num_labels, lines, ax=ax, ylabel="test NLL (nats), lower is better")
        ax.set(title=target, xlabel="labels")
        ax.get_legend().remove()
    handles, labels = panels[0].get_legend_handles_labels()
    canvas.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.savefig(path, dpi=110)
    plt.close(canvas)


def _by_labels(config: Config, rows: Rows, target: str, method: str) -> np.ndarray:
    """NLL per seed and number of labels; NaN where the method was not run."""
    columns = []
    for n in config.num_labels:
        nll = of(rows.rows, "nll", target=target, n=n, method=method)
        columns.append(nll if len(nll) == config.seeds else np.full(config.seeds, np.nan))
    return np.stack(columns, axis=1)
