import pytest

from knorm.training.schedule import CURVES, Schedule, fraction_at


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
    milestones = [1.0] if name == "multistep" else []
    assert fractions(Schedule(name=name, milestones=milestones), steps=20)[0] == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "multistep"}, "milestones"),
        ({"milestones": [1.0]}, "milestones"),
        ({"name": "multistep", "milestones": [2.0, 1.0]}, "must rise"),
        ({"final_fraction": 1.5}, "final_fraction"),
        ({"warmup_epochs": -1}, "warmup_epochs"),
        ({"gamma": 0}, "gamma"),
    ],
)
def test_schedules_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Schedule(**settings)
