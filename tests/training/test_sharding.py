import torch
from torch import nn

from knorm.training.sharding import is_sharded, load_weights, shard_like, whole
from tests.classification.runs import TWO, launch


def test_a_sharded_net_goes_on_to_the_same_bits_from_whole_tensors(tmp_path):
    assert launch(TWO, "tests.training.sharded_run", tmp_path).strip() == "equal"


def test_a_net_on_one_rank_passes_through_unchanged():
    net, other = nn.Linear(2, 3), nn.Linear(2, 3)
    assert not is_sharded(net)
    assert all(a is b for a, b in zip(whole({"w": net.weight}).values(), [net.weight], strict=True))
    load_weights(other, net.state_dict())
    assert torch.equal(other.weight, net.weight)
    assert shard_like(net.weight, other.weight) is net.weight
