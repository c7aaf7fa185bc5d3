"""How often the verdict on a source is right: ``python -m benchmarks.verdict_calibration``.

Targets with a known answer, of two kinds. *Last layer*: a teacher labels inputs by a linear rule on hidden features of
its own. The source knows these features (useful), features that have nothing to do with them (useless), or such
features and a head of its own that is sure of the wrong classes (misleading). "From scratch" is a last layer on
features drawn at random. *Transfer*: whole networks, and ``btl.transfer`` against the mixture that it would have been
without a source; see ``benchmarks._known_targets``. Each candidate sees the same few labels; 4000 further examples say
which predicts better, and by how much. The verdict, which sees none of them, should say so, or say that it cannot tell.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

import bayestl as btl
from benchmarks._known_targets import KINDS, by_transfer
from benchmarks._records import Rows, provenance

LAST_LAYER, TRANSFER = "last layer", "transfer"
OUTCOMES = ("helps", "no clear difference", "hurts")
INPUTS, FEATURES, CLASSES, TEST = 20, 12, 3, 4000
# Nats per example on test below which neither candidate is said to be better: the margin of the verdict.
SAME = 0.02
RESULTS = Path(__file__).parent / "results" / "verdict"


def features(weights: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """A hidden layer."""
    return np.tanh(inputs @ weights)


def by_last_layer(seed: int, kind: str, labels: int) -> dict[str, Any]:
    """The verdict on one source of features, and what test examples say."""
    rng = np.random.default_rng([seed, KINDS.index(kind), labels])
    teacher, other, fresh = (1.5 * rng.normal(size=(INPUTS, FEATURES)) / np.sqrt(INPUTS / 4) for _ in range(3))
    head = 2.0 * rng.normal(size=(FEATURES, CLASSES))

    def draw(num: int) -> tuple[np.ndarray, np.ndarray]:
        inputs = rng.normal(size=(num, INPUTS))
        noise = rng.gumbel(size=(num, CLASSES))
        return inputs, np.argmax(features(teacher, inputs) @ head + noise, axis=1)

    pool, pool_labels = draw(200 * labels)
    rows = np.concatenate([np.flatnonzero(pool_labels == c)[:labels] for c in range(CLASSES)])
    train, train_labels = pool[rows], pool_labels[rows]
    test, test_labels = draw(TEST)

    def fit(weights: np.ndarray, has_head: bool) -> tuple[np.ndarray, float]:
        def outputs(inputs: np.ndarray) -> np.ndarray | None:
            return features(weights, inputs) @ head if has_head else None

        fitted = btl.transferability.last_layer(features(weights, train), train_labels, outputs=outputs(train))
        log_probs = fitted.log_probs(features(weights, test), outputs(test))
        return fitted.log_predictive, float(np.mean(log_probs[np.arange(TEST), test_labels]))

    scratch, scratch_on_test = fit(fresh, False)
    transfer, transfer_on_test = fit(teacher if kind == "useful" else other, kind == "misleading")
    verdict = btl.transferability.verdict(jax.random.key(seed), {"from scratch": scratch, "transfer": transfer})
    return {
        "outcome": verdict.outcome,
        "on_test": transfer_on_test - scratch_on_test,
        "difference": verdict.difference,
        "interval": list(verdict.interval),
    }


def answer(on_test: float) -> str:
    """What 4000 test examples say."""
    return "hurts" if on_test < -SAME else "helps" if on_test > SAME else "no clear difference"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Verdicts by kind of source and number of labels, and how often they are right and wrong."""
    lines = [
        "| judged by | source | labels per class | on test, nats | "
        + " | ".join(OUTCOMES)
        + " | right | cannot tell | wrong |",
        "|---|---|---|---|" + "---|" * (len(OUTCOMES) + 3),
    ]
    for judge in (LAST_LAYER, TRANSFER):
        judged = [row for row in rows if row["judged_by"] == judge]
        for kind in KINDS:
            for labels in sorted({row["labels"] for row in judged}):
                chosen = [row for row in judged if (row["kind"], row["labels"]) == (kind, labels)]
                lines += [_line(judge, kind, str(labels), chosen)] if chosen else []
        lines += [_line(judge, "all", "", judged)] if judged else []
    return "\n".join(lines) + "\n"


def _line(judge: str, kind: str, labels: str, rows: Sequence[dict[str, Any]]) -> str:
    counts = [sum(row["outcome"] == outcome for row in rows) for outcome in OUTCOMES]
    right = sum(row["outcome"] == answer(row["on_test"]) for row in rows)
    unclear = sum(row["outcome"] == "no clear difference" != answer(row["on_test"]) for row in rows)
    mean = np.mean([row["on_test"] for row in rows])
    cells = [judge, kind, labels, f"{mean:+.3f}", *counts, right, unclear, len(rows) - right - unclear]
    return "| " + " | ".join(map(str, cells)) + " |"


def main() -> None:
    """Run the trials that are missing, print the table, and keep it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.verdict_calibration", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="targets of each kind and number of labels")
    parser.add_argument("--labels", type=int, nargs="+", default=[5, 20], help="labels per class")
    parser.add_argument("--by", nargs="+", default=[LAST_LAYER, TRANSFER], choices=[LAST_LAYER, TRANSFER])
    parser.add_argument("--out", type=Path, default=RESULTS, help="where rows and table go")
    parser.add_argument("--fresh", action="store_true", help="forget rows of an earlier, interrupted run")
    arguments = parser.parse_args()
    rows = Rows(arguments.out / "rows.jsonl", {"margin": SAME, "test": TEST}, fresh=arguments.fresh)
    origin = provenance("python -m benchmarks.verdict_calibration")
    trials = {LAST_LAYER: by_last_layer, TRANSFER: by_transfer}
    for seed in range(arguments.seeds):
        for judge in arguments.by:
            for labels in arguments.labels:
                for kind in KINDS:
                    key = {"judged_by": judge, "kind": kind, "labels": labels, "seed": seed}
                    if not rows.have(**key):
                        rows.add([{**key, **trials[judge](seed, kind, labels), **origin}])
        print(f"{seed + 1} of {arguments.seeds} targets of each kind", flush=True)
    text = table(rows.rows)
    print(text)
    (arguments.out / "table.md").write_text(text)


if __name__ == "__main__":
    main()
