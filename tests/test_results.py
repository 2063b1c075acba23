"""Tables in docs/results are what their records give; a stale one fails here."""

import json
from pathlib import Path

import pytest

from benchmarks import eval_statistics, loader, training_step
from classification import compare

RESULTS = Path(__file__).parent.parent / "docs" / "results"


def head(name):
    path = RESULTS / f"{name}.head.md"
    return path.read_text(encoding="utf-8") if path.is_file() else ""


TABLES = {
    "cifar10-norms": lambda path: compare.render(compare.read_rows(path), head(path.stem)),
    "eval-statistics": lambda path: eval_statistics.render(
        compare.read_rows(path), head(path.stem)
    ),
    "loader": lambda path: loader.render(json.loads(path.read_text("utf-8"))),
    "training-step": lambda path: training_step.render(json.loads(path.read_text("utf-8"))),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_published_table_is_made_from_its_record(name):
    (record,) = (path for path in RESULTS.glob(f"{name}.*") if path.suffix in (".csv", ".json"))
    assert TABLES[name](record) == (RESULTS / f"{name}.md").read_text(encoding="utf-8")


def test_every_table_has_a_record():
    pages = {path.stem for path in RESULTS.glob("*.md") if not path.name.endswith(".head.md")}
    assert pages == set(TABLES)
