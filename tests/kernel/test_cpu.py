"""The passes of a CPU: any number of threads, imports and where compiled loops are kept."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import knorm
from knorm import KernelNorm2d, KNConv2d
from knorm.kernel import cpu
from knorm.kernel import threads as threads_module
from knorm.kernel.passes import Dropout, Geometry, Rule

ROOT = Path(knorm.__file__).parent


def run(program, **env):
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ, **env}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.fixture
def threads():
    """A function that sets how many there are."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def all_passes(x, weights):
    """One after the other, and all that they give."""
    rule, geometry = Rule(0.2, 1.0, True, 1e-5), Geometry((3, 3), (1, 1), (1, 1), (1, 1))
    dropout, channels = Dropout(0.2, 2**40 + 7), x.shape[1]
    moments, centred = cpu.moments(x, 1, dropout, x.dtype)
    units = cpu.unit_statistics(moments, channels, geometry, rule)
    out, grad = torch.empty_like(x), x.roll(1, 0)
    cpu.scale(x, units, weights, None, out)
    back = cpu.unscale(grad, x, units, weights)
    slopes = cpu.through_statistics(back.units, units, moments, channels, geometry, rule)
    sum_of_all = x.clone(memory_format=torch.preserve_format)
    cpu.add(sum_of_all, x, moments, slopes, dropout)
    laid = cpu.gather(x, moments, units, geometry)
    of_x, of_units = cpu.ungather(laid, x, moments, units, geometry)
    tensors = [moments, centred, *units, out, back.conv, *back.units, back.sums, back.bias]
    return [*tensors, slopes, sum_of_all, laid, of_x, *of_units]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("samples", [1, 5, 70])
def test_the_passes_give_the_same_bits_on_any_number_of_threads(
    threads, layout, samples, monkeypatch
):
    monkeypatch.setattr(threads_module, "LEAST", 1)
    x = torch.randn(samples, 24, 34, 32).to(memory_format=layout)
    weights = torch.randn(1, 24, 9)
    found = []
    for count in (1, 2, 3):
        threads(count)
        found.append(all_passes(x, weights))
    for tensors in zip(*found, strict=True):
        assert all(torch.equal(tensors[0], other) for other in tensors[1:])


def test_loops_are_compiled_only_when_they_are_called():
    program = """
import sys, torch
import knorm.kernel as k
print("numba" in sys.modules)
k.kn_conv(torch.zeros(1, 2, 4, 4), torch.zeros(2, 2, 3, 3))
print("numba" in sys.modules)
"""
    assert run(program) == ["False", "True"]


def test_without_a_place_for_compiled_loops_they_are_compiled_anew(tmp_path):
    shutil.copytree(ROOT, tmp_path / "knorm", ignore=shutil.ignore_patterns("__pycache__"))
    program = """
from numba.core import caching
def nowhere(*args, **options): raise RuntimeError("no locator available")
caching.FunctionCache.__init__ = nowhere
from knorm.kernel import loops
import numpy
@loops.compiled
def twice(x): return 2 * x
print(twice(4))
"""
    assert run(program, PYTHONPATH=str(tmp_path)) == ["8"]


FORMATS = pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])


@FORMATS
@pytest.mark.parametrize("layer", [KNConv2d(3, 4, 3), KernelNorm2d(2), KernelNorm2d(1)])
def test_what_comes_out_may_be_changed_in_place(layer, memory_format):
    layer.dropout_p = 0.0
    x = torch.randn(2, 3, 6, 6).to(memory_format=memory_format).requires_grad_()
    for part in (x, x[0]):
        out = layer(part)
        (expected,) = torch.autograd.grad(out.relu().square().sum(), x)
        (found,) = torch.autograd.grad(layer(part).relu_().square().sum(), x)
        assert torch.equal(found, expected)
        assert expected.abs().max() > 0


@FORMATS
@pytest.mark.parametrize(("kernel_size", "dropout_p"), [(3, 0.0), (3, 0.3), (7, 0.0), (7, 0.3)])
def test_windows_of_nothing_give_nothing_whatever_is_beside_them(
    memory_format, kernel_size, dropout_p
):
    x = torch.randn(2, 8, 24, 24) + 1
    x[..., 8:] = 0
    layer = KNConv2d(8, 5, kernel_size, bias=False, dropout_p=dropout_p)
    out = layer(x.to(memory_format=memory_format))
    assert not out[..., 8:].any()
    assert out[..., :8].all()
