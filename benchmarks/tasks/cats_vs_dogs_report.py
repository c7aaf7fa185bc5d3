"""What the cats-against-dogs task found: tables, verdicts, a figure and a sheet of photographs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import bayestl as btl
from benchmarks._published import NETWORKS
from benchmarks._records import Rows
from benchmarks._tables import bins_of, markdown, of, verdict
from benchmarks.tasks.cats_vs_dogs import HEAD_SCALE, HEAD_STEPS
from benchmarks.tasks.cats_vs_dogs_config import (
    DENSE,
    FISHER,
    FISHER_OF_TARGET,
    FROZEN,
    ITERATES,
    L2_SP,
    LINEAR,
    METHODS,
    RECIPE,
    SCRATCH,
    TRANSFER,
    TRANSFER_HEAD,
    Config,
)
from benchmarks.tasks.cats_vs_dogs_views import Photographs

CAPTION = """\
Test scores over {seeds} seeds (which photographs, new head, order of batches), mean ± standard error; lower is better
but for accuracy. {test} test photographs, touched once; every choice by the NLL of the same {validation} validation
photographs, which are more than a user with {least} labels would have. Source: ImageNet weights of {network} at {size}
pixels. The body up to `{cut}` stays as published, running statistics too; trained are the block after it and a new
head (linear, or Dense 256 with ReLUs before it). Feature maps are cached: {copies} augmented copies of each training
photograph, by the original recipe's augmentation, which count as one example. Methods on them have {settings} settings
each, learning rates that fall to zero. Those that train the block start from the head's own mode ({head_steps} steps,
prior scale {head_scale:g}) and take {steps} steps more; those that train the head alone take as many in all.
"{recipe}" is the original: a random dense head, no prior, nothing to choose, augmentation in each of its
{recipe_steps} steps (in the original 3000). "{scratch}" trains the whole network, running statistics too, from a
random initialisation: {scratch_settings} settings of up to {scratch_steps} steps. Learned priors lie around the
published weights; their shape comes from {source_pictures} enlarged pictures of CIFAR-10 under a temporary head: the
diagonal of the Fisher information, or the iterates of SGD. "{fisher_of_target}" takes the Fisher information, under
the same temporary head, on the photographs of the training pool, without their labels. Seconds are for all settings of
one seed, compilation apart."""
ABOUT_TRANSFER = """\
"transfer" and "transfer, head" are one call of `btl.transfer` each, of the block and a new head or of the head alone,
which sees no validation data and no augmented copies. Their seconds hold compilation."""


def report(config: Config, rows: Rows, photos: Photographs) -> str:
    """Tables in Markdown: one per number of labels and head, and what they say."""
    parts = [_caption(config, photos)]
    if any(row["method"] in (TRANSFER, TRANSFER_HEAD) for row in rows.rows):
        parts.append(ABOUT_TRANSFER)
    for n in config.num_labels:
        for head in (LINEAR, DENSE):
            key = {"n": n, "head": head}
            if any(all(row[name] == value for name, value in key.items()) for row in rows.rows):
                parts += [f"### {n} photographs, {head} head", markdown(rows.rows, key, METHODS, FROZEN)]
        parts.append(_verdict(config, rows, n))
    return "\n\n".join(part for part in parts if part) + "\n"


def _caption(config: Config, photos: Photographs) -> str:
    return CAPTION.format(
        **config._asdict(),
        test=len(photos.split.test),
        validation=len(photos.split.validation),
        least=min(config.num_labels),
        cut=NETWORKS[config.network].cut,
        settings=len(config.scales) * len(config.rates),
        head_steps=HEAD_STEPS,
        head_scale=HEAD_SCALE,
        recipe=RECIPE,
        fisher_of_target=FISHER_OF_TARGET,
        scratch=SCRATCH,
        scratch_settings=3 * len(config.scratch_rates),
    )


def _nll(rows: Rows, n: int, method: str) -> np.ndarray:
    """Test NLL of a method with the linear head, or with the dense one where it has no other."""
    linear = _of(rows, "nll", n, LINEAR, method)
    return linear if len(linear) else _of(rows, "nll", n, DENSE, method)


def _verdict(config: Config, rows: Rows, n: int) -> str:
    """Paired differences in NLL: priors around the source against the usual ways, and learned shapes against L2-SP."""
    pairs = [(mine, other) for mine in (L2_SP, FISHER, FISHER_OF_TARGET, ITERATES) for other in (FROZEN, RECIPE)]
    pairs += [(mine, other) for mine in (TRANSFER, TRANSFER_HEAD) for other in (FROZEN, L2_SP)]
    pairs += [(learned, L2_SP) for learned in (FISHER, FISHER_OF_TARGET, ITERATES)]
    lines = []
    for mine, other in pairs:
        a, b = _nll(rows, n, mine), _nll(rows, n, other)
        if len(a) and len(a) == len(b):
            lines.append(f"* n = {n}: {mine} minus {other}: {verdict(a - b)}.")
    return "\n".join(lines)


def figures(config: Config, rows: Rows, photos: Photographs, out: Path) -> None:
    """Both figures, in a folder."""
    figure(config, rows, out / "figure.png")
    if any(row["n"] == max(config.num_labels) and row["head"] == LINEAR for row in rows.rows):
        contact_sheet(best_row(config, rows), photos, out / "photographs.png")


def figure(config: Config, rows: Rows, path: Path) -> None:
    """NLL and accuracy against the number of photographs, and reliability at the middle number; linear heads."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = [m for m in METHODS if all(len(_of(rows, "nll", n, LINEAR, m)) for n in config.num_labels)]
    if not shown:
        return
    canvas, axes = plt.subplots(1, 3, figsize=(16, 5.6), layout="constrained")
    for ax, field, label in ((axes[0], "nll", "test NLL (nats), lower is better"), (axes[1], "accuracy", "accuracy")):
        values = {m: np.stack([_of(rows, field, n, LINEAR, m) for n in config.num_labels], axis=1) for m in shown}
        btl.plots.metric_against_n(config.num_labels, values, ax=ax, ylabel=label)
        ax.set_xlabel("labelled photographs")
        _mark(ax, config, rows, field, [(SCRATCH, LINEAR, "P"), (RECIPE, DENSE, "*")], shown)
    middle = config.num_labels[len(config.num_labels) // 2]
    bins = {m: bins_of(rows.rows, n=middle, head=LINEAR, method=m) for m in shown}
    btl.plots.reliability(bins, ax=axes[2], min_count=10)
    axes[2].set_title(f"is stated confidence right? ({middle} photographs, all seeds)")
    for ax in axes:
        ax.get_legend().remove()
    entries = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    canvas.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=4, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.savefig(path, dpi=110)
    plt.close(canvas)


def _mark(ax: Any, config: Config, rows: Rows, field: str, points: Sequence[tuple[str, str, str]], lines: Any) -> None:
    """Methods that are run at some numbers of labels only: name, head and marker."""
    for name, head, marker in points:
        values = {n: _of(rows, field, n, head, name) for n in config.num_labels}
        means = {n: scores.mean() for n, scores in values.items() if len(scores)}
        if means and name not in lines:
            label = f"{name} ({head} head)"
            ax.plot(list(means), list(means.values()), f"k{marker}", markersize=10, zorder=4, label=label)


def _of(rows: Rows, field: str, n: int, head: str, method: str) -> np.ndarray:
    return of(rows.rows, field, n=n, head=head, method=method)


def best_row(config: Config, rows: Rows) -> dict[str, Any]:
    """The first seed's row of the method that validation data prefer at the largest number of labels."""
    n = max(config.num_labels)
    names = {row["method"] for row in rows.rows if (row["n"], row["head"]) == (n, LINEAR)}
    key = {"n": n, "head": LINEAR}
    best = min(sorted(names), key=lambda name: of(rows.rows, "validation_nll", method=name, **key).mean())
    return next(row for row in rows.rows if (row["n"], row["head"], row["method"], row["seed"]) == (n, LINEAR, best, 0))


def contact_sheet(row: dict[str, Any], photos: Photographs, path: Path, each: int = 12) -> None:
    """The test photographs of which a row is least certain, and those about which it is wrong with most confidence."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    probs, labels = np.array(row["probs"]), photos.labels[photos.split.test]
    on_truth = np.where(labels == 1, probs, 1 - probs)
    wrong = np.flatnonzero(on_truth < 0.5)
    groups: Sequence[tuple[str, np.ndarray]] = (
        ("least certain", np.argsort(np.abs(probs - 0.5))[:each]),
        ("wrong with most confidence", wrong[np.argsort(on_truth[wrong])][:each]),
    )
    canvas = plt.figure(figsize=(1.5 * each, 4.6), layout="constrained")
    parts: Any = canvas.subfigures(2, 1)
    for part, (title, chosen) in zip(parts, groups, strict=True):
        part.suptitle(title, fontsize=11)
        for number, place in enumerate(chosen):
            ax = part.add_subplot(1, each, number + 1)
            ax.imshow(photos.pictures[photos.split.test[place]])
            name = "dog" if labels[place] else "cat"
            ax.set_title(f"{name}\np(dog) = {probs[place]:.2f}", fontsize=9)
            ax.set_axis_off()
    canvas.savefig(path, dpi=110)
    plt.close(canvas)
