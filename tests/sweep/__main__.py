"""Every way to spoil an argument, for every public function; prints what does not end in a sentence of ours.

``python -m tests.sweep`` for all rooms, ``python -m tests.sweep infer predict`` for some; ``bayestl`` are the package's
own functions, ``methods`` what is called on results. Takes minutes; ``make test-all`` runs the same as tests.
"""

from __future__ import annotations

import os
import sys
import tempfile

from tests.sweep.deep import METHODS, sweep
from tests.sweep.test_sweep import ROOMS


def main(names: list[str]) -> int:
    os.chdir(tempfile.mkdtemp())  # some functions write files
    num_calls, num_foreign = 0, 0
    for room in names or [*(room.removeprefix("bayestl.") for room in ROOMS), METHODS]:
        outcome = sweep("" if room == "bayestl" else room)
        for call, wrong in outcome.foreign.items():
            print(f"{call}: {wrong}", flush=True)
        print(f"{room}: {outcome.num_calls} calls, {len(outcome.foreign)} foreign", flush=True)
        num_calls, num_foreign = num_calls + outcome.num_calls, num_foreign + len(outcome.foreign)
    print(f"{num_calls} calls, {num_foreign} of which do not end in a sentence of ours")
    return int(num_foreign > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
