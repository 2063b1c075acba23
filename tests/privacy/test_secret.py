import copy
import dataclasses
import json
import os
import pickle
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from knorm.training.mistakes import UserMistakeError
from privacy import secret
from privacy.sampler import PoissonSampling
from privacy.secret import FILE, STATE_BEGIN, STATE_WORDS, Secret
from tests.privacy.known import KEY, SECRET


def drawn(made):
    return made.words(4, "test").tolist()


@pytest.fixture
def open_umask():
    old = os.umask(0)
    yield
    os.umask(old)


def test_a_secret_is_loaded_as_it_was_created(tmp_path):
    made = secret.create(tmp_path)
    assert drawn(secret.load(tmp_path)) == drawn(made)
    assert secret.load(tmp_path).commitment == made.commitment


def test_two_secrets_differ(tmp_path):
    folders = [tmp_path / name for name in "ab"]
    for folder in folders:
        folder.mkdir()
    one, other = (secret.create(folder) for folder in folders)
    assert drawn(one) != drawn(other)
    assert one.commitment != other.commitment


@pytest.mark.usefixtures("open_umask")
def test_nobody_else_can_read_the_file_at_any_moment(tmp_path, monkeypatch):
    modes = []
    flush = secret.flush

    def look(path):
        modes.extend(file.stat().st_mode & 0o777 for file in tmp_path.iterdir())
        flush(path)

    monkeypatch.setattr(secret, "flush", look)
    secret.create(tmp_path)
    assert modes == [0o600, 0o600]  # before it has its name, and after
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_a_secret_is_never_replaced(tmp_path):
    made = secret.create(tmp_path)
    with pytest.raises(UserMistakeError, match="is there already"):
        secret.create(tmp_path)
    assert drawn(secret.load(tmp_path)) == drawn(made)
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_a_failure_while_writing_leaves_no_secret(tmp_path, monkeypatch):
    monkeypatch.setattr(secret, "flush", lambda _: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        secret.create(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_links_is_named(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(secret.os, "link", refuse)
    with pytest.raises(UserMistakeError, match=r"not permitted.*another run_dir"):
        secret.create(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o602, 0o610])
def test_a_file_that_others_can_read_is_refused(tmp_path, mode):
    secret.create(tmp_path)
    (tmp_path / FILE).chmod(mode)
    with pytest.raises(UserMistakeError, match=f"mode {mode:04o}.*chmod 600"):
        secret.load(tmp_path)


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(UserMistakeError, match=f"{FILE} is missing"):
        secret.load(tmp_path)


DAMAGE = {
    "empty": lambda text: "",
    "cut": lambda text: text[:40],
    "cut by the last character": lambda text: text[:-1],
    "another digit": lambda text: ("1" if text[0] == "0" else "0") + text[1:],
    "another check": lambda text: text[:-2] + ("1" if text[-2] == "0" else "0") + "\n",
    "no digit": lambda text: "x" + text[1:],
    "upper case": lambda text: text.upper(),
    "more behind it": lambda text: text + text,
    "zeros": lambda text: "\0" * len(text),
    "no ASCII": lambda text: "\u00e9" + text[1:],
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_file_is_refused_and_not_shown(tmp_path, damage):
    secret.create(tmp_path)
    path = tmp_path / FILE
    key = path.read_text()
    path.write_text(damage(key))
    with pytest.raises(UserMistakeError, match="is damaged") as mistake:
        secret.load(tmp_path)
    assert key[8:16] not in str(mistake.value)


SHOWN = {
    "repr": repr,
    "str": str,
    "format": lambda made: f"{made:}",
    "in a list": lambda made: str([made]),
    "in the sampling": lambda made: repr(
        PoissonSampling(num_samples=1, sampling_rate=Fraction(1), steps=1, secret=made)
    ),
    "commitment": lambda made: made.commitment,
    "seal": lambda made: made.seal("text"),
}


@pytest.mark.parametrize("show", SHOWN.values(), ids=SHOWN.keys())
def test_no_text_shows_the_secret(show):
    text = show(SECRET)
    for spelling in (KEY.hex(), repr(KEY)[2:-1], str(list(KEY))[1:-1]):
        assert spelling[:12] not in text


COPIED = {
    "pickle": pickle.dumps,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "json": json.dumps,
    "vars": vars,
    "asdict": lambda made: dataclasses.asdict(
        PoissonSampling(num_samples=1, sampling_rate=Fraction(1), steps=1, secret=made)
    ),
}


@pytest.mark.parametrize("way", COPIED.values(), ids=COPIED.keys())
def test_a_secret_is_not_copied_by_accident(way):
    with pytest.raises(TypeError):
        way(SECRET)


def test_words_are_a_function_of_the_secret_and_what_they_are_for():
    assert SECRET.words(3, "mask", 7).tolist() == [
        14506502492739150614,
        558411329800763749,
        13413729161560940262,
    ]
    assert np.array_equal(SECRET.words(9, "mask", 7)[:3], SECRET.words(3, "mask", 7))
    assert SECRET.words(0, "mask", 7).tolist() == []


def test_no_two_purposes_share_their_words():
    labels = [
        *[("mask",), ("mask", 1), ("mask", 11), ("mask", 1, 1), ("mask1",), ("mask", "1")],
        *[("noise", 1), ("noise", "a", "b"), ("noise", "a,b"), ("noise", 'a", "b'), ("", "noise")],
    ]
    draws = {tuple(SECRET.words(2, *label).tolist()) for label in labels}
    draws |= {tuple(Secret(bytes(32)).words(2, *label).tolist()) for label in labels}
    assert len(draws) == 2 * len(labels)


def test_every_bit_of_the_words_is_a_fair_coin():
    words = SECRET.words(100_000, "test")
    ones = np.array([((words >> np.uint64(bit)) & np.uint64(1)).mean() for bit in range(64)])
    assert abs(ones - 0.5).max() < 4.5 * 0.5 / 100_000**0.5


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_a_key_of_another_length_is_refused(size):
    with pytest.raises(ValueError, match=f"256 bits, got {8 * size}"):
        Secret(bytes(size))


@pytest.mark.parametrize("resumes", [False, True])
def test_all_ranks_have_the_main_process_secret(tmp_path, monkeypatch, resumes):
    if resumes:
        secret.create(tmp_path)
    wire = []
    monkeypatch.setattr(secret, "broadcast_object_list", wire.extend)
    main = secret.of_run(SimpleNamespace(is_main_process=True), tmp_path, resumes=resumes)

    def receive(shared):
        shared[:] = pickle.loads(pickle.dumps(wire))

    monkeypatch.setattr(secret, "broadcast_object_list", receive)
    other = secret.of_run(SimpleNamespace(is_main_process=False), tmp_path / "none", resumes=False)
    assert drawn(main) == drawn(other) == drawn(secret.load(tmp_path))


@pytest.mark.parametrize(
    ("resumes", "message"), [(True, "is missing"), (False, "is there already")]
)
def test_a_run_that_goes_on_makes_no_new_secret_and_a_new_one_takes_no_old(
    tmp_path, resumes, message
):
    if not resumes:
        secret.create(tmp_path)
    with pytest.raises(UserMistakeError, match=message):
        secret.of_run(SimpleNamespace(is_main_process=True), tmp_path, resumes=resumes)


def test_torch_keeps_more_of_the_secret_than_a_seed_has():
    """The CPU's generator is an MT19937 whose words stand where we write them."""
    torch.manual_seed(5)
    words = np.random.RandomState(5).get_state()[1]
    begin = torch.get_rng_state()[STATE_BEGIN : STATE_BEGIN + 8 * STATE_WORDS].numpy()
    np.testing.assert_array_equal(begin.view("<u8"), words)
    one, other = Secret(bytes(32)), Secret(bytes(31) + b"1")
    drawn = []
    for key, step in ((one, 3), (one, 3), (one, 4), (other, 3)):
        key.seed_torch("dropout", step)
        drawn.append(torch.rand(1000))
    assert torch.equal(drawn[0], drawn[1])
    for values in drawn[2:]:
        assert not torch.equal(drawn[0], values)
        assert abs(values.mean().item() - 0.5) < 0.05
    state = np.random.RandomState()
    state.set_state(("MT19937", one.words(312, "dropout, cpu", 3).view("<u4"), 624))
    one.seed_torch("dropout", 3)
    expected = state.randint(0, 2**32, 5, dtype=np.uint32) & 0xFFFFFF
    np.testing.assert_array_equal((torch.rand(5) * 2**24).long().numpy(), expected)
