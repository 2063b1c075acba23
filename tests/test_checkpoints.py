import argparse
import os
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

import knorm.models
from knorm.checkpoints import (
    convert_norm_torch_state_dict,
    convert_torchvision_fcn_state_dict,
    convert_torchvision_resnet_state_dict,
    load_checkpoint,
)
from knorm.models import create_model

# The published nets by the authors' names: stem channels, blocks (number, c, m) of each stage.
STAGES = {
    18: (64, [(2, 64, 256), (2, 256, 256), (1, 512, 512), (1, 724, 724)]),
    34: (64, [(4, 64, 256), (5, 256, 320), (3, 512, 640), (2, 512, 843)]),
    50: (256, [(4, 256, 64), (5, 512, 128), (4, 810, 201), (2, 2048, 512)]),
}
NUM_TENSORS = {18: 36, 34: 68, 50: 100}


def knresnet_shapes(depth, stem_kernel, num_classes=10):
    """Weight shapes of a published KNResNet by the authors' module names."""
    stem, stages = STAGES[depth]
    shapes: dict[str, tuple[int, ...]] = {"block0.0": (stem, 3, stem_kernel, stem_kernel)}
    block, before = 0, None
    for stage, (num_blocks, c, m) in enumerate(stages, start=1):
        last = depth == 50 and stage == 4
        if before is not None:
            name, k = ("conv.conv1x1", 1) if last else ("conv", 2)
            shapes[f"trans_block{stage - 1}.{name}"] = (c, before, k, k)
        for _ in range(num_blocks):
            block += 1
            name = f"res_block{block}"
            if depth != 50:
                shapes |= {f"{name}.conv1": (m, c, 2, 2), f"{name}.conv2": (c, m, 2, 2)}
                continue
            outer, k = (".conv1x1", 1) if last else ("", 2)
            shapes[f"{name}.conv1{outer}"] = (m, c, k, k)
            shapes[f"{name}.conv2"] = (m, m, 3, 3)
            shapes[f"{name}.conv3{outer}"] = (c, m, k, k)
        before = c
    if depth != 50:
        shapes["conv_block_f.conv"] = (512, before, 2, 2)
    return shapes | {"fc": (num_classes, 512 if depth != 50 else 2048)}


def knresnet13_shapes():
    channels = {"conv0": (3, 64), "conv_block1.1": (64, 64)}
    channels |= {"conv_block2.1": (64, 128), "conv_block3.1": (128, 256)}
    for i, c in enumerate((64, 64, 128, 256), start=1):
        channels |= {f"res_block{i}.conv{j}": (c, c) for j in (1, 2)}
    return {name: (o, i, 3, 3) for name, (i, o) in channels.items()} | {"fc": (10, 1024)}


def resnet8_shapes():
    channels = {f"conv_block{i}.0": c for i, c in enumerate([(3, 64), (64, 128), (128, 256)], 1)}
    channels |= {f"res_block1.conv{j}": (128, 128) for j in (1, 2)}
    channels |= {f"res_block2.conv{j}": (256, 256) for j in (1, 2)}
    return {name: (o, i, 3, 3) for name, (i, o) in channels.items()} | {"fc": (10, 1024)}


def state_dict(shapes, device="cpu"):
    """Random float64 weights that keep activations near 1, and biases."""
    state = {}
    for name, shape in shapes.items():
        scale = torch.Size(shape[1:]).numel() ** -0.5
        weight = torch.randn(shape, dtype=torch.float64, device=device)
        state[f"{name}.weight"] = weight.mul_(scale)
        state[f"{name}.bias"] = torch.randn(shape[0], dtype=torch.float64, device=device)
    return state


def meta_net(name, **options):
    with torch.device("meta"):
        return create_model(name, num_classes=10, **options)


# The authors' nets without dropout, from their state dict, by the definition of the layer.


