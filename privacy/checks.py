"""Proof before training that gradients are the images' own, on a few made-up images.

1. Independence: with another image in one place, every other image's gradient keeps its bits; with
   an image less, first, last or between, it keeps its value. No buffer changes.
2. Completeness: the images' gradients add up to the gradient that torch computes for the batch.
3. Sensitivity: what one image adds to the sum has at most the norm that it is clipped to.

No image of the data set is looked at. What the checks find wrong is named with its module.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from knorm.training.mistakes import UserMistakeError
from knorm.training.seeds import seed_torch
from privacy.clipping import clipped_sums
from privacy.config import Privacy
from privacy.contributions import Contribution, Samples, wide
from privacy.per_record import Recorder, trainable
from privacy.rules import RULES

RECORDS, MORE, SEED = 4, 9, 20
RATES = ("p", "drop_prob", "dropout_p", "dropout", "drop", "prob")
CONTRASTS = (1, 0, 10)  # of the image that the last one is exchanged for
TOLERANCE = 1e-3  # of sums, relative to the parameter's gradient
NEGLIGIBLE = 1e-4  # part of the whole gradient below which rounding may be all there is
SLACK = 1e-4  # of norms in float32, relative to the bound
LossOf = Callable[[nn.Module, Any], tuple[Tensor, Any]]
MakeBatch = Callable[[int, int], Any]
MENDING = "give --model.norm kernel, group or layer, or knorm.swap_norm(net, 'group')"


@dataclass(frozen=True)
class Proof:
    """What the checks measured."""

    records: int
    parameters: int
    without_one: bool
    """whether gradients were compared with those where a record is missing; not for nets that draw
    random numbers in ways unknown"""
    largest_difference: float
    """of a sum of gradients from torch's, relative to the norm of the latter"""
    largest_norm: float
    """of one image's part of the sum, over the norm that it is clipped to"""


def prove(net: nn.Module, loss_of: LossOf, make_batch: MakeBatch, privacy: Privacy) -> Proof:
    """Check net and loss in training mode; the net stays as it is.

    Args:
        loss_of: as for `privacy.step.private_step`.
        make_batch: a batch of so many records (with their views) drawn from a seed.

    Raises:
        UserMistakeError: the guarantee would not hold; names the module or the parameter.
    """
    refuse_batch_statistics(net)
    net = deepcopy(net).train()
    fill_zeros(net)
    with fresh_seed():
        one, buffers = make_batch(RECORDS, SEED), [b.clone() for b in net.buffers()]
        found = gradients(net, loss_of, one, privacy)
        for mixed in with_others_last(one, make_batch(RECORDS, SEED + 1)):
            check_independent(net, found, gradients(net, loss_of, mixed, privacy), (one, mixed))
        check_buffers(net, buffers)
        without_one = check_fewer(net, loss_of, make_batch(MORE, SEED + 2), privacy)
        difference = check_complete(net, loss_of, one, found, privacy)
        norm = check_bounded(found, privacy)
    return Proof(RECORDS, len(found), without_one, difference, norm)


def refuse_batch_statistics(net: nn.Module) -> None:
    """Raise for norms over the batch, whether or not they have parameters."""
    for name, module in net.named_modules():
        tracked = isinstance(module, _InstanceNorm) and module.track_running_stats
        if isinstance(module, _BatchNorm) or tracked:
            kind = type(module).__name__
            raise UserMistakeError(f"{name} ({kind}) mixes the images of a batch; {MENDING}")


def fill_zeros(net: nn.Module) -> None:
    """Small numbers in place of parameters that begin as zero, which would hide all before them."""
    generator = torch.Generator().manual_seed(SEED)
    for parameter in net.parameters():
        if not parameter.any():
            values = torch.randn(parameter.shape, generator=generator)
            parameter.data.copy_(0.1 * values)


@contextmanager
def fresh_seed() -> Iterator[None]:
    """Leave torch's generators as they were."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        yield


def gradients(
    net: nn.Module, loss_of: LossOf, batch: Any, privacy: Privacy
) -> dict[str, Contribution]:
    """The records' gradients, with the draws of one seed."""
    recorder = Recorder(net, RULES, thin=privacy.ghost)
    seed_torch(SEED)
    count = batch.inputs.shape[0] // privacy.views
    with naming_modules(net), recorder.recording(count) as tape:
        loss, _ = loss_of(recorder, batch)
    (loss / privacy.views).backward()
    return recorder.gradients(tape)


