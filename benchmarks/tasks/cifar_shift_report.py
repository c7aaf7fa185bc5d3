"""What the task with shifted CIFAR-10 found: tables, verdicts and a figure."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import bayestl as btl
from benchmarks._records import Rows
from benchmarks._tables import bins_of, markdown, of, verdict
from benchmarks.tasks.cifar_shift import (
    BODY_VI,
    BOTH,
    FISHER,
    HEAD_VI,
    L2_SP,
    METHODS,
    SOURCE_AS_IS,
    TEMPERATURE,
    TRANSFER,
    Config,
    Pictures,
)

CAPTION = """\
Test scores over {seeds} seeds (which labels, order of batches), mean ± standard error; lower is better but for
accuracy. Source: the published ResNet-20 for CIFAR-10; target: the same classes as JPEG pictures, all of CIFAR-10's
test part, which the source never saw: every fifth of them, {test}, for the test, scored once; labels from a pool of
{pool} others; every choice by the NLL of {validation} more, which a user with few labels would not have. Every method
starts at the source's weights and keeps its running statistics; it has {settings} settings, each of {steps} steps.
Trained are the temperature of the logits, or the head, or the last {blocks} and the head on cached maps without
augmentation. The Fisher information that gives the learned prior its shape is from the pool's pictures without their
labels. Seconds are for all settings of one seed, compilation apart."""
ABOUT_TRANSFER = """\
"transfer, head" is one call of `btl.transfer` for the head on the published body's features, which sees no validation
data. Its seconds hold compilation."""


def report(config: Config, rows: Rows, shown: Pictures) -> str:
    """Tables in Markdown: one per number of labels, and what they say."""
    blocks = f"{config.blocks} block{'s' if config.blocks > 1 else ''}"
    parts = [
        CAPTION.format(
            seeds=config.seeds,
            steps=config.steps,
            test=len(shown.split.test),
            pool=len(shown.split.train),
            validation=len(shown.split.validation),
            settings=len(config.scales) * len(config.rates),
            blocks=blocks,
        )
    ]
    if any(row["method"] == TRANSFER for row in rows.rows):
        parts.append(ABOUT_TRANSFER)
    for n in config.num_labels:
        parts.append(f"### {n} label{'s' if n > 1 else ''} per class")
        parts.append(markdown(rows.rows, {"n": n}, METHODS, TEMPERATURE))
        parts.append(_verdict(rows, n))
    return "\n\n".join(part for part in parts if part) + "\n"


def _verdict(rows: Rows, n: int) -> str:
    """Paired differences in NLL to the source as it is and to a temperature alone."""
    lines = []
    for mine in (TRANSFER, TEMPERATURE, HEAD_VI, L2_SP, BOTH, FISHER, BODY_VI):
        for other in (SOURCE_AS_IS, TEMPERATURE):
            a, b = (of(rows.rows, "nll", n=n, method=method) for method in (mine, other))
            if mine != other and len(a) and len(a) == len(b):
                lines.append(f"* n = {n}: {mine} minus {other}: {verdict(a - b)}.")
    return "\n".join(lines)


def figures(config: Config, rows: Rows, shown: Pictures, out: Path) -> None:
    """NLL and accuracy against the number of labels, and reliability at the middle number."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = [m for m in METHODS if all(len(of(rows.rows, "nll", n=n, method=m)) for n in config.num_labels)]
    if not names:
        return
    canvas, axes = plt.subplots(1, 3, figsize=(16, 5.6), layout="constrained")
    for ax, field, label in ((axes[0], "nll", "test NLL (nats), lower is better"), (axes[1], "accuracy", "accuracy")):
        values = {m: np.stack([of(rows.rows, field, n=n, method=m) for n in config.num_labels], axis=1) for m in names}
        btl.plots.metric_against_n(config.num_labels, values, ax=ax, ylabel=label)
        ax.set_xlabel("labels per class")
    middle = config.num_labels[len(config.num_labels) // 2]
    btl.plots.reliability({m: bins_of(rows.rows, n=middle, method=m) for m in names}, ax=axes[2], min_count=10)
    axes[2].set_title(f"is stated confidence right? ({middle} labels per class, all seeds)")
    handles, labels = axes[2].get_legend_handles_labels()
    for ax in axes:
        ax.get_legend().remove()
    canvas.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)
    canvas.savefig(out / "figure.png", dpi=110)
    plt.close(canvas)