def kn_conv(x, state, name, padding=(0, 0, 0, 0), stride=1):
    """Unfolded windows, normalized, times filters; padding (left, right, top, bottom)."""
    weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
    x, kernel = F.pad(x, padding), weight.shape[-1]
    windows = F.unfold(x, kernel, stride=stride)
    var, mean = torch.var_mean(windows, 1, keepdim=True, correction=0)
    out = weight.flatten(1) @ ((windows - mean) / (var + 1e-5).sqrt()) + bias[:, None]
    return out.unflatten(2, ((x.shape[-2] - kernel) // stride + 1, -1))


def kernel_norm_1x1(x):
    var, mean = torch.var_mean(x, 1, keepdim=True, correction=0)
    return (x - mean) / (var + 1e-5).sqrt()


def linear(x, state):
    return x.flatten(1) @ state["fc.weight"].T + state["fc.bias"]


def published_basic(depth, x, state, low_resolution, act=F.relu):
    """KNResNet-18 and -34."""
    if low_resolution:
        x = kn_conv(x, state, "block0.0", (1, 1, 1, 1))
    else:
        x = kn_conv(x, state, "block0.0", (3, 3, 3, 3), stride=2)
        x = F.max_pool2d(x, 3, stride=2, padding=1)
    last = (1, 0, 1, 0) if low_resolution else (2, 1, 2, 1)
    paddings = {2: (1, 0, 1, 0), 3: (0, 1, 0, 1), 4: last}
    block = 0
    for stage, (num_blocks, _, _) in enumerate(STAGES[depth][1], start=1):
        if stage > 1:
            name = f"trans_block{stage - 1}.conv"
            x = F.max_pool2d(kn_conv(act(x), state, name, paddings[stage]), 2)
        for _ in range(num_blocks):
            block += 1
            y = kn_conv(act(x), state, f"res_block{block}.conv1", (1, 1, 1, 1))
            x = x + kn_conv(act(y), state, f"res_block{block}.conv2")
    x = F.max_pool2d(x, 2)
    padding = (1, 1, 1, 1) if low_resolution else (0, 0, 0, 0)
    x = kn_conv(act(x), state, "conv_block_f.conv", padding)
    return linear(act(kernel_norm_1x1(x)).mean((2, 3)), state)


def published_knresnet50(x, state, low_resolution):
    if low_resolution:
        x = kn_conv(x, state, "block0.0", (1, 1, 1, 1))
    else:
        x = kn_conv(x, state, "block0.0", (3, 3, 3, 3), stride=2)
        x = F.max_pool2d(x, 3, stride=2, padding=1)
    paddings = {2: (1, 0, 1, 0), 3: (0, 1, 0, 1), 4: (0, 0, 0, 0)}
    block = 0
    for stage, (num_blocks, _, _) in enumerate(STAGES[50][1], start=1):
        wrap = ".conv1x1" if stage == 4 else ""
        if stage > 1:
            name = f"trans_block{stage - 1}.conv{wrap}"
            x = F.max_pool2d(kn_conv(x.relu(), state, name, paddings[stage]), 2)
        for _ in range(num_blocks):
            block += 1
            name, padding = f"res_block{block}", (0,) * 4 if wrap else (1,) * 4
            y = kn_conv(x.relu(), state, f"{name}.conv1{wrap}", padding)
            y = kn_conv(y.relu(), state, f"{name}.conv2", (1, 1, 1, 1))
            x = x + kn_conv(y.relu(), state, f"{name}.conv3{wrap}")
    return linear(kernel_norm_1x1(x).relu().mean((2, 3)), state)


def published_knresnet13(x, state):
    x = kn_conv(x, state, "conv0", (1, 1, 1, 1))
    for i in (1, 2, 3, 4):
        y = kn_conv(x.relu(), state, f"res_block{i}.conv1", (1, 1, 1, 1))
        x = x + kn_conv(y.relu(), state, f"res_block{i}.conv2", (1, 1, 1, 1))
        if i < 4:
            x = F.max_pool2d(kn_conv(x.relu(), state, f"conv_block{i}.1", (1, 1, 1, 1)), 2)
    return linear(F.adaptive_avg_pool2d(kernel_norm_1x1(x).relu(), 2), state)


def published_resnet8(x, state):
    x = kn_conv(x, state, "conv_block1.0", (1, 1, 1, 1)).relu()
    for i in (1, 2):
        x = kn_conv(x, state, f"conv_block{i + 1}.0", (1, 1, 1, 1)).relu()
        x = F.max_pool2d(x, 2)
        y = kn_conv(x, state, f"res_block{i}.conv1", (1, 1, 1, 1)).relu()
        x = x + kn_conv(y, state, f"res_block{i}.conv2", (1, 1, 1, 1)).relu()
    return linear(F.adaptive_avg_pool2d(kernel_norm_1x1(F.max_pool2d(x, 2)), 2), state)


NUMERIC: dict[str, tuple[str, dict, dict, int, Callable]] = {
    "18 low": (
        "knresnet18",
        knresnet_shapes(18, 3),
        {"stem": "cifar"},
        32,
        lambda x, state: published_basic(18, x, state, low_resolution=True),
    ),
    "18 low mish": (
        "knresnet18",
        knresnet_shapes(18, 3),
        {"stem": "cifar", "activation": "mish"},
        32,
        lambda x, state: published_basic(18, x, state, low_resolution=True, act=F.mish),
    ),
    "18 high": (
        "knresnet18",
        knresnet_shapes(18, 7),
        {"stem": "imagenet"},
        112,
        lambda x, state: published_basic(18, x, state, low_resolution=False),
    ),
    "34 low": (
        "knresnet34",
        knresnet_shapes(34, 3),
        {"stem": "cifar"},
        32,
        lambda x, state: published_basic(34, x, state, low_resolution=True),
    ),
    "34 high": (
        "knresnet34",
        knresnet_shapes(34, 7),
        {"stem": "imagenet"},
        112,
        lambda x, state: published_basic(34, x, state, low_resolution=False),
    ),
    "50 low": (
        "knresnet50",
        knresnet_shapes(50, 3),
        {"stem": "cifar"},
        32,
        lambda x, state: published_knresnet50(x, state, low_resolution=True),
    ),
    "50 high": (
        "knresnet50",
        knresnet_shapes(50, 7),
        {"stem": "imagenet"},
        64,
        lambda x, state: published_knresnet50(x, state, low_resolution=False),
    ),
    "13": ("knresnet13", knresnet13_shapes(), {}, 32, published_knresnet13),
    "8": ("resnet8", resnet8_shapes(), {"norm": "kernel"}, 32, published_resnet8),
}


@pytest.mark.parametrize("case", NUMERIC)
def test_converted_nets_compute_what_the_published_ones_do(case):
    torch.manual_seed(0)
    name, shapes, options, size, published = NUMERIC[case]
    state = state_dict(shapes)
    net = meta_net(name, dropout_p=0.0, **options).eval()
    net.load_state_dict(convert_norm_torch_state_dict(state), assign=True)
    x = torch.rand(1, 3, size, size, dtype=torch.float64)
    with torch.inference_mode():
        torch.testing.assert_close(net(x), published(x, state), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("stem", "kernel"), [("cifar", 3), ("imagenet", 7)])
@pytest.mark.parametrize("depth", [18, 34, 50])
def test_every_published_state_dict_loads_strictly(depth, stem, kernel):
    state = state_dict(knresnet_shapes(depth, kernel), device="meta")
    assert len(state) == NUM_TENSORS[depth]
    net = meta_net(f"knresnet{depth}", stem=stem)
    net.load_state_dict(convert_norm_torch_state_dict(state), assign=True)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"model": state, "epoch": 99, "args": argparse.Namespace(lr=0.1)},
        lambda state: {"model_state_dict": state, "last_epoch": 1},
        lambda state: {f"module.{key}": value for key, value in state.items()},
        lambda state: {"model": {f"module.{key}": value for key, value in state.items()}},
    ],
    ids=["model", "model_state_dict", "module.", "both"],
)
def test_wrappings_and_prefixes_do_not_matter(wrap):
    state = state_dict(knresnet_shapes(18, 3), device="meta")
    converted = knorm.models.convert_norm_torch_state_dict(wrap(state))
    assert converted == convert_norm_torch_state_dict(state)


