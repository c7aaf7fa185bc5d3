"""Pictures of how unsure predictions are: what is drawn are the numbers, worked out by hand or by numpy."""

import itertools
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import colors, pyplot

import bayestl as btl
from bayestl import metrics, plots

mpl.use("Agg")
OKABE_ITO = {"#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000"}


@pytest.fixture(autouse=True)
def _close():
    yield
    pyplot.close("all")


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def stairs(ax, number) -> Any:
    return ax.patches[number].get_data()


def colours(artists, of):
    return {colors.to_hex(of(artist)).upper() for artist in artists}


def assert_fits_a_column(ax):
    """As wide as a column, everything with writing in it inside, and the axes taking half of it at least."""
    figure = ax.figure
    figure.canvas.draw()
    assert figure.get_size_inches()[0] == 3.3
    box, inside = figure.bbox, ax.get_tightbbox()
    assert inside.x0 >= box.x0 - 1
    assert inside.x1 <= box.x1 + 1
    assert ax.get_window_extent().width > 0.5 * box.width
    assert min(text.get_fontsize() for text in ax.get_legend().get_texts()) >= 8
    assert ax.get_xlabel()


def test_risk_against_coverage():
    curve = metrics.risk_coverage([0.9, 0.6, 0.8, 0.7], [0, 1, 0, 0])
    other = metrics.risk_coverage([0.9, 0.6, 0.8, 0.7], [1, 0, 0, 0])
    ax = plots.risk_coverage({"mine": curve, "theirs": other})
    one, two = ax.get_lines()
    np.testing.assert_allclose(np.asarray(one.get_xydata()), [[25, 0], [50, 0], [75, 0], [100, 0.25]])
    np.testing.assert_allclose(np.asarray(two.get_ydata()), [1, 1 / 2, 1 / 3, 1 / 4])
    assert legend(ax) == ["mine", "theirs"]
    assert colours(ax.get_lines(), lambda line: line.get_color()) < OKABE_ITO
    assert_fits_a_column(ax)
    with pytest.raises(ValueError, match="curves is empty"):
        plots.risk_coverage({})
    with pytest.raises(TypeError, match=r"give what metrics\.risk_coverage gives"):
        plots.risk_coverage({"mine": (1, 2)})  # pyright: ignore[reportArgumentType]


