"""The Triton kernels: on a GPU, or in a process of their own where Triton interprets them."""

import math
import os
import subprocess
import sys
from typing import NamedTuple

import pytest
import torch

from knorm.kernel import fused, fused_ops, reference, windows
from knorm.kernel.dropout import keep_mask
from knorm.kernel.fused import Options
from knorm.kernel.ops import kn_conv
from knorm.kernel.passes import MAX_RMS, Dropout, Geometry, Rule

triton = pytest.importorskip("triton")
from triton.backends.compiler import GPUTarget  # noqa: E402

from knorm.kernel import cuda, triton_calls  # noqa: E402

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu"
runs = pytest.mark.skipif(
    not (INTERPRETED or torch.cuda.is_available()), reason="no GPU: see the interpreter's process"
)
on_cpu = pytest.mark.skipif(
    INTERPRETED or torch.cuda.is_available(), reason="for machines without a GPU"
)
TOLERANCE = {torch.double: 1e-10, torch.float: 1e-5, torch.half: 2e-2, torch.bfloat16: 2e-2}
SEED = 2**62 + 2**33 + 12345


class Case(NamedTuple):
    space: tuple[int, ...]
    channels: int
    outputs: int
    geometry: Geometry
    groups: int = 1
    num_stats: int = 1
    last: bool = False
    p: float = 0.0
    growth: float = 1.0
    bounded: bool = True

    @property
    def rule(self):
        return Rule(self.p, self.growth, self.bounded, 1e-5)

    @property
    def dropout(self):
        return Dropout(self.p, SEED) if self.p else None

    def laid_out(self, x):
        return x.movedim(1, -1).contiguous().movedim(-1, 1) if self.last else x.contiguous()

    def input(self, dtype, samples=2):
        torch.manual_seed(0)
        x = torch.randn(samples, self.channels, *self.space, dtype=torch.double) + 1
        return self.laid_out(x.to(DEVICE, dtype))

    def dropped(self, x):
        """What the statistics are of, padded, in float64 and in the same groups."""
        x = x.double()
        if self.p:
            x = x * self.keep(x).flatten(1, 2) / (1 - self.p)
        return windows.zero_pad(x, self.geometry.padding)

    def keep(self, x):
        return keep_mask(x.unflatten(1, (self.num_stats, -1)), self.p, torch.tensor(SEED))

    def definition(self, x):
        """Mean and reciprocal deviation of units, (N, S, *out)."""
        sizes = (self.geometry.kernel_size, self.geometry.stride, self.geometry.dilation)
        mean, rstd = reference.window_stats(self.dropped(x), *sizes, self.num_stats)
        true_mean, true_rstd = reference.window_stats(
            windows.zero_pad(x.double(), self.geometry.padding), *sizes, self.num_stats
        )
        var, true_var = (r**-2 - 1e-5 for r in (rstd, true_rstd))
        if self.p and self.bounded:
            var = torch.maximum(var, (true_var + (true_mean - mean) ** 2) / MAX_RMS**2)
        var = self.growth * var + (self.growth - 1) * mean**2
        return mean, (var + 1e-5).rsqrt()


square = Geometry((3, 3), (1, 1), (1, 1), (1, 1))
odd = Geometry((3, 2), (2, 1), (2, 0), (1, 2))
apart = Geometry((3, 2), (2, 3), (1, 0), (1, 1))
point = Geometry((1, 1), (2, 2), (0, 0), (1, 1))
CASES = {
    "plain": Case((5, 6), 6, 4, square),
    "dropout": Case((9, 9), 6, 4, square, p=0.2),
    "last": Case((9, 9), 6, 4, square, last=True, p=0.2),
    "expected": Case((5, 6), 6, 4, odd, growth=1.05, last=True),
    "group": Case((5, 6), 6, 4, odd, groups=2, p=0.3),
    "groups": Case((5, 6), 6, 4, odd, groups=2, num_stats=2, p=0.3, bounded=False),
    "sparse": Case((5, 6), 8, 4, point, groups=4, num_stats=4, p=0.7),
    "one": Case((7,), 1, 3, Geometry((3,), (2,), (2,), (1,)), p=0.7),
    "volume": Case((3, 4, 5), 3, 2, Geometry((3, 1, 2), (2, 1, 1), (2, 0, 1), (1, 1, 2)), p=0.2),
    "wide": Case((5, 15), 70, 40, square, p=0.1),
    "wide last": Case((5, 15), 70, 70, point, last=True, p=0.1),
}
CHECKED = [(name, torch.double) for name in CASES]
CHECKED += [("last", torch.float), ("groups", torch.bfloat16), ("last", torch.half)]
cases = pytest.mark.parametrize(
    ("case", "dtype"),
    [pytest.param(CASES[name], dt, id=f"{name} {str(dt)[6:]}") for name, dt in CHECKED],
)


