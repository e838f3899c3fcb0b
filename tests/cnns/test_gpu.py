"""What must hold on an accelerator; skipped where there is none."""

import copy

import pytest
import torch

import toumei.cnns.objectives as obj
import toumei.cnns.parameterization as param
from toumei.cnns import robustness
from toumei.core.errors import DeviceError
from toumei.models import ShapesCNN

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def pipeline():
    image = param.Transform(param.FFTImage(2, 3, 33, 48, seed=0), robustness.light())
    return obj.Pipeline(image, [obj.Channel("conv4:5"), obj.Neuron("conv6:3")])


def test_a_run_is_that_of_the_cpu():
    model = ShapesCNN(pretrained=True)
    here = pipeline().attach(model).optimize(3, verbose=False, seed=0)
    there = pipeline().attach(copy.deepcopy(model)).to("cuda").optimize(3, verbose=False, seed=0)
    assert there.images.device.type == "cpu"
    torch.testing.assert_close(there.losses, here.losses, rtol=2e-2, atol=2e-2)


def test_bfloat16_runs_around_the_model_alone():
    fv = pipeline().attach(ShapesCNN(pretrained=True)).to("cuda")
    result = fv.optimize(3, verbose=False, seed=0, autocast=torch.bfloat16)
    assert fv.image.dtype == torch.float32 and fv.image.device.type == "cuda"
    assert result.losses.isfinite().all()


def test_a_model_that_was_moved_alone_is_named():
    model = ShapesCNN(pretrained=True)
    fv = pipeline().attach(model)
    model.to("cuda")
    with pytest.raises(DeviceError, match="the model is on cuda:0 and the pictures are on cpu"):
        fv.optimize(1)
