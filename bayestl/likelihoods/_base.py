"""The distribution of one output."""

from __future__ import annotations

from typing import Any

import numpyro.distributions as dist


def base(distribution: dist.Distribution) -> Any:
    """The distribution of a single output, if the event consists of independent ones."""
    return base(distribution.base_dist) if isinstance(distribution, dist.Independent) else distribution
