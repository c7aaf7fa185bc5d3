"""The pictures of the documents, each drawn from what the Python blocks of its page compute.

``python docs/_pictures.py readme posteriors`` draws these two into ``docs/images``; without names it lists all.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if "many_devices" in sys.argv[1:]:  # eight devices on this computer; JAX reads this when it starts
    os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax
from _pictures_judging import judging_uncertainty
from PIL import Image

matplotlib.use("Agg")
import matplotlib.pyplot as plt

import bayestl as btl

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs" / "images"
RESULTS = ROOT / "benchmarks" / "results"
BLUE, RED = "#2166ac", "#b2182b"
BLOCK = re.compile(r"^```python[ \t]*\n(?P<code>.*?)^```", re.MULTILINE | re.DOTALL)


def computed_by(page: str) -> dict[str, Any]:
    """The variables that the Python blocks of a page leave behind."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in BLOCK.finditer((ROOT / page).read_text()):
        exec(compile(block["code"], page, "exec"), namespace)
    return namespace


def readme() -> plt.Figure:
    """The task of the README from scratch, with the source's weights, and with the posterior."""
    page = computed_by("README.md")
    net, target, test, keys = page["net"], page["target"], page["test"], page["keys"]
    flat = page["joint"].replace(prior=None)
    scratch = btl.fit(
        keys[5], btl.infer.map_estimate(flat, optax.adam(0.01)), net.params, target, steps=1000, progress=False
    )
    predictions = {
        "trained from scratch": btl.predict.monte_carlo(keys[5], flat, scratch.posterior),
        "source weights, unchanged": btl.predict.monte_carlo(keys[5], flat, btl.Point(page["weights"])),
        "posterior, prior at the source": page["predict"],
    }
    return _plane(predictions, target, test, shift=0.5)


def _plane(predictions: dict[str, Any], target: Any, test: Any, shift: float) -> plt.Figure:
    """Class probabilities over the plane, the labelled points, the true boundary and the test scores."""
    figure, axes = plt.subplots(1, len(predictions), figsize=(10.5, 4.2), layout="constrained", sharey=True)
    line = jnp.linspace(-2.0, 2.0, 121)
    grid = jnp.stack(jnp.meshgrid(line, line), axis=-1)
    shades = None
    for ax, (title, predict) in zip(axes, predictions.items(), strict=True):
        upper = predict(grid.reshape(-1, 2)).probs[:, 1].reshape(grid.shape[:2])
        shades = ax.pcolormesh(line, line, upper, cmap="RdBu", vmin=0.0, vmax=1.0, shading="gouraud", rasterized=True)
        ax.contour(line, line, upper, [0.5], colors="black", linewidths=1.2)
        ax.plot(line, jnp.sin(2.0 * line + shift), "--", color="black", linewidth=1.2)
        _points(ax, target)
        scores = btl.metrics.report(predict(test.inputs), test.targets)
        ax.set_title(f"{title}\naccuracy {scores['accuracy']:.2f}, NLL {scores['nll']:.2f}", fontsize=11)
        ax.set(xticks=[], yticks=[], aspect="equal")
    figure.colorbar(shades, ax=axes, label="probability of the upper class", shrink=0.8, ticks=[0.0, 0.5, 1.0])
    return figure


def getting_started() -> plt.Figure:
    """Sharp and coarse digits, and the validation NLL of each prior scale."""
    page = computed_by("docs/index.md")
    figure, axes = plt.subplots(1, 2, figsize=(9.0, 3.6), layout="constrained", width_ratios=(1.0, 1.2))
    sharp, coarse = (page[name].reshape(-1, 8, 8)[:5] for name in ("pictures", "coarse"))
    axes[0].imshow(np.vstack([np.hstack(list(sharp)), np.hstack(list(coarse))]), cmap="gray_r")
    axes[0].set(xticks=[], yticks=[3.5, 11.5], yticklabels=["source", "target"], title="the two tasks")
    axes[1].semilogx(page["scales"], page["scores"], "o-", color=BLUE)
    axes[1].set(xlabel="scale of the prior at the source", ylabel="validation NLL (nats)", title="how far to trust")
    return figure


