"""How often the verdict on a source is right: ``python -m benchmarks.verdict_calibration``.

Targets with a known answer. A teacher labels inputs by a linear rule on hidden features of its own. The source knows
these features (useful), features that have nothing to do with them (useless), or such features and a head of its own
that is sure of the wrong classes (misleading). "From scratch" is a last layer on features drawn at random. Each
candidate sees the same few labels; 4000 further examples say which predicts better, and by how much. The verdict, which
sees none of them, should say so, or say that it cannot tell.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

import bayestl as btl

KINDS = ("useful", "useless", "misleading")
OUTCOMES = ("helps", "no clear difference", "hurts")
INPUTS, FEATURES, CLASSES, TEST = 20, 12, 3, 4000
# Nats per example on test below which neither candidate is said to be better.
SAME = 0.02
RESULTS = Path(__file__).parent / "results" / "verdict.md"


class Trial(NamedTuple):
    """One target: what kind of source, labels per class, what the verdict said, and the difference on test."""

    kind: str
    labels: int
    outcome: str
    on_test: float


def features(weights: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """A hidden layer."""
    return np.tanh(inputs @ weights)


def trial(seed: int, kind: str, labels: int) -> Trial:
    """One target, drawn from its seed."""
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
    return Trial(kind, labels, verdict.outcome, transfer_on_test - scratch_on_test)


def answer(on_test: float) -> str:
    """What 4000 test examples say."""
    return "hurts" if on_test < -SAME else "helps" if on_test > SAME else "no clear difference"


def table(trials: list[Trial]) -> str:
    """Verdicts by kind of source and number of labels, and how often they are right and wrong."""
    lines = [
        "| source | labels per class | on test, nats | " + " | ".join(OUTCOMES) + " | right | cannot tell | wrong |",
        "|---|---|---|" + "---|" * (len(OUTCOMES) + 3),
    ]
    groups = [(kind, n) for kind in KINDS for n in sorted({t.labels for t in trials})]
    for kind, labels in groups:
        chosen = [t for t in trials if (t.kind, t.labels) == (kind, labels)]
        lines.append(_line(kind, str(labels), chosen))
    lines.append(_line("all", "", trials))
    return "\n".join(lines) + "\n"


def _line(kind: str, labels: str, trials: list[Trial]) -> str:
    counts = [sum(t.outcome == outcome for t in trials) for outcome in OUTCOMES]
    right = sum(t.outcome == answer(t.on_test) for t in trials)
    unclear = sum(t.outcome == "no clear difference" != answer(t.on_test) for t in trials)
    mean = np.mean([t.on_test for t in trials])
    cells = [kind, labels, f"{mean:+.3f}", *counts, right, unclear, len(trials) - right - unclear]
    return "| " + " | ".join(map(str, cells)) + " |"


def main() -> None:
    """Run all trials, print the table, and keep it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.verdict_calibration", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="targets of each kind and number of labels")
    parser.add_argument("--labels", type=int, nargs="+", default=[5, 20], help="labels per class")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the table goes")
    arguments = parser.parse_args()
    trials = [
        trial(seed, kind, labels) for labels in arguments.labels for kind in KINDS for seed in range(arguments.seeds)
    ]
    text = table(trials)
    print(text)
    arguments.out.write_text(text)


if __name__ == "__main__":
    main()
