"""The net of a run for the Hugging Face hub: a folder, or a repository, with its model card."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import EvalResult, ModelCardData
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id
from torch import Tensor, nn

from classification.config import Recipe, load_recipe
from knorm.hub import HubModel
from knorm.training.config import to_yaml
from knorm.training.files import check_folder
from knorm.training.folder import RESULT, read_environment, read_result
from knorm.training.mistakes import UserMistakeError
from knorm.training.nets import net_options, swap_options
from knorm.training.report import score_table

MOST_NAMES = 100  # classes up to which the card names them


# Of the hub and of the client it uses, whose own errors are what HfHubHTTPError derives from.
FAILURES: tuple[type[Exception], ...] = (OSError, *HfHubHTTPError.__bases__)


def check_destination(run_dir: Path, folder: Path | None, repo: str | None) -> None:
    """Raise `UserMistakeError` unless the run has what a card tells and the places can be had."""
    if not (run_dir / RESULT).is_file():
        raise UserMistakeError(f"{run_dir} is no finished run: it holds no {RESULT}")
    if folder is not None:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserMistakeError(
                f"hub_folder {folder} exists already; give another one or remove it"
            )
        check_folder(folder)
    if repo is not None:
        try:
            validate_repo_id(repo)
        except HFValidationError as error:
            raise UserMistakeError(f"--push {repo}: no name of a repository: {error}") from error


def hub_model(recipe: Recipe, net: nn.Module, facts: dict[str, Any]) -> HubModel:
    """The net with its name, options and facts; it shares the net's weights."""
    options = {
        "num_classes": len(facts["classes"]),
        "in_chans": facts["shape"][0],
        **net_options(recipe.model),
    }
    model = HubModel(recipe.model.name, options, facts, swap_options(recipe.model) or None)
    model.net.load_state_dict(net.state_dict())
    return model.eval()


def write_folder(model: HubModel, text: str, folder: Path, images: Tensor) -> None:
    """Write the folder and load it again: the logits must be the same bit for bit."""
    model.save_pretrained(folder, model_card_kwargs={"text": text})
    with torch.no_grad():
        if not torch.equal(HubModel.from_pretrained(folder)(images), model(images)):
            raise ArithmeticError(f"{folder} gives other logits than the run's net")


def push(model: HubModel, text: str, repo: str) -> str:
    """Make the repository `user/name` hold the net; returns its address."""
    try:
        return str(model.push_to_hub(repo, model_card_kwargs={"text": text}))
    except FAILURES as error:
        raise UserMistakeError(f"{repo} cannot be pushed: {error}") from error


def model_card(recipe: Recipe, run_dir: Path, weights: str, facts: dict[str, Any]) -> str:
    """The card in Markdown, with metadata, from a finished run."""
    result, environment = read_result(run_dir), read_environment(run_dir)
    kept = [row for row in result["results"] if row["weights"] == weights]
    options, swap = in_words(net_options(recipe.model)), in_words(swap_options(recipe.model))
    swap = f", norms swapped ({swap})" if swap else ""
    git = environment["git"]
    source = f"knorm, git commit {git['commit']}" if git else "knorm"
    names = ", ".join(facts["classes"][:MOST_NAMES])
    more = len(facts["classes"]) - MOST_NAMES
    channels, height, width = facts["shape"]
    return f"""---
{card_data(recipe, kept).to_yaml()}
---

# {result["name"]}

{recipe.model.name} ({options}){swap}, trained on {recipe.data.name} for {result["epochs"]} \
epochs with seed {result["seed"]} by {source}.

```python
from knorm.hub import HubModel

net = HubModel.from_pretrained("...")  # this repository or folder
logits = net(images)
```

Images are (N, {channels}, {height}, {width}) float32: {facts["scaling"]}, with mean \
{facts["mean"]} and std {facts["std"]} by channel. Classes: {names}\
{f" and {more} more, see config.json" if more > 0 else ""}.

{score_table(result | {"results": kept})}

{result["parameters"]:,} parameters, {result["macs"]:,} multiply-accumulates per image.

```yaml
{public_recipe(run_dir)}
```
"""


def in_words(options: Mapping[str, Any]) -> str:
    """`norm kernel, width 0.5`."""
    return ", ".join(f"{name} {value}" for name, value in options.items())


def public_recipe(run_dir: Path) -> str:
    """The run's recipe without the places of data and runs, which are nobody else's business."""
    recipe = load_recipe(run_dir)
    model = recipe.model
    if model.weights is not None:
        model = replace(model, weights=Path(model.weights).name)
    return to_yaml(replace(recipe, data=replace(recipe.data, root="data"), model=model)).strip()


def card_data(recipe: Recipe, rows: list[dict[str, Any]]) -> ModelCardData:
    """What the hub reads of a card: the task, and the accuracy on the test split."""
    scores = [
        EvalResult(
            task_type="image-classification",
            dataset_type=recipe.data.name,
            dataset_name=recipe.data.name,
            dataset_split=row["split"],
            metric_type="accuracy",
            metric_value=row["value"],
        )
        for row in rows
        if (row["split"], row["metric"]) == ("test", "top1")
    ]
    return ModelCardData(
        library_name="knorm",
        pipeline_tag="image-classification",
        tags=["kernel-normalization", "knorm"],
        model_name=recipe.name,
        eval_results=scores,
    )
