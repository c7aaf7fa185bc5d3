"""Do scores rank sources as fine-tuning does? ``python -m benchmarks.rank_sources``.

Networks of one shape are trained on tasks of digits, of CIFAR-10 and of text, and fine-tuned on other tasks of the same
kind with five labels per class; so are policies that were trained on CartPole, on decisions of experts under other
physics. What a score says of a source, from these labels alone, is held against the test log likelihood that
fine-tuning from it then reaches: Kendall's correlation over the sources of each target, with a bootstrap interval over
all pairs of source and target.
"""

from __future__ import annotations

import argparse
import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import bayestl as btl
from benchmarks._held_out import stacked
from benchmarks._rank_domains import Domain, cifar, control, digits, texts
from benchmarks._records import Rows, provenance
from benchmarks._tuning import HEAVY_BALL

RESULTS = Path(__file__).parent / "results" / "rank_sources"
CACHE = Path(__file__).parent.parent / "build" / "pictures"
DOMAINS = ("digits", "CIFAR", "text", "control")
LABELS, VALIDATION, STEPS, SOURCE_STEPS = 5, 20, 200, 1500
DRAWS = 500  # of pairs, for the interval of a difference
RATES = (0.003, 0.01, 0.03, 0.1)


def train_source(domain: Domain, name: str) -> btl.Net:
    """A network that has learned a source's task; an untrained one without."""
    task = domain.sources[name]
    if isinstance(task, btl.Net):
        return task
    net = domain.network(jax.random.key(1), 10 if task is None else int(task.labels.max()) + 1)
    if task is None:
        return net
    joint = btl.LogJoint(net, btl.likelihoods.categorical(), None, num_data=len(task.labels))
    method = btl.infer.map_estimate(joint, optax.sgd(0.01, momentum=HEAVY_BALL))
    data = btl.data.arrays(task.inputs, task.labels)
    fitted = btl.fit(jax.random.key(2), method, net.params, data, steps=SOURCE_STEPS, batch_size=64, progress=False)
    return btl.Net(fitted.params, (), net.apply)


def features(source: btl.Net, inputs: np.ndarray) -> btl.transferability.Source:
    """What the source makes of some inputs: below its last layer, and the probabilities of its classes."""
    width = source.params["head"]["kernel"].shape[0]
    nothing_more = {"kernel": jnp.eye(width), "bias": jnp.zeros(width)}
    hidden = source({**source.params, "head": nothing_more}, jnp.asarray(inputs))
    logits = source(source.params, jnp.asarray(inputs))
    return btl.transferability.Source(np.asarray(hidden), probabilities=np.asarray(jax.nn.softmax(logits)))


def fine_tuned(net: btl.Net, starts: Sequence[Any], train: Any, validation: Any, test: Any) -> np.ndarray:
    """Mean test log likelihood from each start, all layers trained, at the rate that validation data prefer."""
    joint = btl.LogJoint(net, btl.likelihoods.categorical(), None, num_data=train.num_examples)

    @jax.jit
    def score(posterior: Any, data: Any) -> jax.Array:
        log_probs = joint.likelihood(net(posterior.params, data.inputs)).log_prob(data.targets)
        return jnp.mean(log_probs)

    grid = btl.tune.grid(
        jax.random.split(jax.random.key(3), len(starts)),
        lambda setting: btl.infer.map_estimate(joint, optax.sgd(setting["learning_rate"], momentum=HEAVY_BALL)),
        {"learning_rate": np.array(RATES)},
        stacked(starts),
        train,
        lambda posterior, state, run: score(posterior, validation),
        steps=STEPS,
        batch_size=train.num_examples,
        params_axis=0,
    )
    best = [grid.posterior(run, grid.best(run))[0] for run in range(len(starts))]
    return np.array([float(score(posterior, test)) for posterior in best])


