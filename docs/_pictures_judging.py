"""The picture of the guide on judging uncertainty; drawn by ``docs/_pictures.py``."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import bayestl as btl

COLOURS = ("#0072B2", "#E69F00", "#009E73")


def judging_uncertainty(page: dict[str, Any]) -> plt.Figure:
    """Two scores for examples from elsewhere over the plane, and what not answering gains with and without these."""
    figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.6), layout="constrained", width_ratios=(1, 1, 1.1))
    line = jnp.linspace(-5.0, 5.0, 61)
    grid = jnp.stack(jnp.meshgrid(line, line), axis=-1).reshape(-1, 2)
    scores = {
        "predictive entropy (nats)": page["predict"](grid).predictive_entropy(),
        "root of the function variance": jnp.sqrt(page["variance"](grid)),
    }
    for ax, (title, score) in zip(axes[:2], scores.items(), strict=True):
        shades = ax.pcolormesh(line, line, score.reshape(61, 61), cmap="cividis", shading="gouraud", rasterized=True)
        for label, colour in enumerate(COLOURS):
            points = np.asarray(page["train"].inputs)[np.asarray(page["train"].targets) == label]
            ax.plot(*points.T, "o", color=colour, markersize=4, markeredgecolor="white", markeredgewidth=0.5)
        ax.set_title(title, fontsize=10)
        ax.set(xticks=[], yticks=[], aspect="equal")
        figure.colorbar(shades, ax=ax, shrink=0.8)
    known, far = (page["predict"](page[name].inputs) for name in ("test", "elsewhere"))
    wrong = np.asarray(known.probs).argmax(-1) != np.asarray(page["test"].targets)
    losses = np.concatenate([wrong, np.ones(len(far.probs))])
    entropies = np.concatenate([known.predictive_entropy(), far.predictive_entropy()])
    variances = np.concatenate([page["variance"](page[name].inputs) for name in ("test", "elsewhere")])
    curves = {
        "test set, by entropy": btl.metrics.risk_coverage(-entropies[: len(wrong)], wrong),
        "with examples from elsewhere, by entropy": btl.metrics.risk_coverage(-entropies, losses),
        "with them, by function variance": btl.metrics.risk_coverage(-variances, losses),
    }
    btl.plots.risk_coverage(curves, axes[2], ylabel="error rate of what is answered")
    return figure
