"""Everything in one call: from a source and a few target examples to predictions, and what the source was worth."""

from bayestl.transfers._left_out import LeftOutPredictions
from bayestl.transfers._result import TransferResult, Trust
from bayestl.transfers._transfer import transfer

__all__ = ["LeftOutPredictions", "TransferResult", "Trust", "transfer"]
