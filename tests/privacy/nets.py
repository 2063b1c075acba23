"""Small nets, one for every way in which a parameter can be used."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from knorm import KernelNorm2d, KNConv1d, KNConv2d, KNConv3d

CLASSES = 3


class Flat(nn.Module):
    """(N, C, ...) -> (N, CLASSES): the mean over space, and a linear layer."""

    def __init__(self, channels: int):
        super().__init__()
        self.fc = nn.Linear(channels, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x.flatten(2).mean(2))


class StandardConv(nn.Conv2d):
    """A convolution with standardised weights and a gain."""

    def __init__(self, *sizes: int):
        super().__init__(*sizes, padding=1)
        self.gain = nn.Parameter(torch.ones(self.out_channels, 1, 1, 1))

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        rows = self.weight.reshape(1, self.out_channels, -1)
        weight = F.batch_norm(rows, None, None, self.gain.view(-1), training=True)
        weight = weight.reshape_as(self.weight)
        return F.conv2d(input, weight, self.bias, self.stride, self.padding)


class Tokens(nn.Module):
    """A class token, positions, a layer scale, a latent query and a learned attention bias."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(2, 4, 2, stride=2)
        self.token = nn.Parameter(torch.randn(1, 1, 4))
        self.places = nn.Parameter(torch.randn(1, 10, 4))
        self.scale = nn.Parameter(torch.rand(4))
        self.latent = nn.Parameter(torch.randn(1, 2, 4))
        self.near = nn.Parameter(torch.randn(2, 10))
        self.norm, self.fc = nn.LayerNorm(4, bias=False), nn.Linear(8, CLASSES)
        self.register_buffer("order", torch.arange(10).flip(0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).mT
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.places[:, self.order]
        x = x + self.scale * self.norm(x)
        query = self.latent.repeat(len(x), 1, 1)
        bias = self.near.unsqueeze(0)
        x = F.scaled_dot_product_attention(query[:, None], x[:, None], x[:, None], attn_mask=bias)
        return self.fc(x.flatten(1))


class Places(nn.Module):
    """Positions that are made in the forward pass: nine of them, however many records there are."""

    def __init__(self):
        super().__init__()
        self.embed, self.places = nn.Conv2d(2, 4, 2, stride=2), nn.Embedding(9, 4)
        self.gain, self.fc = nn.Parameter(torch.rand(9, 1)), nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x).flatten(2).mT
        ramp = torch.linspace(0, 1, 9, dtype=x.dtype)[:, None]
        x = torch.tanh(x + self.places(torch.arange(9)) + ramp * self.gain)
        return self.fc(x.mean(1))


class BatchPlaces(nn.Module):
    """Positions that are computed for as many images, or views, as there are."""

    def __init__(self):
        super().__init__()
        self.embed, self.places, self.head = nn.Conv2d(2, 4, 2), nn.Conv2d(1, 4, 1), Flat(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        ramp = torch.ones(len(x), 1, *x.shape[2:], dtype=x.dtype).cumsum(3)
        x = torch.tanh(x + self.places(ramp)) * 2
        x += self.places(1 / ramp)
        return self.head(self.places(ramp.sqrt()) * x)


class Windows(nn.Module):
    """Activations in which an image is several rows, channels last, and one layer used twice."""

    def __init__(self):
        super().__init__()
        self.fc, self.head = nn.Linear(2, 2), nn.Linear(2, CLASSES, bias=False)
        self.norm = nn.RMSNorm(2)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.permute(0, 2, 3, 1).reshape(-1, 3, 6, 2)  # two windows of every image
        rows = self.norm(torch.tanh(self.fc(self.fc(rows))))
        return self.head(rows.reshape(len(x), -1, 2).mean(1))


class Tied(nn.Module):
    """One weight in two layers, and one that no layer uses."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3)
        self.two.weight = self.one.weight
        self.unused, self.head = nn.Parameter(torch.ones(2)), Flat(2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        x += torch.relu_(self.two(F.pad(x, (1, 1, 1, 1))))  # in place, as timm's residual blocks
        return self.head(x)


class Shared(nn.Module):
    """One module under two names, as CoaT's position encodings, and one parameter under two."""

    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(2, 2, 3, padding=1)
        self.two, self.head = nn.Sequential(self.one, nn.Tanh()), Flat(2)
        self.scale = self.gain = nn.Parameter(torch.rand(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.two(self.one(x) * self.scale) * self.gain)


def frozen() -> nn.Module:
    """A net of which only the second layer's weight is trained."""
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3), Flat(4))
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name == "2.weight")
    return net


