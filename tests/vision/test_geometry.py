import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms.v2 import RandomResizedCrop
from torchvision.transforms.v2 import functional as tv

from knorm.vision.geometry import crop_boxes, draw_boxes, inverse_maps, mapped, resized

RATIO = (3 / 4, 4 / 3)


def images(count, channels=3, height=20, width=27):
    generator = torch.Generator().manual_seed(count)
    shape = (count, channels, height, width)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def sides(count, height, width):
    return torch.tensor([height, width]).expand(count, 2)


@given(
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    low=st.floats(0.01, 1),
    high=st.floats(0.01, 1),
    key=st.integers(0, 2**62),
)
def test_boxes_lie_within_their_image(height, width, low, high, key):
    area = (min(low, high), max(low, high))
    boxes = crop_boxes(key, torch.arange(50), sides(50, height, width), area, RATIO)
    top, left, high, wide = boxes.unbind(1)
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] > 0).all()
    assert (top + high <= height).all()
    assert (left + wide <= width).all()


def test_boxes_have_the_areas_and_shapes_asked_for_and_are_everywhere():
    boxes, fits = draw_boxes(5, torch.arange(4000), sides(4000, 300, 200), (0.1, 0.5), (0.5, 2))
    top, left, height, width = boxes[fits].unbind(1)
    areas, shapes = height * width / 60000, width / height
    assert fits.float().mean() > 0.99
    assert 0.097 < areas.min() < 0.12
    assert 0.45 < areas.max() < 0.515
    assert 0.48 < shapes.min() < 0.55
    assert 1.8 < shapes.max() < 2.1
    assert (top == 0).any()
    assert (top + height == 300).any()
    assert (left + width == 200).any()


def test_boxes_spread_as_torchvisions():
    """Means of 4000 boxes: within four deviations of the mean of theirs."""
    crop = RandomResizedCrop(8, scale=(0.08, 1.0), ratio=RATIO)
    image = torch.zeros(3, 40, 60, dtype=torch.uint8)
    torch.manual_seed(0)
    drawn = [crop.make_params([image]) for _ in range(1500)]
    names = ("top", "left", "height", "width")
    theirs = torch.tensor([[box[name] for name in names] for box in drawn]).double()
    ours = crop_boxes(1, torch.arange(4000), sides(4000, 40, 60), (0.08, 1.0), RATIO).double()
    error = theirs.std(dim=0) * math.sqrt(1 / 1500 + 1 / 4000)
    assert ((ours.mean(dim=0) - theirs.mean(dim=0)).abs() < 4 * error).all()
    torch.testing.assert_close(ours.std(dim=0), theirs.std(dim=0), rtol=0.1, atol=0)


@pytest.mark.parametrize(
    ("height", "width", "middle"),
    [(30, 90, (0, 25, 30, 40)), (90, 30, (25, 0, 40, 30)), (30, 35, (0, 0, 30, 35))],
)
def test_where_no_box_fits_the_largest_in_the_middle_is_taken(height, width, middle):
    boxes = crop_boxes(0, torch.arange(3), sides(3, height, width), (50.0, 60.0), RATIO)
    assert boxes.tolist() == [list(middle)] * 3


def test_a_box_inside_is_shorter_than_both_sides():
    boxes, fits = draw_boxes(0, torch.arange(200), sides(200, 4, 5), (0.5, 1), RATIO, inside=True)
    assert fits.any()
    assert (boxes[fits][:, 2:] < torch.tensor([4, 5])).all()
    _, fits = draw_boxes(0, torch.arange(9), sides(9, 4, 5), (1, 1), (0.8, 0.8), inside=True)
    assert not fits.any()


@pytest.mark.parametrize("size", [(20, 27), (8, 8), (64, 40)])
def test_resized_boxes_are_torchvisions(size):
    pixels = images(30)
    boxes = crop_boxes(3, torch.arange(30), sides(30, 20, 27), (0.05, 1), RATIO)
    expected = torch.stack(
        [
            tv.resized_crop(image.float(), *box, size=list(size), antialias=True)
            for image, box in zip(pixels, boxes.tolist(), strict=True)
        ]
    )
    ours = resized(pixels, boxes, size)
    assert (ours - expected).abs().max() < 0.51  # theirs is not rounded
    theirs = tv.resized_crop(pixels[4], *boxes[4].tolist(), size=list(size), antialias=True)
    assert (ours[4].int() - theirs.int()).abs().max() <= 1


def test_the_whole_image_at_its_own_size_is_the_image():
    pixels = images(3)
    whole = torch.tensor([[0, 0, 20, 27]]).expand(3, 4)
    assert torch.equal(resized(pixels, whole, (20, 27)), pixels)


def test_maps_are_torchvisions_affine_transforms():
    pixels, uniform = images(40), torch.Generator().manual_seed(0)
    degrees, scale, shear_x, shear_y = torch.rand(4, 40, generator=uniform) * 60 - 30
    scale = 1 + scale / 60
    shift = torch.randint(-6, 7, (40, 2), generator=uniform)
    maps = inverse_maps(
        degrees=degrees, shift=shift, scale=scale, shear=torch.stack([shear_x, shear_y], dim=1)
    )
    settings = zip(
        degrees.tolist(),
        shift.tolist(),
        scale.tolist(),
        shear_x.tolist(),
        shear_y.tolist(),
        strict=True,
    )
    expected = torch.stack(
        [
            tv.affine(image, angle, move, factor, [x, y])
            for image, (angle, move, factor, x, y) in zip(pixels, settings, strict=True)
        ]
    )
    assert (mapped(pixels, maps) != expected).float().mean() < 1e-3
