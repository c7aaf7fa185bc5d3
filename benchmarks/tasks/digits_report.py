"""What the digits task found: tables, verdicts and a figure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import bayestl as btl
from benchmarks._records import Rows
from benchmarks._tables import bins_of, markdown, mean_and_error, of
from benchmarks.tasks.digits import BY_LAYER, SOURCE_AS_IS, TRANSFER, all_methods
from benchmarks.tasks.digits_methods import FROM_SCRATCH, INITIALISATION_ONLY, REFERENCES, Config
from benchmarks.tasks.digits_source import INVERTED, LOW_RESOLUTION

CAPTION = """\
Test scores over {seeds} seeds (which labels, random initialisation, order of batches), mean ± standard error; lower is
better but for accuracy. Every trained method had 15 settings, each of {steps} steps (for initialisation only: 5
learning rates read at 3 step counts). The setting with the lowest NLL on the same fixed validation set, 10 pictures per
class, was scored on the test set once; that set is larger than the training sets, so the choice is better informed than
one in practice would be. The rows of VI have a Gaussian of independent parameters around the same prior as L2-SP; those
of the head keep the source's body as it is. NUTS, whose draws are from the head's posterior itself, takes the prior
scale that was chosen for the head's VI. Seconds are for all settings of one seed, run side by side, compilation
apart."""


ABOUT_TRANSFER = """\
The row of transfer is one call of `btl.transfer`, which sees no validation data and averages families of priors
at 13 scales each; with scales of layers (`by_layer=True`) one more family, which learns them from the same labels."""


def report(config: Config, rows: Rows) -> str:
    """Tables in Markdown: one per target and number of labels, and what they say."""
    parts = [CAPTION.format(seeds=config.seeds, steps=config.steps)]
    if any(row["method"] == TRANSFER for row in rows.rows):
        parts.append(ABOUT_TRANSFER)
    for target in (LOW_RESOLUTION, INVERTED):
        for n in config.num_labels:
            parts.append(f"### {target}, {n} label{'s' if n > 1 else ''} per class")
            parts.append(markdown(rows.rows, {"target": target, "n": n}, all_methods(), INITIALISATION_ONLY))
        parts.append("\n".join([_verdict(rows, target, config), *_yardsticks(rows, target, config)]))
    return "\n\n".join(parts) + "\n"


def _effect(rows: Rows, target: str, n: int) -> tuple[str, str, float, float]:
    """Did the source help: the use of it that validation data prefer against training from scratch, paired test NLL."""
    key = {"target": target, "n": n}
    run = {row["method"] for row in rows.rows if (row["target"], row["n"]) == (target, n)}
    # Transfer weighs the source against training from scratch by itself, and is no use of the source alone.
    uses = [m for m in all_methods() if m not in (FROM_SCRATCH, TRANSFER, BY_LAYER) and m in run]
    best = min(uses, key=lambda name: of(rows.rows, "validation_nll", method=name, **key).mean())
    difference = of(rows.rows, "nll", method=best, **key) - of(rows.rows, "nll", method=FROM_SCRATCH, **key)
    mean, error = mean_and_error(difference)
    word = "helps" if mean < -2 * error else "hurts" if mean > 2 * error else "makes no clear difference"
    return word, best, mean, error


def _verdict(rows: Rows, target: str, config: Config) -> str:
    """What the tables of one target say."""
    lines = []
    for n in config.num_labels:
        word, best, mean, error = _effect(rows, target, n)
        lines.append(
            f"* {target}, n = {n}: the source {word}. The use validation prefers ({best}) against from scratch: NLL "
            f"{mean:+.3f} ± {error:.3f}."
        )
    return "\n".join(lines)


def _yardsticks(rows: Rows, target: str, config: Config) -> list[str]:
    """Transfer beside the one setting that is best on the test set itself, which no method could have chosen."""
    lines = []
    for n in config.num_labels:
        key = {"target": target, "n": n}
        transferred = of(rows.rows, "nll", method=TRANSFER, **key)
        for name in REFERENCES:
            # Rows of before they were scored on all settings have none.
            told = [row for row in rows.rows if row["method"] == name and "test_nll_of_settings" in row]
            each = of(told, "test_nll_of_settings", **key)
            if len(transferred) == len(each) > 0:
                best = each[:, int(np.argmin(np.nan_to_num(each, nan=np.inf).mean(0)))]
                mean, error = mean_and_error(transferred - best)
                lines.append(
                    f"* {target}, n = {n}: the setting of {name} that is best on the *test* set, {best.mean():.3f}; "
                    f"transfer {transferred.mean() / best.mean():.3f} times that, difference {mean:+.3f} ± {error:.3f}."
                )
    return lines


def figure(config: Config, rows: Rows, path: Path) -> None:
    """NLL against the number of labels, and reliability curves at the middle number, for both targets."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    middle = config.num_labels[len(config.num_labels) // 2]
    canvas, axes = plt.subplots(2, 2, figsize=(11, 9.6), layout="constrained")
    for row, target in zip(axes, (LOW_RESOLUTION, INVERTED), strict=True):
        nll = {
            m: np.stack([_nll(rows, config, target=target, n=n, method=m) for n in config.num_labels], axis=1)
            for m in all_methods()
        }
        btl.plots.metric_against_n(config.num_labels, nll, ax=row[0], ylabel="test NLL (nats), lower is better")
        row[0].set(title=f"{target}: the source {_effect(rows, target, middle)[0]}", xlabel="labels per class")
        _clip(row[0], nll)
        _lead(row[0])
        bins = {m: bins_of(rows.rows, target=target, n=middle, method=m) for m in all_methods()}
        btl.plots.reliability(bins, ax=row[1], min_count=10)
        _lead(row[1])
        row[1].set_title(f"{target}: is stated confidence right?\n({middle} labels per class, all seeds)")
    for ax in axes.flat:
        ax.get_legend().remove()
    # Method order and colours are the same in all panels, so one legend serves them.
    handles, labels = axes[0, 1].get_legend_handles_labels()
    canvas.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.savefig(path, dpi=110)
    plt.close(canvas)


def _nll(rows: Rows, config: Config, **key: Any) -> np.ndarray:
    """Test NLL per seed; nan where the method was not run."""
    values = of(rows.rows, "nll", **key)
    return values if len(values) else np.full(config.seeds, np.nan)


def _lead(ax: Any) -> None:
    """The one row without validation data, in front of the others and heavier."""
    lines = [c.lines[0] for c in ax.containers if c.get_label() == TRANSFER]
    for line in lines or [line for line in ax.lines if line.get_label() == TRANSFER]:
        line.set(linewidth=3.5, markersize=9, zorder=10)


def _clip(ax: Any, nll: dict[str, np.ndarray]) -> None:
    """Keep the scale for the trained methods where the untouched source lies far above them, and say so."""
    trained = max(float(np.nanmax(values.mean(axis=0))) for name, values in nll.items() if name != SOURCE_AS_IS)
    ax.set_ylim(bottom=0)
    untouched = float(nll[SOURCE_AS_IS].mean())
    if untouched > 2 * trained:
        ax.set_ylim(0, 1.15 * trained)
        note = f"{SOURCE_AS_IS}: {untouched:.1f} nats, off this scale"
        ax.text(0.98, 0.97, note, transform=ax.transAxes, ha="right", va="top", color="0.35")
