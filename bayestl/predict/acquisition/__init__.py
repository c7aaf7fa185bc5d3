"""Which examples to label next: active learning, from the draws of a predictive."""

from bayestl.predict.acquisition._batch import Chosen, batch_bald
from bayestl.predict.acquisition._single import bald, disagreement, epig, variation_ratio

__all__ = ["Chosen", "bald", "batch_bald", "disagreement", "epig", "variation_ratio"]
