"""The run's secret: 256 bits that all its masks and all its noise are functions of.

Whoever knows them can take the noise off the weights again, so they live in one file that nobody
but its owner can read. They have nothing to do with the public seed of first weights.

Augmentation and dropout are theirs too: what they draw depends on a record's place in the data set
or in the batch, which is another one where a record is missing. Drawn by a public seed, they would
change what all later records add; by a secret one, they are as likely with the record as without.

Random words are SHAKE-256 of the secret and of what the words are for, so every draw is a pure
function: the same on every rank and after every restart, and telling it from true randomness, or
one draw from another, means breaking SHAKE-256 (FIPS 202). torch's own generator on the CPU keeps
32 bits of its seed and could be searched through.
"""

import hashlib
import hmac
import json
import os
import secrets
import stat
import tempfile
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from knorm.training.files import flush
from knorm.training.mistakes import UserMistakeError

FILE = "secret.key"
BITS = 256
STATE_BEGIN, STATE_WORDS = 24, 624  # bytes, and words of 8 with 32 bits, of MT19937 in torch


class Secret:
    """A key that shows in no text, no pickle and no copy."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        if len(key) * 8 != BITS:
            raise ValueError(f"a secret has {BITS} bits, got {len(key) * 8}")
        self._key = key

    def __repr__(self) -> str:
        return "Secret(...)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is neither pickled nor copied")

    def words(self, count: int, purpose: str, *parts: int | str) -> np.ndarray:
        """`count` random 64-bit words (uint64), a function of secret, purpose and parts alone.

        Draws of different purposes or parts are independent; fewer words of one draw are the
        first of more.
        """
        label = json.dumps([purpose, *parts]).encode()
        return np.frombuffer(hashlib.shake_256(self._key + label).digest(8 * count), "<u8")

    def number(self, purpose: str, *parts: int | str) -> int:
        """One of 63 bits, by the same rule."""
        return int(self.words(1, purpose, *parts)[0] >> np.uint64(1))

    def seed_torch(self, purpose: str, *parts: int | str) -> None:
        """Seed torch's global generators: 63 bits on GPUs, the whole state on the CPU.

        Of a number, the CPU's keeps 32 bits, which can be searched through.
        """
        torch.manual_seed(self.number(purpose, *parts))
        state = torch.get_rng_state()
        words = self.words(STATE_WORDS // 2, f"{purpose}, cpu", *parts).view("<u4")
        place = slice(STATE_BEGIN, STATE_BEGIN + 8 * STATE_WORDS)
        state[place] = torch.from_numpy(words.astype("<u8").view(np.uint8))
        torch.set_rng_state(state)

    def seal(self, text: str) -> str:
        """HMAC-SHA256 of a text in hexadecimal, which only who knows the secret can make."""
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()

    @property
    def commitment(self) -> str:
        """A name of the secret that can be shown: it tells two apart and reveals neither."""
        return self.seal("commitment")


def create(folder: Path) -> Secret:
    """Draw a new secret from the system's source into a file of `folder`.

    The file appears whole and readable by its owner alone. One that is there is never replaced:
    that raises `UserMistakeError`, as does a file system that has no links.
    """
    path, key = folder / FILE, secrets.token_bytes(BITS // 8)
    number, new = tempfile.mkstemp(dir=folder, prefix=f".{FILE}.")  # mode 0600 from the start
    try:
        with open(number, "w", encoding="ascii") as file:
            file.write(_text(key))
        flush(Path(new))
        _link(new, path)
    finally:
        os.unlink(new)
    flush(folder)
    return Secret(key)


def _link(new: str, path: Path) -> None:
    """Give the file its name unless that is taken, which a rename does not ask."""
    try:
        os.link(new, path)
    except FileExistsError as error:
        raise UserMistakeError(
            f"{path} is there already, and a run's secret is never replaced; begin in a new folder"
        ) from error
    except OSError as error:
        raise UserMistakeError(
            f"{path} cannot be made on this file system ({error.strerror}); give another run_dir"
        ) from error


def load(folder: Path) -> Secret:
    """The secret in `folder`.

    Raises `UserMistakeError` where it is missing or damaged, or where others can read it.
    """
    path = folder / FILE
    try:
        with path.open(encoding="ascii", errors="replace") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read()
    except FileNotFoundError as error:
        raise UserMistakeError(
            f"{path} is missing; without it the run's masks and noise cannot be drawn again"
        ) from error
    if mode & 0o077:
        raise UserMistakeError(
            f"{path} can be read by others (mode {mode:04o}), who could take the noise off the "
            f"weights; if nobody has: chmod 600 {path}"
        )
    try:
        key = bytes.fromhex(text[: BITS // 4])
    except ValueError:
        key = b""
    if len(key) * 8 != BITS or text != _text(key):
        raise UserMistakeError(f"{path} is damaged; put a copy of it back or begin a new run")
    return Secret(key)


def _text(key: bytes) -> str:
    """What the file holds: the key, and a part of its hash that tells damage."""
    return f"{key.hex()} {hashlib.sha256(key).hexdigest()[:16]}\n"


def of_run(accelerator: Accelerator, folder: Path, *, resumes: bool) -> Secret:
    """The run's secret on every rank: the main process creates it, or loads it on resuming.

    It reaches the other ranks through the process group, as weights and gradients do.
    """
    shared: list[Any] = [None]
    if accelerator.is_main_process:
        shared = [(load(folder) if resumes else create(folder))._key]
    broadcast_object_list(shared)
    return Secret(shared[0])
