"""`privacy.train` with a secret that the tests know; a module for launchers."""

import sys

from knorm.training.mistakes import run_program
from privacy import runs, train
from tests.privacy.known import SECRET

if __name__ == "__main__":
    runs.of_run = lambda *_, **__: SECRET
    sys.exit(run_program(train.main))
