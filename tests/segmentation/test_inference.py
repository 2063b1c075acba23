import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from segmentation.inference import origins, probabilities
from segmentation.inference_config import Inference

K = 3


class Recorder(nn.Module):
    """Hands on the logits of a net and notes what it has seen."""

    def __init__(self, net):
        super().__init__()
        self.net, self.shapes = net, []

    def forward(self, x):
        self.shapes.append(tuple(x.shape))
        return self.net(x)


def pointwise():
    """A net that sees each pixel alone."""
    torch.manual_seed(0)
    return nn.Conv2d(3, K, 1)


def image(height, width, seed=0):
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


def asked(net, inputs, **settings):
    return probabilities(net.eval(), inputs, Inference(**settings), K)


@given(st.integers(1, 300), st.integers(1, 300), st.data())
def test_windows_cover_every_pixel_and_leave_the_image_only_where_it_is_smaller(length, side, data):
    step = data.draw(st.integers(1, side))
    starts = origins(length, side, step)
    assert starts == sorted(set(starts))
    covered = {pixel for start in starts for pixel in range(start, start + side)}
    assert covered >= set(range(length))
    assert max(covered) < max(length, side)


@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 9), st.data())
def test_windows_of_a_pointwise_net_are_the_image_as_a_whole(height, width, windows, data):
    crop = data.draw(st.tuples(st.integers(1, 24), st.integers(1, 24)))
    stride = data.draw(st.tuples(st.integers(1, crop[0]), st.integers(1, crop[1])))
    inputs, net = image(height, width), pointwise()
    found = asked(net, inputs, crop=crop, stride=stride, windows=windows)
    torch.testing.assert_close(found, net(inputs).softmax(1).detach(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("settings", [{}, {"crop": (9, 9)}], ids=["whole", "windows"])
def test_no_net_sees_an_image_smaller_than_it_takes(settings):
    net, inputs = Recorder(pointwise()), image(7, 40)
    settings = Inference(scales=(0.5, 1.0), **settings)
    found = probabilities(net.eval(), inputs, settings, K, least=9)
    assert {min(shape[2:]) for shape in net.shapes} == {9}
    whole = probabilities(net.net, inputs, Inference(scales=(0.5, 1.0)), K)
    torch.testing.assert_close(found, whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("settings", [{}, {"crop": (8, 8)}], ids=["whole", "windows"])
@pytest.mark.parametrize("scales", [(1.0,), (0.5, 0.77, 1.0, 2.0)])
@pytest.mark.parametrize("size", [(1, 1), (5, 9), (20, 31)])
def test_chances_are_those_of_one_pixel_of_the_image_whatever_the_views(settings, scales, size):
    net = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, K, 3, padding=1))
    chances = asked(net, image(*size), scales=scales, flip=True, **settings)
    assert chances.shape == (1, K, *size)
    assert chances.dtype == torch.float32
    torch.testing.assert_close(chances.sum(1), torch.ones(1, *size))


@pytest.mark.parametrize("settings", [{}, {"crop": (6, 7)}], ids=["whole", "windows"])
def test_mirror_images_change_nothing_for_a_pointwise_net_and_something_for_others(settings):
    inputs, net = image(10, 12), pointwise()
    plain = asked(net, inputs, **settings)
    torch.testing.assert_close(asked(net, inputs, flip=True, **settings), plain)
    net = nn.Conv2d(3, K, 3, padding=1)
    assert not torch.allclose(asked(net, inputs, flip=True, **settings), asked(net, inputs))


def test_with_mirror_images_an_image_and_its_mirror_image_have_mirrored_chances():
    inputs, net = image(10, 12), nn.Conv2d(3, K, 3, padding=1)
    mirrored = asked(net, inputs.flip(3), flip=True)
    torch.testing.assert_close(mirrored.flip(3), asked(net, inputs, flip=True))


def test_scales_are_averaged_as_chances():
    inputs, net = image(8, 10), nn.Conv2d(3, K, 3, padding=1)
    parts = [asked(net, inputs, scales=(scale,)) for scale in (0.5, 1.0, 1.75)]
    torch.testing.assert_close(asked(net, inputs, scales=(0.5, 1.0, 1.75)), sum(parts) / 3)
    torch.testing.assert_close(parts[1], net(inputs).softmax(1).detach())


def test_smaller_images_are_antialiased():
    seen, net = [], pointwise()
    net.register_forward_pre_hook(lambda net, inputs: seen.append(inputs[0]))
    stripes = (torch.arange(64) % 4 == 0).float().expand(1, 3, 16, 64)
    asked(net, stripes, scales=(0.25,))
    assert seen[0].shape == (1, 3, 4, 16)
    torch.testing.assert_close(
        seen[0][..., 1:-1], torch.full((1, 3, 4, 14), 0.25), atol=0.1, rtol=0
    )


def test_a_constant_image_has_the_same_chances_at_every_scale():
    inputs, net = torch.full((1, 3, 9, 9), 0.3), pointwise()
    torch.testing.assert_close(asked(net, inputs, scales=(0.3, 1.9)), asked(net, inputs))


def test_the_net_sees_as_many_windows_at_a_time_as_asked_all_of_one_size():
    net = Recorder(pointwise())
    asked(net, image(20, 30), crop=(8, 12), stride=(8, 12), windows=4)
    assert net.shapes == [(4, 3, 8, 12)] * 2 + [(1, 3, 8, 12)]
    net.shapes.clear()
    asked(net, image(5, 30), crop=(8, 12), stride=(8, 12), windows=4, flip=True)
    assert net.shapes == [(3, 3, 8, 12)] * 2


def test_overlapping_windows_count_alike():
    """A net that knows the column in its window: every pixel gets the mean over its windows."""

    class Column(nn.Module):
        def forward(self, x):
            column = torch.arange(x.shape[3]).float().expand(len(x), 1, *x.shape[2:])
            return torch.cat([column.log_softmax(3), column], 1)

    logits = Column()(torch.zeros(1, 3, 2, 4))
    chances = probabilities(
        Column(), torch.zeros(1, 3, 2, 6), Inference(crop=(2, 4), stride=(2, 2)), 2
    )
    window = logits.softmax(1)
    expected = torch.zeros(1, 2, 2, 6)
    expected[..., :4] += window
    expected[..., 2:] += window
    expected[..., 2:4] /= 2
    torch.testing.assert_close(chances, expected)


def test_small_images_are_padded_for_windows_alone():
    net = Recorder(nn.Conv2d(3, K, 3, padding=1))
    inputs = image(5, 6)
    padded = nn.functional.pad(inputs, (0, 4, 0, 3))
    expected = net.net(padded).softmax(1)[:, :, :5, :6]
    torch.testing.assert_close(asked(net, inputs, crop=(8, 10)), expected.detach())
    asked(net, inputs)
    assert net.shapes == [(1, 3, 8, 10), (1, 3, 5, 6)]


def test_logits_of_16_bits_are_averaged_in_32():
    inputs = image(6, 6).bfloat16()
    chances = asked(pointwise().bfloat16(), inputs, crop=(4, 4))
    assert chances.dtype == torch.float32
    torch.testing.assert_close(chances.sum(1), torch.ones(1, 6, 6))
