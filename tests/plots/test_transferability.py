import matplotlib as mpl
import numpy as np
import pytest

from bayestl import plots
from bayestl.transferability import Conflict, LayerConflict, Ranking

mpl.use("Agg")


@pytest.fixture(autouse=True)
def _close():
    yield
    mpl.pyplot.close("all")


def test_a_ranking_is_drawn_between_the_worst_and_the_best_of_each_score():
    scores = {"first": np.array([3.0, 2.0, -1.0]), "second": np.array([np.nan, 5.0, 9.0]), "flat": np.zeros(3)}
    ax = plots.ranking(Ranking(("a", "b", "c"), scores, 10))
    first, second = (np.asarray(line.get_xdata()) for line in ax.get_lines())
    np.testing.assert_allclose(first, [1.0, 0.75, 0.0])
    np.testing.assert_allclose(second, [np.nan, 0.0, 1.0])
    assert [text.get_text() for text in ax.get_yticklabels()] == ["a", "b", "c"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["first", "second"]
    assert ax.yaxis_inverted()


def test_a_conflict_is_drawn_by_tension_where_there_is_a_posterior():
    body = LayerConflict("body", 10, 0.2, 0.1, 0.3, 0.9, 0.4, 4.0)
    head = LayerConflict("head", 4, 3.0, 1.0, 0.3, 0.1, 0.4, 2.0)
    _, given = mpl.pyplot.subplots()
    ax = plots.conflict(Conflict((body, head)), given)
    assert ax is given
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([0.2 * 10 / 4, 3.0 * 4 / 2])
    np.testing.assert_allclose(ax.get_lines()[0].get_xdata(), [0.9, 0.1])
    nothing = {"inside": np.nan, "determined": np.nan}
    ax = plots.conflict(Conflict((body._replace(**nothing), head._replace(**nothing))))
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([0.2, 3.0])
    assert len(ax.get_legend().get_texts()) == 1


def test_bad_input():
    with pytest.raises(TypeError, match=r"give what transferability\.rank_sources gives"):
        plots.ranking({})
    with pytest.raises(TypeError, match=r"give what transferability\.conflict gives"):
        plots.conflict({})
