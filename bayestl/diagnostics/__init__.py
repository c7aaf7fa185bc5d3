"""Whether a posterior can be trusted: importance weights, chains, spread, and one report of them all."""

from bayestl.diagnostics._arviz import to_arviz
from bayestl.diagnostics._by_chain import by_chain, expected_targets
from bayestl.diagnostics._importance import log_importance_weights
from bayestl.diagnostics._left_out import left_out
from bayestl.diagnostics._mixing import ess, ess_tail, r_hat
from bayestl.diagnostics._psis import PSIS, psis, psis_khat
from bayestl.diagnostics._report import report
from bayestl.diagnostics._spectrum import widest_direction
from bayestl.diagnostics._spread import spread
from bayestl.diagnostics._table import Report, Row

__all__ = [
    "PSIS",
    "Report",
    "Row",
    "by_chain",
    "ess",
    "ess_tail",
    "expected_targets",
    "left_out",
    "log_importance_weights",
    "psis",
    "psis_khat",
    "r_hat",
    "report",
    "spread",
    "to_arviz",
    "widest_direction",
]