@contextmanager
def naming_modules(net: nn.Module) -> Iterator[None]:
    """Around a forward pass: what cannot be computed record by record is the user's mistake."""
    entered = [""]
    handles = [
        module.register_forward_pre_hook(
            lambda m, _, name=name: entered.append(f"{name} ({type(m).__name__})")
        )
        for name, module in net.named_modules()
    ]
    try:
        yield
    except (RuntimeError, ValueError, TypeError) as error:
        raise UserMistakeError(
            f"{entered[-1]} uses its parameters in a way that cannot be followed image by image "
            f"({str(error).splitlines()[0]}); freeze it, or write it in plain torch functions"
        ) from error
    finally:
        for handle in handles:
            handle.remove()


def check_buffers(net: nn.Module, before: Sequence[Tensor]) -> None:
    """No buffer was written in training: what it learns of images would have no noise."""
    for (name, buffer), old in zip(net.named_buffers(), before, strict=True):
        if not torch.equal(buffer, old):
            raise UserMistakeError(
                f"{name} changes with the images that the net is trained on, and would be saved "
                "without noise; take a net without running statistics"
            )


def check_fewer(net: nn.Module, loss_of: LossOf, batch: Any, privacy: Privacy) -> bool:
    """Without one of the records the others' gradients are what they were; False: cannot be told.

    Dropout is off, for a record less means other draws. In float64, for other sizes round else.
    """
    net, batch = widened(without_draws(deepcopy(net)), loss_of, batch)
    whole = gradients(net, loss_of, batch, privacy)
    if draws(net, loss_of, batch):
        return False
    norm = squared_norm(whole).sqrt()
    for left_out in (0, MORE // 2, MORE - 1):
        kept = [record for record in range(MORE) if record != left_out]
        fewer = gradients(net, loss_of, of_records(batch, kept, privacy.views), privacy)
        apart = {
            name: Samples(part.samples() - whole[name].samples()[kept])
            for name, part in fewer.items()
        }
        if not (squared_norm(apart).sqrt() <= TOLERANCE * norm.max()).all():
            raise UserMistakeError(
                "the gradient for one image depends on how many others the batch has, or on its "
                "place among them: in the net, or in the loss, which must be a sum"
            )
    return True


def widened(net: nn.Module, loss_of: LossOf, batch: Any) -> tuple[nn.Module, Any]:
    """Both in float64; as they are, where the net itself decides in which precision it computes."""
    wide_net, wide_batch = deepcopy(net).double(), type(batch)(*map(in_double, batch))
    try:
        loss_of(wide_net, wide_batch)
    except RuntimeError:
        return net, batch
    return wide_net, wide_batch


def draws(net: nn.Module, loss_of: LossOf, batch: Any) -> bool:
    """Whether random numbers have a part in the loss."""
    values: list[Tensor] = []
    for seed in (SEED, SEED + 1):
        seed_torch(seed)
        with torch.no_grad():
            values.append(loss_of(net, batch)[0])
    return not torch.equal(*values)


def squared_norm(found: Mapping[str, Contribution]) -> Tensor:
    """(N,) of all parameters together."""
    return torch.stack([part.squared_norms() for part in found.values()]).sum(0)


def without_draws(net: nn.Module) -> nn.Module:
    """The net, its rates of dropout at zero, by the names that torch, timm and we give them."""
    for module in net.modules():
        for name in RATES:
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    return net


def of_records(batch: Any, kept: Sequence[int], views: int) -> Any:
    """The batch of these records alone."""
    rows = [record * views + view for record in kept for view in range(views)]
    parts = (
        len(rows) if name == "real" else part[rows] if isinstance(part, Tensor) else part
        for name, part in zip(batch._fields, batch, strict=True)
    )
    return type(batch)(*parts)


def with_others_last(one: Any, other: Any) -> Iterator[Any]:
    """The batch `one` with another last record: those of `other` and copies of its own."""
    for contrast in CONTRASTS:
        yield with_last(one, other, RECORDS - 1, contrast)
    for record in range(RECORDS - 1):  # what picks the hardest picks two of them now
        yield with_last(one, one, record)


def with_last(one: Any, other: Any, record: int, contrast: float = 1) -> Any:
    """The batch `one`, its last record that of `other`, whose pixels are times `contrast`."""

    def exchanged(a: Any, b: Any) -> Any:
        if not isinstance(a, Tensor):
            return a
        views = a.shape[0] // RECORDS
        new = b[record * views : (record + 1) * views]
        return torch.cat([a[:-views], new * contrast if new.is_floating_point() else new])

    return type(one)(*(exchanged(a, b) for a, b in zip(one, other, strict=True)))


def check_independent(
    net: nn.Module,
    before: dict[str, Contribution],
    after: dict[str, Contribution],
    batches: tuple[Any, Any],
) -> None:
    """All records but the last have the same gradients, bit for bit."""
    for name in before:
        if not torch.equal(before[name].samples()[:-1], after[name].samples()[:-1]):
            where = first_mixer(net, *(batch.inputs for batch in batches))
            raise UserMistakeError(
                f"the gradient of {name} for one image depends on the other images of the batch: "
                + (f"{where} mixes them; {MENDING}" if where else "the loss mixes them")
            )


def first_mixer(net: nn.Module, one: Tensor, other: Tensor) -> str | None:
    """The first module whose output for the first record changes with the last record."""
    seen: dict[str, Tensor] = {}
    mixers: list[str] = []

    def watch(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if not isinstance(output, Tensor) or output.shape[0] % RECORDS:
                return
            first = output[: output.shape[0] // RECORDS].detach().clone()  # in-place layers
            if name in seen and not torch.equal(seen[name], first):
                mixers.append(f"{name} ({type(module).__name__})")
            seen.setdefault(name, first)

        return hook

    handles = [m.register_forward_hook(watch(name)) for name, m in net.named_modules() if name]
    for images in (one, other):
        seed_torch(SEED)
        net(images)
    for handle in handles:
        handle.remove()
    return mixers[0] if mixers else None


def check_complete(
    net: nn.Module,
    loss_of: LossOf,
    batch: Any,
    found: dict[str, Contribution],
    privacy: Privacy,
) -> float:
    """The records' gradients add up to the ordinary one; the largest relative difference."""
    differences = differences_of_sums(net, loss_of, batch, found, privacy)
    if not largest(differences)[1] <= TOLERANCE:  # rounding, or wrong: float64 tells which
        net, batch = widened(net, loss_of, batch)
        found = gradients(net, loss_of, batch, privacy)
        differences = differences_of_sums(net, loss_of, batch, found, privacy)
    name, difference = largest(differences)
    if not difference <= TOLERANCE:
        raise UserMistakeError(
            f"the images' gradients of {name} do not add up to its gradient (relative "
            f"difference {difference:.1e}); it is used in a way that cannot be followed"
        )
    return difference


def differences_of_sums(
    net: nn.Module,
    loss_of: LossOf,
    batch: Any,
    found: dict[str, Contribution],
    privacy: Privacy,
) -> dict[str, float]:
    """How far each parameter's sum is from torch's gradient, relative to the latter's norm."""
    seed_torch(SEED)
    loss, _ = loss_of(net, batch)
    parameters = dict(trainable(net))
    ordinary = torch.autograd.grad(
        loss / privacy.views, list(parameters.values()), allow_unused=True, materialize_grads=True
    )
    least = NEGLIGIBLE * torch.stack([wide(grad).norm() for grad in ordinary]).norm()
    differences: dict[str, float] = {}
    for name, grad in zip(parameters, ordinary, strict=True):
        difference = wide(found[name].samples().sum(0) - grad).norm()
        differences[name] = (difference / (wide(grad).norm() + least)).item()
    return differences


def largest(differences: dict[str, float]) -> tuple[str, float]:
    """The largest and its name; what is no number is larger than any."""
    return max(differences.items(), key=lambda item: math.inf if math.isnan(item[1]) else item[1])


def in_double(value: Any) -> Any:
    """A floating-point tensor in float64; anything else as it is."""
    is_real = isinstance(value, Tensor) and value.is_floating_point()
    return value.double() if is_real else value


def check_bounded(found: dict[str, Contribution], privacy: Privacy) -> float:
    """Every record alone adds at most the clipping norm; the largest over that norm."""
    largest = 0.0
    whole = {name: part.samples() for name, part in found.items()}
    for record in range(RECORDS):
        alone = {name: Samples(grads[record : record + 1]) for name, grads in whole.items()}
        sums = clipped_sums(alone, privacy.clipping, privacy.max_norm).sums
        norm = torch.stack([value.norm() for value in sums.values()]).norm().item()
        largest = max(largest, norm / privacy.max_norm)
    if largest > 1 + SLACK:
        raise RuntimeError(f"clipping leaves a norm of {largest} times its bound")
    return largest
