"""The preprocessing of networks is the one they were trained with."""

import pytest
import torch
import torchvision.transforms as T
from pictures import pictures
from torchvision.models import get_weight

from toumei.cnns import robustness
from toumei.core.errors import ArgumentError


def test_imagenet_preprocessing_is_torchvisions():
    image = pictures(2, 5, 7)
    expected = T.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))(image)
    torch.testing.assert_close(robustness.preprocess("imagenet")(image), expected)


@pytest.mark.parametrize("name", ["EfficientNet_V2_L_Weights.DEFAULT", "R3D_18_Weights.KINETICS400_V1"])
def test_preprocessing_of_trained_weights_is_what_torchvision_does_to_values(name):
    image = pictures(2, 5, 7)
    transforms = get_weight(name).transforms()
    expected = T.Normalize(transforms.mean, transforms.std)(image)
    for weights in (name, get_weight(name)):
        torch.testing.assert_close(robustness.preprocess(weights)(image), expected)
    assert not torch.allclose(expected, robustness.preprocess("imagenet")(image), atol=0.05)


def test_inception_preprocessing_is_255_x_minus_117():
    image = pictures(2, 5, 7)
    torch.testing.assert_close(
        robustness.preprocess("inception5h")(image), image * 255 - 117, atol=1e-4, rtol=0
    )


def test_preprocessing_follows_the_device():
    module = robustness.preprocess("imagenet").to("meta")
    assert module(torch.rand(1, 3, 4, 4, device="meta")).device.type == "meta"


def test_an_unknown_preprocessing_names_those_that_exist():
    with pytest.raises(ArgumentError, match="no preprocessing 'caffe': there are 'imagenet', 'inception5h'"):
        robustness.preprocess("caffe")
    for wrong in ("ResNet50_Weights.IMAGENET21K", "ResNet49_Weights.DEFAULT", "ResNet50_Weights", 50):
        with pytest.raises(ArgumentError, match="such as 'ResNet50_Weights.DEFAULT'"):
            robustness.preprocess(wrong)


def test_a_network_that_normalizes_its_input_itself_needs_no_preprocessing():
    with pytest.raises(ArgumentError, match="normalizes its input itself"):
        robustness.preprocess("FasterRCNN_ResNet50_FPN_Weights.DEFAULT")


def test_a_normalization_takes_pictures_on_any_device_and_stays_where_it_is():
    normalize = robustness.preprocess("imagenet")
    assert normalize(torch.zeros(2, 3, 4, 5, device="meta")).device.type == "meta"
    assert normalize.scale.device.type == "cpu"
