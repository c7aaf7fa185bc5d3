import jax
import numpy as np
import pytest

from bayestl import metrics

KEY = jax.random.key(0)


def test_the_error_of_a_mean_is_its_closed_form():
    values = np.random.default_rng(0).normal(size=200)
    made = metrics.bootstrap(KEY, np.mean, values, num_bootstrap=4000)
    assert made.value == values.mean()
    exact = values.std() / np.sqrt(200)  # of the bootstrap distribution itself, with divisor N
    # The standard deviation of 4000 draws has a relative error of 1 / sqrt(8000).
    assert made.standard_error == pytest.approx(exact, rel=4 / np.sqrt(8000))
    assert made.interval[0] == pytest.approx(values.mean() - 1.96 * exact, abs=0.2 * exact)
    assert made.interval[1] == pytest.approx(values.mean() + 1.96 * exact, abs=0.2 * exact)


def test_samples_of_their_own_are_drawn_apart_and_pairs_stay_together():
    rng = np.random.default_rng(1)
    inside, outside = rng.normal(size=50), rng.normal(1.0, size=80)
    made = metrics.bootstrap(KEY, metrics.auroc, inside, outside, num_bootstrap=200)
    assert made.value == metrics.auroc(inside, outside)
    assert 0.01 < made.standard_error < 0.1
    same = metrics.bootstrap(KEY, lambda pair: np.abs(pair[0] - pair[1]).max(), (inside, inside), num_bootstrap=20)
    assert same == (0.0, 0.0, (0.0, 0.0))


def test_the_key_decides():
    values = np.arange(10.0)
    again = [metrics.bootstrap(jax.random.key(k), np.mean, values, num_bootstrap=5) for k in (0, 0, 1)]
    assert again[0] == again[1] != again[2]


def test_what_cannot_be_resampled_is_refused():
    with pytest.raises(ValueError, match="given no sample"):
        metrics.bootstrap(KEY, np.mean)
    with pytest.raises(ValueError, match=r"sample 0 has shapes \(3,\), \(2,\)"):
        metrics.bootstrap(KEY, np.mean, (np.ones(3), np.ones(2)))
    with pytest.raises(ValueError, match="num_bootstrap is 1"):
        metrics.bootstrap(KEY, np.mean, np.ones(3), num_bootstrap=1)
