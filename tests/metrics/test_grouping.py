"""The grouping loss, against loops over bins and regions and against a law that is known."""

import numpy as np
import pytest

from bayestl import metrics


def drawn(rng, num, apart):
    """Two kinds of examples of the same confidences, the one right more often than the other by twice ``apart``."""
    confidence = rng.choice([0.6, 0.75], size=num)
    kinds = rng.integers(2, size=num)
    correct = rng.random(num) < confidence + np.where(kinds == 1, apart, -apart)
    return confidence, correct.astype(float), kinds


def test_it_is_the_estimate_of_the_paper_where_every_bin_holds_one_confidence():
    """Proposition 4.1: what the regions explain, less its bias, in loops."""
    confidence, correct, kinds = drawn(np.random.default_rng(0), 60, 0.2)
    total = 0.0
    for level in np.unique(confidence):
        here = correct[confidence == level]
        share, num = here.mean(), len(here)
        regions = [correct[(confidence == level) & (kinds == kind)] for kind in (0, 1)]
        explained = sum(len(r) / num * (r.mean() - share) ** 2 for r in regions)
        bias = sum(len(r) / num * r.mean() * (1 - r.mean()) / (len(r) - 1) for r in regions)
        total += num / 60 * (explained - bias + share * (1 - share) / (num - 1))
    made = metrics.grouping_loss(confidence, correct, kinds, num_bins=15)
    # In the order of the confidences the accuracies rise, so that their curve is that of the bins.
    assert correct[confidence == 0.75].mean() > correct[confidence == 0.6].mean()
    assert made == pytest.approx(total)


@pytest.mark.parametrize("apart", [0.0, 0.2])
def test_on_average_it_is_the_variance_of_the_accuracies(apart):
    rng = np.random.default_rng(1)
    made = np.array([metrics.grouping_loss(*drawn(rng, 400, apart)) for _ in range(100)])
    assert abs(made.mean() - apart**2) < 4 * made.std(ddof=1) / 10


def test_accuracies_that_rise_with_the_confidence_are_no_grouping():
    """Regions that are confidences by another name, within one bin: calibrated, and nothing is hidden."""
    rng = np.random.default_rng(2)
    confidence = 0.5 + 0.5 * rng.random(5000)
    correct = (rng.random(5000) < confidence).astype(float)
    regions = np.floor(confidence * 10)
    assert metrics.grouping_loss(confidence, correct, regions, num_bins=1) < 1e-3
    single = metrics.grouping_loss(confidence, correct, np.arange(5000), num_bins=1)
    assert single < 1e-12  # a region of one example tells nothing


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="correct of 3 and regions of 2"):
        metrics.grouping_loss([0.5, 0.5], [0, 1, 1], [0, 1])
    with pytest.raises(ValueError, match="num_bins is 0"):
        metrics.grouping_loss([0.5], [1], [0], num_bins=0)
    with pytest.raises(ValueError, match=r"confidence is from 0.5 to 2; give probabilities"):
        metrics.grouping_loss([0.5, 2.0], [1, 0], [0, 0])
    with pytest.raises(ValueError, match="1 where the answer was right"):
        metrics.grouping_loss([0.5, 0.5], [1, 0.5], [0, 0])
    with pytest.raises(ValueError, match="whole numbers"):
        metrics.grouping_loss([0.5, 0.5], [1, 0], [0, 0.5])
