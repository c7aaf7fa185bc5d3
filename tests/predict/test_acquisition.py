"""Information of labels, against enumeration of all of them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayestl as btl
from bayestl.predict import acquisition

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
PROBS = RNG.dirichlet(np.full(3, 0.4), size=(5, 6))  # (S, B, C)
WEIGHTS = RNG.dirichlet(np.ones(5))
GIVEN = btl.predict.Predictive(jnp.log(PROBS), btl.likelihoods.categorical(), jnp.log(WEIGHTS))


def entropy(p):
    return -sum(x * np.log(x) for x in np.ravel(p) if x > 0)


def information(rows):
    """H[y_rows] - E H[y_rows | theta], by all outcomes."""
    joint = [
        sum(
            w * np.prod([PROBS[s, row, c] for row, c in zip(rows, classes, strict=True)]) for s, w in enumerate(WEIGHTS)
        )
        for classes in itertools.product(range(3), repeat=len(rows))
    ]
    return entropy(joint) - sum(w * sum(entropy(PROBS[s, row]) for row in rows) for s, w in enumerate(WEIGHTS))


def test_bald_is_the_information_of_one_label():
    np.testing.assert_allclose(acquisition.bald(GIVEN), [information([row]) for row in range(6)], atol=1e-6)
    np.testing.assert_allclose(acquisition.bald(GIVEN), GIVEN.mutual_information(), atol=1e-5)


def test_batches_are_those_of_a_greedy_search_by_enumeration():
    rows, values = [], []
    for _ in range(3):
        every = {row: information([*rows, row]) for row in range(6) if row not in rows}
        rows.append(max(every, key=lambda row: every[row]))
        values.append(every[rows[-1]])
    chosen = acquisition.batch_bald(KEY, GIVEN, 3)
    assert chosen.rows.tolist() == rows
    np.testing.assert_allclose(chosen.information, values, atol=1e-6)


def test_drawn_outcomes_come_near_to_all_outcomes():
    """Four examples have 81 outcomes: with 80 the fifth is chosen by drawn ones, with 81 by all."""
    exact = acquisition.batch_bald(KEY, GIVEN, 5, num_outcomes=81)
    assert exact.information[4] == pytest.approx(information(exact.rows.tolist()), abs=1e-6)
    errors = []
    for seed in range(40):
        drawn = acquisition.batch_bald(jax.random.key(seed), GIVEN, 5, num_outcomes=80)
        assert drawn.rows.tolist()[:4] == exact.rows.tolist()[:4]
        errors.append(drawn.information[4] - information(drawn.rows.tolist()))
    assert 0 < np.std(errors) < 0.3
    assert abs(np.mean(errors)) < 4 * np.std(errors) / np.sqrt(40)


def test_a_twin_tells_nothing_new():
    twins = np.concatenate([PROBS[:, :1] * 0 + np.eye(3)[[0, 1, 2, 0, 1]][:, None]] * 2 + [PROBS[:, 1:2]], 1)
    given = btl.predict.Predictive(jnp.log(twins + 1e-12), btl.likelihoods.categorical(), jnp.log(WEIGHTS))
    assert acquisition.batch_bald(KEY, given, 2).rows.tolist()[1] == 2
    assert np.argsort(-acquisition.bald(given))[:2].tolist() in ([0, 1], [1, 0])


def test_epig_is_the_mean_information_of_pairs():
    targets = btl.predict.Predictive(GIVEN.outputs[:, :2], GIVEN.likelihood, GIVEN.log_weights)
    expected = []
    for row in range(6):
        each = []
        for other in range(2):
            joint = np.einsum("s,sc,sd->cd", WEIGHTS, PROBS[:, row], PROBS[:, other])
            each.append(entropy(joint.sum(1)) + entropy(joint.sum(0)) - entropy(joint))
        expected.append(np.mean(each))
    np.testing.assert_allclose(acquisition.epig(GIVEN, targets), expected, atol=1e-6)


def test_the_variation_ratio_counts_votes_by_weight():
    votes = np.zeros((6, 3))
    for s, w in enumerate(WEIGHTS):
        for b in range(6):
            votes[b, PROBS[s, b].argmax()] += w
    np.testing.assert_allclose(acquisition.variation_ratio(GIVEN), 1 - votes.max(1), atol=1e-6)


def test_what_does_not_fit_is_refused():
    real = btl.predict.Predictive(jnp.zeros((2, 3)), btl.likelihoods.normal(1.0), jnp.log(jnp.full(2, 0.5)))
    with pytest.raises(TypeError, match="not of classes"):
        acquisition.bald(real)
    with pytest.raises(ValueError, match="num is 7; give 1 to 6"):
        acquisition.batch_bald(KEY, GIVEN, 7)
    one = btl.predict.Predictive(GIVEN.outputs[:1], GIVEN.likelihood, jnp.zeros(1))
    with pytest.raises(ValueError, match="pool has 5 draws and targets 1"):
        acquisition.epig(GIVEN, one)


def test_disagreement_is_the_share_of_pairs_that_differ():
    classes = PROBS.argmax(-1)
    pairs = list(itertools.permutations(range(5), 2))
    total = sum(WEIGHTS[s] * WEIGHTS[t] for s, t in pairs)
    expected = sum(WEIGHTS[s] * WEIGHTS[t] * (classes[s] != classes[t]) for s, t in pairs) / total
    np.testing.assert_allclose(acquisition.disagreement(GIVEN), expected, atol=1e-6)
    assert acquisition.disagreement(btl.predict.from_probabilities(PROBS[0])).tolist() == [0.0] * 6
