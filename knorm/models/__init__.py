"""Nets by name, with the norm of one's choice."""

from knorm.checkpoints import convert_norm_torch_state_dict
from knorm.models import (
    cifar_nets,
    compact,
    convmixer,
    convnext,
    deeplab,
    densenet,
    fcn,
    kan_nets,
    knresnet,
    knresnet_fcn,
    preact_resnet,
    resnet,
    resnet_like,
    resnext,
    tricks,
    vgg,
    wide_resnet,
)
from knorm.models.registry import create_model, list_models, model_options, register_model

__all__ = [
    "cifar_nets",
    "compact",
    "convert_norm_torch_state_dict",
    "convmixer",
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
    "resnet_like",
    "resnext",
    "tricks",
    "vgg",
    "wide_resnet",
]
