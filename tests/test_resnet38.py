"""ResNet-38: the layers of the paper, their weights' names, and the field of view."""

import pytest
import torch
from torch import nn

from aream_mm.models.resnet38 import ResNet38, Unit, level


@pytest.fixture(scope='module')
def network():
    return ResNet38().train()


def test_it_has_the_paper_s_convolutions(network):
    """37 of them, beside those of the shortcuts; the 38th layer is the classifier."""
    convs = {name: module for name, module in network.named_modules() if isinstance(module, nn.Conv2d)}
    assert len([name for name in convs if 'branch1' not in name]) == 37
    assert sorted(name for name in convs if 'branch1' in name) == [f'b{i}.conv_branch1' for i in range(2, 8)]
    assert convs['b6.conv_branch2b1'].weight.shape == (1024, 512, 3, 3)
    dilations = [convs[name].dilation[0] for name in ('b5.conv_branch2a', 'b5.conv_branch2b1', 'b5_2.conv_branch2a')]
    assert dilations == [1, 2, 2] and convs['b7.conv_branch2b1'].dilation[0] == 4


def test_features_have_stride_8_and_batch_norm_keeps_its_statistics(network):
    before = network.b4.bn_branch2a.running_mean.clone()
    with torch.no_grad():
        (features,) = network(torch.rand(1, 3, 24, 40))
    assert features.shape == (1, 4096, 3, 5) and features.isfinite().all()
    assert torch.equal(network.b4.bn_branch2a.running_mean, before) and network.b6.dropout.training


def test_a_unit_adds_its_convolutions_to_the_activated_shortcut():
    torch.manual_seed(0)
    unit, x = Unit((2, 3, 4), (3, 3), (1, 2), stride=2).eval(), torch.randn(1, 2, 8, 6)
    active = x.div((1 + 1e-5) ** 0.5).relu()
    inner = nn.functional.conv2d(active, unit.conv_branch2a.weight, stride=2, padding=1).div((1 + 1e-5) ** 0.5).relu()
    expected = nn.functional.conv2d(active, unit.conv_branch1.weight, stride=2)
    expected = expected + nn.functional.conv2d(inner, unit.conv_branch2b1.weight, padding=2, dilation=2)
    torch.testing.assert_close(unit(x), expected)


def test_a_unit_of_one_width_adds_to_its_input():
    unit = level('b', 2, (4, 2, 4))['b_1']
    nn.init.zeros_(unit.conv_branch2b1.weight)
    x = torch.randn(1, 4, 5, 5)
    assert torch.equal(unit(x), x)


def test_weights_are_read_from_a_file_and_a_file_that_lacks_some_is_refused(network, tmp_path):
    weights = {key: value for key, value in network.state_dict().items() if not key.endswith('num_batches_tracked')}
    weights['fc8.weight'] = torch.zeros(20, 4096, 1, 1)
    torch.save(weights, tmp_path / 'whole.pth')
    other = ResNet38(str(tmp_path / 'whole.pth'))
    other.init_weights()
    assert torch.equal(other.b7.conv_branch1.weight, network.b7.conv_branch1.weight)
    del weights['b2_1.conv_branch2a.weight']
    torch.save(weights, tmp_path / 'part.pth')
    with pytest.raises(ValueError, match=r'part.pth: expected weights of ResNet-38, 1 lack: .*b2_1.conv_branch2a'):
        ResNet38(str(tmp_path / 'part.pth')).init_weights()
