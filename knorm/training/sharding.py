"""Nets whose parameters are spread over the ranks (FSDP): whole tensors out of shards, and back.

A net that is not sharded passes through unchanged. Everything here that meets shards is a
collective: all ranks must call it.
"""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.tensor import DTensor, distribute_tensor


def is_sharded(net: nn.Module) -> bool:
    """Whether this rank holds only a part of some parameter."""
    return any(isinstance(parameter, DTensor) for parameter in net.parameters())


def whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with nothing of them on other ranks."""
    return {
        name: tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        for name, tensor in tensors.items()
    }


def load_weights(net: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Whole weights into a net, each rank taking its part."""
    if is_sharded(net):
        options = StateDictOptions(full_state_dict=True)
        set_model_state_dict(net, dict(weights), options=options)
    else:
        net.load_state_dict(weights)


def shard_like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor cut as the parameter that it belongs to is."""
    if not isinstance(parameter, DTensor) or tensor.shape != parameter.shape:
        return tensor
    return distribute_tensor(tensor, parameter.device_mesh, parameter.placements)
