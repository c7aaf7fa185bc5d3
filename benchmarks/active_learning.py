"""Which labels are worth asking for? ``python -m benchmarks.active_learning``.

The digits benchmark's source and its target of low resolution. The source's body is kept and its last layer is learned,
as a Laplace posterior around its own weights. From one label per class on, ten labels at a time are asked for: at
random, or where an acquisition function says. The pool is either like the test set, or half of it are pictures with
inverted contrast, which the test set has none of. All strategies start from the same labels, and have the same prior,
which is tuned for none of them.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import bayestl as btl
from benchmarks._records import Rows, provenance
from benchmarks._tables import cell_of_seeds
from benchmarks.tasks.digits_source import halves, low_resolution, train_source

RESULTS = Path(__file__).parent / "results" / "active_learning"
SCALE, STEPS, DRAWS = 1.0, 200, 64
AT_A_TIME, MOST = 10, 50
POOL, TARGETS = 300, 100
LIKE_THE_TEST, MIXED = "like the test set", "half with inverted contrast"
RANDOM = "random"


class Task(NamedTuple):
    """Features and labels of one seed.

    Attributes:
        pool: (N, 64), what may be asked for.
        labels: (N,), theirs.
        first: rows that are labelled from the start, one of each class.
        targets: (M, 64), inputs as they will come, without labels.
        test: features and labels.
    """

    pool: np.ndarray
    labels: np.ndarray
    first: np.ndarray
    targets: np.ndarray
    test: tuple[np.ndarray, np.ndarray]


class Candidates(NamedTuple):
    """What a strategy sees.

    Attributes:
        pool: predictive of the examples without a label.
        targets: predictive of inputs as they will come, by the same draws.
    """

    pool: Any
    targets: Any


def largest(values: Any) -> np.ndarray:
    """The rows of the largest values."""
    return np.argsort(-np.asarray(values), kind="stable")[:AT_A_TIME]


def at_random(key: Any, given: Candidates) -> np.ndarray:
    """Any rows."""
    return np.asarray(jax.random.permutation(key, given.pool.outputs.shape[1]))[:AT_A_TIME]


acquisition = btl.predict.acquisition
STRATEGIES: dict[str, Callable[[Any, Candidates], np.ndarray]] = {
    RANDOM: at_random,
    "entropy": lambda key, given: largest(given.pool.predictive_entropy()),
    "variation ratio": lambda key, given: largest(acquisition.variation_ratio(given.pool)),
    "BALD": lambda key, given: largest(acquisition.bald(given.pool)),
    "BatchBALD": lambda key, given: acquisition.batch_bald(key, given.pool, AT_A_TIME, num_outcomes=500).rows,
    "EPIG": lambda key, given: largest(acquisition.epig(given.pool, given.targets)),
}


def body(source: btl.Net, pictures: np.ndarray) -> np.ndarray:
    """What the source's layers below the last make of pictures."""
    hidden = jnp.asarray(pictures).reshape(len(pictures), -1)
    for name in [name for name in source.params if name != "head"]:
        layer = source.params[name]
        hidden = jax.nn.relu(hidden @ layer["kernel"] + layer["bias"])
    return np.asarray(hidden)


