"""Every way to spoil an argument, for every function that is cheap to call; prints what does not end in our sentence.

``python -m tests.sweep`` for all rooms, ``python -m tests.sweep infer predict`` for some; takes minutes.
"""

from __future__ import annotations

import sys

from tests.sweep.table import TABLE
from tests.sweep.test_sweep import foreign, public, spoiled_calls


def main(rooms: list[str]) -> int:
    num_calls, num_foreign = 0, 0
    for name, case in TABLE.items():
        if not case.is_cheap or (rooms and name.rpartition(".")[0] not in rooms):
            continue
        wrong = foreign(public()[name], case.arguments())
        if wrong:
            print(f"{name} with the valid arguments of the table: {wrong}", flush=True)
        for call, arguments in spoiled_calls(name, case):
            num_calls += 1
            wrong = foreign(public()[name], arguments)
            if wrong:
                num_foreign += 1
                print(f"{call}: {wrong}", flush=True)
    print(f"{num_calls} calls, {num_foreign} of which do not end in a sentence of ours")
    return int(num_foreign > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
