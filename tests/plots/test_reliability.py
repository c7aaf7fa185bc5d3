import sys

import matplotlib as mpl
import numpy as np
import pytest

from bayestl import plots
from bayestl.metrics import ReliabilityBins

mpl.use("Agg")

NAN = np.nan
ONE = ReliabilityBins(np.array([NAN, 0.4, 0.9]), np.array([NAN, 0.25, 0.75]), np.array([0.0, 4.0, 12.0]))
TWO = ReliabilityBins(np.array([0.2, 0.5, NAN]), np.array([1.0, 0.5, NAN]), np.array([1.0, 12.0, 0.0]))


@pytest.fixture(autouse=True)
def _close():
    yield
    mpl.pyplot.close("all")


def curves(ax):
    return {line.get_label(): np.asarray(line.get_xydata()) for line in ax.get_lines()}


def test_draws_the_bins_that_hold_examples_and_the_diagonal():
    ax = plots.reliability({"one": ONE, "two": TWO})
    assert isinstance(ax, mpl.axes.Axes)
    found = curves(ax)
    np.testing.assert_array_equal(found["one"], [[0.4, 0.25], [0.9, 0.75]])
    np.testing.assert_array_equal(found["two"], [[0.2, 1.0], [0.5, 0.5]])
    np.testing.assert_array_equal(found["calibrated"], [[0, 0], [1, 1]])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("confidence", "accuracy")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["calibrated", "one", "two"]


def test_marker_areas_are_the_shares_of_the_examples():
    ax = plots.reliability({"one": ONE})
    sizes = ax.collections[0].get_sizes()
    np.testing.assert_allclose(sizes / sizes.sum(), [0.25, 0.75])


@pytest.mark.parametrize("seeds", [[ONE, TWO], ReliabilityBins(*(np.stack(x) for x in zip(ONE, TWO, strict=True)))])
def test_seeds_are_pooled_by_their_examples(seeds):
    found = curves(plots.reliability({"both": seeds}))["both"]
    middle = [(4 * 0.4 + 12 * 0.5) / 16, (4 * 0.25 + 12 * 0.5) / 16]
    np.testing.assert_allclose(found, [[0.2, 1.0], middle, [0.9, 0.75]], rtol=1e-12)  # float64 rounding


def test_draws_on_given_axes():
    _, given = mpl.pyplot.subplots()
    assert plots.reliability({"one": ONE}, given) is given


def test_methods_differ_in_colour_and_marker():
    ax = plots.reliability({str(i): ONE for i in range(7)})
    lines = ax.get_lines()[1:]
    assert len({line.get_color() for line in lines}) == 7
    assert len({line.get_marker() for line in lines}) == 7


def test_more_methods_than_colours_differ_in_their_lines():
    lines = plots.reliability({str(i): ONE for i in range(14)}).get_lines()[1:]
    looks = [(line.get_color(), line.get_marker(), line.get_linestyle()) for line in lines]
    assert len(set(looks)) == 14
    for first, second in zip(looks[:7], looks[7:], strict=True):
        assert first[0] == second[0]
        assert first[2] != second[2]


def test_bad_input():
    with pytest.raises(ValueError, match="bins is empty"):
        plots.reliability({})
    short = ReliabilityBins(*(np.ones(2) for _ in range(3)))
    with pytest.raises(ValueError, match=r"bins of 'one' must agree in number over the seeds, but have \[2, 3\]"):
        plots.reliability({"one": [ONE, short]})


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r'pip install "bayestl\[plots\]"'):
        plots.reliability({"one": ONE})


def test_bins_with_few_examples_are_left_out_on_request():
    bins = ReliabilityBins(np.array([0.2, 0.8]), np.array([0.0, 0.75]), np.array([3, 40]))
    (curve,) = [line for line in plots.reliability({"a": bins}, min_count=4).get_lines() if line.get_label() == "a"]
    assert np.asarray(curve.get_xdata()).tolist() == pytest.approx([0.8])
    (curve,) = [line for line in plots.reliability({"a": bins}, min_count=3).get_lines() if line.get_label() == "a"]
    assert np.asarray(curve.get_xdata()).tolist() == pytest.approx([0.2, 0.8])