def assert_close(got, want, tolerance):
    """The largest error is that part of the largest value."""
    assert got.shape == want.shape
    error = (got.double() - want.double()).abs().max().item()
    assert error <= tolerance * want.abs().max().item() + 1e-30


@on_cpu
def test_all_of_this_holds_under_the_interpreter():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr


@runs
@cases
def test_moments_are_those_of_what_is_kept_and_dropped(case, dtype):
    x = case.input(dtype)
    found, v = cuda.moments(x, case.num_stats, case.dropout, dtype)
    groups = x.double().unflatten(1, (case.num_stats, -1))
    level = found[:, :, 0].double()
    centred = groups - level.unsqueeze(2)
    maps = [groups.mean(2), groups.mean(2) - level, (centred**2).mean(2)]
    if case.p:
        hidden = ~case.keep(x)
        maps += [(hidden * part).sum(2) for part in (torch.ones_like(centred), centred, centred**2)]
        assert torch.equal(found[:, :, 3].long(), hidden.sum(2))
    exact = TOLERANCE[found.dtype]
    for i, want in enumerate(maps):
        assert_close(found[:, :, i], want, exact) if i != 1 else None
    assert (found[:, :, 1] - maps[1]).abs().max() <= exact
    assert v is not None
    assert v.stride() == x.stride()
    assert_close(v, centred.flatten(1, 2), TOLERANCE[dtype])


@runs
@cases
def test_statistics_and_their_gradient_are_those_of_the_definition(case, dtype):
    x = case.input(dtype)
    channels, exact = case.channels // case.num_stats, TOLERANCE[torch.float]
    exact = TOLERANCE[dtype] if dtype == torch.double else exact
    moments, _ = cuda.moments(x, case.num_stats, case.dropout, None)
    units = cuda.unit_statistics(moments, channels, case.geometry, case.rule)
    leaf = x.double().requires_grad_()
    mean, rstd = case.definition(leaf)
    assert_close(units.maps[:, :, 0], rstd, exact)
    assert_close(units.maps[:, :, 1] + units.maps[:, :, 2], mean, exact)

    grads = torch.randn(*mean.shape[:2], 2, *mean.shape[2:], dtype=torch.double, device=DEVICE)
    (want,) = torch.autograd.grad((rstd, mean), leaf, grads.unbind(2))
    slopes = cuda.through_statistics(
        grads.to(moments.dtype), units, moments, channels, case.geometry, case.rule
    )
    out = torch.ones_like(x)
    cuda.add(out, x, moments, slopes, case.dropout)
    assert_close(out, 1 + want, max(TOLERANCE[dtype], 10 * exact))