def conv(layer: nn.Module, channels: int) -> nn.Module:
    """The layer and a head."""
    return nn.Sequential(layer, nn.Tanh(), Flat(channels))


IMAGE = (2, 6, 6)
NETS = {  # name -> what makes the net, and the shape of a sample
    "conv1d": (lambda: conv(nn.Conv1d(2, 4, 3, stride=2, dilation=2, groups=2), 4), (2, 9)),
    "conv2d": (lambda: conv(nn.Conv2d(2, 4, (3, 2), stride=(2, 1), padding=(1, 2)), 4), IMAGE),
    "conv2d, groups": (lambda: conv(nn.Conv2d(2, 4, 3, padding="same", groups=2), 4), IMAGE),
    "conv2d, even and same": (lambda: conv(nn.Conv2d(2, 4, 2, padding="same"), 4), IMAGE),
    "conv2d, reflected": (
        lambda: conv(nn.Conv2d(2, 4, 3, padding=1, padding_mode="reflect"), 4), IMAGE),
    "conv2d, circular": (
        lambda: conv(nn.Conv2d(2, 4, 3, padding=2, padding_mode="circular", dilation=2), 4), IMAGE),
    "conv2d, no bias": (lambda: conv(nn.Conv2d(2, 4, 1, bias=False), 4), IMAGE),
    "conv3d": (lambda: conv(nn.Conv3d(2, 4, 2, padding=1), 4), (2, 3, 4, 3)),
    "transposed": (lambda: conv(nn.ConvTranspose2d(2, 4, 3, stride=2), 4), IMAGE),
    "KNConv1d": (lambda: conv(KNConv1d(2, 4, 3, padding=1, dropout_p=0.2), 4), (2, 9)),
    "KNConv2d": (lambda: conv(KNConv2d(2, 4, 3, stride=2, padding=1, dropout_p=0.2), 4), IMAGE),
    "KNConv2d, groups": (
        lambda: conv(KNConv2d(2, 4, 3, groups=2, group_stats=True, dropout_p=0.1), 4), IMAGE),
    "KNConv2d, replicated": (
        lambda: conv(KNConv2d(2, 4, 3, padding=1, padding_mode="replicate", bias=False), 4), IMAGE),
    "KNConv3d": (lambda: conv(KNConv3d(2, 4, 2, dilation=2, groups=2), 4), (2, 4, 3, 4)),
    "KernelNorm2d": (
        lambda: conv(nn.Sequential(KernelNorm2d(2), nn.Conv2d(2, 4, 2)), 4), IMAGE),
    "standardised weights": (lambda: conv(StandardConv(2, 4, 3), 4), IMAGE),
    "weight norm": (lambda: conv(weight_norm(nn.Conv2d(2, 4, 3)), 4), IMAGE),
    "group norm": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(True), Flat(4)),
        IMAGE),
    "instance norm": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.InstanceNorm2d(4, affine=True), nn.Tanh(),
                              nn.Conv2d(4, 4, 2), nn.PReLU(4), Flat(4)), IMAGE),
    "frozen batch norm": (
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4).eval(), Flat(4)), IMAGE),
    "embedding": (lambda: nn.Sequential(Flat(2), nn.Linear(CLASSES, CLASSES)), (2, 5)),
    "tokens": (Tokens, IMAGE),
    "places": (Places, IMAGE),
    "places for the batch": (BatchPlaces, IMAGE),
    "windows": (Windows, IMAGE),
    "tied": (Tied, IMAGE),
    "shared": (Shared, IMAGE),
    "frozen": (frozen, IMAGE),
}  # fmt: skip
