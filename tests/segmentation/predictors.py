"""A predictor that paints by color, and images for it."""

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from torch import nn

from segmentation.classes import CAMVID
from segmentation.inference_config import Inference
from segmentation.prediction import Predictor


def painter(classes=CAMVID, **settings):
    """Its net takes red pixels for class 0, green ones for 1 and blue ones for 2."""
    net = nn.Conv2d(3, len(classes.names), 1, bias=False)
    net.weight.data.zero_()
    net.weight.data[:3, :, 0, 0] = 10 * torch.eye(3)
    return Predictor(
        accelerator=Accelerator(cpu=True),
        net=net,
        classes=classes,
        mean=torch.full((3, 1, 1), 0.5),
        std=torch.full((3, 1, 1), 0.25),
        **{"inference": Inference()} | settings,
    )


def flag(height=6, width=9):
    """(H, W, 3) uint8: red, green and blue thirds."""
    image = np.zeros((height, width, 3), dtype=np.uint8)
    for part in range(3):
        image[:, part * width // 3 : (part + 1) * width // 3, part] = 255
    return image


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


def pixels(path):
    """Of an image file, with its mode."""
    with Image.open(path) as image:
        return image.mode, np.array(image)
