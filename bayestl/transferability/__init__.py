"""Transferability: which source to take, and whether it helped, from the training data alone."""

from bayestl.transferability._verdict import Pair, Verdict, verdict

__all__ = [
    "Pair",
    "Verdict",
    "verdict",
]