def test_histograms_are_shares_in_common_bins():
    known, letters = np.array([0.0, 0.1, 0.2, 0.9]), np.array([0.7, 1.0])
    ax = plots.unknowns_histogram(known, {"letters": letters, "noise": [1.0]}, num_bins=4, xlabel="entropy (nats)")
    filled, line, _ = ax.patches
    np.testing.assert_allclose(stairs(ax, 0).edges, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(stairs(ax, 0).values, [75, 0, 0, 25])
    np.testing.assert_allclose(stairs(ax, 1).values, [0, 0, 50, 50])
    assert (filled.get_fill(), line.get_fill()) == (True, False)
    # Of 8 pairs one is the wrong way round.
    assert legend(ax) == ["known", "letters, AUROC 0.88", "noise, AUROC 1.00"]
    assert ax.get_xlabel() == "entropy (nats)"
    assert_fits_a_column(ax)
    for scores, bins in (({}, 3), ({"letters": letters}, 0), ({"known": letters}, 3), ({"letters": [np.inf]}, 3)):
        with pytest.raises(ValueError, match=r"give at least one of each|give it another name|are not finite"):
            plots.unknowns_histogram(known, scores, num_bins=bins)


def test_transforms_are_drawn_as_a_density_beside_what_chance_does():
    values = np.array([[0.1, 0.2], [0.3, 0.9]])
    ax = plots.pit({"mine": values, "theirs": np.linspace(0, 1, 101)}, num_bins=2)
    np.testing.assert_allclose(stairs(ax, 0).values, [1.5, 0.5])
    assert ax.patches[0].get_linestyle() != ax.patches[1].get_linestyle()
    # Of four targets Binomial(4, 1/2) fall into each half: a density of 1 with standard deviation 1/2.
    low, high = ax.patches[2].get_extents().transformed(ax.transData.inverted()).intervaly
    assert (low, high) == pytest.approx((0.02, 1.98))
    assert legend(ax) == ["mine", "theirs", "95% of right ones"]
    assert_fits_a_column(ax)
    for wrong, bins in (({}, 3), ({"mine": values}, 0), ({"mine": [1.5]}, 3), ({"mine": [np.nan]}, 3)):
        with pytest.raises(ValueError, match=r"give at least one of each|give what metrics\.pit gives"):
            plots.pit(wrong, num_bins=bins)


def test_layers_have_their_widths_and_their_movement():
    """Two leaves of one layer are pooled by their sizes, and a variance may stand for a whole row."""
    zeros = {"body": {"w": np.zeros((2, 3)), "b": np.zeros(2)}, "head": {"w": np.zeros(2)}}
    mean = {"body": {"w": np.ones((2, 3)), "b": np.zeros(2)}, "head": {"w": np.array([3.0, 4.0])}}
    shared = {"body": {"w": np.array([[1.0], [3.0]]), "b": np.array([10.0, 10.0])}, "head": {"w": np.array([4.0, 4.0])}}
    prior, posterior = btl.gaussians.diagonal(zeros, shared), btl.gaussians.isotropic(mean, 0.5)
    ax = plots.prior_against_posterior(prior, posterior)
    wide, narrow, moved = (np.asarray(line.get_xdata()) for line in ax.get_lines())
    np.testing.assert_allclose(wide, [np.sqrt((6 * 2 + 2 * 10) / 8), 2.0], rtol=1e-6)
    np.testing.assert_allclose(narrow, [0.5, 0.5], rtol=1e-6)
    np.testing.assert_allclose(moved, [np.sqrt(6 / 8), np.sqrt(25 / 2)], rtol=1e-6)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["body", "head"]
    assert ax.get_xscale() == "log"
    assert_fits_a_column(ax)
    for width in (0.5, 1e-4):  # less than a power of ten on the axis, and four of them
        ax = plots.prior_against_posterior(prior, btl.gaussians.isotropic(prior.mean, width))
        assert_fits_a_column(ax)
        boxes = [text.get_window_extent() for text in ax.get_xticklabels() if text.get_text()]
        shown = sorted((box.x0, box.x1) for box in boxes if 0 <= box.x0 <= ax.figure.bbox.x1)
        assert len(shown) >= 2
        assert all(left[1] < right[0] for left, right in itertools.pairwise(shown))
        assert not any(text.get_text() for text in ax.get_xticklabels(minor=True))
    with pytest.raises(ValueError, match="give the one under this prior"):
        plots.prior_against_posterior(prior, btl.gaussians.isotropic(mean["body"], 0.5))


def test_sets_are_counted_by_size_and_by_whether_they_hold_the_right_class():
    sets = np.array([[1, 0, 0], [1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]], bool)
    ax = plots.prediction_sets(sets, np.array([0, 2, 1, 1, 2]))
    inside, missing = ax.containers
    assert [bar.get_x() + bar.get_width() / 2 for bar in inside] == pytest.approx([1, 2, 3])
    assert [bar.get_height() for bar in inside] == pytest.approx([20, 20, 20])
    assert [bar.get_height() for bar in missing] == pytest.approx([20, 20, 0])
    assert [bar.get_y() for bar in missing] == pytest.approx([20, 20, 20])
    assert legend(ax) == ["right class inside (60.0%)", "missing (40.0%)"]
    assert colours(ax.patches, lambda bar: bar.get_facecolor()) < OKABE_ITO
    assert_fits_a_column(ax)
    for labels in (np.array([0, 1]), np.array([0, 1, 2, 3, 0]), np.zeros(5)):
        with pytest.raises(ValueError, match=r"give \(N, C\) and \(N,\)|whole numbers from 0 to 2"):
            plots.prediction_sets(sets, labels)
