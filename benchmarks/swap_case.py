"""One net and one norm kind: is it swapped, does it learn, does any sample see another?

`benchmarks.swap_census` runs it in a process of its own for each net and kind.
"""

import copy
import warnings
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor, nn

import knorm
from benchmarks.swap_nets import BUILDERS
from knorm.swap.forms import find_norms

Row = dict[str, Any]
SIZES = (64, 128, 224, 299)
BY_ITSELF = "net fails by itself"


def answer(connection: Connection, library: str, name: str, kind: str) -> None:
    """Send the row of a net and a kind: what a process of its own does."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    try:
        row = judge(BUILDERS[library](name), kind)
    except Exception as error:  # the net itself cannot be built, or takes no images
        row = {"status": BY_ITSELF, "reason": f"{type(error).__name__}: {error}"}
    connection.send(row)


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
        row |= findings(net, x, kind)
        if kind == "none" and any(map(has_running_statistics, model.modules())):
            row |= folding(model, x)
        train_step(net, x)
    except Exception as error:  # whatever a net does: the census says it
        status = "failed" if learns(model, x) else BY_ITSELF
        return row | {"status": status, "reason": f"{type(error).__name__}: {error}"}
    return row | {"status": "ok"}


def fitting_input(model: nn.Module, count: int = 2) -> Tensor:
    """Random images of the smallest size that the net takes as it is."""
    config = getattr(model, "default_cfg", {})
    channels, *_, own = config.get("input_size", (3, 224, 224))
    for size in (*SIZES, own):
        x = torch.randn(count, channels, size, size)
        try:
            with torch.no_grad():
                model(x)
        except Exception:  # too small, or of a fixed size
            continue
        return x
    raise ValueError(f"takes no images of {SIZES} or {own} pixels as it is")


def tensors(out: Any) -> Iterator[Tensor]:
    """All tensors of whatever a net gives."""
    if isinstance(out, Tensor):
        yield out
    elif isinstance(out, dict):
        yield from tensors(list(out.values()))
    elif out is not None:
        for part in out:
            yield from tensors(part)


def main_output(out: Any) -> Tensor:
    """The first tensor of whatever a net gives."""
    return next(tensors(out))


def findings(net: nn.Module, x: Tensor, kind: str) -> Row:
    """What the columns say of the outputs of a net that was swapped."""
    quiet = still(copy.deepcopy(net))
    found: Row = {"independent": is_independent(quiet, x), "consistent": is_consistent(quiet, x)}
    if any(find_norms(quiet)):
        again, _ = knorm.swap_norm(quiet.eval(), kind)  # type: ignore[arg-type]
        with torch.no_grad():
            found["again"] = torch.equal(main_output(quiet(x)), main_output(again(x)))
    return found


def train_step(net: nn.Module, x: Tensor) -> None:
    """One step of SGD, gradients clipped to norm 1, on all outputs (N, classes, ...).

    Raises:
        ValueError: gradients or the outputs after the step are not finite.
    """
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    losses = [-out.log_softmax(1)[:, 0].mean() for out in tensors(net.train()(x))]
    torch.stack(losses).sum().backward()
    gradients = [p.grad for p in net.parameters() if p.grad is not None]
    if not gradients or not all(gradient.isfinite().all() for gradient in gradients):
        raise ValueError("gradients are not finite")
    nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    with torch.no_grad():
        if not main_output(net(x)).isfinite().all():
            raise ValueError("outputs are not finite after a step")


def learns(model: nn.Module, x: Tensor) -> bool:
    """Whether the net takes a step of training as it was given."""
    try:
        train_step(model, x)
    except Exception:  # the net's own business, told apart from what a swap did to it
        return False
    return True


def still(net: nn.Module) -> nn.Module:
    """The net itself, without dropout of any sort."""
    for module in net.modules():
        for name in ("p", "drop_prob", "dropout_p", "attn_dropout_rate", "drop_rate"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    return net


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


def folding(model: nn.Module, x: Tensor) -> Row:
    """The largest change of outputs in evaluation when all batch norms are folded.

    In float32 and float64 (where the net itself takes that), and what float32 changes by itself.
    Scales, shifts and running statistics are made those of no new net before.
    """
    net = still(copy.deepcopy(model))
    for module in filter(has_running_statistics, net.modules()):
        module.momentum = 1.0  # type: ignore[assignment]
        for name, parameter in module.named_parameters(recurse=False):
            parameter.data.normal_(float(name == "weight"), 0.1)
    with torch.no_grad():
        net.train()(x)
        expected, outputs = with_and_without(net.eval(), x)
        found = {"fold_change": change(outputs, expected)}
        try:
            net.double()(x.double())
        except RuntimeError:  # it makes tensors of float32 on its own
            return found
        exact, outputs = with_and_without(net, x.double())
        found["fold_change_double"] = change(outputs, exact)
        return found | {"rounding": change(expected, exact)}


def has_running_statistics(module: nn.Module) -> bool:
    """Whether it is a batch norm that can be folded."""
    return isinstance(getattr(module, "running_var", None), Tensor)


def with_and_without(net: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """The first output of the net, and that of the net with its batch norms folded."""
    folded, _ = knorm.swap_norm(
        net, "none", fold=True, modules=lambda name, module: has_running_statistics(module)
    )
    return main_output(net(x)), main_output(folded(x))


def change(outputs: Tensor, expected: Tensor) -> str:
    """The largest difference, over the largest value."""
    return f"{(outputs - expected).abs().max() / expected.abs().max():.1e}"
