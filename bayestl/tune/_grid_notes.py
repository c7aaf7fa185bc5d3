"""What it means that a setting is at the edge of its grid."""

from __future__ import annotations

import numpy as np

from bayestl.tune._edges import LIMITS


def notes_of(settings: dict[str, np.ndarray], number: int, read_at: tuple[int, ...], step: int) -> tuple[str, ...]:
    """A sentence for every setting whose best value is its smallest or largest one, and for the last step count."""
    notes = []
    for name, values in settings.items():
        value = values[number]
        if not np.issubdtype(values.dtype, np.number) or len(np.unique(values)) < 2:
            continue
        for edge, word, limit in ((values.min(), "smallest", 0), (values.max(), "largest", 1)):
            if value == edge:
                limit = LIMITS[limit] if name.split("_")[-1] == "scale" else f"try {('smaller', 'larger')[limit]} ones"
                notes.append(f"{name} is best at its {word} value, {float(value):.3g}: {limit}")
    if len(read_at) > 1 and step == len(read_at) - 1:
        notes.append(f"the best run is read at its last step, {read_at[step]}: more steps may be better still")
    return tuple(notes)
