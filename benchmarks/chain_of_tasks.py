"""Tasks one after another without the data of those before: ``python -m benchmarks.chain_of_tasks``.

Split digits: five tasks, each to tell one pair of digits apart (0 from 1, 2 from 3, ...) with one head of two outputs.
Permuted digits: five tasks, each all ten digits with the pixels in another order. Compared are fine-tuning from task to
task under the first prior, chains of Laplace posteriors with diagonal curvature (online elastic weight consolidation)
and with low-rank curvature, and joint training on the data of all tasks, which no chain sees.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

import bayestl as btl
from benchmarks._tables import cell_of_seeds

RESULTS = Path(__file__).parent / "results" / "chain_of_tasks.md"
NUM_TASKS = 5
SCALE = 0.3
NAIVE, EWC, LOW_RANK, JOINT = "fine-tuning", "chain, diagonal (EWC)", "chain, rank {rank}", "joint training"


class Task(NamedTuple):
    """Training and test examples of one task."""

    inputs: np.ndarray
    targets: np.ndarray
    test_inputs: np.ndarray
    test_targets: np.ndarray


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Pictures (N, 64) in [0, 1], and labels."""
    from sklearn.datasets import load_digits

    pictures, labels = load_digits(return_X_y=True)
    return np.asarray(pictures, np.float32) / 16, np.asarray(labels, np.int32)


def split_digits(seed: int, num_train: int) -> list[Task]:
    """One pair of digits per task; the target is which of the two."""
    pictures, labels = digits()
    return [_task(pictures, labels % 2, np.flatnonzero(labels // 2 == t), seed, num_train) for t in range(NUM_TASKS)]


def permuted_digits(seed: int, num_train: int) -> list[Task]:
    """All digits, the pixels of each task in an order of its own."""
    pictures, labels = digits()
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(pictures.shape[1]) for _ in range(NUM_TASKS)]
    return [_task(pictures[:, order], labels, np.arange(len(labels)), seed, num_train) for order in orders]


def _task(inputs: np.ndarray, targets: np.ndarray, rows: np.ndarray, seed: int, num_train: int) -> Task:
    # As many training examples in every task, so that all of them run one compiled program.
    rows = np.random.default_rng(seed).permutation(rows)
    train, test = rows[:num_train], rows[num_train:]
    return Task(inputs[train], targets[train], inputs[test], targets[test])


def accuracies(net: btl.Net, params: Any, tasks: Sequence[Task]) -> np.ndarray:
    """Of one set of parameters on the test examples of each task."""
    return np.array([np.mean(np.argmax(net(params, t.test_inputs), axis=1) == t.test_targets) for t in tasks])


def run(tasks: Sequence[Task], sizes: Sequence[int], seed: int, steps: int, rank: int) -> dict[str, np.ndarray]:
    """Method to accuracies, (tasks learned, tasks): after each task, on each task."""
    net = btl.nets.mlp(jax.random.key(seed), sizes)
    likelihood = btl.likelihoods.categorical()
    prior = btl.gaussians.isotropic(btl.tree.zeros_like(net.params), scale=SCALE)
    data = [btl.data.arrays(task.inputs, task.targets) for task in tasks]
    key = jax.random.key(100 + seed)
    options = {"steps": steps, "batch_size": 50, "progress": False}

    def fit(start: Any, examples: Any) -> Any:
        joint = btl.LogJoint(net, likelihood, prior, num_data=examples.num_examples)
        return btl.fit(key, method(joint), start, examples, **options).params

    def chained(**structure: Any) -> np.ndarray:
        links = btl.infer.chain_tasks(key, net, likelihood, prior, data, method, **options, **structure)
        return np.stack([accuracies(net, link.params, tasks) for link in links])

    params, naive = net.params, []
    for examples in data:
        params = fit(params, examples)
        naive.append(accuracies(net, params, tasks))
    pooled = btl.data.arrays(
        *(np.concatenate(part) for part in zip(*((t.inputs, t.targets) for t in tasks), strict=True))
    )
    options["steps"] = steps * NUM_TASKS
    joint_params = fit(net.params, pooled)
    options["steps"] = steps
    return {
        NAIVE: np.stack(naive),
        EWC: chained(curvature=btl.curvature.diagonal()),
        LOW_RANK.format(rank=rank): chained(curvature=btl.curvature.low_rank(rank), rank=2 * rank),
        JOINT: accuracies(net, joint_params, tasks)[None],
    }


def method(joint: btl.LogJoint) -> btl.Inference:
    """How modes are found."""
    return btl.infer.map_estimate(joint, optax.adam(3e-3))


def table(results: dict[str, dict[str, list[np.ndarray]]]) -> str:
    """Mean accuracy over the tasks learned so far, after each task, and on the first task at the end."""
    lines = [
        "| problem | method | " + " | ".join(f"after {t + 1}" for t in range(NUM_TASKS)) + " | first task at the end |"
    ]
    lines.append("|---|---|" + "---|" * (NUM_TASKS + 1))
    for problem, methods in results.items():
        for name, seeds in methods.items():
            each = np.stack(seeds)
            cells = [
                cell_of_seeds(each[:, t - NUM_TASKS, : t + 1].mean(axis=1)) if t >= NUM_TASKS - each.shape[1] else ""
                for t in range(NUM_TASKS)
            ]
            lines.append("| " + " | ".join([problem, name, *cells, cell_of_seeds(each[:, -1, 0])]) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run both problems, print the table, and keep it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chain_of_tasks", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=200, help="steps per task")
    parser.add_argument("--rank", type=int, default=10, help="columns added per task; twice as many are kept")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the table goes")
    arguments = parser.parse_args()
    problems: dict[str, tuple[Callable[[int, int], list[Task]], int, tuple[int, ...]]] = {
        "split digits": (split_digits, 250, (64, 32, 2)),
        "permuted digits": (permuted_digits, 600, (64, 64, 10)),
    }
    results: dict[str, dict[str, list[np.ndarray]]] = {}
    for problem, (tasks, num_train, sizes) in problems.items():
        for seed in range(arguments.seeds):
            each = run(tasks(seed, num_train), sizes, seed, arguments.steps, arguments.rank)
            for name, values in each.items():
                results.setdefault(problem, {}).setdefault(name, []).append(values)
    text = table(results)
    print(text)
    arguments.out.write_text(text)


if __name__ == "__main__":
    main()
