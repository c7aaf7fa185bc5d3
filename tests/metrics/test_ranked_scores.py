"""What not answering gains, in one table with standard errors: the numbers of the single functions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayestl as btl
from bayestl import metrics

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
# Elevenths, so that many confidences are equal.
PROBS = ((RNG.multinomial(8, [1 / 3] * 3, size=80) + 1) / 11).astype(np.float32)
LABELS = RNG.integers(3, size=80)
OTHERS = RNG.dirichlet(3 * np.ones(3), size=50).astype(np.float32)
WRONG = (PROBS.argmax(1) != LABELS).astype(float)
TEST, FAR = btl.data.arrays(PROBS, LABELS), btl.data.arrays(OTHERS, np.zeros(50, int))
SINGLE = {
    "aurc": metrics.aurc,
    "excess_aurc": metrics.excess_aurc,
    "augrc": metrics.augrc,
    "coverage_at_risk": metrics.coverage_at_risk,
    "risk_at_coverage": metrics.risk_at_coverage,
}


def table_of(data, **options):
    return metrics.evaluate(KEY, btl.predict.from_probabilities, data, selective=True, batch_size=32, **options)


@pytest.mark.parametrize("name", SINGLE)
def test_values_and_errors_are_those_of_the_function(name):
    score = table_of(TEST, num_bootstrap=400)["test", name]
    assert score.value == pytest.approx(SINGLE[name](PROBS.max(1), WRONG), abs=1e-6)
    other = metrics.bootstrap(KEY, lambda both: SINGLE[name](*both), (PROBS.max(1), WRONG), num_bootstrap=400)
    # Two standard deviations of 400 draws each, within four of their standard errors.
    assert score.standard_error == pytest.approx(other.standard_error, rel=4 * np.sqrt(2 / 800))


def test_unknown_examples_are_errors_among_the_known_ones():
    # Without equal ones: classes in another order have the same entropy, but for rounding.
    known = RNG.dirichlet(np.ones(3), size=80).astype(np.float32)
    table = table_of({"test": btl.data.arrays(known, LABELS), "ood/far": FAR}, num_bootstrap=20)
    together = np.concatenate([known, OTHERS]).astype(float)
    losses = np.concatenate([known.argmax(1) != LABELS, np.ones(50)])
    entropy = -np.sum(together * np.log(together), 1)
    for name, function in SINGLE.items():
        of_largest = table["ood/far", f"{name} of largest_probability"]
        assert of_largest.value == pytest.approx(function(together.max(1), losses), abs=1e-6)
        assert of_largest.standard_error >= 0
        value = table["ood/far", f"{name} of predictive_entropy"].value
        assert value == pytest.approx(function(-entropy, losses), abs=1e-6)
    auroc = metrics.auroc(entropy[:80], entropy[80:])
    assert table["ood/far", "auroc of predictive_entropy"].value == pytest.approx(auroc, abs=1e-6)


def test_a_weight_of_two_is_the_row_twice_and_padding_does_not_count():
    weights = np.ones(80)
    weights[3], weights[7] = 2, 0
    rows = np.concatenate([np.delete(np.arange(80), 7), [3]])
    weighted = table_of(btl.Batch(jnp.asarray(PROBS), jnp.asarray(LABELS), jnp.asarray(weights)), num_bootstrap=0)
    twice = table_of(btl.data.arrays(PROBS[rows], LABELS[rows]), num_bootstrap=0)
    for name in SINGLE:
        assert weighted["test", name].value == pytest.approx(twice["test", name].value, rel=1e-6)
        assert np.isnan(weighted["test", name].standard_error)


def test_the_columns_are_compared_in_their_direction():
    sure = [table_of(TEST, num_bootstrap=0)] * 5
    runs = {
        "mine": sure,
        "other": [
            metrics.ScoreTable(tuple(s._replace(value=s.value + 0.1 + 0.01 * i) for s in table.scores))
            for i, table in enumerate(sure)
        ],
    }
    compared = metrics.compare(runs, baseline="mine", metrics=list(SINGLE))
    verdicts = {name: compared["other", "test", name].verdict for name in SINGLE}
    assert verdicts == {name: "better" if name == "coverage_at_risk" else "worse" for name in SINGLE}


def test_what_cannot_be_ranked_is_refused():
    half = btl.Batch(jnp.asarray(PROBS), jnp.asarray(LABELS), jnp.full(80, 0.5))
    with pytest.raises(ValueError, match=r"the weights of 'test' are not whole; leave selective out"):
        table_of(half, num_bootstrap=0)

    def numbers(inputs):
        return btl.predict.Predictive(inputs[None, :, 0], btl.likelihoods.normal(1.0), jnp.zeros(1))

    data = btl.data.arrays(PROBS, PROBS[:, 0])
    with pytest.raises(TypeError, match="one class per example, as those of 'test' are not"):
        metrics.evaluate(KEY, numbers, data, selective=True, num_bootstrap=0)
