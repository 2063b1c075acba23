import json

import pytest
from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS

from classification import train
from knorm.training import settings
from knorm.training.settings import TRACKERS, check_trackers
from knorm.training.track import plain, start_tracking, track


def test_every_tracker_is_one_of_accelerates():
    assert TRACKERS.keys() <= LOGGER_TYPE_TO_CLASS.keys()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tensorbord", "unknown track 'tensorbord'; did you mean 'tensorboard'"),
        ("tensorboard", r'tensorboard is not installed; pip install "knorm\[track\]"'),
        ("wandb", 'wandb is not installed; pip install "wandb"'),
    ],
)
def test_a_tracker_that_cannot_be_used_is_refused(monkeypatch, name, message):
    monkeypatch.setattr(settings, "find_spec", lambda module: None)
    with pytest.raises(ValueError, match=message):
        check_trackers([name])


def test_settings_are_flattened_to_what_every_tracker_takes():
    settings = {"optim": {"lr": 0.1, "betas": (0.9, 0.99)}, "seed": 1, "name": None}
    expected = {"optim.lr": 0.1, "optim.betas": "(0.9, 0.99)", "seed": 1, "name": "None"}
    assert dict(plain(settings)) == expected


def test_without_trackers_nothing_is_opened(tmp_path):
    accelerator = Accelerator(cpu=True)
    start_tracking(accelerator, [], tmp_path, {"name": "p"})
    assert accelerator.trackers == []
    track(accelerator, {"step": 1, "train.loss": 0.5})


def test_tensorboard_gets_every_number_of_every_epoch(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = tmp_path / "run"
    train.main(
        [
            "--data.limit=100",
            "--model.options.width=0.25",
            "--epochs=2",
            "--track=[tensorboard]",
            f"--run_dir={folder}",
        ]
    )
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    written = EventAccumulator(str(folder / "digits-knresnet13")).Reload()
    for name in ("train.loss", "val.top1", "lr"):
        events = [(event.step, event.value) for event in written.Scalars(name)]
        assert events == [(row["step"], pytest.approx(row[name])) for row in rows]
