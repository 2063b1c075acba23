"""One net: are the gradients of every record those of its own loss, or are they refused?

`benchmarks.per_record_census` runs it in a process of its own for each net, its norms, and each way
to per-record gradients. Gradients are compared in float64, in training mode, without dropout of any
sort; our checks before training then see the net in float32, as in a run.
"""

import math
import warnings
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import timm
import torch
from opacus import GradSampleModule
from opacus.validators import ModuleValidator
from torch import Tensor, nn

from benchmarks.swap_case import BY_ITSELF, fitting_input, still, tensors
from benchmarks.swap_nets import NUM_CLASSES
from knorm.choices import NormKind
from knorm.swap import swap_norm
from knorm.swap.forms import find_norms
from knorm.training.mistakes import UserMistakeError
from privacy.checks import fill_zeros, prove
from privacy.config import Privacy
from privacy.contributions import Contribution, Samples
from privacy.per_record import Recorder, trainable
from privacy.rules import RULES

Row = dict[str, Any]
Found = Mapping[str, Contribution]
RECORDS = 3
TOLERANCE = 1e-8  # of the gradient of all parameters together
SMALL = (64, 128)  # pixels, for nets that are built for one size
LOUD = (RuntimeError, ValueError, TypeError)
PRIVACY = Privacy(epsilon=1.0, delta=1e-5)  # clipping alone matters here
OWN = "own"  # norms: those that the net has, though group norms in place of batch norms


class Images(NamedTuple):
    """A batch for `privacy.checks`."""

    inputs: Tensor
    labels: Tensor


class Difference(NamedTuple):
    """The largest difference from the gradients of one record at a time, and its parameter."""

    size: float
    """relative to the record's gradient of all parameters together"""
    parameter: str


def answer(connection: Connection, name: str, norms: str, way: str) -> None:
    """Send the row of a net, its norms and a way: what a process of its own does."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    try:
        net = build(name)
        x = fitting_input(net, RECORDS)
    except Exception as error:  # the net itself cannot be built, or takes no images
        connection.send({"status": BY_ITSELF, "reason": one_line(error)})
    else:
        connection.send(judge(net, x, norms, way))


def build(name: str) -> nn.Module:
    """timm's net, for small images where it is built for a size and then runs."""
    for size in SMALL:
        try:
            net = timm.create_model(name, num_classes=NUM_CLASSES, img_size=size)
            with torch.no_grad():
                net(torch.randn(2, 3, size, size))
        except Exception:  # it has no such option, or is not for this size
            continue
        return net
    return timm.create_model(name, num_classes=NUM_CLASSES)


def judge(net: nn.Module, x: Tensor, norms: str, way: str) -> Row:
    """The row of a net for images (N, C, H, W); how far it came, and why not further."""
    batch_norms = sum(norm.form.sees_batch for norm in find_norms(net))
    row: Row = {
        "batch_norms": batch_norms,
        "parameters": sum(p.numel() for p in net.parameters()),
        "size": x.shape[-1],
    }
    kind: NormKind | None = ("group" if batch_norms else None) if norms == OWN else "kernel"
    try:
        net = swap_norm(net, kind)[0] if kind else net
    except ValueError as error:
        return row | {"status": "not swapped", "reason": one_line(error)}
    still(net.train())
    fill_zeros(net)
    batch = Images(x, torch.arange(len(x)) % NUM_CLASSES)
    try:
        expected = one_by_one(net, batch)
    except Exception as error:  # it takes no single image, or no float64
        return row | {"status": BY_ITSELF, "reason": one_line(error)}
    return row | WAYS[way](net, batch, expected)


def losses(net: Callable[[Tensor], Any], batch: Images) -> Tensor:
    """(N,): cross-entropy, the mean over places, summed over all outputs (N, classes, ...)."""
    rows = torch.arange(len(batch.labels))
    outputs = tensors(net(batch.inputs))
    each = [-out.log_softmax(1)[rows, batch.labels] for out in outputs]
    return torch.stack([values.reshape(len(rows), -1).mean(1) for values in each]).sum(0)


def one_by_one(net: nn.Module, batch: Images) -> dict[str, Tensor]:
    """The gradients (N, *shape) from a pass for each record alone."""
    parameters = dict(trainable(net))
    rows = [
        torch.autograd.grad(
            losses(net, Images(batch.inputs[i : i + 1], batch.labels[i : i + 1])).sum(),
            list(parameters.values()),
            materialize_grads=True,
        )
        for i in range(len(batch.labels))
    ]
    columns = zip(*rows, strict=True)
    return {name: torch.stack(grads) for name, grads in zip(parameters, columns, strict=True)}


