"""The page counts verdicts by norms and way, and names every net that is not exact."""

from benchmarks.per_record_census import FIELDS, render

EXACT = {"norms": "own", "way": "privacy", "status": "exact", "reason": ""}


def test_shares_are_of_the_nets_that_were_judged():
    rows = [
        EXACT | {"model": "a"},
        EXACT | {"model": "b"},
        EXACT | {"model": "c", "status": "refused", "reason": "x mixes them"},
        EXACT | {"model": "d", "status": "time limit", "reason": "more than 1 s"},
        EXACT | {"model": "e", "status": "refused", "reason": "x mixes them"},
        EXACT | {"model": "a", "way": "opacus", "status": "wrong", "reason": "difference: fc"},
    ]
    text = render(rows, "# Census")
    assert text.startswith("# Census\n\n| norms | way |")
    assert "| own | privacy | 4 | 2 (50.0 %) | 2 (50.0 %) | 0 (0.0 %) | 1 |" in text
    assert "| own | opacus | 1 | 0 (0.0 %) | 0 (0.0 %) | 1 (100.0 %) | 0 |" in text
    assert "- refused; x mixes them: c, e\n- time limit; more than 1 s: d\n" in text
    assert "Norms `own`, way `opacus`:\n\n- wrong; difference: fc: a\n" in text
    assert text.count("\n- ") == 3


def test_columns_hold_what_the_page_reads():
    assert {*EXACT, "model"} <= set(FIELDS)
