from knorm.training.report import draw_curves, in_time, panels_of

ROW = {
    "epoch": 1,
    "step": 10,
    "lr": 0.1,
    "train.loss": 1.0,
    "val.loss": 2.0,
    "val.top1": 0.5,
    "val.count": 9,
}


def test_every_metric_has_a_panel_with_a_line_per_split():
    assert panels_of([ROW]) == {
        "loss": {"train": "train.loss", "val": "val.loss"},
        "top1": {"val": "val.top1"},
        "learning rate": {"lr": "lr"},
    }


def test_curves_are_drawn_also_of_numbers_that_are_not_finite(tmp_path):
    draw_curves([ROW, ROW | {"epoch": 2, "train.loss": float("nan")}], tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_times_are_read_in_hours_minutes_and_seconds():
    assert in_time(3723.4) == "1:02:03"
