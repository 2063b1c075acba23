import pytest

from knorm.training.model_settings import Model


@pytest.mark.parametrize(
    ("task", "name", "message"),
    [
        ("classification", "knresnet81", "did you mean 'knresnet18'?"),
        ("classification", "fcn", "unknown model 'fcn'"),
        ("segmentation", "knresnet18", "unknown model 'knresnet18'"),
        ("segmentation", "deeplabv3", "did you mean 'deeplabv3plus'?"),
        (
            "segmentation",
            "timm:resnet18",
            "--model.name fcn --model.options.backbone timm:resnet18",
        ),
    ],
)
def test_a_net_of_another_task_or_of_none_is_refused_by_name(task, name, message):
    with pytest.raises(ValueError, match="model") as caught:
        Model(name=name).check_task(task)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("classification", "timm:resnet18"),
        ("classification", "knresnet18"),
        ("segmentation", "fcn"),
    ],
)
def test_nets_of_the_task_are_taken(task, name):
    Model(name=name).check_task(task)
