import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from knorm.training.schedule import CURVES, Schedule, fraction_at

NEEDED = {"multistep": {"milestones": [1.0]}}  # settings without which a curve is refused


def fractions(schedule, *, steps, steps_per_epoch=10):
    return [
        fraction_at(schedule, step, steps=steps, steps_per_epoch=steps_per_epoch)
        for step in range(steps)
    ]


def test_cosine_goes_from_one_through_the_middle_to_its_floor():
    values = fractions(Schedule(final_fraction=0.2), steps=100)
    assert values[0] == 1
    assert values[50] == pytest.approx(0.6)
    assert values == sorted(values, reverse=True)
    assert 0.2 < values[-1] < 0.201


def test_warm_up_rises_in_equal_steps_to_the_peak():
    values = fractions(Schedule(name="constant", warmup_epochs=0.4), steps=20)
    assert values[:6] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1])


def test_cosine_begins_after_the_warm_up():
    values = fractions(Schedule(warmup_epochs=1), steps=110)
    assert max(values) == values[10] == 1
    assert values[60] == pytest.approx(0.5)


def test_multistep_falls_at_its_milestones_and_not_before():
    schedule = Schedule(name="multistep", milestones=[1, 2.5], gamma=0.1)
    values = fractions(schedule, steps=30)
    assert [values[step] for step in (9, 10, 24, 25)] == pytest.approx([1, 0.1, 0.1, 0.01])


def test_a_rate_does_not_depend_on_what_was_asked_before():
    schedule = Schedule(warmup_epochs=1, final_fraction=0.01)
    forward = fractions(schedule, steps=50)
    backward = [
        fraction_at(schedule, step, steps=50, steps_per_epoch=10) for step in reversed(range(50))
    ]
    assert forward == backward[::-1]


@pytest.mark.parametrize("name", CURVES)
def test_every_curve_is_a_schedule_and_starts_at_one(name):
    assert fractions(Schedule(name=name, **NEEDED.get(name, {})), steps=20)[0] == 1


@given(
    name=st.sampled_from(list(CURVES)),
    per_epoch=st.booleans(),
    warmup=st.sampled_from([0, 0.3, 1, 2.5]),
    epochs=st.integers(1, 6),
    steps_per_epoch=st.integers(1, 7),
)
def test_every_curve_rises_to_one_at_most_and_never_rises_again(
    name, per_epoch, warmup, epochs, steps_per_epoch
):
    schedule = Schedule(
        name=name, per_epoch=per_epoch, warmup_epochs=warmup, **NEEDED.get(name, {})
    )
    values = fractions(schedule, steps=epochs * steps_per_epoch, steps_per_epoch=steps_per_epoch)
    assert all(0 <= value <= 1 for value in values)
    warm = [step for step in range(len(values)) if step // steps_per_epoch < warmup]
    rising, falling = values[: len(warm)], values[len(warm) :]
    if per_epoch:
        assert rising == sorted(rising)
        assert falling == sorted(falling, reverse=True)
        starts = values[::steps_per_epoch]
        assert values == [start for start in starts for _ in range(steps_per_epoch)]
    else:
        peak = values.index(max(values))
        assert values[: peak + 1] == sorted(values[: peak + 1])
        assert values[peak:] == sorted(values[peak:], reverse=True)


def rates_of_torch(make, count):
    """Rates that a scheduler of torch sets for steps (or epochs) 0 to count - 1, peak 1."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler, rates = make(optimizer), []
    for _ in range(count):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def warm_cosine(optimizer):
    """Five units of linear warm-up from 0.01, then a cosine over the other fifteen."""
    rise = lr_scheduler.LinearLR(optimizer, start_factor=0.01, total_iters=5)
    fall = lr_scheduler.CosineAnnealingLR(optimizer, T_max=15, eta_min=0.1)
    return lr_scheduler.SequentialLR(optimizer, [rise, fall], milestones=[5])


TWINS = {
    "cosine": (
        {"final_fraction": 0.01},
        lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, T_max=20, eta_min=0.01),
    ),
    "poly": (
        {"power": 0.9},
        lambda optimizer: lr_scheduler.PolynomialLR(optimizer, total_iters=20, power=0.9),
    ),
    "exponential": (
        {"gamma": 0.85},
        lambda optimizer: lr_scheduler.ExponentialLR(optimizer, gamma=0.85),
    ),
    "multistep": (
        {"milestones": [6.0, 12.0], "gamma": 0.1},
        lambda optimizer: lr_scheduler.StepLR(optimizer, step_size=6, gamma=0.1),
    ),
    "constant": ({}, lambda optimizer: lr_scheduler.ConstantLR(optimizer, factor=1)),
}
WARM = {"warmup_epochs": 5, "warmup_start": 0.01, "final_fraction": 0.1}


@pytest.mark.parametrize(
    ("settings", "twin"),
    [({"name": name} | settings, twin) for name, (settings, twin) in TWINS.items()]
    + [({"name": "cosine"} | WARM, warm_cosine)],
    ids=[*TWINS, "warm-up"],
)
def test_rates_equal_those_of_torch_at_every_step_and_at_every_epoch(settings, twin):
    count = 18 if settings["name"] == "multistep" else 20
    expected = pytest.approx(rates_of_torch(twin, count), rel=1e-12)
    per_step = Schedule(**settings)
    assert fractions(per_step, steps=20, steps_per_epoch=1)[:count] == expected
    per_epoch = Schedule(**settings, per_epoch=True)
    assert fractions(per_epoch, steps=60, steps_per_epoch=3)[::3][:count] == expected


def test_exponential_falls_by_gamma_in_its_epochs_after_the_warm_up():
    schedule = Schedule(name="exponential", gamma=0.5, decay_epochs=2, warmup_epochs=1)
    values = fractions(schedule, steps=60)
    assert [values[step] for step in (10, 20, 30, 50)] == pytest.approx([1, 0.5**0.5, 0.5, 0.25])


def test_poly_ends_at_its_floor():
    values = fractions(Schedule(name="poly", power=1, final_fraction=0.2), steps=100)
    assert values[50] == pytest.approx(0.6)
    assert values[-1] == pytest.approx(0.208)


def test_the_rate_of_an_epoch_is_that_of_its_first_step():
    settings = {"final_fraction": 0.1, "warmup_epochs": 2}
    by_step = fractions(Schedule(**settings), steps=100)
    by_epoch = fractions(Schedule(**settings, per_epoch=True), steps=100)
    assert by_epoch[20:] == [by_step[step // 10 * 10] for step in range(20, 100)]
    assert by_epoch[:20] == pytest.approx([1 / 3] * 10 + [2 / 3] * 10)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "multistep"}, "milestones"),
        ({"milestones": [1.0]}, "milestones"),
        ({"name": "multistep", "milestones": [2.0, 1.0]}, "must rise"),
        ({"final_fraction": 1.5}, "final_fraction"),
        ({"warmup_epochs": -1}, "warmup_epochs"),
        ({"gamma": 0}, "gamma"),
        ({"power": 0}, "power"),
        ({"decay_epochs": -1}, "decay_epochs"),
        ({"warmup_start": 0.1}, "needs schedule.warmup_epochs"),
        ({"warmup_epochs": 1, "warmup_start": 2}, "warmup_start must lie"),
        ({"gamma": 0.5}, "schedule.gamma belongs to schedule.name multistep or exponential"),
        ({"name": "constant", "final_fraction": 0.5}, "belongs to schedule.name cosine or poly"),
        ({"name": "exponential", "power": 2}, "schedule.power belongs to schedule.name poly"),
    ],
)
def test_schedules_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Schedule(**settings)
