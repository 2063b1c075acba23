"""OUT.md of a study's report, from the lines of OUT.csv alone."""

import statistics
from collections.abc import Sequence
from pathlib import Path

from knorm.training.compare import Row
from knorm.training.report import in_time
from knorm.training.tables import markdown, spread