def posteriors() -> plt.Figure:
    """What the posteriors of the page predict over the plane."""
    page = computed_by("docs/posteriors.md")
    joint, key = page["joint"], page["key"]
    predictions = {
        "mode": btl.predict.monte_carlo(key, joint, btl.Point(page["mode"])),
        "Laplace, linearized": btl.predict.linearized(joint, page["posterior"]),
        "SWAG": btl.predict.monte_carlo(key, joint, page["swag"], 64),
        "ensemble, random anchors": btl.predict.monte_carlo(key, joint, page["members"]),
        "SGHMC": btl.predict.monte_carlo(key, joint, page["chain"].posterior),
        "NUTS on the head": btl.predict.monte_carlo(key, page["head"].joint, page["chains"]),
    }
    figure, axes = plt.subplots(2, 3, figsize=(9.0, 6.2), layout="constrained", sharex=True, sharey=True)
    line = jnp.linspace(-3.0, 3.0, 81)
    grid = jnp.stack(jnp.meshgrid(line, line), axis=-1)
    shades = None
    for ax, (title, predict) in zip(axes.flat, predictions.items(), strict=True):
        upper = predict(grid.reshape(-1, 2)).probs[:, 1].reshape(grid.shape[:2])
        shades = ax.pcolormesh(line, line, upper, cmap="RdBu", vmin=0.0, vmax=1.0, shading="gouraud", rasterized=True)
        _points(ax, page["train"], size=5)
        ax.set(title=title, xticks=[], yticks=[], aspect="equal")
    figure.colorbar(shades, ax=axes, label="probability of the blue class", shrink=0.7, ticks=[0.0, 0.5, 1.0])
    return figure


def bring_your_own_network() -> plt.Figure:
    """How far each layer moved from the source, beside how far its prior let it."""
    page = computed_by("docs/bring_your_own_network.md")
    before, after, prior = page["net"].params, page["fitted"].params, page["prior"]
    names = sorted(before)
    moved = [_root_mean_square(jax.tree.map(jnp.subtract, after[name], before[name])) for name in names]
    scales = [_root_mean_square(jax.tree.map(jnp.sqrt, prior.variance[name])) for name in names]
    figure, ax = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
    ax.bar(names, moved, color=BLUE, width=0.5, label="how far the layer moved (root mean square)")
    ax.plot(names, scales, "_", color=RED, markersize=40, markeredgewidth=2.5, label="scale of its prior")
    ax.set(yscale="log", ylabel="distance from the source")
    ax.legend(frameon=False, loc="upper left", markerscale=0.5)
    return figure


def memory() -> plt.Figure:
    """What a run takes, by method and rank of the prior."""
    page = computed_by("docs/memory.md")
    net, data = page["net"], page["data"]
    copy = 4 * btl.tree.size(net.params) / 2**20
    bars = {}
    for rank in (0, 5, 20):
        mean = net.params
        factor = jax.tree.map(lambda x, rank=rank: jax.random.normal(jax.random.key(0), (rank, *x.shape)), mean)
        ones = jax.tree.map(jnp.ones_like, mean)
        prior = btl.gaussians.low_rank(mean, ones, factor) if rank else btl.gaussians.isotropic(mean, 1.0)
        joint = page["joint"].replace(prior=prior)
        for title, method in (
            ("MAP", btl.infer.map_estimate(joint, optax.sgd(1e-3, momentum=0.9))),
            ("mean-field VI", btl.infer.mean_field_vi(joint, optax.adam(1e-3))),
        ):
            bars[title, rank] = btl.estimate_memory(method, net.params, data).total / 2**20 / copy
    figure, ax = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
    for offset, (title, color) in enumerate((("MAP", BLUE), ("mean-field VI", RED))):
        places = np.arange(3) + 0.36 * offset - 0.18
        ax.bar(places, [bars[title, rank] for rank in (0, 5, 20)], width=0.34, color=color, label=title)
    ax.set(xticks=range(3), xticklabels=["isotropic", "rank 5", "rank 20"], ylabel="memory, copies of the parameters")
    ax.set_xlabel("prior")
    ax.legend(frameon=False)
    return figure


