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
    return metrics.tabulate(KEY, predict, {"test": TEST, "ood/far": FAR}, batch_size=32, num_bootstrap=400)


def test_values_are_those_of_evaluate(predict, table):
    for name, value in metrics.evaluate(predict, TEST, batch_size=32).items():
        assert table["test", name].value == pytest.approx(value, rel=1e-6)


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


def test_tables_for_papers(table):
    markdown, latex = table.to_markdown(2), table.to_latex(2)
    assert markdown == str(table.to_markdown(digits=2))
    value = table["test", "nll"]
    assert f"{value.value:.2f} ± {value.standard_error:.2f}" in markdown
    assert markdown.count("| data set |") == 2  # examples from elsewhere have other metrics
    assert [line.split(" | ")[0] for line in markdown.splitlines() if "±" in line] == ["| test", "| ood/far"]
    assert latex.count(r"\begin{tabular}{l") == latex.count(r"\end{tabular}") == 2
    assert r"macro\_accuracy" in latex
    frame = table.to_dataframe()
    assert frame.shape == (len(table.scores), 4)
    with pytest.raises(KeyError, match="there are data sets"):
        table["test", "crps"]


def test_seeds_have_their_mean_and_its_error():
    tables = [metrics.ScoreTable((metrics.Score("test", "nll", value, 9.0),)) for value in (1.0, 2.0, 6.0)]
    made = metrics.across_seeds(tables)["test", "nll"]
    assert made.value == 3.0
    assert made.standard_error == pytest.approx(np.std([1, 2, 6], ddof=1) / np.sqrt(3))
    with pytest.raises(ValueError, match="given 1 tables"):
        metrics.across_seeds(tables[:1])


def test_what_cannot_be_tabulated_is_refused(predict):
    with pytest.raises(ValueError, match="first the one that examples are told from"):
        metrics.tabulate(KEY, predict, {"ood/far": FAR})
    real = btl.LogJoint(btl.nets.mlp(KEY, (2, 1)), btl.likelihoods.normal(1.0), None)
    given = btl.predict.monte_carlo(KEY, real, btl.Point(btl.nets.mlp(KEY, (2, 1)).params))
    numbers = btl.data.arrays(INPUTS, jnp.zeros((90, 1)))
    with pytest.raises(TypeError, match="probabilities of classes alone"):
        metrics.tabulate(KEY, given, {"test": numbers, "ood/far": FAR})
