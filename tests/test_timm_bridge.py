"""What users of timm expect of its nets, asked of ours."""

import argparse

import pytest
import torch
from torch import nn

from knorm.models import create_model, list_models

timm = pytest.importorskip("timm")

from timm.models import group_parameters  # noqa: E402

from knorm import timm_bridge  # noqa: E402
from knorm.timm_bridge import SHAPES, TimmNet, timm_name  # noqa: E402
from tests.nets import SHALLOW  # noqa: E402

# Nets of one study each, which have no use among those of timm.
OF_STUDIES = {"convmixer", "densenetlike", "mini_net", "recres11", "resnetlike", "resnextlike"}
OF_STUDIES |= {"kannet4", "kannet8", "tricks_net", "vgglike", "widerresnet14"}
NAMES = [timm_name(name) for name in SHAPES]
# A quick case of each family: options, image size.
SMALL = {
    "knorm_resnet18": ({}, 64),
    "knorm_preact_resnet18": ({"norm": "group"}, 64),
    "knresnet18": ({"stem": "cifar"}, 16),
    "knresnet13": ({"width": 0.25}, 32),
    "knorm_resnet8": ({"width": 0.25, "norm": "layer"}, 32),
    "knorm_densenet20x16": ({"norm": "kernel"}, 16),
    "knorm_convnext_tiny": ({}, 64),
    "knorm_vgg11": ({}, 32),
}


@pytest.fixture(autouse=True)
def _same_random_numbers():
    torch.manual_seed(0)


def small_net(name, **options):
    given, size = SMALL[name]
    return timm.create_model(name, **given, **options), torch.randn(2, 3, size, size)


def meta_net(name, **options):
    with torch.device("meta"):
        return timm.create_model(name, **options).eval()


