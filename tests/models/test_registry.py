import pytest
import torch
from torch import nn

from knorm.models import create_model, list_models, model_options, register_model

NAMES = [
    "convnext_base",
    "convnext_large",
    "convnext_small",
    "convnext_tiny",
    "densenet20x16",
    "knresnet13",
    "knresnet18",
    "knresnet34",
    "knresnet50",
    "preact_resnet101",
    "preact_resnet152",
    "preact_resnet18",
    "preact_resnet34",
    "preact_resnet50",
    "resnet101",
    "resnet152",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet8",
    "wide_resnet16_4",
    "wide_resnet40_4",
]

COMMON = ("num_classes", "in_chans", "norm", "stem", "activation", "dropout_p", "eval_stats")


def test_models_are_listed_by_pattern_and_sorted():
    assert set(NAMES) <= set(list_models())
    assert list_models() == sorted(list_models())
    assert list_models("preact_resnet1*") == [
        "preact_resnet101",
        "preact_resnet152",
        "preact_resnet18",
    ]
    assert list_models("no such net") == []


@pytest.mark.parametrize("name", NAMES)
def test_every_model_takes_the_common_options(name):
    assert set(COMMON) <= set(model_options(name))


def test_models_belong_to_tasks():
    assert list_models("*resnet18", task="segmentation") == ["fcn_knresnet18", "fcn_resnet18"]
    assert list_models("fcn*") == []
    with pytest.raises(ValueError, match="unknown task 'segmentatoin'; did you mean 'segmentation"):
        list_models(task="segmentatoin")

    @register_model(task="segmentation")
    def toy_segmenter() -> nn.Module:
        return nn.Identity()

    try:
        assert list_models("toy*", task="segmentation") == ["toy_segmenter"]
        assert isinstance(create_model("toy_segmenter"), nn.Identity)
    finally:
        from knorm.models import registry

        del registry._MODELS["toy_segmenter"], registry._TASKS["toy_segmenter"]


WRONG = {
    "name": (
        {"name": "resnett18"},
        r"unknown model 'resnett18'; did you mean 'resnet18'\? \(choose from convmixer",
    ),
    "option": (
        {"droput_p": 0.1},
        r"knresnet18 takes no option 'droput_p'; did you mean 'dropout_p'\? \(it takes .*norm, ",
    ),
    "another family's option": ({"width": 0.5}, "takes no option 'width'"),
    "knresnet's output_stride": ({"output_stride": 64}, "output_stride takes 8, 16 or 32, got 64"),
    "num_classes": ({"num_classes": -1}, "num_classes takes a whole number, at least 0, got -1"),
    "in_chans": ({"in_chans": "3"}, "in_chans takes a whole number, at least 1, got '3'"),
    "norm": (
        {"norm": "btach"},
        r"unknown norm 'btach'; did you mean 'batch'\? \(choose from batch, sync_batch, group",
    ),
    "stem": ({"stem": "cifr"}, r"unknown stem 'cifr'; did you mean 'cifar'\? \(choose from cifar"),
    "activation": ({"activation": "Mish"}, r"unknown activation 'Mish'; did you mean 'mish'\?"),
    "activation type": ({"activation": nn.ReLU}, "unknown activation"),
    "dropout_p": ({"dropout_p": 1.0}, r"dropout_p takes a number in \[0, 1\), got 1.0"),
    "final_dropout_p": ({"final_dropout_p": "a"}, r"final_dropout_p takes a number in \[0, 1\)"),
    "eval_stats": ({"eval_stats": "mean"}, r"unknown eval_stats 'mean'"),
    "kernel option": (
        {"norm_options": {"groups": 8}},
        "norm 'kernel' takes no option 'groups'; it takes eps, bounded",
    ),
    "option of no norm": (
        {"norm": "none", "norm_options": {"eps": 1e-3}},
        "norm 'none' takes no option 'eps'; it takes none at all",
    ),
    "norm_options type": ({"norm_options": "groups"}, "norm_options takes names and values"),
    "norm option": ({"norm": "batch", "norm_options": {"epps": 1e-3}}, "norm 'batch': .*epps"),
    "groups": (
        {"norm": "group", "norm_options": {"groups": 48}},
        "groups=48 does not divide 64 channels",
    ),
    "output_stride": (
        {"name": "resnet18", "output_stride": 4},
        "output_stride takes 8, 16 or 32, got 4",
    ),
    "final_norm": ({"name": "preact_resnet18", "final_norm": "no"}, "final_norm takes True or"),
    "width": ({"name": "resnet8", "width": 0}, "width takes a positive number, got 0"),
    "fractional channels": (
        {"name": "knresnet13", "width": 0.3},
        "width=0.3 makes 19.2 of 64 channels",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_mistakes_raise_one_clear_line(case):
    options, message = WRONG[case]
    with torch.device("meta"), pytest.raises(ValueError, match=message) as raised:
        create_model(**{"name": "knresnet18"} | options)
    assert "\n" not in str(raised.value)


def test_only_given_options_reach_the_model():
    @register_model
    def toy_net(*, depth: int = 3) -> nn.Module:
        return nn.Sequential(*[nn.Identity() for _ in range(depth)])

    try:
        assert model_options("toy_net") == ("depth",)
        assert len(create_model("toy_net")) == 3
        assert len(create_model("toy_net", depth=5)) == 5
        with pytest.raises(ValueError, match="toy_net takes no option 'norm'"):
            create_model("toy_net", norm="batch")
        with pytest.raises(ValueError, match="there is a model 'toy_net' already"):
            register_model(toy_net)
    finally:
        from knorm.models import registry

        del registry._MODELS["toy_net"], registry._TASKS["toy_net"]


def test_families_keep_their_own_defaults():
    with torch.device("meta"):
        nets = {name: create_model(name) for name in ("resnet18", "knresnet18", "resnet8")}
    kernel = {
        name: any("KN" in type(m).__name__ for m in net.modules()) for name, net in nets.items()
    }
    assert kernel == {"resnet18": False, "knresnet18": True, "resnet8": False}
    stems = {name: net.features.stem.unit for name, net in nets.items()}
    assert stems["knresnet18"].kernel_size == (7, 7)
    assert stems["resnet8"].conv.kernel_size == (3, 3)
