import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayestl as btl
from bayestl import metrics

KEY = jax.random.key(0)
NET = btl.nets.mlp(KEY, (2, 3))
JOINT = btl.LogJoint(NET, btl.likelihoods.categorical(), None)
INPUTS = jax.random.normal(KEY, (90, 2)) * 3
TEST = btl.data.arrays(INPUTS, jnp.argmax(NET(NET.params, INPUTS) + jax.random.gumbel(KEY, (90, 3)), -1))
FAR = btl.data.arrays(0.1 * jax.random.normal(KEY, (40, 2)), jnp.zeros(40, int))


@pytest.fixture(scope="module")
def predict():
    posterior = btl.gaussians.isotropic(NET.params, 0.3)
    return btl.predict.monte_carlo(KEY, JOINT, posterior, 4)


@pytest.fixture(scope="module")
def table(predict):
    return metrics.evaluate(KEY, predict, {"test": TEST, "ood/far": FAR}, batch_size=32, num_bootstrap=400)


def test_values_are_those_of_the_report(predict, table):
    for name, value in metrics.report(predict(INPUTS), TEST.targets).items():
        assert table["test", name].value == pytest.approx(value, rel=1e-5)  # float32 rounding


def test_errors_of_means_are_those_of_the_mean(predict, table):
    """The bootstrap of a mean has the standard deviation over examples over sqrt(N), within 1 / sqrt(2 R)."""
    given = predict(INPUTS)
    each = {
        "nll": -np.asarray(given.log_prob(TEST.targets), np.float64),
        "accuracy": np.asarray(given.probs.argmax(-1) == TEST.targets, np.float64),
    }
    for name, values in each.items():
        assert table["test", name].standard_error == pytest.approx(values.std() / np.sqrt(90), rel=4 / np.sqrt(800))


def test_examples_from_elsewhere_are_ranked_by_their_scores(predict, table):
    inside, outside = predict(INPUTS), predict(FAR.inputs)
    expected = metrics.auroc(inside.predictive_entropy(), outside.predictive_entropy())
    assert table["ood/far", "auroc of predictive_entropy"].value == pytest.approx(expected, abs=1e-6)
    expected = metrics.false_positive_rate(inside.mutual_information(), outside.mutual_information())
    assert table["ood/far", "fpr_at_95 of mutual_information"].value == pytest.approx(expected, abs=1e-6)
    assert 0 < table["ood/far", "auroc of largest_probability"].standard_error < 0.2


def test_chosen_scores_tell_unknown_examples_from_the_test_set():
    """Whatever is listed first; a score of the inputs is no score of the predictive, and any predictive will do."""
    numbers = np.arange(12.0, dtype=np.float32)[:, None]

    def predict(inputs):
        return btl.predict.Predictive(inputs[None, :, 0], btl.likelihoods.normal(1.0), jnp.zeros(1))

    sets = {"shift/up": btl.data.arrays(100 + numbers, numbers[:, 0])}
    sets |= {
        "ood/far": btl.data.arrays(6.5 + numbers, 0 * numbers[:, 0]),
        "test": btl.data.arrays(numbers, numbers[:, 0]),
    }
    size = {"size": lambda inputs, given: np.asarray(inputs)[:, 0]}
    table = metrics.evaluate(KEY, predict, sets, unknown_scores=size, num_bootstrap=0, batch_size=12)
    # Of 144 pairs, 5 + 4 + 3 + 2 + 1 are of a known example above an unknown one; all unknown ones lie above 6.
    assert table["ood/far", "auroc of size"].value == 1 - 15 / 144
    assert table["ood/far", "fpr_at_95 of size"].value == 5 / 12
    with pytest.raises(ValueError, match=r"unknown_scores\['size'\] gave shape \(\); give one per example, \(12,\)"):
        metrics.evaluate(KEY, predict, sets, unknown_scores={"size": lambda inputs, given: 0.0}, batch_size=12)


def test_weights_count_in_values_and_errors_and_padding_does_not():
    """The error of a weighted share under resampling, in closed form to first order: a ratio of two sums."""
    right = np.arange(90) % 3 > 0
    weights = np.where(np.arange(90) < 40, 1.0, 3.0)
    weights[80:] = 0
    probs = np.where(right[:, None], [0.8, 0.1, 0.1], [0.1, 0.1, 0.8]).astype(np.float32)
    batch = btl.Batch(jnp.asarray(probs), jnp.zeros(90, int), jnp.asarray(weights))
    table = metrics.evaluate(KEY, btl.predict.from_probabilities, batch, num_bootstrap=400, batch_size=32)
    share = np.average(right, weights=weights)
    assert table["test", "accuracy"].value == pytest.approx(share)
    expected = np.sqrt(np.sum((weights * (right - share)) ** 2)) / weights.sum()
    assert table["test", "accuracy"].standard_error == pytest.approx(expected, rel=4 / np.sqrt(800))


def test_tables_for_papers(table):
    markdown, latex = table.to_markdown(2), table.to_latex(2)
    assert markdown == str(table.to_markdown(digits=2))
    value = table["test", "nll"]
    assert f"{value.value:.2f} ± {value.standard_error:.2f}" in markdown
    assert markdown.count("| data set |") == 2  # examples from elsewhere have other metrics
    assert [line.split(" | ")[:2] for line in markdown.splitlines() if "±" in line][1:] == [
        ["| ood/far", score] for score in ("largest_probability", "mutual_information", "predictive_entropy")
    ]
    assert latex.count(r"\begin{tabular}{l") == latex.count(r"\end{tabular}") == 2
    assert r"ood/far & largest\_probability & " in latex
    assert r"macro\_accuracy" in latex
    odd = metrics.ScoreTable((metrics.Score("shift/50%_&", "nll", 1.0, np.nan),))
    assert odd.to_markdown(1).splitlines()[-1] == "| shift/50%_& | 1.0 |"
    assert odd.to_latex(1).splitlines()[4] == r"shift/50\%\_\& & 1.0 \\"
    with pytest.raises(KeyError, match="there are data sets"):
        table["test", "crps"]


def test_pandas_is_asked_for_only_where_a_frame_is(table, monkeypatch):
    frame = pytest.importorskip("pandas").DataFrame(list(table.scores))
    assert table.to_dataframe().equals(frame)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        table.to_dataframe()


def test_seeds_have_their_mean_and_its_error():
    tables = [metrics.ScoreTable((metrics.Score("test", "nll", value, 9.0),)) for value in (1.0, 2.0, 6.0)]
    made = metrics.across_seeds(tables)["test", "nll"]
    assert made.value == 3.0
    assert made.standard_error == pytest.approx(np.std([1, 2, 6], ddof=1) / np.sqrt(3))
    with pytest.raises(ValueError, match="given 1 tables"):
        metrics.across_seeds(tables[:1])


def test_what_cannot_be_tabulated_is_refused(predict):
    with pytest.raises(ValueError, match="give a data set of known examples"):
        metrics.evaluate(KEY, predict, {"ood/far": FAR})
    real = btl.LogJoint(btl.nets.mlp(KEY, (2, 1)), btl.likelihoods.normal(1.0), None)
    given = btl.predict.monte_carlo(KEY, real, btl.Point(btl.nets.mlp(KEY, (2, 1)).params))
    numbers = btl.data.arrays(INPUTS, jnp.zeros((90, 1)))
    with pytest.raises(TypeError, match="by the probabilities of classes"):
        metrics.evaluate(KEY, given, {"test": numbers, "ood/far": FAR})
