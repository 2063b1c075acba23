"""How far a study came: a line for each row, the time that it took and what is left."""

import math
from collections.abc import Sequence
from pathlib import Path

from classification.study_labels import baseline_of, labels_of
from classification.study_records import Progress, progress_of, state_of
from classification.study_rows import Row, Study
from knorm.training.report import in_time
from knorm.training.tables import columns

STATES = ("done", "begun", "missing", "failed")
HEAD = ("row", "", *STATES, "so far", "left")


def status(study: Study, folder: Path) -> str:
    """The table, and the sum of its times."""
    settings = [row.settings for row in study.rows]
    labels = labels_of(settings, (), baseline_of(settings, study.baseline))
    all_runs = [[folder / row.slug / f"seed-{seed}" for seed in study.seeds] for row in study.rows]
    progress = [
        [progress_of(run, row) for run in runs]
        for row, runs in zip(study.rows, all_runs, strict=True)
    ]
    typical = seconds_of_run([one for runs in progress for one in runs])
    lines, so_far, left = [], 0.0, 0.0
    for row, label, runs, known in zip(study.rows, labels, all_runs, progress, strict=True):
        cells, spent, rest = line_of(row, label, runs, known, typical)
        lines.append(cells)
        so_far, left = so_far + spent, left + rest
    total = f"{in_time(so_far)} so far, {left_in_words(left)} left on one process like these"
    title = f"{study.name}: {study.title}"
    budget = [f"{study.budget}"] if study.budget else []
    return "\n".join([title, *budget, f"in {folder}", columns(HEAD, lines, left=2), total])


def line_of(
    row: Row, label: str, runs: Sequence[Path], known: Sequence[Progress], typical: float
) -> tuple[list[str], float, float]:
    """The cells of a row, seconds that it took, seconds that are left."""
    states = [state_of(run) for run in runs]
    spent = sum(one.seconds for one in known)
    own = seconds_of_run(known)
    whole = typical if math.isnan(own) else own
    parts = sum(1 - one.part for one in known)
    rest = parts * whole if parts else 0.0
    counts = [str(states.count(state) or "-") for state in STATES]
    guessed = "~" if math.isnan(own) and rest else ""
    times = [in_time(spent) if spent else "-", guessed + left_in_words(rest)]
    return [str(row.number), label, *counts, *times], spent, rest


def seconds_of_run(known: Sequence[Progress]) -> float:
    """What a whole run takes, from those that came so far; nan where none is known."""
    parts = sum(one.part for one in known)
    return sum(one.seconds for one in known if one.part) / parts if parts else math.nan


def left_in_words(seconds: float) -> str:
    """`0:01:23`, or that nothing is known yet."""
    return "unknown" if math.isnan(seconds) else in_time(seconds)
