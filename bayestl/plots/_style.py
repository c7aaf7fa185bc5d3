"""How the methods of one figure are told apart, and axes to draw on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, which readers with any common colour blindness can tell apart; yellow, too pale on white, is
# left out. https://jfly.uni-koeln.de/color/
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")
DASHES = ("-", "--", ":", "-.")
# The width of one column of a page of two, and a height for it, inches.
COLUMN = (3.3, 2.7)
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "p", "<", ">")


class Style(NamedTuple):
    """How one method is drawn.

    Attributes:
        color: of line and markers.
        marker: matplotlib's code for the marker.
        line: matplotlib's code for the line; dotted once every colour is taken.
    """

    color: str
    marker: str
    line: str


def styles(names: Iterable[str]) -> dict[str, Style]:
    """A style for each name, by its place: figures of the same names in the same order agree."""
    return {
        name: Style(
            _COLOURS[i % len(_COLOURS)],
            _MARKERS[i % len(_MARKERS)],
            ("-", ":", "-.")[i // len(_COLOURS) % 3],
        )
        for i, name in enumerate(names)
    }


def axes(ax: Any, figsize: tuple[float, float]) -> Axes:
    """The axes given, or those of a new figure.

    Raises:
        ImportError: matplotlib is not installed.
    """
    if ax is not None:
        return ax
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError('plots need matplotlib; install it with: pip install "bayestl[plots]"') from error
    return plt.subplots(figsize=figsize, layout="constrained")[1]


def finish(ax: Axes, handles: Sequence[Any]) -> None:
    """A legend beside the axes, where it hides no data, in the order of ``handles``; no upper and right frame."""
    ax.legend(handles=handles, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    ax.spines[["top", "right"]].set_visible(False)


def finish_above(ax: Axes, handles: Sequence[Any]) -> None:
    """As :func:`finish`, with the legend above the axes: in a column of 8.4 cm there is no room beside them."""
    options = {"frameon": False, "fontsize": 8, "loc": "lower left", "bbox_to_anchor": (0.0, 1.0)}
    # Beside long names of layers the axes are narrow, and two longer entries side by side would not fit.
    columns = 2 if max(len(handle.get_label()) for handle in handles) <= 10 else 1
    ax.legend(handles=handles, ncols=columns, borderaxespad=0.2, handlelength=1.8, columnspacing=1.0, **options)
    ax.spines[["top", "right"]].set_visible(False)