def difference(found: Found, expected: Mapping[str, Tensor]) -> Difference:
    """How far samples, squared norms and a weighted sum are from those of the expected gradients.

    Relative to the norm, its square, and the norm of the sum of all parameters together.
    """
    squares = {name: grads.flatten(1).square().sum(1) for name, grads in flat(expected).items()}
    whole = torch.stack(list(squares.values())).sum(0).sqrt()  # (N,)
    weights = torch.linspace(0.5, 1, len(whole))
    worst = Difference(0.0, "")
    for name, grads in flat(expected).items():
        part = found[name]
        sums = part.weighted(weights).flatten() - weights @ grads
        apart = [
            (part.samples().reshape(grads.shape) - grads).norm(dim=1) / whole,
            (part.squared_norms() - squares[name]).abs() / whole.square(),
            (sums.norm() / (weights @ whole)).view(1),
        ]
        size = torch.cat(apart).nan_to_num(math.inf, math.inf).max().item()
        worst = max(worst, Difference(size, name))
    return worst


def flat(grads: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """(N, *shape) -> (N, P)"""
    return {name: value.reshape(len(value), -1) for name, value in grads.items()}


def ours(net: nn.Module, batch: Images, expected: dict[str, Tensor]) -> Row:
    """`privacy.per_record` with its rules, whole and thin, and what the checks say of the net."""
    row: Row = {}
    try:
        for column, thin in {"difference": False, "difference_thin": True}.items():
            row |= measured(column, difference(recorded(net, batch, thin=thin), expected))
    except LOUD as error:
        row = {"status": "refused", "reason": one_line(error)}
    torch.set_default_dtype(torch.float32)
    try:
        prove(net.float(), checked_loss, made_up(batch), PRIVACY)
    except LOUD as error:
        return row | {"status": "refused", "reason": one_line(error)}
    return {"status": verdict(row)} | row


def recorded(net: nn.Module, batch: Images, *, thin: bool) -> Found:
    """The gradients of every record."""
    recorder = Recorder(net, RULES, thin=thin)
    with recorder.recording(len(batch.labels)) as tape:
        loss = losses(recorder, batch).sum()
    loss.backward()
    return recorder.gradients(tape)


def checked_loss(net: nn.Module, batch: Images) -> tuple[Tensor, dict[str, Tensor]]:
    """The sum of the records' losses, and nothing to log."""
    return losses(net, batch).sum(), {}


def made_up(like: Images) -> Callable[[int, int], Images]:
    """What makes batches for `prove`."""

    def make_batch(count: int, seed: int) -> Images:
        generator = torch.Generator().manual_seed(seed)
        inputs = torch.randn(count, *like.inputs.shape[1:], generator=generator)
        return Images(inputs, torch.randint(NUM_CLASSES, (count,), generator=generator))

    return make_batch


def opacus(net: nn.Module, batch: Images, expected: dict[str, Tensor]) -> Row:
    """Opacus's hooks, after its validator, with layers that work in place told not to."""
    for module in net.modules():
        if isinstance(getattr(module, "inplace", None), bool):
            module.inplace = False  # type: ignore[assignment]
    try:
        errors = ModuleValidator.validate(net)
        if errors:
            raise errors[0]
        wrapped = GradSampleModule(net, loss_reduction="sum")
        losses(wrapped, batch).sum().backward()
        records = len(batch.labels)
        found = {name: Samples(samples_of(name, p, records)) for name, p in trainable(net)}
    except Exception as error:  # whatever it raises is loud
        return {"status": "refused", "reason": one_line(error)}
    row = measured("difference", difference(found, expected))
    return row | {"status": verdict(row)}


def samples_of(name: str, parameter: Any, records: int) -> Tensor:
    """(N, *shape); raises as Opacus's optimizer does where there are none, or not N."""
    samples = parameter.grad_sample
    if samples is None:
        raise ValueError(f"Per sample gradient is not initialized: {name}")
    samples = samples if isinstance(samples, Tensor) else torch.stack(samples).sum(0)
    if len(samples) != records:
        raise ValueError(f"{name} has {len(samples)} gradients for {records} records")
    return samples


WAYS: dict[str, Callable[[nn.Module, Images, dict[str, Tensor]], Row]] = {
    "privacy": ours,
    "opacus": opacus,
}


def measured(column: str, found: Difference) -> Row:
    """The cells of a difference; the parameter is told where it matters."""
    where = {"reason": f"{column}: {found.parameter}"} if found.size > TOLERANCE else {}
    return {column: f"{found.size:.1e}"} | where


def verdict(row: Row) -> str:
    """Of differences alone: "exact" or "wrong"."""
    sizes = [float(row[column]) for column in row if column.startswith("difference")]
    return "exact" if max(sizes, default=math.inf) <= TOLERANCE else "wrong"


def one_line(error: Exception) -> str:
    """The first line of what an error says; a user's mistake is one already."""
    lines = str(error).strip().splitlines() or [""]
    return (
        lines[0] if isinstance(error, UserMistakeError) else f"{type(error).__name__}: {lines[0]}"
    )
