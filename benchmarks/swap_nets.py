"""The nets of the census of swaps: how they are built, their families, the smallest of each."""

import json
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from torch import nn

from knorm.swap.forms import find_norms
from knorm.training.files import write_text
from knorm.training.mistakes import UserMistakeError

NUM_CLASSES = 5
SMALLEST = "smallest"
TEST_NETS = "test_"  # timm's names for nets that only serve its own tests


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


def families(library: str) -> dict[str, str]:
    """The family of every architecture, by its name."""
    if library == "torchvision":
        import torchvision.models as models
        from torchvision.models import get_model_builder, list_models, segmentation

        names = [*list_models(module=models), *list_models(module=segmentation)]
        return {name: get_model_builder(name).__module__.rpartition(".")[2] for name in names}
    import timm

    return {
        name: family for family in timm.list_modules() for name in timm.list_models(module=family)
    }


def library_version(library: str) -> str:
    """Of timm or torchvision."""
    return __import__(library).__version__


def chosen(library: str, models: str, known: Mapping[str, str], record: Path) -> list[str]:
    """Names of the nets that shell-style patterns between commas, or `SMALLEST`, ask for, in order.

    Raises:
        UserMistakeError: there are none.
    """
    if models == SMALLEST:
        return smallest_of_each(library, known, record)
    names = [name for pattern in models.split(",") for name in known if fnmatchcase(name, pattern)]
    if not names:
        raise UserMistakeError(f"--models: {library} has no net {models!r}")
    return list(dict.fromkeys(names))


def smallest_of_each(library: str, known: Mapping[str, str], record: Path) -> list[str]:
    """The net with the fewest parameters of every family, among those that hold a batch norm.

    In a family without, among all; these come last. All nets are built for it, slowly though
    without memory; the choice is kept in `record` by the library's version for the next time.
    """
    key = f"{library} {library_version(library)}"
    kept = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    if key not in kept:
        kept[key] = _smallest(library, known)
        record.parent.mkdir(parents=True, exist_ok=True)
        write_text(record, json.dumps(kept, indent=1) + "\n")
    return kept[key]


def _smallest(library: str, known: Mapping[str, str]) -> list[str]:
    sizes: dict[str, tuple[bool, int, str]] = {}
    for name, family in known.items():
        if not name.startswith(TEST_NETS):
            net = _without_memory(BUILDERS[library], name)
            holds = any(norm.form.sees_batch for norm in find_norms(net))
            size = (not holds, sum(p.numel() for p in net.parameters()), name)
            sizes[family] = min(sizes.get(family, size), size)
    return [name for *_, name in sorted(sizes.values())]


def _without_memory(build: Callable[[str], nn.Module], name: str) -> nn.Module:
    try:
        with torch.device("meta"):
            return build(name)
    except RuntimeError:  # it looks at its weights while they are made
        return build(name)
