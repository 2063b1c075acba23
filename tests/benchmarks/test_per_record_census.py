"""The page counts verdicts by norms and way, and names every net that is not exact."""

from benchmarks.per_record_census import FIELDS, render

EXACT = {"norms": "own", "way": "privacy", "status": "exact", "reason": ""}


def test_shares_are_of_the_nets_that_were_judged():
    rows = [
        EXACT | {"model": "a"},
        EXACT | {"model": "b"},
        EXACT | {"model": "c", "status": "refused", "reason": "x mixes them"},
        EXACT | {"model": "d", "status": "time limit", "reason": "more than 1 s"},
        EXACT | {"model": "a", "way": "opacus", "status": "wrong", "reason": "difference: fc"},
    ]
    text = render(rows, "# Census")
    assert text.startswith("# Census\n\n| norms | way |")
    assert "| own | privacy | 3 | 2 (66.7 %) | 1 (33.3 %) | 0 (0.0 %) | 1 |" in text
    assert "| own | opacus | 1 | 0 (0.0 %) | 0 (0.0 %) | 1 (100.0 %) | 0 |" in text
    assert "- c: refused; x mixes them\n- d: time limit; more than 1 s\n" in text
    assert "Norms `own`, way `opacus`:\n\n- a: wrong; difference: fc\n" in text
    assert "- b" not in text


def test_columns_hold_what_the_page_reads():
    assert {*EXACT, "model"} <= set(FIELDS)
