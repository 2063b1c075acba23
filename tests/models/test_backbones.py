"""Nets over backbones of ours and timm's."""

import pytest
import torch
from torch import nn

from knorm.choices import NORM_KINDS
from knorm.kernel import KNConv2d
from knorm.models import create_model, register_model
from tests.nets import SHALLOW


def meta_net(name, **options):
    with torch.device("meta"):
        return create_model(name, num_classes=3, **options).eval()


@pytest.mark.parametrize("backbone", SHALLOW)
def test_every_net_of_ours_is_a_backbone(backbone):
    x = torch.empty(1, 3, 65, 98, device="meta")
    for name, stem in (("fcn", "imagenet"), ("deeplabv3plus", "cifar")):
        net = meta_net(name, backbone=backbone, stem=stem, output_stride=None)
        assert net(x).shape == (1, 3, 65, 98)


@pytest.mark.parametrize("backbone", ["knresnet18", "knresnet50", "preact_resnet18"])
@pytest.mark.parametrize("stride", [8, 16, 32, None])
def test_output_stride_reaches_the_backbone(backbone, stride):
    net = meta_net("fcn", backbone=backbone, output_stride=stride)
    last = net.features(torch.empty(1, 3, 97, 130, device="meta"))[-1]
    assert last.shape[2:] == (-(-97 // (stride or 32)), -(-130 // (stride or 32)))


def test_heads_have_the_norm_and_options_of_the_backbone_unless_others_are_given():
    def heads(**options):
        return meta_net("fcn", **options).classifier

    assert isinstance(heads(backbone="knresnet13").unit, KNConv2d)
    assert heads(backbone="knresnet13").unit.dropout_p == 0.1
    assert isinstance(heads(backbone="resnet8").unit.norm, nn.BatchNorm2d)
    assert heads(backbone="convnext_tiny").unit.norm.num_groups == 1
    assert isinstance(heads(backbone="convnext_tiny").act, nn.ReLU)
    assert isinstance(heads(backbone="resnet8", activation="mish").act, nn.Mish)
    net = meta_net("fcn", backbone="resnet8", norm="group", norm_options={"groups": 4})
    groups = {m.num_groups for m in net.modules() if isinstance(m, nn.GroupNorm)}
    assert groups == {4}


def test_further_options_reach_the_backbone():
    net = meta_net("fcn", backbone="knresnet13", backbone_options={"width": 0.25})
    assert net.features.stem.unit.out_channels == 16


timm = pytest.importorskip("timm")
SMALL = "timm:test_resnet"


@pytest.mark.parametrize("norm", [None, *NORM_KINDS])
@pytest.mark.parametrize("name", ["fcn", "deeplabv3plus"])
def test_a_net_of_timms_learns_with_every_norm(name, norm):
    torch.manual_seed(0)
    options = {"norm": norm} if norm else {}
    net = create_model(name, backbone=SMALL, num_classes=3, aux=True, head_channels=32, **options)
    out = net(torch.randn(2, 3, 65, 70))
    assert {key: value.shape for key, value in out.items()} == {
        "out": (2, 3, 65, 70),
        "aux": (2, 3, 65, 70),
    }
    sum(logits.logsumexp(1).sum() for logits in out.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    batch = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert bool(batch) is (norm in (None, "batch"))


@pytest.mark.parametrize("stride", [8, 16, 32])
@pytest.mark.parametrize("backbone", ["timm:resnet18", "timm:convnext_atto"])
def test_output_stride_reaches_nets_of_timms(backbone, stride):
    net = meta_net("deeplabv3plus", backbone=backbone, output_stride=stride)
    maps = net.features(torch.empty(1, 3, 128, 96, device="meta"))
    assert [128 // m.shape[2] for m in maps] == [4, stride]
    assert [c.dilation[0] for c in net.classifier.aspp.modules() if isinstance(c, nn.Conv2d)][
        1
    ] == 96 // stride


@pytest.mark.parametrize(
    ("backbone", "options"),
    [
        ("timm:swin_tiny_patch4_window7_224", {"img_size": (64, 96)}),
        ("timm:vit_tiny_patch16_224", {"img_size": (64, 96)}),
        ("timm:mobilenetv3_small_050", {}),
        ("timm:hrnet_w18_small", {}),
    ],
)
def test_other_forms_of_features_work(backbone, options):
    net = meta_net("fcn", backbone=backbone, aux=True, backbone_options=options)
    assert net(torch.empty(1, 3, 64, 96, device="meta")).shape == (1, 3, 64, 96)
    assert net.train()(torch.empty(1, 3, 64, 96, device="meta"))["aux"].shape == (1, 3, 64, 96)


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "weights.pth"
    torch.save(timm.create_model("test_convnext", num_classes=7).state_dict(), path)
    return path


def loaded(path, norm=None):
    options = {"norm": norm} if norm else {}
    return create_model(
        "fcn",
        backbone="timm:test_convnext",
        backbone_options={"checkpoint_path": str(path)},
        **options,
    )


@pytest.mark.parametrize("norm", [None, "none"])
def test_weights_of_a_net_of_timms_are_loaded_before_its_norms_are_swapped(checkpoint, norm):
    theirs = timm.create_model("test_convnext", num_classes=7, checkpoint_path=str(checkpoint))
    ours = loaded(checkpoint, norm).features
    weight = theirs.stages[1].blocks[0].conv_dw.weight
    assert any(torch.equal(weight, p) for p in ours.parameters() if p.shape == weight.shape)
    x = torch.randn(1, 3, 64, 64)
    if norm is None:
        with torch.no_grad():
            expected = theirs.eval().forward_intermediates(x, intermediates_only=True)[-1]
            torch.testing.assert_close(ours.eval()(x)[-1], expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("stem.0.weight"), r"weights.pth is not of timm:test_.*no such tensor"),
        (lambda t: t.update({"stem.0.weight": torch.zeros(3)}), r"it is \(3,\) there"),
    ],
)
def test_weights_of_another_net_are_one_line(checkpoint, change, message):
    tensors = torch.load(checkpoint)
    change(tensors)
    torch.save(tensors, checkpoint)
    with pytest.raises(ValueError, match=message):
        loaded(checkpoint)


def test_a_missing_or_broken_file_is_one_line(tmp_path):
    with pytest.raises(ValueError, match="checkpoint_path of timm:test_convnext: there is no file"):
        loaded(tmp_path / "nowhere.pth")
    (tmp_path / "broken.pth").write_bytes(b"no weights")
    with pytest.raises(ValueError, match=r"broken\.pth is no checkpoint of timm:test_convnext"):
        loaded(tmp_path / "broken.pth")


def test_a_net_without_levels_is_no_backbone():
    @register_model
    def toy_net() -> nn.Module:
        return nn.Identity()

    try:
        with pytest.raises(ValueError, match="backbone toy_net takes no in_chans"):
            create_model("fcn", backbone="toy_net")
    finally:
        from knorm.models import registry

        del registry._MODELS["toy_net"], registry._TASKS["toy_net"]


WRONG = {
    "backbone": ({"backbone": "resnt18"}, "unknown backbone 'resnt18'; did you mean 'resnet18'"),
    "segmenter": ({"backbone": "fcn_resnet18"}, "unknown backbone 'fcn_resnet18'; did you mean"),
    "timm": ({"backbone": "timm:resnett50"}, "unknown model 'timm:resnett50'; did you mean 'timm:"),
    "stride": (
        {"backbone": "densenet20x16", "output_stride": 8},
        "backbone densenet20x16 takes no output_stride; None leaves its strides as they are",
    ),
    "timm's stride": (
        {"backbone": "timm:vit_tiny_patch16_224", "output_stride": 8},
        "backbone timm:vit_tiny_patch16_224 takes no output_stride; None leaves",
    ),
    "a stride that timm refuses": (
        {"backbone": "timm:vgg11", "output_stride": 8},
        "timm:vgg11 cannot be made so: AssertionError; output_stride is 8",
    ),
    "timm's stem": ({"backbone": "timm:resnet18", "stem": "cifar"}, "resnet18 takes no stem"),
    "backbone option": (
        {"backbone": "knresnet13", "backbone_options": {"widht": 0.5}},
        "backbone_options: knresnet13 takes no option 'widht'; did you mean 'width'",
    ),
    "option of the whole net": (
        {"backbone": "knresnet13", "backbone_options": {"norm": "batch"}},
        "backbone_options: norm is an option of the whole net",
    ),
    "backbone_options": ({"backbone_options": "width"}, "backbone_options takes names and values"),
    "dropout without a norm": (
        {"backbone": SMALL, "dropout_p": 0.1},
        "dropout_p of timm:test_resnet belongs to norm, which is not given",
    ),
    "no fine level": (
        {"name": "deeplabv3plus", "backbone": "timm:vit_tiny_patch16_224", "output_stride": None},
        "feature maps of strides 16, 16, 16; the decoder needs a coarse one and one of 4 or finer",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_mistakes_raise_one_clear_line(case):
    options, message = WRONG[case]
    with torch.device("meta"), pytest.raises(ValueError, match=message) as raised:
        create_model(**{"name": "fcn"} | options)
    assert "\n" not in str(raised.value)
