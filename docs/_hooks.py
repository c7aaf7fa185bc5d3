"""Figures of the benchmarks beside the pages that show them, so that the repository holds each once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"


def on_files(files: Files, config: Any) -> Files:
    """Add ``benchmarks/results/NAME/figure.png`` as ``benchmarks/NAME.png``."""
    for figure in sorted(RESULTS.glob("*/figure.png")):
        files.append(File.generated(config, f"benchmarks/{figure.parent.name}.png", abs_src_path=str(figure)))
    return files
