"""Result rows: one JSON line per run, each carrying what is needed to make it again."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

PACKAGES = ("bayestl", "jax", "jaxlib", "flax", "optax", "numpyro", "numpy")


def provenance(command: str) -> dict[str, Any]:
    """Command, commit, versions and device of this run."""
    return {
        "command": command,
        "commit": _commit(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
    }


def _commit() -> str:
    """The commit checked out, with a mark where the tree differs from it; "unknown" outside a checkout."""
    here = Path(__file__).parent

    def git(*args: str) -> str:
        return subprocess.run(["git", *args], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        # Results themselves are written into the tree, so they do not count as a difference.
        changed = git("status", "--porcelain", "--", ":(top)bayestl", ":(top)benchmarks/*.py", ":(top)pyproject.toml")
        return git("rev-parse", "--short=12", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


class Rows:
    """Rows appended to a file as they come, so that an interrupted run goes on where it stopped.

    Args:
        path: a .jsonl file; made when missing.
        settings: what must be equal for earlier rows to be taken up again (grid, steps, package version).
        fresh: forget earlier rows.
    """

    def __init__(self, path: Path, settings: dict[str, Any], fresh: bool = False):
        self.path, self._settings = path, json.loads(json.dumps(settings))
        path.parent.mkdir(parents=True, exist_ok=True)
        self.rows: list[dict[str, Any]] = []
        if path.exists() and not fresh:
            parsed = map(_parse, path.read_text().splitlines())
            self.rows = [row for row in parsed if row is not None and row.get("task_settings") == self._settings]
        # What is left out above (other settings, a line cut short) goes from the file too.
        path.write_text("".join(json.dumps(row) + "\n" for row in self.rows))

    def have(self, **key: Any) -> bool:
        """Whether a row with these fields is there already."""
        return any(all(row[name] == value for name, value in key.items()) for row in self.rows)

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Append rows to the file."""
        rows = [{**row, "task_settings": self._settings} for row in rows]
        with self.path.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
        self.rows.extend(rows)


def _parse(line: str) -> dict[str, Any] | None:
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None


def command_line() -> str:
    """The command as typed, without this machine's paths: of an absolute one only its last part."""
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    return " ".join(["python -m benchmarks.run", *words])
