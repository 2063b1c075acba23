"""Nets of `create_model` as folders or repositories of the Hugging Face hub.

    HubModel("knresnet18", {"num_classes": 10, "stem": "cifar"}).push_to_hub("user/name")
    HubModel.from_pretrained("user/name")(images)

A folder holds model.safetensors, config.json (name, options and facts) and a model card. Weights
are read from safetensors only and must fit exactly. Needs the extra `hub`.
"""

import json
from typing import Any

from huggingface_hub import ModelCard, PyTorchModelHubMixin
from torch import Tensor, nn

from knorm.models import create_model, list_models
from knorm.swap import swap_norm


class HubModel(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="knorm",
    pipeline_tag="image-classification",
    tags=["kernel-normalization"],
):
    """A net with what it takes to build it again: (N, in_chans, H, W) -> (N, num_classes),
    of segmentation (N, num_classes, H, W).

    Args:
        model: name of the net, see `knorm.list_models`.
        options: what `create_model` is given.
        facts: what else a user has to know, such as class names and the scaling of the inputs.
        swap: what `knorm.swap_norm` is given for the net then made, kind and options; None: it
            stays as it is.

    All of them are saved as JSON, so they must be made of what JSON knows.
    """

    def __init__(
        self,
        model: str,
        options: dict[str, Any],
        facts: dict[str, Any] | None = None,
        swap: dict[str, Any] | None = None,
    ):
        super().__init__()
        for name, value in {"options": options, "facts": facts, "swap": swap}.items():
            if json.loads(json.dumps(value, default=lambda _: None)) != value:
                raise ValueError(f"{name} must be what JSON can hold, got {value!r}")
        self.facts, self.labels_pixels = facts or {}, model in list_models(task="segmentation")
        self.net = create_model(model, **options)
        if swap:
            self.net, _ = swap_norm(self.net, inplace=True, **swap)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def generate_model_card(self, text: str | None = None, **options: Any) -> ModelCard:  # type: ignore[override]
        """The model card: `text`, metadata and all, or else the hub's general one."""
        if text is not None:
            return ModelCard(text)
        card = super().generate_model_card(**options)
        if self.labels_pixels:
            setattr(card.data, "pipeline_tag", "image-segmentation")  # noqa: B010  any key is one
        return card

    @classmethod
    def _load_as_safetensor(
        cls, model: Any, model_file: str, map_location: str, strict: bool
    ) -> Any:
        return super()._load_as_safetensor(model, model_file, map_location, strict=True)

    @classmethod
    def _load_as_pickle(cls, model: Any, model_file: str, map_location: str, strict: bool) -> Any:
        raise ValueError(f"{model_file} is a pickle; only model.safetensors is read")