def many_devices() -> plt.Figure:
    """Which device holds which part of a batch and of a weight matrix."""
    page = computed_by("docs/many_devices.md")
    batch = jax.device_put(page["train"].inputs[:32], page["over"])
    arrays = {
        "a batch, (32, 16)": batch,
        "a sharded weight matrix, (16, 32)": page["fitted"].params["dense_0"]["kernel"],
    }
    figure, axes = plt.subplots(1, 2, figsize=(8.0, 3.4), layout="constrained")
    for ax, (title, array) in zip(axes, arrays.items(), strict=True):
        owner = np.zeros(array.shape)
        for shard in array.addressable_shards:
            owner[shard.index] = shard.device.id
        ax.imshow(owner, cmap="tab10", vmin=0, vmax=9, aspect="auto", interpolation="nearest")
        for shard in array.addressable_shards:
            rows, columns = (range(*part.indices(size)) for part, size in zip(shard.index, array.shape, strict=True))
            where = (columns[0] + columns[-1]) / 2, (rows[0] + rows[-1]) / 2
            ax.text(*where, f"{shard.device.id}", ha="center", va="center", color="white", fontsize=11)
        ax.set(title=title, xticks=[], yticks=[])
    return figure


def which_method() -> plt.Figure:
    """Distance to NUTS and seconds of each method, from the rows of the posteriors benchmark."""
    rows = [json.loads(line) for line in (RESULTS / "posteriors" / "rows.jsonl").read_text().splitlines()]
    figure, axes = plt.subplots(1, 2, figsize=(9.6, 4.8), layout="constrained")
    for ax, problem in zip(axes, ("yacht", "moons"), strict=True):
        mine = [row for row in rows if row["problem"] == problem and row["method"] not in ("NUTS", "MC dropout")]
        fields = ("total_variation", "seconds")
        means = {
            method: [np.mean([row[field] for row in mine if row["method"] == method]) for field in fields]
            for method in dict.fromkeys(row["method"] for row in mine)
        }
        names = sorted(means, key=lambda name: means[name][0], reverse=True)
        ax.barh(names, [means[name][0] for name in names], color=BLUE, height=0.7)
        for place, name in enumerate(names):
            distance, seconds = means[name]
            ax.text(distance, place, f" {seconds:.2g} s", va="center", fontsize=8.5)
        ax.set(title=problem, xlabel="total variation to NUTS")
        ax.margins(x=0.14, y=0.01)
        ax.spines[["top", "right"]].set_visible(False)
    return figure


def _colours(families: Sequence[btl.Trust]) -> list[str]:
    """One for each family: the source's in blue, a fresh network in grey, what lies between in other colours."""
    return [*(BLUE, RED, "#e08214")[: len(families) - 1], "#777777"]


