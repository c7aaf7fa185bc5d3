"""Transferability: which source to take, and whether it helped, from the training data alone."""

from bayestl.transferability._conflict import Conflict, LayerConflict, conflict
from bayestl.transferability._from_probabilities import leep, nce
from bayestl.transferability._h_score import h_score
from bayestl.transferability._kendall import RankCorrelation, rank_correlation
from bayestl.transferability._last_layer import LastLayer, evidence, held_out, last_layer
from bayestl.transferability._log_me import log_me
from bayestl.transferability._rank import SCORES, Ranking, Score, Source, rank_sources
from bayestl.transferability._trans_rate import trans_rate
from bayestl.transferability._verdict import Pair, Verdict, verdict

__all__ = [
    "SCORES",
    "Conflict",
    "LastLayer",
    "LayerConflict",
    "Pair",
    "RankCorrelation",
    "Ranking",
    "Score",
    "Source",
    "Verdict",
    "conflict",
    "evidence",
    "h_score",
    "held_out",
    "last_layer",
    "leep",
    "log_me",
    "nce",
    "rank_correlation",
    "rank_sources",
    "trans_rate",
    "verdict",
]
