"""Nets whose parameters are spread over the ranks (FSDP): whole tensors out of shards, and back.

A net that is not sharded passes through unchanged. Everything here that meets shards is a
collective: all ranks must call it.

What torch has for shards takes a second to import and is left alone until there is a shard.
"""

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeGuard

from torch import Tensor, nn

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def is_shard(tensor: Tensor) -> "TypeGuard[DTensor]":
    """Whether there may be more of it on other ranks."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def is_sharded(net: nn.Module) -> bool:
    """Whether this rank holds only a part of some parameter."""
    return any(map(is_shard, net.parameters()))


def whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with nothing of them on other ranks."""
    return {
        name: tensor.full_tensor() if is_shard(tensor) else tensor
        for name, tensor in tensors.items()
    }


def load_weights(net: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Whole weights into a net, each rank taking its part."""
    if is_sharded(net):
        from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

        options = StateDictOptions(full_state_dict=True)
        set_model_state_dict(net, dict(weights), options=options)
    else:
        net.load_state_dict(weights)


def shard_like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor cut as the parameter that it belongs to is."""
    if not is_shard(parameter) or tensor.shape != parameter.shape:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor, parameter.device_mesh, parameter.placements)