def test_every_net_is_among_timms_and_none_takes_the_name_of_one():
    assert {*list_models()} - OF_STUDIES == {*SHAPES}
    assert {*NAMES} == {*timm.list_models(module="timm_bridge")}
    assert {*NAMES} == {*timm.list_models("kn*", name_matches_cfg=True)}
    assert timm.models.model_entrypoint("resnet18").__module__ == "timm.models.resnet"
    assert [name for name in NAMES if name.startswith("knorm_kn")] == []
    assert all(hasattr(timm_bridge, name) for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_default_config_is_true(name):
    net = meta_net(name)
    cfg, tensors = net.default_cfg, net.state_dict()
    assert cfg is net.pretrained_cfg
    assert f"{cfg['first_conv']}.weight" in tensors
    assert f"{cfg['classifier']}.weight" in tensors
    assert tensors[f"{cfg['first_conv']}.weight"].shape[1] == cfg["input_size"][0]
    x = torch.empty(1, *cfg["input_size"], device="meta")
    assert net(x).shape == (1, cfg["num_classes"])
    features = net.forward_features(x)
    assert features.shape == (1, net.num_features, *cfg["pool_size"])
    assert net.forward_head(features, pre_logits=True).shape == (1, net.head_hidden_size)
    net.reset_classifier(0)
    assert net.num_classes == 0
    assert net(x).shape == (1, net.head_hidden_size)
    net.reset_classifier(0, "")
    assert net(x).shape == features.shape
    assert meta_net(name, num_classes=0, global_pool="")(x).shape == features.shape
    net.reset_classifier(7, "max")
    assert net.get_classifier().out_features == net.num_classes == 7
    assert net.get_classifier(name_only=True) == "fc"
    assert net(x).shape == (1, 7)


@pytest.mark.parametrize("name", [timm_name(name) for name in SHAPES if name in SHALLOW])
def test_the_smallest_images_that_are_promised_go_through(name):
    size = timm.models.get_pretrained_cfg(name).min_input_size or (3, 32, 32)
    assert meta_net(name, num_classes=3)(torch.empty(1, *size, device="meta")).shape == (1, 3)


@pytest.mark.parametrize("name", SMALL)
def test_outputs_and_weights_are_those_of_our_net(name):
    net, x = small_net(name, num_classes=10)
    given, _ = SMALL[name]
    ours = create_model(name.removeprefix("knorm_"), num_classes=10, **given).eval()
    ours.load_state_dict(net.state_dict())
    with torch.no_grad():
        out = net.eval()(x)
        assert torch.equal(out, ours(x))
        assert torch.equal(net.forward_head(net.forward_features(x)), out)
        pre = net.forward_head(net.forward_features(x), pre_logits=True)
    assert pre.shape == (2, net.head_hidden_size)
    assert torch.equal(net.fc(pre), out)


@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_gets_a_gradient(name):
    net, x = small_net(name, num_classes=42)
    out = net.train()(x)
    assert out.shape == (2, 42)
    out.mean().backward()
    assert [n for n, p in net.named_parameters() if p.grad is None] == []
    assert out.isfinite().all()


@pytest.mark.parametrize(
    ("name", "feature_cls"),
    [
        *[(name, None) for name in SMALL],
        *[("knresnet13", feature_cls) for feature_cls in ("dict", "hook", "getter", "fx")],
    ],
)
def test_features_are_the_maps_that_feature_info_tells(name, feature_cls):
    kind = {} if feature_cls is None else {"feature_cls": feature_cls}
    torch.manual_seed(1)
    net, x = small_net(name, features_only=True, **kind)
    torch.manual_seed(1)
    whole, _ = small_net(name)
    with torch.no_grad():
        maps = net.eval()(x)
        last, expected = whole.eval().forward_intermediates(x)
        assert torch.equal(last, whole.forward_features(x))
    maps = list(maps.values()) if isinstance(maps, dict) else maps
    info = net.feature_info
    assert len(maps) == len(info.channels()) == len(expected) >= 3
    for found, wanted, channels, reduction in zip(
        maps, expected, info.channels(), info.reduction(), strict=True
    ):
        assert torch.equal(found, wanted)
        assert found.shape[1] == channels
        assert found.shape[2] <= x.shape[2] / reduction + 1


def test_out_indices_choose_among_the_features():
    options = {"stem": "cifar", "features_only": True, "in_chans": 1}
    net = timm.create_model("knresnet50", out_indices=(1, 3), **options).eval()
    assert net.feature_info.channels() == [512, 2048]
    x = torch.randn(1, 1, 16, 16)
    with torch.no_grad():
        assert [tuple(map_.shape[1:]) for map_ in net(x)] == [(512, 8, 8), (2048, 2, 2)]
    last = timm.create_model("knorm_resnet8", features_only=True, out_indices=(-1,))
    assert last.feature_info.reduction() == [8]


def test_hidden_layers_are_refused():
    with pytest.raises(ValueError, match="vgg11 with hidden layers"):
        timm.create_model("knorm_vgg11", dense=[8])


def test_intermediates_can_be_chosen_and_the_rest_left_out():
    net, x = small_net("knorm_resnet8", num_classes=5)
    with torch.no_grad():
        _, every = net.eval().forward_intermediates(x)
        two = net.forward_intermediates(x, 2, intermediates_only=True, stop_early=True)
        early, maps = net.forward_intermediates(x, [1, 0], stop_early=True)
        assert all(map(torch.equal, two, every[-2:]))
        assert all(map(torch.equal, maps, [every[1], every[0]]))
        assert torch.equal(early, every[1])
        assert net.prune_intermediate_layers([1]) == [1]
        assert torch.equal(net(x), every[1])
    assert [*dict(net.features.named_children())] == ["stem", "transition1", "block1"]
    assert net.num_classes == 0
    with pytest.raises(ValueError, match="there are 4 feature maps; no such indices"):
        net.forward_intermediates(x, [4])


@pytest.mark.parametrize(("pool", "factor"), [("avg", 1), ("max", 1), ("catavgmax", 2)])
def test_pooling_and_dropout_before_the_classifier_are_timms(pool, factor):
    net, _ = small_net("knresnet13", num_classes=5, global_pool=pool, drop_rate=0.5)
    assert net.head_hidden_size == net.fc.in_features == 64 * 4 * factor
    features = torch.rand(2, 64, 4, 4)
    pooled = net.eval().forward_head(features, pre_logits=True)
    average, largest = features.unflatten(3, (2, 2)).unflatten(2, (2, 2)), features
    largest = average.amax((3, 5)).flatten(1)
    average = average.mean((3, 5)).flatten(1)
    expected = {"avg": average, "max": largest, "catavgmax": torch.cat([average, largest], 1)}
    torch.testing.assert_close(pooled, expected[pool])
    dropped = net.train().forward_head(features, pre_logits=True)
    kept = dropped != 0
    assert 0.2 < kept.float().mean() < 0.8
    torch.testing.assert_close(dropped[kept], 2 * pooled[kept])


def test_rates_reach_the_net():
    net = timm.create_model("knorm_convnext_tiny", drop_path_rate=0.3)
    assert net.features.stage4[2].depth.p == pytest.approx(0.3)
    assert (
        timm.create_model("knresnet13", dropout_p=0.2).features.block1.body.unit1.dropout_p == 0.2
    )


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_checkpoints_are_loaded_whole_or_adapted(tmp_path, suffix):
    pytest.importorskip("safetensors")
    from safetensors.torch import save_file

    source = create_model("knresnet13", width=0.25)
    path = str(tmp_path / f"weights.{suffix}")
    (torch.save if suffix == "pth" else save_file)(source.state_dict(), path)
    whole = timm.create_model("knresnet13", width=0.25, checkpoint_path=path)
    overlay = {"pretrained": True, "pretrained_cfg_overlay": {"file": path}, "width": 0.25}
    again = timm.create_model("knresnet13", **overlay)
    for net in (whole, again):
        assert all(torch.equal(v, net.state_dict()[k]) for k, v in source.state_dict().items())
    adapted = timm.create_model("knresnet13", in_chans=1, num_classes=5, **overlay)
    stem = source.features.stem.unit.weight
    torch.testing.assert_close(adapted.features.stem.unit.weight, stem.sum(1, keepdim=True))
    assert adapted.fc.out_features == 5
    assert torch.equal(
        adapted.features.block4.body.unit2.weight, source.features.block4.body.unit2.weight
    )
    features = timm.create_model("knresnet13", features_only=True, **overlay)
    assert torch.equal(features.features_stem.unit.weight, stem)


def test_the_first_convolution_is_found_whatever_the_norm(tmp_path):
    for norm in ("kernel", "batch", "none"):
        source = create_model("knresnet13", width=0.25, norm=norm)
        torch.save(source.state_dict(), tmp_path / norm)
        overlay = {"pretrained": True, "pretrained_cfg_overlay": {"file": str(tmp_path / norm)}}
        net = timm.create_model("knresnet13", width=0.25, norm=norm, in_chans=6, **overlay)
        first = net.default_cfg["first_conv"]
        assert first == "features.stem.unit" + (".conv" if norm == "batch" else "")
        theirs, ours = source.get_submodule(first).weight, net.get_submodule(first).weight
        torch.testing.assert_close(ours, torch.cat([theirs, theirs], 1) / 2)


def test_the_authors_checkpoints_load_as_pretrained_files(tmp_path):
    ours = create_model("knresnet18", stem="cifar")
    names = {"features.stem.unit": "block0.0", "features.tail.unit": "conv_block_f.conv"}
    blocks = iter(range(1, 7))
    for stage, depth in enumerate((2, 2, 1, 1), start=1):
        names |= {f"features.transition{stage - 1}.unit": f"trans_block{stage - 1}.conv"}
        for index in range(depth):
            block = next(blocks)
            for conv in (1, 2):
                inner = f"features.stage{stage}.{index}.body.unit{conv}"
                names[inner] = f"res_block{block}.conv{conv}"
    theirs = {}
    for key, tensor in ours.state_dict().items():
        module, _, kind = key.rpartition(".")
        theirs[f"{names.get(module, module)}.{kind}"] = tensor
    path = tmp_path / "knresnet18_imagenet.pth"
    torch.save({"model": theirs, "epoch": 99, "args": argparse.Namespace(lr=0.1)}, path)
    overlay = {"pretrained_cfg_overlay": {"file": str(path)}}
    net = timm.create_model("knresnet18", pretrained=True, stem="cifar", **overlay)
    assert all(torch.equal(v, ours.state_dict()[k]) for k, v in net.state_dict().items())


@pytest.mark.parametrize("name", ["knresnet18", "knorm_convnext_tiny", "knorm_resnet18"])
def test_checkpointing_changes_no_gradient(name):
    def gradients(enable):
        torch.manual_seed(0)
        net, x = small_net(name, num_classes=3)
        net.set_grad_checkpointing(enable)
        torch.manual_seed(1)
        net.train()(x).logsumexp(1).sum().backward()
        return [p.grad for p in net.parameters()]

    torch.testing.assert_close(gradients(True), gradients(False))


def test_checkpointing_keeps_less():
    def saved(enable):
        net, x = small_net("knresnet18", num_classes=3)
        net.set_grad_checkpointing(enable)
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, iter):
            net.train()(x)
        return sum(sizes)

    assert saved(True) < saved(False)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("coarse", [True, False])
