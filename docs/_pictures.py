"""The pictures of the documents, each drawn from what the Python blocks of its page compute.

``python docs/_pictures.py`` draws all of them into ``docs/images``; ``python docs/_pictures.py readme`` only some.
"""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import matplotlib
import optax
from PIL import Image

matplotlib.use("Agg")
import matplotlib.pyplot as plt

import bayestl as btl

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs" / "images"
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
        for label, marker, color in ((0, "o", "#b2182b"), (1, "s", "#2166ac")):
            points = target.inputs[target.targets == label]
            ax.plot(*points.T, marker, color=color, markeredgecolor="white", markersize=8, clip_on=False)
        scores = btl.metrics.report(predict(test.inputs), test.targets)
        ax.set_title(f"{title}\naccuracy {scores['accuracy']:.2f}, NLL {scores['nll']:.2f}", fontsize=11)
        ax.set(xticks=[], yticks=[], aspect="equal")
    figure.colorbar(shades, ax=axes, label="probability of the upper class", shrink=0.8, ticks=[0.0, 0.5, 1.0])
    return figure


def save(figure: plt.Figure, path: Path) -> None:
    """Write a figure with a palette of 128 colours: a fifth of the size, and no difference that an eye could see."""
    pixels = io.BytesIO()
    figure.savefig(pixels, dpi=110)
    plt.close(figure)
    small = Image.open(pixels).convert("RGB").quantize(128, dither=Image.Dither.NONE)
    small.save(path, optimize=True)


PICTURES = {"readme": readme}


def main() -> None:
    """Draw the pictures that the command line names, or all."""
    unknown = sorted(set(sys.argv[1:]) - set(PICTURES))
    if unknown:
        raise SystemExit(f"there is no picture {', '.join(unknown)}; there are {', '.join(PICTURES)}")
    for name in sys.argv[1:] or PICTURES:
        figure = PICTURES[name]()
        IMAGES.mkdir(exist_ok=True)
        save(figure, IMAGES / f"{name}.png")
        print(IMAGES.relative_to(ROOT) / f"{name}.png")


if __name__ == "__main__":
    main()
