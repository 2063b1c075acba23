"""Exports: the file or folder, and the proof that it computes the same."""

import json
import os
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from classification.config import Recipe
from classification.data import load_data
from classification.evaluation import load_net
from knorm.training.files import check_file
from knorm.training.launch import start
from knorm.training.loading import Loaded
from knorm.training.mistakes import UserMistakeError, mistakes_of_the_user

TOLERANCE = 1e-4
CHECKED = 5  # test images
SCALING = "(pixels / 255 - mean) / std"


def carry_out(options: Namespace) -> None:
    """The plan of an export; where it goes to is tried before what takes long."""
    with mistakes_of_the_user():
        loaded = load_net(
            options.run_dir, weights=options.weights, eval_stats=options.eval_stats, cpu=True
        )
    recipe, net, options.weights = loaded.recipe, loaded.net, loaded.weights
    check_deterministic(net.eval())
    if options.out:
        import onnxruntime  # noqa: F401

        check_file(options.out)
    if options.hub_folder or options.push:
        from classification.hub import check_destination

        check_destination(options.run_dir, options.hub_folder, options.push)
    images = test_images(loaded)
    facts = facts_of(recipe, loaded.state, images)
    if options.out:
        difference = checked_onnx(net, images, facts, options.out)
        agreed = f"onnxruntime agrees within {difference:.1e} on {CHECKED} test images"
        print(f"{options.out}: {agreed}")
    if options.hub_folder or options.push:
        ship_to_hub(options, recipe, net, images, facts)


def check_deterministic(net: nn.Module) -> None:
    """Raise `UserMistakeError` for a net that draws in evaluation: a file would fix its draw."""
    if any(getattr(module, "eval_stats", None) == "sampled" for module in net.modules()):
        raise UserMistakeError(
            "eval_stats sampled draws in evaluation, which an exported net cannot; "
            "export with --eval_stats expected"
        )


def test_images(loaded: Loaded[Recipe]) -> Tensor:
    """A few images of the test split as the net gets them, (CHECKED, C, H, W) float32."""
    recipe = loaded.recipe
    few = replace(recipe, data=replace(recipe.data, limit=CHECKED))
    data = load_data(few, start(recipe.launch), statistics=loaded.statistics)
    return data.inputs(data.splits["test"].images(torch.arange(len(data.labels("test")))))


def facts_of(recipe: Recipe, state: dict[str, Any], images: Tensor) -> dict[str, Any]:
    """What a user of the net has to know besides its weights."""
    return {
        "name": recipe.name,
        "model": recipe.model.name,
        "epoch": state["epoch"],
        "classes": state["classes"],
        "shape": list(images.shape[1:]),
        "scaling": SCALING,
        "mean": state["mean"],
        "std": state["std"],
    }


def checked_onnx(net: nn.Module, images: Tensor, facts: dict[str, Any], out: Path) -> float:
    """Write the file if it passes `check_onnx`, which tells the difference; else leave none."""
    new = out.with_name(f".{os.getpid()}.{out.name}")
    try:
        write_onnx(net, images, facts, new)
        difference = check_onnx(net, images, new)
        os.replace(new, out)
    finally:
        new.unlink(missing_ok=True)
    return difference


def write_onnx(net: nn.Module, images: Tensor, facts: dict[str, Any], out: Path) -> None:
    """Write the file, for any number of images, with the facts as its metadata."""
    program = torch.onnx.export(
        net,
        (images[:2],),
        dynamo=True,
        verbose=False,
        optimize=False,  # takes minutes for a large net; runtimes optimize what they load
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
    )
    assert program is not None
    for name, value in facts.items():
        program.model.metadata_props[name] = value if isinstance(value, str) else json.dumps(value)
    program.save(out)


def check_onnx(net: nn.Module, images: Tensor, path: Path) -> float:
    """The largest difference between onnxruntime's logits and the net's, which must be small."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors: what it cannot fold concerns nobody here
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    difference = 0.0
    for batch in (images, images[:1]):
        (logits,) = session.run(None, {"images": batch.numpy()})
        with torch.no_grad():
            expected = net(batch)
        difference = max(difference, (torch.as_tensor(logits) - expected).abs().max().item())
    if not difference <= TOLERANCE:
        raise ArithmeticError(
            f"{path}: onnxruntime's logits differ by {difference:.1e}, more than {TOLERANCE:.0e}"
        )
    return difference


def ship_to_hub(
    options: Namespace, recipe: Recipe, net: nn.Module, images: Tensor, facts: dict[str, Any]
) -> None:
    """Write the folder, push the repository, or both."""
    from classification.hub import hub_model, model_card, push, write_folder

    text = model_card(recipe, options.run_dir, options.weights, facts)
    model = hub_model(recipe, net, facts)
    if options.hub_folder:
        write_folder(model, text, options.hub_folder, images)
        print(f"{options.hub_folder}: loaded again, the same logits on {CHECKED} test images")
    if options.push:
        print(push(model, text, options.push))
