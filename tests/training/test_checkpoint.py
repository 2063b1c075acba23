import errno

import pytest
import torch
from torch import nn

from knorm.training import checkpoint


class Wrapped(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.module = net


def save(folder, net, state):
    checkpoint.save(folder, {"model": net.state_dict()}, state)


def test_weights_and_state_come_back_as_they_were(tmp_path):
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).to(memory_format=torch.channels_last)
    save(tmp_path / "last", net, {"epoch": 3, "loss": 0.1})
    saved = checkpoint.load(tmp_path / "last")
    assert saved.state == {"epoch": 3, "loss": 0.1}
    assert saved.evaluated.keys() == net.state_dict().keys()
    for name, tensor in net.state_dict().items():
        assert torch.equal(saved.evaluated[name], tensor)


@pytest.mark.parametrize(
    "wrap", [lambda net: net, Wrapped, torch.compile], ids=["plain", "wrapped", "compiled"]
)
def test_names_are_those_of_the_plain_net(wrap):
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    assert checkpoint.clean(wrap(net).state_dict()).keys() == net.state_dict().keys()


def test_a_compiled_part_of_a_net_leaves_no_trace():
    net = nn.Sequential(nn.Linear(2, 2), torch.compile(nn.Linear(2, 1)))
    assert "1.weight" in checkpoint.clean(Wrapped(net).state_dict())


def test_a_child_of_the_name_module_keeps_it():
    assert list(checkpoint.clean({"head.module.weight": torch.ones(1)})) == ["head.module.weight"]


def test_saving_replaces_the_folder_as_a_whole_and_leaves_nothing_beside_it(tmp_path):
    for epoch in range(3):
        save(tmp_path / "best", nn.Linear(1, 1), {"epoch": epoch})
    assert [path.name for path in tmp_path.iterdir()] == ["best"]
    assert checkpoint.load(tmp_path / "best").state == {"epoch": 2}


def test_a_failure_while_saving_leaves_the_old_checkpoint(tmp_path):
    save(tmp_path / "last", nn.Linear(1, 1), {"epoch": 1})
    with pytest.raises(TypeError):
        save(tmp_path / "last", nn.Linear(1, 1), {"epoch": object()})
    assert checkpoint.load(tmp_path / "last").state == {"epoch": 1}
    save(tmp_path / "last", nn.Linear(1, 1), {"epoch": 2})
    assert checkpoint.load(tmp_path / "last").state == {"epoch": 2}


def test_a_stop_between_the_two_renames_loses_nothing(tmp_path):
    save(tmp_path / "last", nn.Linear(1, 1), {"epoch": 1})
    (tmp_path / "last").rename(tmp_path / "last.old")
    assert checkpoint.load(tmp_path / "last").state == {"epoch": 1}


def test_a_folder_without_weights_is_the_users_mistake(tmp_path):
    with pytest.raises(ValueError, match=r"holds no model\.safetensors"):
        checkpoint.load(tmp_path)


def test_a_moving_average_is_what_gets_evaluated_and_only_what_is_asked_for_is_read(tmp_path):
    tensors = {name: {"w": torch.full((1,), value)} for value, name in enumerate(("model", "ema"))}
    checkpoint.save(tmp_path / "last", tensors | {"optimizer": {"0.step": torch.ones(1)}}, {})
    assert checkpoint.load(tmp_path / "last").evaluated["w"].item() == 1
    assert "optimizer" not in checkpoint.load(tmp_path / "last").tensors
    assert checkpoint.load(tmp_path / "last", ("model",)).evaluated["w"].item() == 0


def test_a_full_disk_leaves_the_old_checkpoint_and_no_debris(tmp_path):
    resource = pytest.importorskip("resource")
    save(tmp_path / "last", nn.Linear(1, 1), {"epoch": 1})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError, match="too large") as caught:
            save(tmp_path / "last", nn.Linear(100, 100), {"epoch": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.errno == errno.EFBIG
    assert checkpoint.load(tmp_path / "last").state == {"epoch": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["last"]
