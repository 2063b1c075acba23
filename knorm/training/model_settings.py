"""Settings of the net, the same for every pipeline."""

from dataclasses import dataclass, field
from typing import Any

from knorm.choices import SWAP_OPTIONS, TIMM, NormKind, Stats, Task, check_name, model_names


@dataclass(kw_only=True)
class Model:
    """The net, see `knorm models`; what is null is as the net's own default."""

    name: str
    """a name of `knorm.list_models()`, of segmentation those with task="segmentation"; or, to
    classify, timm:<name> for one of timm's nets"""
    norm: NormKind | None = None
    """kind of all norms of the net"""
    stem: str | None = None
    """first layers, for small images (cifar) or large ones (imagenet)"""
    activation: str | None = None
    """activation function"""
    dropout_p: float | None = None
    """dropout of the statistics of kernel normalization"""
    eval_stats: Stats | None = None
    """statistics of kernel normalization in evaluation"""
    options: dict[str, Any] = field(default_factory=dict)
    """further options of this net, such as width"""
    weights: str | None = None
    """folder of a run to begin with the weights of, its best where there are such; all settings
    above are as in that run, but for dropout_p and eval_stats"""
    swap: NormKind | None = None
    """kind that `knorm.swap_norm` then gives all norms of the net; null: they stay"""
    swap_options: dict[str, Any] = field(default_factory=dict)
    """options of `knorm.swap_norm`, such as fold or groups"""

    def __post_init__(self) -> None:
        if self.swap_options and self.swap is None:
            raise ValueError("model.swap_options belongs to model.swap, which is not given")
        for option in self.swap_options:
            check_name("model.swap_options", option, SWAP_OPTIONS)

    def check_task(self, task: Task) -> None:
        """Raise ValueError unless there is a net of that name for the task.

        timm's nets classify; those of segmentation take them as model.options.backbone.
        """
        if not self.name.startswith(TIMM):
            check_name("model", self.name, model_names(task))
        elif task != "classification":
            raise ValueError(
                f"model.name {self.name} is a net that classifies; it is taken as a backbone: "
                f"--model.name fcn --model.options.backbone {self.name}"
            )

    def in_words(self) -> str:
        """The net, where its weights are from, and what is swapped."""
        begun = f"  weights of {self.weights}" if self.weights else ""
        return f"{self.name}{begun}" + (f"  norms swapped to {self.swap}" if self.swap else "")
