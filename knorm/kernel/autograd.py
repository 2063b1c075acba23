"""The two differentiable steps whose saved tensors matter; everything else is plain torch.

Both save their input, which the activation before them keeps anyway, where plain autograd would
keep a centred and a dropped copy of it. Their backward passes are made of differentiable
operations, so that second derivatives and `torch.func` work.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def statistics_dtype(x: Tensor) -> torch.dtype:
    """Statistics of 16-bit inputs are taken in float32."""
    return torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype


class ChannelMoments(Function):
    """Mean less `level`, and (biased) variance, over dimension 2 of `scale * keep * x`.

    x (N, S, C, *space), keep the same shape and boolean, or None; level (N, S, 1, *space), a
    constant near the mean -> two (N, S, 1, *space). The variance is that of the centred values:
    no difference of squares.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x, keep, scale, level):
        values = x.to(level.dtype)
        if keep is None:
            values = values - level
            offset = mean = values.mean(2, keepdim=True)
        else:
            values = values * keep
            mean = values.mean(2, keepdim=True)
            offset = scale * mean - level
        values.sub_(mean)
        var = values.mul_(values).mean(2, keepdim=True)
        return offset, var * scale**2

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, keep, ctx.scale, level = inputs
        ctx.save_for_backward(x, keep, level, output[0])

    @staticmethod
    def backward(ctx, *grad_outputs):
        grad_offset, grad_var = grad_outputs
        x, keep, level, offset = ctx.saved_tensors
        share = ctx.scale / x.shape[2]
        constant = share * (grad_offset - 2 * grad_var * (level + offset))
        grad = torch.addcmul(constant, 2 * share * ctx.scale * grad_var, x.to(level.dtype))
        if keep is not None:
            grad.mul_(keep)
        return grad.to(x.dtype), None, None, None


class CentredConv(Function):
    """Convolution of `x - level`: (N, C, *space), (N, S, *space), weight -> (N, O, *out).

    `level` is a constant: nothing flows back into it.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x, level, weight, stride, padding, dilation, groups):
        conv = CONVOLUTIONS[weight.dim() - 2]
        return conv(centre(x, level), weight, None, stride, padding, dilation, groups)

    @staticmethod
    def setup_context(ctx, inputs, output):
        x, level, weight, *ctx.geometry = inputs
        ctx.save_for_backward(x, level, weight)

    @staticmethod
    def backward(ctx, *grad_outputs):
        (grad,) = grad_outputs
        x, level, weight = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.geometry
        need_x, _, need_weight, *_ = ctx.needs_input_grad
        grad_x, grad_weight, _ = torch.ops.aten.convolution_backward(
            grad,
            centre(x, level).to(grad.dtype),
            weight.to(grad.dtype),
            None,
            stride,
            padding,
            dilation,
            False,
            [0] * len(stride),
            groups,
            [need_x, need_weight, False],
        )
        grad_x = grad_x.to(x.dtype) if need_x else None
        grad_weight = grad_weight.to(weight.dtype) if need_weight else None
        return grad_x, None, grad_weight, None, None, None, None


def centre(x: Tensor, level: Tensor) -> Tensor:
    """`x` minus its group's level, in the dtype of x."""
    if level.shape[1] == 1:
        return (x - level).to(x.dtype)
    groups = x.unflatten(1, (level.shape[1], -1))
    return (groups - level.unsqueeze(2)).to(x.dtype).flatten(1, 2)
