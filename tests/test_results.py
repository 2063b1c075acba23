"""Tables in docs/results are what their records give; a stale one fails here."""

from functools import partial
from pathlib import Path

import pytest

from benchmarks import (
    core_overhead,
    eval_statistics,
    kan_cost,
    kill_and_resume,
    layer_page,
    loader,
    per_record_census,
    private_step,
    segmentation_speed,
    swap_census,
    swap_finetune,
    training_step,
)
from benchmarks.report import republished
from knorm.training import compare

RESULTS = Path(__file__).parent.parent / "docs" / "results"


TABLES = {
    "camvid-norms": lambda out: compare.page(out, compare.render),
    "cifar10-norms": lambda out: compare.page(out, compare.render),
    "core-overhead": partial(republished, core_overhead.render),
    "eval-statistics": lambda out: compare.page(out, eval_statistics.render),
    "kan-cost": partial(republished, kan_cost.render),
    "kan-cost-splines": partial(republished, kan_cost.render),
    "kill-and-resume-1": partial(republished, kill_and_resume.render),
    "kill-and-resume-2": partial(republished, kill_and_resume.render),
    "layer-speed": partial(republished, layer_page.render),
    "loader": partial(republished, loader.render),
    "per-record-census": lambda out: compare.page(out, per_record_census.render),
    "private-camvid": lambda out: compare.page(out, compare.render),
    "private-step": partial(republished, private_step.render),
    "private-cifar10-norms": lambda out: compare.page(out, compare.render),
    "segmentation-speed": partial(republished, segmentation_speed.render),
    "swap-census": lambda out: compare.page(out, swap_census.render),
    "swap-finetune": lambda out: compare.page(out, swap_finetune.render),
    "training-step": partial(republished, training_step.render),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_published_table_is_made_from_its_record(name):
    assert TABLES[name](RESULTS / name) == (RESULTS / f"{name}.md").read_text(encoding="utf-8")


def test_every_table_has_a_record():
    pages = {path.stem for path in RESULTS.glob("*.md") if not path.name.endswith(".head.md")}
    assert pages == set(TABLES)
