"""Runs that are broken in one point each, and what notices it.

The audit finds what adds too little noise or lets too much of a record through; the checks before
training find what mixes records; what the ranks sample is seen in what they are dealt.
"""

from fractions import Fraction

import pytest
import torch
from torch import nn

from knorm.training.mistakes import UserMistakeError
from privacy import clipping, step
from privacy.clipping import Clipping
from privacy.noise import add_noise
from privacy.runs import PrivateCut
from privacy.sampler import PoissonSampling
from privacy.verdict import refutation
from tests.privacy.audits import audited
from tests.privacy.known import SECRET


def test_the_right_assembly_stands(tmp_path, monkeypatch):
    report = audited(tmp_path, monkeypatch)
    assert refutation(report) is None
    assert 0 < report["at_least"] < report["claimed"]["epsilon"] < 2


def noiseless(sums, secret, step, std):
    return sums


def quarter(sums, secret, step, std):
    return add_noise(sums, secret, step, std / 4)


def one_noise(sums, secret, step, std):
    return add_noise(sums, secret, 0, std)


def noise_of_step_3_again_in_step_9(sums, secret, step, std):
    return add_noise(sums, secret, 3 if step == 9 else step, std)


def unclipped(norms, bound):
    return torch.ones_like(norms)


BROKEN = {
    "no noise": lambda patch: patch.setattr(step, "add_noise", noiseless),
    "a quarter of the noise": lambda patch: patch.setattr(step, "add_noise", quarter),
    "one noise for all steps": lambda patch: patch.setattr(step, "add_noise", one_noise),
    "noise used twice": lambda patch: patch.setattr(
        step, "add_noise", noise_of_step_3_again_in_step_9
    ),
    "no clipping": lambda patch: patch.setitem(clipping.CLIPPINGS, "flat", Clipping(unclipped)),
    "every image in every step": lambda patch: patch.setattr(
        PoissonSampling, "batch", lambda self, step: torch.arange(self.num_samples)
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_the_audit_refutes_the_claim(tmp_path, monkeypatch, name):
    BROKEN[name](monkeypatch)
    rare = {"batch_size": 10, "epochs": 1, "privacy.noise_multiplier": 1.5}
    settings = {"privacy.checks": False} | (rare if "every image" in name else {})
    report = audited(tmp_path, monkeypatch, **settings)
    assert refutation(report) is not None, report


def test_no_clipping_is_found_before_training(tmp_path, monkeypatch):
    BROKEN["no clipping"](monkeypatch)
    with pytest.raises(RuntimeError, match=r"clipping leaves a norm of \d"):
        audited(tmp_path, monkeypatch)


class Disguised(nn.Module):
    """Statistics of the batch, without parameters or buffers."""

    def forward(self, x):
        return (x - x.mean(0)) / (x.std(0) + 1)


@pytest.mark.parametrize(
    "norm", [nn.BatchNorm1d(64), nn.BatchNorm1d(64, affine=False), Disguised()]
)
def test_batch_norm_is_found_before_training(tmp_path, monkeypatch, norm):
    def net(*_):
        return nn.Sequential(nn.Flatten(), norm, nn.Linear(64, 10))

    with pytest.raises(UserMistakeError, match=r"1 .*mixes"):
        audited(tmp_path / "run", monkeypatch, net)
    assert not (tmp_path / "run").exists()


def dealt(num_ranks, steps=400, records=60):
    """(steps, records): which rank gets each record, -1 where none does."""
    sampling = PoissonSampling(
        num_samples=records, sampling_rate=Fraction(3, 10), steps=steps, secret=SECRET
    )
    cut, table = PrivateCut(sampling, 1, 7, 0), -torch.ones(steps, records, dtype=torch.long)
    for each in range(steps):
        for rank in range(num_ranks):
            for shares, _ in cut.windows(each + 1, rank, num_ranks):
                for share in shares:
                    assert (table[each, share.samples] == -1).all()
                    table[each, share.samples] = rank
    return table


def most_alike(table):
    """The largest correlation between two records' being in."""
    matrix = torch.corrcoef((table >= 0).float().T)
    return matrix.fill_diagonal_(0).abs().max()


def test_ranks_share_one_mask_of_all_records():
    one, three = dealt(1), dealt(3)
    assert torch.equal(one >= 0, three >= 0)
    assert most_alike(three) < 5 / 400**0.5


def test_the_same_mask_on_every_rank_would_show(monkeypatch):
    plain = PoissonSampling.batch

    def repeated(self, step):
        """Every rank draws from a third of the records with the same seed."""
        local = plain(self, step)
        third = self.num_samples // 3
        local = local[local < third]
        return torch.cat([local, local + third, local + 2 * third])

    monkeypatch.setattr(PoissonSampling, "batch", repeated)
    assert most_alike(dealt(3)) > 0.99
