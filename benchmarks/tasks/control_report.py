"""What the task of control shows: tables, verdicts, learning curves."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import bayestl as btl
from benchmarks._records import Rows
from benchmarks._tables import cell, of, verdict
from benchmarks.tasks import control as task
from benchmarks.tasks import control_config as names
from benchmarks.tasks.control_cloning import CLONES, NUM_DECISIONS, NUM_TEST

CAPTION = """\
CartPole under other physics, {seeds} runs of the source. Numbers are mean ± standard error over them. *Area* is the
mean return (of 500 at most) over {total:,} steps of the environment, *at 0, 1k, ...* the return after so many:
{episodes} whole episodes each, actions drawn, for VI of policies drawn from the posterior. All methods have the same
rollouts of {decisions} decisions. Temperature, rate and passes of expectation-maximisation were chosen on the source's
own task from scratch among {num_em} settings ({em}), those of PPO likewise among {num_ppo} ({ppo}). The scale of a
prior is the one of {num_scales} with the largest area on the other targets, so that nothing was chosen on the target in
the table. "{chosen}": the source's policy and a fresh one each play half a rollout first, the one that earns more for
each episode that ends is trained, and its curve begins one rollout later. Differences are paired by run."""

CLONING = """\
### Cloning {num} decisions

{num} decisions of an expert of the target, which had begun at another run of the source. NLL on up to {test} further
decisions of the expert; the return of the clone, over 32 episodes. btl.transfer sees the {num} decisions alone."""


def report(config: names.Config, rows: Rows, searched: Rows | None = None) -> str:
    """Tables in Markdown; ``searched`` are the rows among which settings were chosen, by default the same."""
    searched = rows if searched is None else searched
    counts = {kind: len(_settings_of(searched, kind)) for kind in (names.TUNED_EM, names.TUNED_PPO)}
    best = {kind: task.shared(config, searched, kind) for kind in counts}
    parts = [
        CAPTION.format(
            seeds=config.seeds,
            total=config.rollouts * config.num_envs * config.num_steps,
            episodes=config.episodes,
            decisions=config.num_envs * config.num_steps,
            num_em=counts[names.TUNED_EM],
            num_ppo=counts[names.TUNED_PPO],
            em=_shown(best[names.TUNED_EM]),
            ppo=_shown(best[names.TUNED_PPO]).replace("temperature 1, ", ""),
            num_scales=len(config.scales),
            chosen=names.CHOSEN,
        )
    ]
    for target in config.targets:
        parts += [f"### {TITLES[target]}", _table(config, rows, target), _verdicts(config, rows, target)]
    if any(row["method"] in CLONES for row in rows.rows):
        parts += [CLONING.format(num=NUM_DECISIONS, test=NUM_TEST), _clones(config, rows)]
    return "\n\n".join(parts) + "\n"


TITLES = {
    "weak": "A weaker push on heavier things",
    "gravity": "Gravity of 30 m/s²",
    "long": "A pole five times as long",
    "swapped": "Swapped actions: the source is wrong by design",
}


def curves(config: names.Config, rows: Rows, target: str, method: str) -> tuple[np.ndarray, Any]:
    """Learning curves (seeds, rollouts + 1) of a method, and the setting that the other targets chose."""
    if method == names.CHOSEN:
        return _chosen(config, rows, target), 0.0
    others = [name for name in config.targets if name != target]
    settings = sorted({row["setting"] for row in rows.rows if (row["target"], row["method"]) == (target, method)})

    def elsewhere(setting: Any) -> float:
        return float(np.mean([of(rows.rows, "area", target=o, method=method, setting=setting).mean() for o in others]))

    best = settings[0] if len(settings) == 1 else max(settings, key=elsewhere)
    return of(rows.rows, "curve", target=target, method=method, setting=best), best


def _chosen(config: names.Config, rows: Rows, target: str) -> np.ndarray:
    """The curve of the start that earned more at first, one rollout later: before, both were playing."""
    both = {name: curves(config, rows, target, name)[0] for name in (names.L2_SP, names.SCRATCH)}
    result = []
    for row in sorted(_matching(rows, target, names.CHOSEN), key=lambda row: row["seed"]):
        own = both[row["choice"]][row["seed"]]
        first = np.mean([each[row["seed"]][0] for each in both.values()])
        result.append(np.concatenate([[first], own[:-1]]))
    return np.stack(result)


def _areas(config: names.Config, rows: Rows, target: str, method: str) -> np.ndarray:
    return np.array([task.area(curve) for curve in curves(config, rows, target, method)[0]])


def _table(config: names.Config, rows: Rows, target: str) -> str:
    heads = " | ".join(f"at {n}k" if n else "at 0" for n in names.READ_AT)
    lines = [f"| method | setting | area | area minus {names.SOURCE} | {heads} | seconds |"]
    lines.append("|---|" + "---|" * (4 + len(names.READ_AT)))
    reference = _areas(config, rows, target, names.SOURCE)
    per_rollout = config.num_envs * config.num_steps / 1000
    for method in names.METHODS:
        if not _matching(rows, target, method):
            continue
        every, setting = curves(config, rows, target, method)
        areas = _areas(config, rows, target, method)
        at = [every[:, min(round(n / per_rollout), every.shape[1] - 1)] for n in names.READ_AT]
        paired = "" if method == names.SOURCE else cell(areas - reference, 0, sign=True)
        seconds = np.mean([row["seconds"] for row in _matching(rows, target, method)])
        cells = [f"{setting:g}" if setting else "", cell(areas, 0), paired, *(cell(x, 0) for x in at), f"{seconds:.1f}"]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _verdicts(config: names.Config, rows: Rows, target: str) -> str:
    lines = []
    for other in (names.SOURCE, names.SCRATCH, names.PPO_SOURCE):
        for mine in (names.CHOSEN, names.L2_SP):
            difference = _areas(config, rows, target, mine) - _areas(config, rows, target, other)
            lines.append(f"* {mine} minus {other}: {verdict(difference, 'area', 0, larger_is_better=True)}.")
    return "\n".join(lines)


def _clones(config: names.Config, rows: Rows) -> str:
    lines = ["| target | method | NLL | return | seconds |", "|---|---|---|---|---|"]
    for target in config.targets:
        for method in CLONES:
            key = {"target": target, "method": method}
            numbers = [of(rows.rows, field, **key) for field in ("nll", "return", "seconds")]
            if len(numbers[0]):
                cells = [cell(numbers[0]), cell(numbers[1], 0), f"{numbers[2].mean():.1f}"]
                lines.append(f"| {target} | {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def figure(config: names.Config, rows: Rows, sequential: Rows, out: Path) -> None:
    """Learning curves of every target, mean and standard error over runs."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    main = (names.CHOSEN, names.L2_SP, names.WITH_CRITIC, names.SOURCE, names.SCRATCH, names.PPO_SOURCE)
    shown = [(names.SEQUENTIAL, sequential), *((method, rows) for method in main)]
    canvas, axes = plt.subplots(
        1, len(config.targets), figsize=(4.2 * len(config.targets), 4.4), sharey=True, squeeze=False
    )
    thousands = np.arange(config.rollouts + 1) * config.num_envs * config.num_steps / 1000
    for ax, target in zip(axes[0], config.targets, strict=True):
        for number, (method, own) in enumerate(shown):
            every = curves(config, own, target, method)[0]
            mean, error = every.mean(0), every.std(0, ddof=1) / np.sqrt(len(every))
            style = {"linewidth": 2.6 if number == 0 else 1.4, "linestyle": "--" if method.startswith("PPO") else "-"}
            (line,) = ax.plot(thousands, mean, label=method, color=COLOURS[number], **style)
            ax.fill_between(thousands, mean - error, mean + error, color=line.get_color(), alpha=0.15, linewidth=0)
        ax.set(title=TITLES[target], xlabel="thousands of steps", ylim=(0, 510))
        ax.title.set_fontsize(9)
    axes[0, 0].set_ylabel("return")
    canvas.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    canvas.set_layout_engine("constrained")
    canvas.savefig(out / "figure.png", dpi=110)
    plt.close(canvas)


