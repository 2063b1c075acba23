import pytest
import torch

from knorm.kan.wavelets import WAVELETS


@pytest.mark.parametrize("name", WAVELETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_slopes_are_those_of_autograd(name, dtype):
    z = torch.cat([torch.linspace(-3, 3, 1001, dtype=torch.float64), torch.tensor([0.0, 1e-9])])
    z = z[(z.abs() - 0.5).abs() > 1e-6].requires_grad_()
    value, slope = WAVELETS[name]
    (expected,) = torch.autograd.grad(value(z).sum(), z)
    tolerance = 1e-9 if dtype == torch.float64 else 2e-5
    found = slope(z.detach().to(dtype)).double()
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
