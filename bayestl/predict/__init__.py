"""Posterior to predictive distribution of new targets."""

from bayestl.predict._from_probabilities import from_probabilities
from bayestl.predict._monte_carlo import monte_carlo
from bayestl.predict._predictive import Predictive

__all__ = ["Predictive", "from_probabilities", "monte_carlo"]