def test_parameters_are_grouped_by_depth(name, coarse):
    net, _ = small_net(name)
    groups = group_parameters(net, net.group_matcher(coarse=coarse))
    names = [name for group in sorted(groups) for name in groups[group]]
    assert sorted(names) == sorted(n for n, _ in net.named_parameters())
    assert all(name.startswith("features.stem") for name in groups[0])
    assert groups[max(groups)][-1] == "fc.bias"
    assert len(groups) > 4
    if not coarse:
        stage_blocks = sum("0" in dict(c.named_children()) for c in net.features)
        assert len(groups) > stage_blocks + 3


def test_a_layer_decay_optimizer_takes_the_groups():
    from timm.optim import create_optimizer_v2

    net, _ = small_net("knresnet18")
    optimizer = create_optimizer_v2(net, "sgd", lr=0.1, layer_decay=0.5)
    scales = {group["lr_scale"] for group in optimizer.param_groups}
    assert 1.0 in scales
    assert len(scales) > 8


WRONG = {
    "option": (
        "knresnet18",
        {"droput_p": 0.1},
        r"knresnet18 takes no option 'droput_p'; did you mean 'dropout_p'\?",
    ),
    "no stochastic depth": (
        "knresnet18",
        {"drop_path_rate": 0.1},
        "knresnet18 takes no option 'drop_path_rate'",
    ),
    "nothing pooled": ("knresnet18", {"global_pool": ""}, "a classifier needs pooled features"),
    "more channels": (
        "knorm_convnext_tiny",
        {"global_pool": "catavgmax"},
        "global_pool 'catavgmax' makes more channels than head_norm has",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_mistakes_raise_one_clear_line(case):
    name, options, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        meta_net(name, **options)


def test_the_classifier_keeps_place_type_and_mode():
    net = TimmNet("knresnet13", width=0.25).double().eval()
    net.reset_classifier(3, "max")
    assert net.fc.weight.dtype == torch.float64
    assert not net.fc.training
    assert isinstance(net.fc, nn.Linear)
