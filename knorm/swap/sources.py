"""Which layer gives each norm its input, and what that says of the norm."""

from torch import nn

from knorm.swap.convs import Conv
from knorm.swap.flow import Flow
from knorm.swap.forms import Norm, find_norms


class Sources:
    """The layers before the norms of a net, in training and in evaluation."""

    def __init__(self, model: nn.Module):
        leaves = {norm.name for norm in find_norms(model)}
        self.model = model
        self.flow = Flow(model, leaves)
        self.evaluation = Flow(model, leaves, training=False)

    def layer(self, norm: Norm) -> tuple[str | None, str]:
        """The layer with as many outputs as the norm has channels, which gives to it alone in
        training; or None, and why there is none."""
        if norm.form.tokens:
            return None, "its channels come last"
        name, why = self.flow.source(norm.name)
        if name is None:
            return None, why
        layer = self.model.get_submodule(name)
        outputs = getattr(layer, "out_channels", getattr(layer, "out_features", None))
        return (name, "") if outputs == norm.channels else (None, "no convolution gives its input")

    def layer_in_both_modes(self, norm: Norm) -> tuple[str | None, str]:
        """The same, if that holds in evaluation too."""
        name, why = self.layer(norm)
        other, reason = self.evaluation.source(norm.name)
        if name is None or name == other:
            return name, why
        return None, f"in evaluation {reason or f'{other} gives its input'}"

    def num_dims(self, norm: Norm) -> int:
        """Spatial dimensions of what the norm gets, as it or the layer before it says; otherwise
        those of most convolutions, or without any 1 for linear layers and 2 for others."""
        if norm.form.num_dims is not None:
            return norm.form.num_dims
        name, _ = self.flow.source(norm.name)
        while name is not None:
            layer = self.model.get_submodule(name)
            if isinstance(layer, Conv):
                return len(layer.kernel_size)
            if isinstance(layer, nn.Linear | nn.Flatten):
                return 1
            name, _ = self.flow.source(name)
        layers = list(self.model.modules())
        dims = [len(layer.kernel_size) for layer in layers if isinstance(layer, Conv)]
        linear = any(isinstance(layer, nn.Linear) for layer in layers)
        return max(set(dims), key=dims.count, default=1 if linear else 2)

    def read(self, norm: Norm) -> set[str]:
        """Its tensors that forwards of other modules take for themselves."""
        flows = (self.flow, self.evaluation)
        return set().union(*(flow.read.get(norm.name, set()) for flow in flows))
