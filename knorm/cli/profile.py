"""Time and memory of a net, also against the same net with another norm.

    knorm profile knresnet18 --image_size 32 --batch_size 16 --against batch
    knorm profile resnet50 --norm kernel --image_size 224 --trace step.json

Medians of rounds in which the nets take turns, on random images in float32. "forward" is in
evaluation mode without gradients; "step" is a forward and a backward pass in training mode, without
an optimizer. "saved" is what autograd keeps for the backward pass. MACs are those of convolutions
and matrix products for one image (FLOPs are twice as many); what kernel normalization adds to them
is counted apart.
"""

import statistics
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from knorm.cli.nets import (
    add_arguments,
    image_size_of,
    in_words,
    labels_pixels,
    make_net,
    net_options,
    too_large_for,
)
from knorm.training.cost import count_parameters, macs_by_module
from knorm.training.mistakes import (
    OneLineParser,
    UserMistakeError,
    check_positive,
    mistakes_of_the_user,
)
from knorm.training.profile import (
    forward_pass,
    in_turns,
    over,
    saved_bytes,
    training_step,
    write_trace,
)
from knorm.training.tables import columns

HEAD = ("", "forward ms", "img/s", "step ms", "img/s", "saved MiB", "MMACs", "kernel norm", "size")


def main(argv: Sequence[str]) -> None:
    """Measure and print."""
    options = parse_options(argv)
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device("cpu")
    if torch.accelerator.is_available() and not options.cpu:
        device = torch.accelerator.current_accelerator() or device
    given = net_options(options)
    torch.manual_seed(0)
    nets = make_nets(options, given, device)
    size = image_size_of(options)
    shape = (options.batch_size, options.in_chans, size, size)
    x = torch.randn(shape, device=device)
    labels = (len(x), size, size) if labels_pixels(options.model) else (len(x),)
    target = torch.randint(given["num_classes"], labels, device=device)
    with too_large_for(size):
        rows, ratios = measure(nets, x, target, options.rounds)
    print(
        f"{options.model}  {in_words(given)}\n"
        f"batch {'x'.join(map(str, shape))}  float32  {device}  {torch.get_num_threads()} threads  "
        f"torch {torch.__version__}  {options.rounds} rounds\n"
    )
    print("\n".join((columns(HEAD, rows), *ratios)))
    if options.trace:
        write_trace(next(iter(nets.values())), x, target, options.trace)
        print(f"a step as a Chrome trace: {options.trace}")


def parse_options(argv: Sequence[str]) -> Namespace:
    """What is to be measured."""
    parser: ArgumentParser = OneLineParser(
        prog="knorm profile", description=__doc__, formatter_class=RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--against", metavar="NORM", help="compare with this norm")
    parser.add_argument("--batch_size", type=int, default=16, help="images at a time; default 16")
    parser.add_argument("--rounds", type=int, default=10, help="default 10")
    parser.add_argument("--threads", type=int, help="of the CPU; default: as torch decides")
    parser.add_argument("--cpu", action="store_true", help="stay on the CPU")
    parser.add_argument("--trace", type=Path, metavar="FILE", help="write a Chrome trace of a step")
    options = parser.parse_args(argv)
    with mistakes_of_the_user():
        for name in ("batch_size", "rounds", "num_classes", "threads"):
            if getattr(options, name) is not None:
                check_positive(name, getattr(options, name))
    return options


def make_nets(options: Namespace, given: dict, device: torch.device) -> dict[str, nn.Module]:
    """Norm -> net; the one that is asked for first."""
    net = make_net(options.model, given)
    if given.get("aux"):
        raise UserMistakeError("--option aux: a net is measured without its auxiliary head")
    norm = options.norm or norm_of(net)
    nets = {norm: net}
    if options.against == norm:
        raise UserMistakeError(f"--against {norm}: the net has this norm itself")
    if options.against:
        nets[options.against] = make_net(options.model, given | {"norm": options.against})
    return {name: net.to(device) for name, net in nets.items()}


def norm_of(net: nn.Module) -> str:
    """The kind that a net has where none is asked for."""
    return getattr(getattr(type(net), "Options", None), "norm", None) or "its own norm"


def measure(
    nets: dict[str, nn.Module], x: Tensor, target: Tensor, rounds: int
) -> tuple[list[list[str]], list[str]]:
    """A line of the table for each net, and a sentence for each ratio to the last of them."""
    macs = {name: macs_by_module(net, x[:1])[""] for name, net in nets.items()}
    kept = {name: saved_bytes(net, x, target) for name, net in nets.items()}
    works = {
        "forward": {name: partial(forward_pass, net, x) for name, net in nets.items()},
        "step": {name: partial(training_step, net, x, target) for name, net in nets.items()},
    }
    times = {kind: in_turns(work, x.device, rounds) for kind, work in works.items()}
    rows = []
    for name, net in nets.items():
        speeds = []
        for kind in works:
            seconds = statistics.median(times[kind][name])
            speeds += [f"{1000 * seconds:.2f}", f"{len(x) / seconds:.0f}"]
        counts = [f"{count / 1e6:.2f}" for count in macs[name]]
        rows.append(
            [name, *speeds, f"{kept[name] / 2**20:.1f}", *counts, f"{count_parameters(net):,}"]
        )
    *others, base = nets
    ratios = [
        "{name} over {base}, {kind}: {time_ratio:.2f} (quartiles {lower_quartile:.2f} to "
        "{upper_quartile:.2f})".format(
            name=name, base=base, kind=kind, **over(times[kind][name], times[kind][base])
        )
        for name in others
        for kind in works
    ]
    return rows, ratios
