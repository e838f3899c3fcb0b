"""On a real network with real photographs; skipped where they are absent."""

import pytest
import torch
import torchvision
import torchvision.transforms as T
from PIL import Image
from safetensors.torch import load_file

import toumei.cnns.objectives as obj
import toumei.cnns.parameterization as param
from toumei.cnns import robustness
from toumei.core import run

NORMALIZE = robustness.preprocess("imagenet")


@pytest.fixture(scope="module")
def squeezenet(realdata):
    model = torchvision.models.squeezenet1_1()
    model.load_state_dict(load_file(realdata / "squeezenet1_1" / "model.safetensors"))
    return model.eval()


@pytest.fixture(scope="module")
def photographs(realdata):
    crop = T.Compose([T.Resize(256), T.CenterCrop(224), T.ToTensor()])
    paths = [path for path in sorted((realdata / "images").iterdir()) if path.suffix in (".png", ".jpg")]
    return torch.stack([crop(Image.open(path).convert("RGB")) for path in paths])


@torch.no_grad()
def channel_means(model, images, layer):
    return run(model, NORMALIZE(images), record=[layer])[layer].mean((2, 3))


@pytest.mark.parametrize("layer", ["features.7", "features.10"])
def test_the_picture_of_a_unit_excites_it_more_than_any_photograph(squeezenet, photographs, layer, watched):
    """Six times, as the mean over eight units of each of two layers, after 32 steps."""
    watched(squeezenet)
    best = channel_means(squeezenet, photographs, layer).amax(0)
    units = best.nonzero().flatten()[:: len(best) // 8][:8].tolist()
    shown = param.Transform(param.FFTImage(len(units), 3, 96, 96, seed=0), robustness.lucid(), NORMALIZE)
    pipeline = obj.Pipeline(shown, obj.Channel(layer, channels=units)).attach(squeezenet)
    result = pipeline.optimize(32, verbose=False, seed=0)
    reached = channel_means(squeezenet, result.images, layer)[range(len(units)), units]
    assert (reached / best[units]).mean() > 6
