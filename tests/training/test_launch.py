import os
import shlex
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate.commands.config import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env
from torch import nn

from knorm import KNConv2d
from knorm.training import launch
from knorm.training.checkpoint import clean
from knorm.training.launch import check_launch, compiled, start, strategy
from knorm.training.mistakes import UserMistakeError
from knorm.training.settings import Launch

ROOT = Path(__file__).parents[2]
on_cpu = pytest.mark.skipif(torch.accelerator.is_available(), reason="needs a machine without GPU")
FSDP = {"ACCELERATE_USE_FSDP": "true"}


@pytest.mark.parametrize(
    ("launch", "environment", "message"),
    [
        (Launch(), {"WORLD_SIZE": "3"}, "divisible"),
        (Launch(processes=2), {}, "--num_processes 2"),
        (Launch(processes=1), {"WORLD_SIZE": "2"}, "`python -m ...`"),
        (Launch(cpu=True, mixed_precision="fp16"), {}, "fp16 needs a GPU"),
        (Launch(), {"ACCELERATE_MIXED_PRECISION": "bf16"}, r"launch\.mixed_precision is no"),
        (Launch(), {"ACCELERATE_DYNAMO_BACKEND": "INDUCTOR"}, r"add --launch\.compile true"),
        (Launch(cpu=True), FSDP | {"WORLD_SIZE": "2"}, "FSDP, which needs GPUs.*--num_processes 2"),
        (Launch(), {"ACCELERATE_USE_DEEPSPEED": "true"}, "DEEPSPEED, which is not supported"),
        (Launch(), {"ACCELERATE_USE_CPU": "True", "MASTER_PORT": "1"}, "started one: its --cpu"),
        (Launch(), {"WORLD_SIZE": "two"}, "WORLD_SIZE must be a whole .*, got 'two'"),
        (Launch(), {"WORLD_SIZE": ""}, "WORLD_SIZE must be .*, got ''; unset it"),
        (Launch(), {"WORLD_SIZE": "0"}, "WORLD_SIZE must be .*, got '0'"),
        (Launch(), {"WORLD_SIZE": "-2"}, "WORLD_SIZE must be .*, got '-2'"),
        (Launch(), {"LOCAL_WORLD_SIZE": "1.5"}, "LOCAL_WORLD_SIZE must be .*, got '1.5'"),
    ],
)
def test_launcher_and_settings_must_agree(monkeypatch, launch, environment, message):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserMistakeError, match=message):
        check_launch(launch, batch_size=32)


@pytest.mark.parametrize(
    ("launch", "environment", "message"),
    [
        (
            Launch(),
            {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4"},
            r"4 processes .* has 2 GPU\(s\).*--num_processes 2 .*--launch\.cpu true",
        ),
        (Launch(), {"ACCELERATE_USE_CPU": "True"}, "asks for the CPU; add --launch.cpu true"),
    ],
)
def test_a_launch_that_two_gpus_cannot_keep_is_refused(monkeypatch, launch, environment, message):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserMistakeError, match=message):
        check_launch(launch, batch_size=32)
    check_launch(Launch(cpu=True), batch_size=32)