def task(source: btl.Net, pool: str, seed: int) -> Task:
    """A pool, inputs as they will come, and a test set, of the second half of the pictures."""
    _, (pictures, labels) = halves()
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(pictures))
    shown, labels = low_resolution(pictures[rows]), labels[rows]
    first = np.array([np.flatnonzero(labels[:POOL] == c)[0] for c in range(10)])
    if pool == MIXED:
        others = np.setdiff1d(np.arange(POOL), first)
        inverted = rng.permutation(others)[: POOL // 2]
        shown[inverted] = 1 - shown[inverted]
    features = body(source, shown)
    ends = POOL, POOL + TARGETS
    test = features[ends[1] :], labels[ends[1] :]
    return Task(features[: ends[0]], labels[: ends[0]], first, features[ends[0] : ends[1]], test)


def learned(key: Any, source: btl.Net, inputs: np.ndarray, labels: np.ndarray) -> Callable[[Any], Any]:
    """Predictions by draws of the last layer's posterior, around the source's weights."""
    net = btl.nets.from_function(_linear, source.params["head"])
    prior = btl.gaussians.isotropic(net.params, SCALE)
    joint = btl.LogJoint(net, btl.likelihoods.categorical(), prior, num_data=len(labels))
    data = btl.data.arrays(inputs, labels)
    method = btl.infer.map_estimate(joint, optax.adam(0.03))
    options = {"steps": STEPS, "batch_size": len(labels), "progress": False}
    fitted = btl.fit(key, method, net.params, data, **options)
    posterior = btl.infer.laplace(key, joint, fitted.params, data, curvature=btl.curvature.dense())
    return btl.predict.monte_carlo(key, joint, posterior, DRAWS)


def _linear(params: Any, features: jax.Array) -> jax.Array:
    return features @ params["kernel"] + params["bias"]


def run(source: btl.Net, given: Task, strategy: str, seed: int, most: int = MOST) -> dict[str, list[float]]:
    """Test scores of one strategy, by the number of labels."""
    rows = list(given.first)
    curve: dict[str, list[float]] = {"labels": [], "nll": [], "accuracy": []}
    while True:
        key = jax.random.fold_in(jax.random.key(seed), len(rows))
        predict = learned(key, source, given.pool[rows], given.labels[rows])
        scores = btl.metrics.report(predict(given.test[0]), given.test[1])
        curve["labels"].append(len(rows))
        for name in ("nll", "accuracy"):
            curve[name].append(scores[name])
        if len(rows) >= most:
            return curve
        others = np.setdiff1d(np.arange(len(given.pool)), rows)
        seen = Candidates(predict(given.pool[others]), predict(given.targets))
        rows += others[STRATEGIES[strategy](key, seen)].tolist()


def table(rows: Sequence[dict[str, Any]], at: Sequence[int] = (20, 30, 50)) -> str:
    """Test NLL by strategy and number of labels, and how much less it is than with random labels."""
    lines = [
        "| pool | labels chosen by | " + " | ".join(f"NLL at {n}" for n in at) + " | less than random, at the last |"
    ]
    lines.append("|---|---|" + "---|" * (len(at) + 1))
    for pool in (LIKE_THE_TEST, MIXED):
        values = {}
        for strategy in STRATEGIES:
            each = sorted(
                (row for row in rows if (row["pool"], row["strategy"]) == (pool, strategy)), key=lambda row: row["seed"]
            )
            if each:
                values[strategy] = np.array([[row["nll"][row["labels"].index(n)] for n in at] for row in each])
        for strategy, own in values.items():
            less = "" if strategy == RANDOM else cell_of_seeds(values[RANDOM][:, -1] - own[:, -1])
            lines.append("| " + " | ".join([pool, strategy, *map(cell_of_seeds, own.T), less]) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is missing, print the table, and keep it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.active_learning", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS, help="where rows and table go")
    parser.add_argument("--fresh", action="store_true", help="forget rows of an earlier, interrupted run")
    arguments = parser.parse_args()
    settings = {"scale": SCALE, "steps": STEPS, "draws": DRAWS, "at_a_time": AT_A_TIME, "most": MOST, "pool": POOL}
    rows = Rows(arguments.out / "rows.jsonl", settings, fresh=arguments.fresh)
    origin = provenance("python -m benchmarks.active_learning")
    source = train_source(progress=False).net
    for seed in range(arguments.seeds):
        for pool in (LIKE_THE_TEST, MIXED):
            given = task(source, pool, seed)
            for strategy in STRATEGIES:
                key = {"seed": seed, "pool": pool, "strategy": strategy}
                if not rows.have(**key):
                    began = time.perf_counter()
                    curve = run(source, given, strategy, seed)
                    rows.add([{**key, **curve, "seconds": time.perf_counter() - began, **origin}])
                    print(f"seed {seed}, pool {pool}, {strategy}: NLL {curve['nll'][-1]:.3f}", flush=True)
    text = table(rows.rows)
    print(text)
    (arguments.out / "table.md").write_text(text)


if __name__ == "__main__":
    main()