@runs
@cases
def test_scale_and_its_gradient_are_those_of_the_formula(case, dtype):
    x, size = case.input(dtype), math.prod(case.geometry.kernel_size)
    moments, _ = cuda.moments(x, case.num_stats, case.dropout, None)
    channels = case.channels // case.num_stats
    units = cuda.unit_statistics(moments, channels, case.geometry, case.rule)
    shape = (case.num_stats, case.outputs // case.num_stats)
    sums, bias = (
        torch.randn(s, device=DEVICE, dtype=torch.double).to(dtype) for s in ((*shape, size), shape)
    )
    out_shape = units.maps.shape[3:]
    conv = torch.randn(len(x), case.outputs, *out_shape, device=DEVICE, dtype=torch.double)
    conv = case.laid_out(conv.to(dtype))
    out = torch.empty_like(conv)
    cuda.scale(conv, units, sums, bias, out)

    rstd, mean = units.maps[:, :, 0].double(), units.maps[:, :, 1:3].double().sum(2)
    elements = windows.window_elements(moments[:, :, 0].double(), *case.geometry)
    leaves = [t.double().requires_grad_() for t in (conv, sums, bias, rstd, mean)]
    z, w, b, r, m = leaves
    y = z.unflatten(1, shape) + torch.einsum("sok,ns...k->nso...", w, elements - m.unsqueeze(-1))
    y = (y * r.unsqueeze(2)) + b.view(*shape, *[1] * len(out_shape))
    assert_close(out, y.flatten(1, 2), TOLERANCE[dtype])
    cuda.scale(conv, units, sums, bias, conv_too := conv.clone())
    assert torch.equal(conv_too, out)

    grad = case.laid_out(torch.randn_like(conv))
    wanted = torch.autograd.grad(y.flatten(1, 2), leaves, grad.double())
    back = cuda.unscale(grad, conv, units, sums)
    found = (back.conv, back.sums, back.bias, *back.units.unbind(2))
    for got, want in zip(found, wanted, strict=True):
        assert_close(got, want, TOLERANCE[dtype])


def whole(case, dtype, samples=2, mean=0.0, of=None):
    """Output and gradients by the kernels, and by differentiable operations in float64.

    of: the dtype of the tensors if it is not that of the convolution, as under autocast.
    """
    dtype, conv_dtype = of or dtype, dtype
    x = case.input(dtype, samples) + mean
    shape = (case.outputs, case.channels // case.groups, *case.geometry.kernel_size)
    weight = torch.randn(shape, dtype=torch.double).to(DEVICE, dtype)
    bias = torch.randn(case.outputs, dtype=torch.double).to(DEVICE, dtype)
    options = Options(case.geometry, case.groups, case.num_stats, case.rule, conv_dtype)
    with torch.no_grad():
        out, conv = fused.forward(cuda, x, weight, bias, SEED, options, True)
        grad = torch.randn_like(out)
        found = fused.backward(cuda, grad, x, weight, conv, SEED, options, True, True)
    leaves = [t.double().requires_grad_() for t in (x, weight, bias)]
    settings = (*case.geometry[1:], case.groups, case.num_stats, *case.rule, torch.double)
    want = fused_ops.composed(*leaves, torch.tensor(SEED), settings)
    return (out, *found), (want, *torch.autograd.grad(want, leaves, grad.double()))


@runs
@cases
def test_a_layer_is_that_of_differentiable_operations(case, dtype, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    for got, want in zip(*whole(case, dtype), strict=True):
        assert_close(got, want, TOLERANCE[dtype])


@runs
@pytest.mark.parametrize("geometry", [square, apart, point], ids=["square", "apart", "point"])
@pytest.mark.parametrize(
    ("last", "dtype"),
    [(False, torch.double), (True, torch.double), (True, torch.bfloat16)],
)
def test_units_side_by_side_are_those_of_the_definition(geometry, last, dtype):
    case = Case((5, 9), 40, 1, geometry, last=last, p=0.2)
    x = case.input(dtype)
    leaf = x.double().requires_grad_()
    padded = windows.zero_pad(leaf, geometry.padding)
    want = reference.kernel_norm(padded, *case.definition(leaf), *geometry[:2])
    out = fused.norm_forward(cuda, x, SEED, geometry, case.rule)
    assert out.dtype == x.dtype
    assert_close(out, want, TOLERANCE[dtype])
    grad = case.laid_out(torch.randn_like(out))
    found = fused.norm_backward(cuda, grad, x, SEED, geometry, case.rule)
    assert found.stride() == x.stride()
    assert_close(found, *torch.autograd.grad(want, leaf, grad.double()), TOLERANCE[dtype])


@runs
@pytest.mark.parametrize("mean", [0.0, 1000.0])
def test_a_large_mean_costs_no_digits(mean):
    for got, want in zip(*whole(CASES["last"], torch.float, mean=mean), strict=True):
        assert_close(got, want, 2e-6)


@runs
def test_a_convolution_in_fewer_digits_leaves_the_others_theirs():
    found, wanted = whole(CASES["last"], torch.bfloat16, mean=1000.0, of=torch.float)
    assert [t.dtype for t in found] == [torch.bfloat16, *[torch.float] * 3]
    for got, want in zip(found, wanted, strict=True):
        assert_close(got, want, 2e-2)


@runs
def test_offsets_of_64_bits_lead_to_the_same_places(monkeypatch):
    for case in (CASES["groups"], CASES["expected"]):
        narrow, _ = whole(case, torch.double)
        monkeypatch.setattr(triton_calls, "NARROW", 0)
        wide, _ = whole(case, torch.double)
        monkeypatch.undo()
        for one, other in zip(narrow, wide, strict=True):
            assert torch.equal(one, other)


@runs
@pytest.mark.parametrize("last", [False, True])
def test_the_mask_is_that_of_every_device(last):
    x = torch.zeros(3, 5, 4, 6, device=DEVICE) + 1.0
    if not last:
        moments, _ = cuda.moments(x, 5, Dropout(0.3, SEED), None)
        keep = keep_mask(x.unsqueeze(2), 0.3, torch.tensor(SEED)).squeeze(2)
        assert torch.equal(moments[:, :, 3] == 0, keep)
    x = Case((4, 6), 5, 1, point, last=last).laid_out(x)
    out = torch.zeros_like(x)
    moments, _ = cuda.moments(x, 1, Dropout(0.3, SEED), None)
    slopes = torch.zeros(3, 1, 4, 4, 6, device=DEVICE)
    slopes[:, :, 2] = 1.0
    cuda.add(out, x, moments, slopes, Dropout(0.3, SEED))
    assert torch.equal(out == 0, keep_mask(x.unsqueeze(1), 0.3, torch.tensor(SEED)).squeeze(1))


@runs
def test_sums_over_many_slices_are_complete_and_always_the_same():
    case = Case((4, 4), 3, 4, square, p=0.2)
    (first, want), (second, _) = (whole(case, torch.float, samples=5) for _ in range(2))
    for one, other, right in zip(first, second, want, strict=True):
        assert torch.equal(one, other)
        assert_close(one, right, 1e-5)


@runs
def test_no_samples_give_no_output_and_no_gradient():
    (out, of_x, *others), _ = whole(CASES["dropout"], torch.float, samples=0)
    assert out.shape == (0, 4, 9, 9)
    assert of_x.shape == (0, 6, 9, 9)
    assert all(not t.any() for t in others)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("compiled", [False, True])
def test_kn_conv_on_a_gpu_is_that_of_a_cpu(compiled):
    conv = torch.compile(kn_conv, fullgraph=True) if compiled else kn_conv
    found = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        tensors = [torch.randn(s, dtype=torch.double) for s in ((2, 6, 9, 9), (4, 6, 3, 3), (4,))]
        leaves = [t.to(device).requires_grad_() for t in tensors]
        out = conv(*leaves, padding=1, dropout_p=0.2)
        found.append([t.cpu() for t in (out, *torch.autograd.grad(out.sin().sum(), leaves))])
    for got, want in zip(*found, strict=True):
        assert_close(got, want, 1e-10)


class Target:
    """A driver that names a GPU and runs nothing."""

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0

    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)


def passes(case, dtype):
    """All of them, one after the other."""
    x, channels = case.input(dtype), case.channels // case.num_stats
    sums = x.new_ones(case.num_stats, case.outputs // case.num_stats, 1)
    sums = sums.expand(-1, -1, math.prod(case.geometry.kernel_size))
    rest = (channels, case.geometry, case.rule)
    moments, _ = cuda.moments(x, case.num_stats, case.dropout, dtype)
    units = cuda.unit_statistics(moments, *rest)
    conv = x.new_empty(len(x), case.outputs, *units.maps.shape[3:])
    conv = case.laid_out(conv)
    cuda.scale(conv, units, sums, sums[..., 0], conv)
    grads = cuda.unscale(conv, conv, units, sums).units
    slopes = cuda.through_statistics(grads, units, moments, *rest)
    cuda.add(x, x, moments, slopes, case.dropout)
    out = cuda.gather(x, moments, units, case.geometry)
    cuda.ungather(out, x, moments, units, case.geometry)


@on_cpu
def test_kernels_compile_for_a_gpu(monkeypatch):
    made = []

    def compiled(kernel, grid, *tensors, **settings):
        settings |= {"index": triton.language.int32, "enable_fp_fusion": True}
        made.append(kernel.warmup(*tensors, **settings, grid=grid))

    monkeypatch.setattr(cuda, "launch", compiled)
    monkeypatch.setattr(triton.runtime.driver, "_active", Target())
    for name in ("last", "wide last"):
        passes(CASES[name], torch.bfloat16)
    names = {"moments", "unit_statistics", "scale", "unscale", "through_statistics", "add"}
    names |= {"gather", "of_pixels", "of_units"}
    assert {kernel.metadata.name for kernel in made} == names
    assert all("cubin" in kernel.asm for kernel in made)