def run_target(domain: Domain, sources: dict[str, btl.Net], name: str, seed: int) -> list[dict[str, Any]]:
    """A row for every source of one target."""
    task = domain.targets[name]
    num_classes = int(task.labels.max()) + 1
    split = btl.data.split(task.labels, train_per_class=LABELS, validation_per_class=VALIDATION, seed=seed)
    train, validation, test = (btl.data.arrays(task.inputs[rows], task.labels[rows]) for rows in split)
    net = domain.network(jax.random.key(100 + seed), num_classes)
    allowed = {s: source for s, source in sources.items() if (s, name) not in domain.left_out}
    zero = btl.tree.zeros_like(net.params["head"])
    starts = [{**source.params, "head": zero} for source in allowed.values()]
    results = fine_tuned(net, starts, train, validation, test)
    inputs, labels = np.asarray(train.inputs), np.asarray(train.targets)
    ranking = btl.transferability.rank_sources({s: features(net, inputs) for s, net in allowed.items()}, labels)
    rows = []
    for source, result in zip(allowed, results, strict=True):
        place = ranking.names.index(source)
        scores = {score: float(values[place]) for score, values in ranking.scores.items()}
        rows.append({"source": source, "test_log_likelihood": float(result), "scores": scores})
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Kendall's correlation of every score with what fine-tuning gave, by domain and over all.

    The first score is held against each of the others over all pairs.
    """
    domains = list(dict.fromkeys(row["domain"] for row in rows))
    pairs = {key: [row for row in rows if _pair(row) == key] for key in dict.fromkeys(map(_pair, rows))}
    names = list(rows[0]["scores"])
    lines = [
        "| score | " + " | ".join([*domains, "all", f"{names[0]} minus it", "its first choice"]) + " |",
        "|---|" + "---|" * (len(domains) + 3),
    ]
    counts = [sum(key[0] == domain for key in pairs) for domain in domains]
    lines.append("| pairs of source and target | " + " | ".join(map(str, [*counts, len(pairs)])) + " | | |")
    taus = {name: _taus(name, pairs) for name in names}
    for name in names:
        cells = [_correlation(name, pairs, domain) for domain in [*domains, None]]
        ahead = taus[names[0]] - taus[name]
        cells.append("" if name == names[0] else _cell(ahead[0], np.nanpercentile(ahead[1:], [2.5, 97.5])))
        lines.append(f"| {name} | " + " | ".join([*cells, _best(name, rows)]) + " |")
    return "\n".join(lines) + "\n"


def _pair(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["domain"], row["target"], row["source"]


def _correlation(name: str, pairs: dict[Any, list[dict[str, Any]]], domain: str | None) -> str:
    """Of means over seeds, within each target."""
    scores, results, targets = _means(name, {key: rows for key, rows in pairs.items() if domain in (None, key[0])})
    ranks = btl.transferability.rank_correlation(jax.random.key(0), scores, results, groups=targets)
    return _cell(ranks.tau, ranks.interval)


def _taus(name: str, pairs: dict[Any, list[dict[str, Any]]]) -> np.ndarray:
    """The correlation over all pairs, and over pairs drawn again, the same ones for every score."""
    scores, results, targets = _means(name, pairs)
    rng, num = np.random.default_rng(0), len(pairs)
    draws = [np.arange(num), *(rng.integers(num, size=num) for _ in range(DRAWS))]
    correlation = functools.partial(btl.transferability.rank_correlation, jax.random.key(0), num_bootstrap=1)
    return np.array([correlation(scores[rows], results[rows], groups=targets[rows]).tau for rows in draws])


def _means(name: str, pairs: dict[Any, list[dict[str, Any]]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, results and the target's number of each pair; the former as means over seeds."""
    scores = np.array([np.mean([row["scores"][name] for row in rows]) for rows in pairs.values()])
    results = np.array([np.mean([row["test_log_likelihood"] for row in rows]) for rows in pairs.values()])
    return scores, results, np.unique([" ".join(key[:2]) for key in pairs], return_inverse=True)[1]


def _cell(value: float, interval: Sequence[float] | np.ndarray) -> str:
    return f"{value:+.2f} [{interval[0]:+.2f}, {interval[1]:+.2f}]"


def _best(name: str, rows: Sequence[dict[str, Any]]) -> str:
    """What is lost by taking the source that the score puts first: nats per example, mean over targets and seeds."""
    lost = []
    for key in dict.fromkeys((row["domain"], row["target"], row["seed"]) for row in rows):
        own = [row for row in rows if (row["domain"], row["target"], row["seed"]) == key]
        chosen = max(own, key=lambda row: row["scores"][name])
        lost.append(max(row["test_log_likelihood"] for row in own) - chosen["test_log_likelihood"])
    return f"{np.mean(lost):.3f} nats lost"


def main() -> None:
    """Run what is missing, print the table, and keep it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rank_sources", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="draws of the labelled examples")
    parser.add_argument("--domains", nargs="+", choices=DOMAINS, help="by default all, or digits without --data-dir")
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("BAYESTL_DATA_DIR"))
    parser.add_argument("--cache", type=Path, default=CACHE, help="where imported pictures are kept")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where rows and table go")
    parser.add_argument("--fresh", action="store_true", help="forget rows of an earlier, interrupted run")
    arguments = parser.parse_args()
    rows = Rows(arguments.out / "rows.jsonl", {"labels": LABELS, "steps": STEPS}, fresh=arguments.fresh)
    given = f" --domains {' '.join(arguments.domains)}" if arguments.domains else ""
    origin = provenance(f"python -m benchmarks.rank_sources{given}")
    domains = _domains(arguments)
    trained: dict[str, dict[str, btl.Net]] = {}
    # All targets of a seed before the next seed, so that an interrupted run is of use.
    for seed in range(arguments.seeds):
        for domain in domains:
            for target in domain.targets:
                key = {"domain": domain.name, "target": target, "seed": seed}
                if rows.have(**key):
                    continue
                if domain.name not in trained:
                    trained[domain.name] = {name: train_source(domain, name) for name in domain.sources}
                found = run_target(domain, trained[domain.name], target, seed)
                rows.add([{**key, **row, **origin} for row in found])
                print(f"seed {seed}, {domain.name}: {target}", flush=True)
    text = table(rows.rows)
    print(text)
    (arguments.out / "table.md").write_text(text)


def _domains(arguments: argparse.Namespace) -> list[Domain]:
    names = arguments.domains or (DOMAINS if arguments.data_dir else DOMAINS[:1])
    if arguments.data_dir is None and set(names) != {"digits"}:
        raise SystemExit("all domains but digits need the data directory: give --data-dir, or set BAYESTL_DATA_DIR")
    data_dir = Path(arguments.data_dir or ".")
    makers = (digits, lambda: cifar(data_dir, arguments.cache), lambda: texts(data_dir), lambda: control(data_dir))
    return [make() for name, make in zip(DOMAINS, makers, strict=True) if name in names]


if __name__ == "__main__":
    main()