def test_four_processes_on_two_machines_with_two_gpus_each_fit(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    for name, value in {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    check_launch(Launch(), batch_size=32)


def test_a_batch_that_the_processes_can_share_is_fine(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    check_launch(Launch(processes=2), batch_size=32)


FACTS = {  # machines, processes in all, kind
    "cpu1": (1, 1, "NO"),
    "cpu2": (1, 2, "MULTI_GPU"),
    "gpu1": (1, 1, "NO"),
    "gpu8": (1, 8, "MULTI_GPU"),
    "multinode": (2, 16, "MULTI_GPU"),
    "fsdp": (1, 8, "FSDP"),
}


@pytest.mark.parametrize("name", FACTS)
def test_the_launch_files_are_ones_that_accelerate_reads(name):
    config = load_config_from_file(str(ROOT / "launch" / f"{name}.yaml"))
    facts = (config.num_machines, config.num_processes, config.distributed_type)
    assert facts == FACTS[name]
    assert config.use_cpu == name.startswith("cpu")


def test_there_is_no_other_launch_file():
    assert {path.stem for path in (ROOT / "launch").iterdir()} == set(FACTS)


def launched(name):
    """The settings and environment of the processes that the command in a file starts."""
    lines = (ROOT / "launch" / f"{name}.yaml").read_text().replace("\\\n#", "").splitlines()
    (command,) = (line for line in lines if "accelerate launch" in line)
    arguments = shlex.split(command.replace("launch/", f"{ROOT}/launch/"), comments=False)[3:]
    args, _, _ = _validate_launch_command(launch_command_parser().parse_args(arguments))
    assert (args.module, args.training_script) == (True, "classification.train")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Accelerate's, of settings that FSDP2 has no use for
        return args, prepare_multi_gpu_env(args)


def test_the_command_for_several_machines_meets_at_the_address_given():
    args, _ = launched("multinode")
    assert (args.nnodes, args.nproc_per_node) == ("2", "8")
    assert (args.rdzv_backend, args.rdzv_endpoint) == ("c10d", "10.0.0.1:29500")


def test_the_file_for_sharding_asks_for_fsdp2_that_shards_all():
    _, environment = launched("fsdp")
    wanted = {
        "ACCELERATE_USE_FSDP": "true",
        "FSDP_VERSION": "2",
        "FSDP_RESHARD_AFTER_FORWARD": "true",
        "FSDP_AUTO_WRAP_POLICY": "SIZE_BASED_WRAP",
    }
    assert wanted.items() <= environment.items()


@on_cpu
@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cpu", "--num_processes=2"], "asked for several processes and started one"),
        (["--config_file=launch/fsdp.yaml", "--num_processes=2"], "FSDP, which needs GPUs"),
    ],
    ids=["cpu", "fsdp"],
)
def test_a_launch_that_would_run_as_something_else_ends_with_the_right_command(
    tmp_path, options, message
):
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--quiet", *options]
    done = subprocess.run(
        [*launcher, "-m", "classification.train", f"--run_dir={tmp_path / 'run'}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    (error,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert message in error
    assert (
        "start it with `accelerate launch --config_file launch/cpu2.yaml --num_processes 2" in error
    )
    assert not (tmp_path / "run").exists()


MEETINGS = """
import os, socket
from accelerate.state import AcceleratorState
from knorm.training.launch import start
from knorm.training.settings import Launch
from knorm.training.mistakes import UserMistakeError

os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
with socket.socket() as taken:
    taken.bind(("", 0))
    taken.listen()
    for port in (taken.getsockname()[1], 0):
        os.environ["MASTER_PORT"] = str(port)
        try:
            start(Launch(cpu=True, timeout=1))
        except UserMistakeError as mistake:
            print(mistake)
        AcceleratorState._reset_state(reset_partial_state=True)
"""


def test_a_taken_port_and_a_process_that_never_comes_are_one_line_each():
    done = subprocess.run(
        [sys.executable, "-c", MEETINGS], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    taken, alone = done.stdout.splitlines()
    assert "is in use" in taken
    assert "--main_process_port, 0 for any free one" in taken
    assert alone.startswith("the 2 processes did not all come to 127.0.0.1, port 0, within 1 s")


MEETING = {
    "WORLD_SIZE": "2",
    "RANK": "0",
    "LOCAL_RANK": "0",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "0",
}


@on_cpu
def test_processes_that_did_not_find_each_other_are_refused(monkeypatch):
    accelerator = start(Launch())
    assert accelerator.device.type == "cpu"
    for name, value in MEETING.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserMistakeError, match=r"each is alone.*launch/cpu2\.yaml --num_proc.* 2"):
        start(Launch())


@on_cpu
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"RANK": ""}, "WORLD_SIZE is 2, but it has no RANK.* --num_processes 2"),
        ({"LOCAL_RANK": ""}, "no LOCAL_RANK"),
        ({"MASTER_ADDR": ""}, "no MASTER_ADDR"),
        ({"MASTER_PORT": ""}, "no MASTER_PORT"),
        ({"MASTER_PORT": "http"}, "MASTER_PORT must be a whole .* 65535, got 'http'"),
        ({"MASTER_PORT": "65536"}, "MASTER_PORT must be a whole number from 0 to 65535"),
        ({"RANK": "2"}, "RANK must be a whole number from 0 to 1, got '2'"),
    ],
)
def test_processes_that_cannot_meet_are_refused_before_they_try(monkeypatch, changes, message):
    monkeypatch.setattr(launch, "Accelerator", lambda **_: pytest.fail("it tried"))
    for name, value in (MEETING | changes).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserMistakeError, match=message):
        start(Launch())


def test_threads_are_set():
    before = torch.get_num_threads()
    try:
        start(Launch(cpu=True, threads=1))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_deterministic_operations_are_asked_for_before_the_gpu_is_used(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    try:
        start(Launch(cpu=True, deterministic=True))
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.backends.cudnn.deterministic
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.deterministic = False
        os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


@pytest.mark.slow
def test_a_compiled_net_trains_as_the_plain_one_and_keeps_the_names_of_its_weights():
    def trained(launch):
        torch.manual_seed(0)
        net = nn.Sequential(KNConv2d(1, 4, 3, dropout_p=0), nn.Flatten(), nn.Linear(64, 2))
        net = start(launch).prepare(compiled(net, launch))
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for _ in range(2):
            net(torch.randn(5, 1, 6, 6)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        return net.state_dict()

    plain, fast = trained(Launch(cpu=True)), trained(Launch(cpu=True, compile=True))
    assert list(fast) == list(clean(fast)) == list(plain)
    for name, weight in plain.items():
        torch.testing.assert_close(fast[name], weight)


def test_compilation_is_in_place_and_only_where_asked_for():
    net = nn.Linear(1, 1)
    assert compiled(net, Launch()) is net
    assert net._compiled_call_impl is None
    assert compiled(net, Launch(compile=True)) is net
    assert net._compiled_call_impl is not None


@pytest.mark.parametrize(
    ("kind", "processes", "full", "words"),
    [
        ("NO", 1, None, "one process"),
        ("MULTI_CPU", 2, None, "DDP, 2 processes on cpu"),
        ("FSDP", 8, True, "FSDP full shard, 8 processes"),
        ("FSDP", 8, False, "FSDP gradient shard, 8 processes"),
    ],
)
def test_how_processes_share_the_work_is_said_in_words(kind, processes, full, words):
    accelerator = SimpleNamespace(
        distributed_type=kind,
        num_processes=processes,
        device=torch.device("cpu"),
        state=SimpleNamespace(fsdp_plugin=SimpleNamespace(reshard_after_forward=full)),
    )
    assert strategy(accelerator) == words


@pytest.mark.parametrize("name", ["threads", "processes", "timeout"])
def test_counts_are_positive(name):
    with pytest.raises(ValueError, match=f"launch.{name} must"):
        Launch(**{name: 0})
