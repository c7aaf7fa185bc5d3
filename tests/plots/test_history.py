import matplotlib as mpl
import numpy as np
import pytest

import bayestl as btl
from bayestl import plots

mpl.use("Agg")

OBJECTIVE = np.array([5.0, 3.0, 4.0, 1.0, 2.0, 0.0])
SCORE = np.array([np.nan, 4.0, np.nan, 2.5, np.nan, 1.5])


@pytest.fixture(autouse=True)
def _close():
    yield
    mpl.pyplot.close("all")


def _result(**history: np.ndarray) -> btl.FitResult:
    return btl.FitResult(None, None, history, 6, "finished", 1.0, 1.0)


def _lines(ax) -> list[np.ndarray]:
    return [np.asarray(line.get_xydata()) for line in ax.get_lines()]


def test_draws_objective_and_score_against_steps():
    ax = plots.history(_result(objective=OBJECTIVE, validation_nll=SCORE), window=3)
    raw, smoothed, score = _lines(ax)
    steps = np.arange(1, 7)
    np.testing.assert_array_equal(raw, np.column_stack([steps, OBJECTIVE]))
    means = [OBJECTIVE[max(0, i - 3) : i].mean() for i in steps]
    np.testing.assert_allclose(smoothed, np.column_stack([steps, means]), rtol=1e-12)  # float64 rounding
    np.testing.assert_array_equal(score, [[2, 4.0], [4, 2.5], [6, 1.5]])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("step", "nats per example")
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["objective", "objective, mean of 3 steps", "validation nll"]


def test_a_run_without_validation_and_given_axes():
    _, given = mpl.pyplot.subplots()
    assert plots.history(_result(objective=OBJECTIVE), given) is given
    raw, smoothed = _lines(given)
    np.testing.assert_allclose(raw, smoothed, rtol=1e-12)  # the window is one step


def test_bad_input():
    with pytest.raises(ValueError, match="window is 0; give a number of steps to average over, at least 1"):
        plots.history(_result(objective=OBJECTIVE), window=0)
    with pytest.raises(ValueError, match="history without steps"):
        plots.history(_result())
    with pytest.raises(TypeError, match="result is a dict; give what fit gives"):
        plots.history({"objective": OBJECTIVE})  # pyright: ignore[reportArgumentType]