def how_much_to_trust() -> plt.Figure:
    """Digits with three labels a class: how each family of priors predicts left-out examples, and its weights."""
    from benchmarks.tasks import digits_source as digits

    source, num_labels = digits.train_source(progress=False), 3
    net = btl.nets.mlp(jax.random.key(4), digits.SIZES)
    figure, axes = plt.subplots(2, 2, figsize=(9.6, 5.6), layout="constrained", sharex=True, height_ratios=(3, 1))
    for column, target in enumerate(digits.targets()):
        train = digits.training_set(target, num_labels, 0)
        result = btl.transfer(jax.random.key(0), net, source.net, train, btl.likelihoods.categorical())
        above, below = axes[:, column]
        for family, color, marker in zip(result.trust, _colours(result.trust), "osD^", strict=False):
            losses = -np.asarray(family.held_out)
            above.plot(family.deviations, losses, marker + "-", color=color, label=family.name, markersize=4)
            errors = np.asarray(family.held_out_errors)
            above.fill_between(family.deviations, losses - errors, losses + errors, color=color, alpha=0.15, lw=0)
            below.plot(family.deviations, family.weights, marker + "-", color=color, markersize=4)
        name = {digits.LOW_RESOLUTION: "low resolution: the source helps"}.get(target.name, "inverted: it misleads")
        above.set(title=name, xscale="log", ylim=(0, 3))
        below.set(xlabel="standard deviation of the prior")
        for ax in (above, below):
            ax.spines[["top", "right"]].set_visible(False)
    axes[0, 0].set_ylabel("held-out loss, nats per example")
    axes[1, 0].set_ylabel("weight")
    axes[0, 0].legend(frameon=False)
    return figure


def active_learning() -> plt.Figure:
    """Test NLL against the number of labels, by how they were chosen, in two pools."""
    from benchmarks.active_learning import LIKE_THE_TEST, MIXED, STRATEGIES

    rows = [json.loads(line) for line in (RESULTS / "active_learning" / "rows.jsonl").read_text().splitlines()]
    figure, axes = plt.subplots(1, 2, figsize=(9.6, 3.8), layout="constrained", sharey=True)
    colors = dict(zip(STRATEGIES, ("#222222", "#e69f00", "#999999", BLUE, "#56b4e9", RED), strict=True))
    for ax, pool in zip(axes, (LIKE_THE_TEST, MIXED), strict=True):
        for strategy, marker in zip(STRATEGIES, "os^Dv*", strict=True):
            own = [row for row in rows if (row["pool"], row["strategy"]) == (pool, strategy)]
            losses, labels = np.array([row["nll"] for row in own]), own[0]["labels"]
            mean, error = losses.mean(0), losses.std(0, ddof=1) / len(losses) ** 0.5
            ax.plot(labels, mean, marker + "-", color=colors[strategy], label=strategy, markersize=4)
            ax.fill_between(labels, mean - error, mean + error, color=colors[strategy], alpha=0.15, lw=0)
        ax.set(title=f"pool: {pool}", xlabel="labels")
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("test NLL (nats)")
    axes[1].legend(frameon=False)
    return figure


def _root_mean_square(tree: Any) -> float:
    return float(jnp.sqrt(btl.tree.vdot(tree, tree) / btl.tree.size(tree)))


def _points(ax: Any, data: Any, size: float = 8) -> None:
    for label, marker, color in ((0, "o", RED), (1, "s", BLUE)):
        points = data.inputs[data.targets == label]
        ax.plot(*points.T, marker, color=color, markeredgecolor="white", markersize=size, clip_on=False)


def save(figure: plt.Figure, path: Path) -> None:
    """Write a figure with a palette of 128 colours: a fifth of the size, and no difference that an eye could see."""
    pixels = io.BytesIO()
    figure.savefig(pixels, dpi=110)
    plt.close(figure)
    small = Image.open(pixels).convert("RGB").quantize(128, dither=Image.Dither.NONE)
    small.save(path, optimize=True)


PICTURES = {
    draw.__name__: draw
    for draw in (
        *(readme, getting_started, which_method, bring_your_own_network, how_much_to_trust, posteriors, memory),
        *(many_devices, active_learning),
    )
} | {"judging_uncertainty": lambda: judging_uncertainty(computed_by("docs/judging_uncertainty.md"))}


def main() -> None:
    """Draw the pictures that the command line names."""
    names = sys.argv[1:]
    if not names or not set(names) <= set(PICTURES):
        raise SystemExit(f"name pictures to draw: {', '.join(PICTURES)}")
    for name in names:
        save(PICTURES[name](), IMAGES / f"{name}.png")
        print(IMAGES.relative_to(ROOT) / f"{name}.png")


if __name__ == "__main__":
    main()