def without(*keys):
    state = state_dict(knresnet_shapes(18, 3), device="meta")
    return {key: value for key, value in state.items() if key not in keys}


REFUSED = {
    "nothing": ({}, r"not a published KNResNet: there are no keys"),
    "another net": (
        {"conv1.weight": torch.ones(1)},
        r"not a published KNResNet: none of their keys, but 'conv1.weight'",
    ),
    "one tensor short": (without("fc.bias"), "nearest to knresnet18, but it lacks 'fc.bias'"),
    "two tensors short": (
        without("fc.bias", "block0.0.bias"),
        "nearest to knresnet18, but it lacks 'block0.0.bias' and 1 more",
    ),
    "one too many": (
        without() | {"bn.weight": torch.ones(1)},
        "nearest to knresnet18, but it also has 'bn.weight'",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_unknown_and_incomplete_state_dicts_are_refused_in_one_line(case):
    state, message = REFUSED[case]
    with pytest.raises(ValueError, match=message) as raised:
        convert_norm_torch_state_dict(state)
    assert "\n" not in str(raised.value)


def test_torchvision_converter_refuses_other_keys():
    with pytest.raises(ValueError, match=r"not a torchvision ResNet: key 'layer1.0.conv1.gain.x'"):
        convert_torchvision_resnet_state_dict({"layer1.0.conv1.gain.x": torch.ones(1)})
    with pytest.raises(ValueError, match=r"not a torchvision FCN: key 'classifier.3.weight'"):
        convert_torchvision_fcn_state_dict({"classifier.3.weight": torch.ones(1)})


def test_safetensors_files_are_read(tmp_path):
    save_file = pytest.importorskip("safetensors.torch").save_file
    save_file({"fc.bias": torch.arange(3.0)}, tmp_path / "net.safetensors")
    assert load_checkpoint(tmp_path / "net.safetensors")["fc.bias"].tolist() == [0, 1, 2]


def test_a_published_training_checkpoint_is_read_with_its_command_line(tmp_path):
    path = tmp_path / "net.pth"
    args = argparse.Namespace(lr=0.1, model="knresnet18", workers=16)
    torch.save({"model": {"fc.bias": torch.ones(2)}, "epoch": 99, "args": args}, path)
    checkpoint = load_checkpoint(str(path))
    assert checkpoint["args"] == args
    assert checkpoint["model"]["fc.bias"].tolist() == [1, 1]
    assert argparse.Namespace not in torch.serialization.get_safe_globals()


class Program:
    """Pickles as a call that makes a directory."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_file_with_a_program_in_it_is_refused_and_not_run(tmp_path):
    torch.save({"model": Program(tmp_path / "made")}, tmp_path / "net.pth")
    with pytest.raises(ValueError, match=r"net.pth is no checkpoint, or holds more than tensors"):
        load_checkpoint(tmp_path / "net.pth")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("given", [None, [1], {1: torch.ones(1)}])
def test_what_is_no_state_dict_is_refused(given):
    with pytest.raises(ValueError, match="a state dict maps names to tensors"):
        convert_norm_torch_state_dict(given)


def test_a_state_dict_of_ours_is_not_taken_for_a_published_one():
    with pytest.raises(ValueError, match="ours already"):
        convert_norm_torch_state_dict(create_model("knresnet13", num_classes=10).state_dict())


def test_an_averaged_model_converts():
    shapes = knresnet_shapes(18, 3)
    state = {f"module.{name}.weight": torch.ones(shape) for name, shape in shapes.items()}
    state |= {f"module.{name}.bias": torch.ones(shape[0]) for name, shape in shapes.items()}
    plain = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    averaged = {"model_ema": state | {"n_averaged": torch.tensor(3)}}
    assert convert_norm_torch_state_dict(averaged) == convert_norm_torch_state_dict(plain)
