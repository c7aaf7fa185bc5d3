"""What the methods on MiniLM found: tables, and whether they beat the linear probe."""

from __future__ import annotations

from benchmarks._records import Rows
from benchmarks._tables import markdown, of, verdict
from benchmarks.tasks.sentiment_config import (
    ADAPTER,
    BLOCK,
    ENCODER_METHODS,
    FILMS,
    FILMS_AS_IS,
    FROZEN,
    HEAD_TRANSFERS,
    LAPLACE,
    MAP,
    MINILM,
    PROBE,
    TEST,
    VALIDATION,
    VI,
    EncoderConfig,
)

CAPTION = """\
The same sentences and seeds with MiniLM (all-MiniLM-L6-v2) in place of word vectors: the mean of its last hidden states
and a linear head. Sources: MiniLM as it was published, with a new head; and its last block and head after one pass over
the film reviews ({accuracy:.3f} accurate there, {seconds:.0f} s), which a user with such reviews has once. Sentences of
more than {length} tokens are cut ({cut}). Frozen: the head alone. Adapters of rank {rank} on all products of the last
block, or that block itself, start from the head's mode; Laplace posteriors have Kronecker factors and predict as the
linearised network, VI is mean-field with {draws} draws. The scale of the head is chosen first, among {heads}, then that
of the rest, among {others}, by the NLL of {validation} sentences. Transfer is `btl.transfer` of the head, without them.
The probe is a reference that is too good: logistic regression whose penalty is the best of {penalties} on the {test}
test sentences, for every seed. Seconds are for all settings of one seed after the frozen blocks and the head, and hold
compilation."""


def report(config: EncoderConfig, rows: Rows) -> str:
    """Tables in Markdown: one per target and number of labels, and what they say; nothing where nothing was run."""
    if not rows.rows:
        return ""
    cut = {row["target"]: (row["cut_short"], row["sentences"]) for row in rows.rows}
    parts = [
        CAPTION.format(
            accuracy=rows.rows[0]["source_accuracy"],
            seconds=rows.rows[0]["source_seconds"],
            length=config.length,
            cut=", ".join(f"{target}: {some} of {num}" for target, (some, num) in cut.items()),
            rank=config.rank,
            draws=config.draws,
            heads=len(config.head_scales),
            others=len(config.adapter_scales),
            penalties=len(config.penalties),
            validation=VALIDATION,
            test=TEST,
        )
    ]
    for target in cut:
        for n in sorted({row["n"] for row in rows.rows if row["target"] == target}):
            parts.append(f"### {target} with MiniLM, {n} labels")
            parts.append(markdown(rows.rows, {"target": target, "n": n}, ENCODER_METHODS, PROBE))
        parts.append(_verdicts(rows, target))
    return "\n\n".join(part for part in parts if part) + "\n"


def _verdicts(rows: Rows, target: str) -> str:
    """Paired differences in NLL that answer a question each."""
    adapter = f"{FILMS}, {ADAPTER}"
    pairs = [
        (f"{adapter} {LAPLACE}", PROBE),
        (f"{adapter} {MAP}", PROBE),
        (f"{FILMS}, {BLOCK} {MAP}", PROBE),
        (f"{FILMS}, {BLOCK} {LAPLACE}", PROBE),
        (f"{adapter} {VI}", PROBE),
        (HEAD_TRANSFERS[1], PROBE),
        (HEAD_TRANSFERS[0], PROBE),
        (f"{MINILM}, {ADAPTER} {LAPLACE}", PROBE),
        (f"{MINILM}, {ADAPTER} {MAP}", PROBE),
        (f"{MINILM}, {ADAPTER} {VI}", PROBE),
        (f"{MINILM}, {BLOCK} {MAP}", PROBE),
        (f"{adapter} {MAP}", f"{MINILM}, {ADAPTER} {MAP}"),
        (f"{adapter} {MAP}", f"{FILMS}, {FROZEN}"),
        *(
            (f"{source}, {ADAPTER} {how}", f"{source}, {ADAPTER} {MAP}")
            for source in (FILMS, MINILM)
            for how in (LAPLACE, VI)
        ),
        (f"{MINILM}, {ADAPTER} {MAP}", f"{MINILM}, {FROZEN}"),
        (f"{FILMS}, {FROZEN}", FILMS_AS_IS),
    ]
    lines = []
    for n in sorted({row["n"] for row in rows.rows if row["target"] == target}):
        for mine, other in pairs:
            a, b = (of(rows.rows, "nll", target=target, n=n, method=method) for method in (mine, other))
            if len(a) and len(a) == len(b):
                lines.append(f"* {target}, n = {n}: {mine} minus {other}: {verdict(a - b)}.")
    return "\n".join(lines)
