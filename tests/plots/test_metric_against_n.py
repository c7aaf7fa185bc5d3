import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pytest
from scipy.stats import sem

from bayestl import plots

mpl.use("Agg")

VALUES = {
    "scratch": np.array([[1.5, 1.2, 0.6], [1.3, 1.0, 0.5], [1.4, 1.3, 0.4]]),
    "prior": np.array([[0.9, 0.6, 0.55], [0.8, 0.7, 0.5], [0.7, 0.8, 0.6]]),
}


@pytest.fixture(autouse=True)
def _close():
    yield
    mpl.pyplot.close("all")


def test_draws_means_and_standard_errors():
    ax = plots.metric_against_n([1, 3, 10], VALUES, ylabel="NLL")
    assert isinstance(ax, mpl.axes.Axes)
    for line, bars, (name, table) in zip(ax.get_lines(), ax.collections, VALUES.items(), strict=True):
        assert line.get_label() == name
        np.testing.assert_array_equal(line.get_xdata(), [1, 3, 10])
        np.testing.assert_allclose(line.get_ydata(), table.mean(axis=0), rtol=1e-12)  # float64 rounding
        ends = np.array([segment[:, 1] for segment in bars.get_segments()])
        np.testing.assert_allclose(ends[:, 1] - ends[:, 0], 2 * sem(table, axis=0), rtol=1e-10)
        np.testing.assert_allclose(ends.mean(axis=1), table.mean(axis=0), rtol=1e-10)


def test_axes_name_the_amounts_and_the_metric():
    ax = plots.metric_against_n([1, 3, 10], VALUES, ylabel="NLL")
    assert ax.get_xscale() == "log"
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["1", "3", "10"]
    assert list(ax.get_xticks(minor=True)) == []
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("n", "NLL")
    # in the order in which the lines end, from the top: .55, .5
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["prior", "scratch"]


def test_one_seed_has_no_bars():
    ax = plots.metric_against_n([1, 3], {"one": np.array([[1.0, 2.0]])})
    assert len(ax.collections) == 0
    np.testing.assert_array_equal(ax.get_lines()[0].get_ydata(), [1, 2])


def test_draws_on_given_axes_in_the_same_styles():
    _, given = mpl.pyplot.subplots(1, 2)
    for ax in given:
        assert plots.metric_against_n([1, 3, 10], VALUES, ax) is ax
    first, second = ([(line.get_color(), line.get_marker()) for line in ax.get_lines()] for ax in given)
    assert first == second
    assert len(set(first)) == 2


@pytest.mark.parametrize("table", [np.zeros(3), np.zeros((5, 2)), np.zeros((0, 3))])
def test_values_of_another_shape(table):
    with pytest.raises(ValueError, match=r"values of 'mine' have shape .* but must be \(seeds, 3\)"):
        plots.metric_against_n([1, 3, 10], {"mine": table})


def test_bad_amounts_and_no_methods():
    with pytest.raises(ValueError, match=r"ns is \[0, 1\]; it must be a list of positive numbers"):
        plots.metric_against_n([0, 1], VALUES)
    with pytest.raises(ValueError, match="values is empty"):
        plots.metric_against_n([1], {})


def test_importing_the_package_leaves_matplotlib_out():
    code = "import sys, bayestl.plots; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
