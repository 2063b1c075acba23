"""Physical batches: what fits is found before training, noted, and kept to on going on."""

import json
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from classification.data import Batch
from knorm.training.mistakes import UserMistakeError
from privacy import physical
from privacy.config import Privacy
from privacy.physical import FILE, MOST, physical_batch


def trainer():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    return SimpleNamespace(net=net, accelerator=Accelerator(cpu=True))


def loss_of(model, batch):
    loss = nn.functional.cross_entropy(model(batch.inputs), batch.labels, reduction="sum")
    return loss, {}


def run_in(folder):
    def write(name, text):
        (folder / name).write_text(text)

    return SimpleNamespace(
        folder=folder, accelerator=Accelerator(cpu=True), writes=True, write=write
    )


@pytest.fixture
def short(monkeypatch):
    """Memory for so many images; returns the numbers that were tried."""

    def limit(images):
        plain, tried = physical.clipped_sums, []

        def clipped(found, *args):
            count = len(next(iter(found.values())).samples())
            tried.append(count)
            if count > images:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            return plain(found, *args)

        monkeypatch.setattr(physical, "clipped_sums", clipped)
        return tried

    return limit


def found(folder, views=1, given=None):
    privacy = Privacy(delta=1e-5, epsilon=1, views=views, physical_batch=given)

    def make_batch(records, seed):
        labels = torch.arange(records * views) % 3
        return Batch(torch.zeros(records * views, 3, 2, 2), labels, labels, records * views)

    return physical_batch(privacy, run_in(folder), trainer(), loss_of, make_batch)


def test_it_is_halved_until_it_fits_and_noted(tmp_path, short):
    tried = short(70)
    assert found(tmp_path) == 64
    assert tried == [256, 128, 64]
    assert json.loads((tmp_path / FILE).read_text()) == {"physical_batch": 64}


def test_a_run_that_goes_on_keeps_the_number(tmp_path, short):
    short(70)
    found(tmp_path)
    tried = short(10**6)
    assert found(tmp_path) == 64
    assert tried == []


def test_with_room_it_is_the_most(tmp_path):
    assert found(tmp_path) == MOST


def test_views_of_an_image_stay_together(tmp_path, short):
    short(5)  # records
    assert found(tmp_path, views=8) == 4 * 8


def test_what_is_given_is_taken_untried(tmp_path, short):
    tried = short(0)
    assert found(tmp_path, given=7) == 7
    assert tried == []
    assert not (tmp_path / FILE).exists()


def test_too_little_for_one_image_is_told(tmp_path, short):
    short(0)
    with pytest.raises(UserMistakeError, match=r"one image with its 2 view\(s\) does not fit"):
        found(tmp_path, views=2)


def test_a_number_that_is_lost_is_not_found_anew(tmp_path):
    (tmp_path / "ledger.jsonl").write_text("{}\n")
    with pytest.raises(UserMistakeError, match=f"{FILE} is missing"):
        found(tmp_path)


def test_other_errors_are_no_want_of_memory(tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(physical, "clipped_sums", broken)
    with pytest.raises(RuntimeError, match="shapes differ"):
        found(tmp_path)


def test_weights_and_gradients_stay_as_they_were(tmp_path):
    one, privacy = trainer(), Privacy(delta=1e-5, epsilon=1)
    before = {name: value.clone() for name, value in one.net.state_dict().items()}
    labels = torch.zeros(4, dtype=torch.long)
    batch = Batch(torch.ones(4, 3, 2, 2), labels, labels, 4)
    assert physical.fits(4, privacy, one, loss_of, lambda *_: batch)
    assert all(torch.equal(value, before[name]) for name, value in one.net.state_dict().items())
    assert all(parameter.grad is None for parameter in one.net.parameters())
