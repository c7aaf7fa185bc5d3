"""Bridges: a log joint as a NumPyro model and as a BlackJAX log density, and NumPyro's inference on it."""

from bayestl.bridges._blackjax import blackjax_log_density
from bayestl.bridges._guide_posterior import GuidePosterior
from bayestl.bridges._numpyro_model import NumPyroModel, numpyro_model
from bayestl.bridges._nuts import nuts
from bayestl.bridges._svi import SVIState, svi

__all__ = [
    "GuidePosterior",
    "NumPyroModel",
    "SVIState",
    "blackjax_log_density",
    "numpyro_model",
    "nuts",
    "svi",
]
