"""Tables in docs/results are what their records give; a stale one fails here."""

import json
from pathlib import Path

import pytest

from benchmarks import (
    core_overhead,
    eval_statistics,
    kill_and_resume,
    loader,
    swap_census,
    training_step,
)
from knorm.training import compare

RESULTS = Path(__file__).parent.parent / "docs" / "results"


TABLES = {
    "cifar10-norms": lambda out: compare.page(out, compare.render),
    "core-overhead": lambda out: core_overhead.render(json.loads(Path(f"{out}.json").read_text())),
    "eval-statistics": lambda out: compare.page(out, eval_statistics.render),
    **{
        f"kill-and-resume-{processes}": lambda out: kill_and_resume.render(
            json.loads(Path(f"{out}.json").read_text())
        )
        for processes in (1, 2)
    },
    "loader": lambda out: loader.render(json.loads(Path(f"{out}.json").read_text())),
    "swap-census": lambda out: compare.page(out, swap_census.render),
    "training-step": lambda out: training_step.render(json.loads(Path(f"{out}.json").read_text())),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_published_table_is_made_from_its_record(name):
    assert TABLES[name](RESULTS / name) == (RESULTS / f"{name}.md").read_text(encoding="utf-8")


def test_every_table_has_a_record():
    pages = {path.stem for path in RESULTS.glob("*.md") if not path.name.endswith(".head.md")}
    assert pages == set(TABLES)
