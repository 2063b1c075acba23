"""The page of the census counts nets by library and kind, and names what failed."""

import pytest

from benchmarks.swap_census import render

BASE = {
    "library": "timm", "kind": "group", "status": "ok", "norms": "3", "batch_norms": "3",
    "reason": "", "independent": "True", "consistent": "True", "again": "True",
    "fold_change": "", "fold_change_double": "", "rounding": "",
}  # fmt: skip


def test_the_page_counts_nets_with_a_batch_norm_and_names_failures():
    crashed = {"status": "crashed", "independent": "", "reason": "exit code 3"}
    rows = [
        BASE | {"model": "a"},
        BASE | crashed | {"model": "b"},
        BASE | {"model": "c", "batch_norms": "0"},
        BASE | {"model": "d", "status": "no norm", "norms": "0", "batch_norms": "0"},
        BASE | {"model": "e", "independent": "False"},
    ]
    text = render(rows, "# Census")
    assert text.startswith("# Census\n")
    assert "| timm | `group` | 3 | 2 (66.7 %) | 1 (33.3 %) | 3 (100.0 %) | 2 (66.7 %) |" in text
    assert "| timm | `group` | 1 | 1 (100.0 %) |" in text
    assert "- `group`, crashed; exit code 3: b\n" in text
    assert "Samples see each other:\n\n- `group`: e\n" in text
    assert text.count("\n- ") == 2


def test_refused_nets_with_one_reason_share_a_line():
    rows = [
        BASE | {"model": net, "status": "refused", "reason": f"{net}.norm1: channels come last"}
        for net in "ab"
    ]
    assert "- `group`, refused; channels come last: a, b\n" in render(rows)


@pytest.mark.parametrize(("worst", "few"), [("3.0e-06", "3 (100.0 %)"), ("nan", "2 (66.7 %)")])
def test_the_largest_change_by_folding_is_told_with_its_net(worst, few):
    changes = ("1.0e-06", worst, "2.0e-06")
    rows = [BASE | {"model": f"net{i}", "fold_change": change} for i, change in enumerate(changes)]
    assert f"| batch norms folded, float32 | 3 | {few} | {worst} (net1) |" in render(rows)
