from pathlib import Path

import pytest
import torch
from accelerate.commands.config import load_config_from_file

from knorm.training.launch import Launch, check_launch, start
from knorm.training.mistakes import UserMistakeError

ROOT = Path(__file__).parents[2]
on_cpu = pytest.mark.skipif(torch.accelerator.is_available(), reason="needs a machine without GPU")


@pytest.mark.parametrize(
    ("launch", "environment", "message"),
    [
        (Launch(), {"WORLD_SIZE": "3"}, "divisible"),
        (Launch(processes=2), {}, "--num_processes 2"),
        (Launch(processes=1), {"WORLD_SIZE": "2"}, "`python -m ...`"),
        (Launch(cpu=True, mixed_precision="fp16"), {}, "fp16 needs a GPU"),
        (Launch(), {"ACCELERATE_MIXED_PRECISION": "bf16"}, r"launch\.mixed_precision is no"),
    ],
)
def test_launcher_and_settings_must_agree(monkeypatch, launch, environment, message):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserMistakeError, match=message):
        check_launch(launch, batch_size=32)


def test_a_batch_that_the_processes_can_share_is_fine(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    check_launch(Launch(processes=2), batch_size=32)


@pytest.mark.parametrize(("name", "processes"), [("cpu1", 1), ("cpu2", 2), ("gpu1", 1)])
def test_the_launch_files_are_ones_that_accelerate_reads(name, processes):
    config = load_config_from_file(str(ROOT / "launch" / f"{name}.yaml"))
    assert config.num_processes == processes
    assert config.use_cpu == name.startswith("cpu")


@on_cpu
def test_processes_that_did_not_find_each_other_are_refused(monkeypatch):
    accelerator = start(Launch())
    assert accelerator.device.type == "cpu"
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserMistakeError, match="accelerate launch --multi_gpu --num_processes 2"):
        start(Launch())


def test_threads_are_set():
    before = torch.get_num_threads()
    try:
        start(Launch(cpu=True, threads=1))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["threads", "processes"])
def test_counts_are_positive(name):
    with pytest.raises(ValueError, match=f"launch.{name} must be positive"):
        Launch(**{name: 0})
