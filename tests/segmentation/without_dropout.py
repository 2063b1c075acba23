"""`segmentation.train` with heads that drop nothing, so that ranks draw alike; for launchers."""

import sys

from knorm.models import segmenter
from knorm.training.mistakes import run_program
from segmentation import train

if __name__ == "__main__":
    segmenter.HEAD_DROPOUT = 0.0
    sys.exit(run_program(train.main))