# Okabe and Ito's colours, which the colour-blind tell apart.
COLOURS = ("#000000", "#0072b2", "#cc79a7", "#009e73", "#e69f00", "#999999", "#d55e00")


def speed(config: names.Config, repeats: int = 7) -> str:
    """Steps of the environment a second, beside a scan written by hand for this policy; compilation apart."""
    env = task.environment(task.SOURCE_TASK)
    num_envs, num_steps = config.num_envs, 10 * config.num_steps
    made = btl.control.rollouts(task.POLICY, env, num_envs, num_steps, config.discount)
    params, key = task.POLICY.params, jax.random.key(0)
    world = made.start(key)

    @jax.jit
    def by_hand(params: Any, key: Any, observation: Any, state: Any) -> Any:
        def step(carry: Any, key: Any) -> Any:
            observation, state = carry
            key_act, key_env, key_reset = jax.random.split(key, 3)
            x = observation
            for layer in ("dense_0", "dense_1"):
                x = jnp.tanh(x @ params[layer]["kernel"] + params[layer]["bias"])
            actions = jax.random.categorical(key_act, x @ params["head"]["kernel"] + params["head"]["bias"])
            after = jax.vmap(env.step, (0, 0, 0, None))(jax.random.split(key_env, num_envs), state, actions, env.params)
            new, state, reward, terminated, truncated = after
            fresh = jax.vmap(env.reset, (0, None))(jax.random.split(key_reset, num_envs), env.params)
            over = terminated | truncated
            new, state = jax.tree.map(
                lambda a, b: jnp.where(over.reshape(-1, *[1] * (a.ndim - 1)), a, b), fresh, (new, state)
            )
            return (new, state), (observation, actions, reward, over)

        return jax.lax.scan(step, (observation, state), jax.random.split(key, num_steps))

    ours = jax.jit(made.collect)
    seconds: dict[str, list[float]] = {"by hand": [], "rollouts": []}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(repeats + 1):
            for name, run in (
                ("by hand", lambda: by_hand(params, key, world.observation, world.state)),
                ("rollouts", lambda: ours(key, params, world)),
            ):
                began = time.perf_counter()
                jax.block_until_ready(run())
                if number:
                    seconds[name].append(time.perf_counter() - began)
    rate = {name: num_envs * num_steps / np.median(each) for name, each in seconds.items()}
    ratio = np.median(np.array(seconds["by hand"]) / np.array(seconds["rollouts"]))
    return (
        f"{rate['rollouts']:,.0f} steps of the environment a second; a scan of the same policy written by hand makes "
        f"{rate['by hand']:,.0f}: {ratio:.2f} of it."
    )


def _settings_of(rows: Rows, kind: str) -> set[tuple[float, ...]]:
    return {tuple(row["shared"]) for row in rows.rows if row["method"] == kind}


def _shown(shared: names.Shared) -> str:
    return f"temperature {shared.temperature:g}, rate {shared.rate:g}, {shared.passes} passes"


def _matching(rows: Rows, target: str, method: str) -> list[dict[str, Any]]:
    return [row for row in rows.rows if (row["target"], row["method"]) == (target, method)]
