"""Nets by name, with the norm of one's choice."""

from knorm.checkpoints import convert_norm_torch_state_dict
from knorm.models import (
    compact,
    convnext,
    deeplab,
    densenet,
    fcn,
    kan_nets,
    knresnet,
    knresnet_fcn,
    preact_resnet,
    resnet,
    wide_resnet,
)
from knorm.models.registry import create_model, list_models, model_options, register_model

__all__ = [
    "compact",
    "convert_norm_torch_state_dict",
    "convnext",
    "create_model",
    "deeplab",
    "densenet",
    "fcn",
    "kan_nets",
    "knresnet",
    "knresnet_fcn",
    "list_models",
    "model_options",
    "preact_resnet",
    "register_model",
    "resnet",
    "wide_resnet",
]
