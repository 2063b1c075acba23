"""One net and one norm kind: is it swapped, does it learn, does any sample see another?

`benchmarks.swap_census` runs it in a process of its own for each net and kind.
"""

import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor, nn

import knorm
from knorm.swap.forms import find_norms

Row = dict[str, Any]
NUM_CLASSES = 5
SIZES = (64, 128, 224)


def answer(connection: Connection, library: str, name: str, kind: str) -> None:
    """Send the row of a net and a kind: what a process of its own does."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    try:
        row = judge(BUILDERS[library](name), kind)
    except Exception as error:  # the net itself cannot be built, or takes no images
        row = {"status": "not judged", "reason": f"{type(error).__name__}: {error}"}
    connection.send(row)


def build_timm(name: str) -> nn.Module:
    """timm's net with random weights and no dropout."""
    import timm

    return timm.create_model(name, num_classes=NUM_CLASSES)


def build_torchvision(name: str) -> nn.Module:
    """torchvision's net for classification or segmentation, with random weights."""
    from torchvision.models import get_model

    backbone = {"weights_backbone": None} if ("resnet" in name or "mobilenet" in name) else {}
    try:
        return get_model(name, num_classes=NUM_CLASSES, **backbone)
    except TypeError:
        return get_model(name, num_classes=NUM_CLASSES)


BUILDERS: dict[str, Callable[[str], nn.Module]] = {
    "timm": build_timm,
    "torchvision": build_torchvision,
}


def judge(model: nn.Module, kind: str) -> Row:
    """The row: how far it came, and why not further."""
    norms = list(find_norms(model))
    row: Row = {
        "norms": len(norms),
        "batch_norms": sum(norm.form.sees_batch for norm in norms),
        "status": "no norm",
    }
    if not norms:
        return row
    x = fitting_input(model)
    try:
        net, report = knorm.swap_norm(model, kind)  # type: ignore[arg-type]
    except ValueError as error:
        return row | {"status": "refused", "reason": str(error)}
    row |= {
        "replaced": sum(not report_row.stays for report_row in report.rows),
        "stay": sum(report_row.stays for report_row in report.rows),
        "parameters_before": report.parameters_before,
        "parameters_after": report.parameters_after,
    }
    try:
        train_step(net, x)
        still(net)
        row |= {"independent": is_independent(net, x), "consistent": is_consistent(net, x)}
    except Exception as error:  # whatever a net does: the census says it
        return row | {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
    return row | {"status": "ok"}


def fitting_input(model: nn.Module) -> Tensor:
    """Two random images of the smallest size that the net takes as it is."""
    config = getattr(model, "default_cfg", {})
    channels, *_, own = config.get("input_size", (3, 224, 224))
    for size in (*SIZES, own):
        x = torch.randn(2, channels, size, size)
        try:
            with torch.no_grad():
                model(x)
        except Exception:  # too small, or of a fixed size
            continue
        return x
    raise ValueError(f"takes no images of {SIZES} or {own} pixels as it is")


def main_output(out: Any) -> Tensor:
    """The first tensor of whatever a net gives."""
    while not isinstance(out, Tensor):
        out = next(iter(out.values())) if isinstance(out, dict) else out[0]
    return out


def train_step(net: nn.Module, x: Tensor) -> None:
    """One step of gradient descent; all gradients are finite."""
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    main_output(net.train()(x)).square().mean().backward()
    gradients = [p.grad for p in net.parameters() if p.grad is not None]
    if not gradients or not all(gradient.isfinite().all() for gradient in gradients):
        raise ValueError("gradients are not finite")
    optimizer.step()
    optimizer.zero_grad()


def still(net: nn.Module) -> None:
    """No dropout of any sort."""
    for module in net.modules():
        for name in ("p", "drop_prob", "dropout_p", "attn_dropout_rate", "drop_rate"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)


def is_independent(net: nn.Module, x: Tensor) -> bool:
    """Another second sample changes nothing of the first, bit for bit, in training."""
    other = torch.cat([x[:1], torch.randn_like(x[1:])])
    with torch.no_grad():
        return torch.equal(main_output(net.train()(x))[0], main_output(net(other))[0])


def is_consistent(net: nn.Module, x: Tensor) -> bool:
    """Training and evaluation give the same outputs when nothing drops."""
    with torch.no_grad():
        outputs = [main_output(net.train(mode)(x)) for mode in (True, False)]
    return outputs[0].shape == outputs[1].shape and torch.allclose(*outputs, 1e-3, 1e-4)
