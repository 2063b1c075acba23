"""timm's nets through `create_model`; `swap_norm` is a stand-in that tells what it got."""

import builtins
import sys

import pytest
import torch
from torch import nn

from knorm.models import create_model, in_timm, list_models, model_options

timm = pytest.importorskip("timm")


@pytest.fixture
def swaps(monkeypatch):
    """The calls of `knorm.swap_norm`, which here gives back the net with a mark on it."""
    calls = []

    def swap_norm(model, kind, **options):
        calls.append((model, kind, options))
        marked = nn.Sequential(model)
        return marked, object()

    monkeypatch.setattr(in_timm, "swap_norm", swap_norm)
    return calls


def test_without_a_norm_the_net_is_timms():
    torch.manual_seed(0)
    ours = create_model("timm:resnet10t", num_classes=7, in_chans=1, drop_rate=0.1).eval()
    torch.manual_seed(0)
    theirs = timm.create_model("resnet10t", num_classes=7, in_chans=1).eval()
    assert type(ours) is type(theirs)
    assert ours.drop_rate == 0.1
    x = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x))


def test_with_a_norm_its_norms_are_swapped(swaps):
    options = {"groups": 8, "eps": 1e-4}
    net = create_model("timm:resnet10t", norm="group", norm_options=options, num_classes=3)
    ((model, kind, given),) = swaps
    assert net[0] is model
    assert isinstance(model, timm.models.ResNet)
    assert (kind, given) == ("group", {**options, "inplace": True})
    of_kernel = {"dropout_p": 0.05, "eval_stats": "plain"}
    create_model("timm:resnet10t", norm="kernel", **of_kernel)
    assert swaps[1][1:] == ("kernel", {**of_kernel, "inplace": True})
    create_model("timm:resnet10t", norm="none", **of_kernel)
    assert swaps[2][1:] == ("none", {"inplace": True})


@pytest.mark.parametrize("norm", ["group", "kernel", "none"])
def test_a_net_of_timms_trains_with_another_norm(norm):
    net = create_model("timm:resnet10t", norm=norm, num_classes=3)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in net.modules())
    net(torch.randn(2, 3, 64, 64)).sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_the_options_are_ours_and_those_of_the_nets_class():
    taken = model_options("timm:resnet10t")
    assert {"norm", "dropout_p", "norm_options", "num_classes", "in_chans"} <= set(taken)
    assert {"output_stride", "drop_path_rate", "global_pool", "pretrained"} <= set(taken)
    assert not {"self", "kwargs", "device", "stem"} & set(taken)
    assert "img_size" in model_options("timm:vit_tiny_patch16_224")


def test_timms_nets_are_not_listed():
    assert [name for name in list_models() if "timm" in name] == []


def test_weights_are_not_looked_for_without_memory_to_hold_them(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save(timm.create_model("test_resnet", num_classes=3).state_dict(), path)
    loaded = create_model("timm:test_resnet", num_classes=3, checkpoint_path=str(path))
    assert all(torch.equal(v, loaded.state_dict()[k]) for k, v in torch.load(path).items())
    with torch.device("meta"):
        create_model("timm:test_resnet", pretrained=True, checkpoint_path="nowhere.pth")


WRONG = {
    "name": ({"name": "timm:resnett50"}, r"unknown model 'timm:resnett50'; did you mean 'timm:r"),
    "option": ({"stem": "cifar"}, r"timm:resnet10t takes no option 'stem'; did you mean 'stem_"),
    "norm": ({"norm": "kernl"}, r"unknown norm 'kernl'; did you mean 'kernel'\?"),
    "swap option": (
        {"norm": "group", "norm_options": {"group": 8}},
        r"unknown norm option 'group'; did you mean 'groups'\?",
    ),
    "no norm to drop from": ({"dropout_p": 0.1}, "dropout_p of timm:resnet10t belongs to norm"),
    "norm_options type": ({"norm": "group", "norm_options": 8}, "takes names and values, got 8"),
    "value": ({"output_stride": 7}, "timm:resnet10t cannot be made so: "),
    "weights": ({"checkpoint_path": "nowhere.pth"}, "timm:resnet10t cannot be made so: "),
}


@pytest.mark.parametrize("case", WRONG)
def test_mistakes_raise_one_clear_line(case):
    options, message = WRONG[case]
    with pytest.raises(ValueError, match=message) as raised:
        create_model(**{"name": "timm:resnet10t"} | options)
    assert "\n" not in str(raised.value)


def test_a_missing_timm_is_one_clear_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    for call in (create_model, model_options):
        with pytest.raises(ValueError, match=r'timm:resnet18 needs timm.*"knorm\[timm\]"'):
            call("timm:resnet18")


def test_our_own_nets_do_not_need_timm(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **options):
        assert name.split(".")[0] != "timm"
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    assert create_model("resnet8", width=0.25).num_features == 64
