from itertools import combinations
from statistics import stdev

import pytest
import torch

from knorm.training import pictures
from knorm.training.pictures import (
    MARKERS,
    Bar,
    Point,
    draw_against,
    draw_bars,
    draw_compared,
    draw_confusion,
    draw_curves,
    panels_of,
)

ROW = {
    "epoch": 1,
    "step": 10,
    "lr": 0.1,
    "train.loss": 1.0,
    "val.loss": 2.0,
    "val.top1": 0.5,
    "val.count": 9,
}


@pytest.fixture
def figures(monkeypatch):
    """The figures that were drawn."""
    made, new_figure = [], pictures.new_figure

    def noted(*args, **options):
        figure, grid = new_figure(*args, **options)
        made.append(figure)
        return figure, grid

    monkeypatch.setattr(pictures, "new_figure", noted)
    return made


def test_every_metric_has_a_panel_with_a_line_per_split():
    assert panels_of([ROW]) == {
        "loss": {"train": "train.loss", "val": "val.loss"},
        "top1": {"val": "val.top1"},
        "learning rate": {"lr": "lr"},
    }


def test_curves_are_drawn_also_of_numbers_that_are_not_finite(tmp_path):
    rows = [ROW, ROW | {"epoch": 2, "train.loss": float("nan"), "val.loss": None}]
    draw_curves(rows, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("metrics", "columns"), [(1, 2), (3, 4), (4, 3), (5, 3)])
def test_curves_of_many_metrics_stand_in_two_rows(tmp_path, figures, metrics, columns):
    row = {"epoch": 1, "lr": 0.1} | {f"val.metric{number}": 0.5 for number in range(metrics)}
    draw_curves([row], tmp_path / "curves.png")
    assert figures[0].axes[0].get_gridspec().ncols == columns


def test_runs_are_compared_by_a_thin_line_each_and_a_thick_mean(tmp_path, figures):
    runs = [[ROW | {"epoch": e, "val.top1": e * scale} for e in (1, 2)] for scale in (0.1, 0.3)]
    draw_compared([("a", runs), ("b", [[ROW]])], tmp_path / "runs.png", "Digits")
    assert figures[0].get_suptitle() == "Digits"
    panels = {axes.get_title(): axes for axes in figures[0].axes}
    assert set(panels) == {"train loss", "val loss", "val top1"}
    *thin, mean, other = panels["val top1"].get_lines()
    assert len(thin) == 2
    assert mean.get_ydata() == pytest.approx([0.2, 0.4])
    assert {thin[0].get_color(), thin[1].get_color()} == {mean.get_color()} != {other.get_color()}
    assert [text.get_text() for text in figures[0].legends[0].get_texts()] == ["a", "b"]


@pytest.mark.parametrize(("count", "named", "numbers"), [(3, 3, 4), (30, 30, 0), (100, 34, 0)])
def test_a_confusion_matrix_names_what_can_be_read(tmp_path, figures, count, named, numbers):
    matrix = torch.eye(count, dtype=torch.long)
    matrix[0, 1] = 7
    matrix[1] = 0  # a class without samples
    matrix[2, 1] = 1
    draw_confusion(matrix, [f"class {k}" for k in range(count)], tmp_path / "confusion.png")
    axes = figures[0].axes[0]
    assert len(axes.get_yticklabels()) == named
    assert len(axes.texts) == numbers
    assert axes.images[0].get_array()[0, 1] == pytest.approx(7 / 8)
    colors = axes.images[0].to_rgba(axes.images[0].get_array())
    assert colors[1].tolist() == [[0.8, 0.8, 0.8, 1]] * count  # absent
    assert colors[2, 0].tolist() != colors[1, 0].tolist()


def test_bars_stand_beside_published_marks_and_the_baselines_line(tmp_path, figures):
    bars = [Bar("baseline", [90.0, 92.0]), Bar("wider", [95.0], 93.0)]
    draw_bars(bars, tmp_path / "bars.png", "Digits", "top-1 %", baseline=0)
    axes = figures[0].axes[0]
    assert [bar.get_width() for bar in axes.patches] == [91.0, 95.0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["baseline", "wider"]
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert sorted(texts) == ["baseline", "published"]
    assert axes.get_xlabel() == "top-1 %; the axis does not begin at 0"
    assert figures[0].get_suptitle() == "Digits"


def test_deviations_lie_within_the_axis_of_bars(tmp_path, figures):
    values = [[50.0, 90.0], [70.0, 70.5]]
    draw_bars([Bar("same", v) for v in values], tmp_path / "bars.png", "", "top-1 %")
    low, high = figures[0].axes[0].get_xlim()
    assert low < 70 - stdev(values[0])
    assert high > 70 + stdev(values[0])
    assert len(figures[0].axes[0].patches) == 2  # of one label


def test_bars_of_one_row_can_be_drawn(tmp_path, figures):
    draw_bars([Bar("only", [0.5])], tmp_path / "bars.png", "", "top-1 %")
    assert figures[0].axes[0].get_legend() is None
    assert figures[0].axes[0].get_xlabel() == "top-1 %"


def test_points_on_a_logarithmic_axis_are_named_beside_it(tmp_path, figures):
    points = [Point(f"row {number}", 1e5, [70.0, 72.0]) for number in range(30)]
    draw_against(points, tmp_path / "points.png", "Digits", "parameters", "top-1 %")
    (axes,), (legend,) = figures[0].axes, figures[0].legends
    assert (axes.get_xscale(), figures[0].get_suptitle()) == ("log", "Digits")
    assert [text.get_text() for text in legend.get_texts()] == [label for label, *_ in points]
    boxes = [text.get_window_extent() for text in legend.get_texts()]
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    assert not any(box.overlaps(axes.get_window_extent()) for box in boxes)
    looks = [
        (line.get_color(), line.get_marker())
        for line in axes.get_lines()
        if line.get_marker() in MARKERS
    ]
    assert len(set(looks)) == 30


def test_long_names_and_titles_stay_within_the_picture(tmp_path, figures):
    title = "digits, 10 % of the training images held out; " * 9
    groups = [(f"a name that tells many settings of row {number}", [[ROW]]) for number in range(14)]
    draw_compared(groups, tmp_path / "runs.png", title)
    draw_bars([Bar(groups[0][0], [1.0])], tmp_path / "bars.png", title, "top-1 %")
    for figure in figures:
        figure.canvas.draw()
        words = [*figure.texts, figure._suptitle]
        words += [text for legend in figure.legends for text in legend.get_texts()]
        for text in words:
            box = text.get_window_extent()
            assert 0 <= box.x0 < box.x1 <= figure.bbox.x1
    assert figures[0].axes[0].get_window_extent().height > 150
