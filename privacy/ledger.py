"""The privacy ledger of a run folder: every step that may have been released, before it is.

A line of JSON says what mechanism the run is, then one line for each noisy step is on the disk
before that step changes any weight. Every line is sealed by the secret together with the one
before it, and holds nothing that the next process could not write again. So whoever goes on can
compare each line with what it must be, and an edited, missing or exchanged line is named. Lines
cut off at the end leave fewer than the steps of the weights, which is noticed too.

After a crash the weights may be older than the ledger. The steps in between are done again, with
the same records and the same noise, for both are functions of (secret, step): from the same
weights they release the same value, which tells nobody more than the first time. They have their
line already and are not counted twice. This rests on the weights being equal to the bit, so a run
may not go on with anything changed that the sums depend on.
"""

import itertools
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from knorm.training.files import flush, write_text
from knorm.training.mistakes import UserMistakeError, check_positive, check_range
from privacy.secret import Secret

FILE = "ledger.jsonl"
SEAL_DIGITS = 64  # of an HMAC-SHA256 in hexadecimal


@dataclass(frozen=True, kw_only=True)
class Mechanism:
    """What a private run does at every step, as its accountant takes it."""

    sampling_rate: Fraction
    noise_multiplier: float
    """the noise's standard deviation over `clip_norm`"""
    clip_norm: float
    delta: float
    unit: str
    """what one record is, such as "one image" """
    accountant: str
    origin: Mapping[str, str] = field(default_factory=dict)
    """by name, what the sums depend on besides: `privacy.origin`"""
    mechanism: str = field(default="Gaussian on a Poisson sample", init=False)
    neighbours: str = field(default="one unit added or removed", init=False)

    def __post_init__(self) -> None:
        check_positive("clip_norm", self.clip_norm)
        check_range("delta", self.delta, 0.0, 1.0)
        if self.noise_multiplier != 0:
            check_positive("noise_multiplier", self.noise_multiplier)

    def facts(self) -> dict[str, Any]:
        """The fields as JSON takes them, the sampling rate as its exact fraction."""
        facts = asdict(self) | {"sampling_rate": str(self.sampling_rate)}
        del facts["origin"]
        return facts | dict(self.origin)


class Ledger:
    """The ledger as the main process keeps it; `begin` and `resume` make one."""

    def __init__(self, folder: Path, mechanism: Mechanism, secret: Secret) -> None:
        self.path, self.mechanism, self.secret = folder / FILE, mechanism, secret
        self._lines = _lines(mechanism, secret)
        self._next = next(self._lines)
        self._written = 0  # lines
        self._size = 0  # bytes of them

    @property
    def steps(self) -> int:
        """How many steps count, from step 0 on."""
        return self._written - 1

    @property
    def history(self) -> list[tuple[float, float, int]]:
        """(sampling rate, noise multiplier, steps) for the accountant to compose."""
        rate, noise = float(self.mechanism.sampling_rate), self.mechanism.noise_multiplier
        return [(rate, noise, self.steps)]

    @classmethod
    def begin(cls, folder: Path, mechanism: Mechanism, secret: Secret) -> "Ledger":
        """Write the first line of a new ledger; `UserMistakeError` where there is one."""
        ledger = cls(folder, mechanism, secret)
        if ledger.path.exists():
            raise UserMistakeError(f"{ledger.path} is there already; begin in a new folder")
        write_text(ledger.path, ledger._next)
        flush(folder)
        ledger._count_next()
        return ledger

    @classmethod
    def resume(
        cls, folder: Path, mechanism: Mechanism, secret: Secret, applied_steps: int
    ) -> "Ledger":
        """Go on with the ledger in `folder`, every line of which must be what this run wrote.

        A last line that a crash left half written counts as a step, and is completed.

        Args:
            applied_steps: Steps in the weights that the run goes on from.

        Raises:
            UserMistakeError: With file and line, for a ledger that is missing, was edited, belongs
                to another run or mechanism, or has fewer steps than the weights.
        """
        ledger = cls(folder, mechanism, secret)
        ledger._verify()
        if ledger.steps < applied_steps:
            raise UserMistakeError(
                f"{ledger.path}:{ledger._written}: the ledger ends here with {ledger.steps} steps, "
                f"but the weights have had {applied_steps}; put the whole file back"
            )
        return ledger

    def append(self, step: int) -> None:
        """Count a step, before its noisy sums leave the process; returns when it is on the disk.

        A step that counts already is done again after a crash, and changes nothing.
        """
        if step < self.steps:
            return
        if step > self.steps:
            raise ValueError(f"step {step} cannot follow the {self.steps} steps of the ledger")
        size = self.path.stat().st_size if self.path.exists() else 0
        if size != self._size:
            raise UserMistakeError(
                f"{self.path}:{self._written}: another process changed the ledger after this line; "
                "one run goes on in one process group"
            )
        self._write_next()

    def _verify(self) -> None:
        """Count the lines of the file, each of which must be the next one."""
        if not self.path.is_file():
            raise UserMistakeError(
                f"{self.path} is missing, so what was released cannot be told; put it back"
            )
        *whole, rest = self.path.read_bytes().decode(errors="replace").split("\n")
        self._check_mechanism(whole[0] if whole else rest)
        for line in whole:
            if line + "\n" != self._next:
                raise self._edited()
            self._count_next()
        if rest:
            if not self._next.startswith(rest.rstrip("\0")):  # zeros: the power failed
                raise self._edited()
            self._write_next()

    def _check_mechanism(self, line: str) -> None:
        """Say which setting is another one, where the first line is whole."""
        try:
            written = dict(json.loads(line))
        except (ValueError, TypeError):
            raise self._edited() from None
        for name, value in json.loads(self._next).items():
            if name != "seal" and written.get(name) != value:
                is_sealed = name in self.mechanism.origin and len(str(value)) == SEAL_DIGITS
                old = (
                    "another one" if is_sealed else f"{written.get(name)}, but this run has {value}"
                )
                raise UserMistakeError(
                    f"{self.path}:1: {name} is {old}; a run goes on only as it began"
                )

    def _edited(self) -> UserMistakeError:
        return UserMistakeError(
            f"{self.path}:{self._written + 1} is not the line that this run wrote, so what was "
            "released cannot be told; put an untouched copy of the file back"
        )

    def _write_next(self) -> None:
        """The next line goes over whatever a crash left in its place, never less than that."""
        with self.path.open("r+b") as file:
            file.seek(self._size)
            file.write(self._next.encode())
            file.truncate()
            os.fsync(file.fileno())
        self._count_next()

    def _count_next(self) -> None:
        self._size += len(self._next)  # all of it ASCII
        self._written += 1
        self._next = next(self._lines)


def _lines(mechanism: Mechanism, secret: Secret) -> Iterator[str]:
    """All that a ledger can hold, line by line; each is sealed with the seal before it."""
    first = mechanism.facts() | {"secret": secret.commitment}
    seal = ""
    for facts in itertools.chain([first], ({"step": step} for step in itertools.count())):
        seal = secret.seal(seal + json.dumps(facts))
        yield json.dumps(facts | {"seal": seal}) + "\n"
