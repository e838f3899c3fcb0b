"""Words that other libraries take: the message says what is given here instead."""

import pytest
import torch

from toumei.attribution import KernelShap, Saliency, attribute_many, explain
from toumei.cnns import Pipeline, caricature
from toumei.cnns.objectives import Channel
from toumei.cnns.parameterization import FFTImage
from toumei.models import ShapesCNN
from toumei.transformers import HookedModel

MODEL = ShapesCNN()
IMAGES = torch.rand(1, 3, 32, 32)


def pipeline():
    return Pipeline(FFTImage(1, 3, 32, 32), Channel("conv1:2"))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: Saliency(MODEL, preprocess="imagenet"),
            r"robustness\.preprocess\('imagenet'\), the transforms",
        ),
        (
            lambda: explain(MODEL, IMAGES, preprocess="imagenet"),
            r"got 'imagenet': give .* a function of yours",
        ),
        (lambda: explain("resnet18", IMAGES), r"got 'resnet18': give .* torchvision\.models\.resnet18\("),
        (lambda: Saliency("resnet18"), r"got str: give the object"),
        (lambda: HookedModel("gpt2"), r"transformers\.AutoModel\.from_pretrained\(name\)"),
        (lambda: explain(MODEL, "a text", tokenizer="bert"), r"AutoTokenizer\.from_pretrained\(name\)"),
        (lambda: attribute_many("saliency", IMAGES, 0), r"IntegratedGradients\(model\)"),
        (lambda: KernelShap(MODEL, features="slic"), r"superpixels\(images\)"),
        (lambda: Pipeline("fft", Channel("conv1:2")), r"FFTImage\(1, 3, 224, 224\)"),
        (lambda: pipeline().attach(MODEL).optimize(optimizer="adam"), r"torch\.optim\.Adam"),
        (lambda: pipeline().attach(MODEL).optimize(autocast="bf16"), r"torch\.bfloat16"),
        (lambda: pipeline().attach(MODEL).to("gpu"), r"no device 'gpu': this machine has cpu( and \w+)?$"),
    ],
)
def test_a_word_of_another_library_is_answered_with_what_is_given_here(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: explain(MODEL, IMAGES, method="integrated_gradients"),
            r"chosen here; .* IntegratedGradients\(",
        ),
        (lambda: explain(MODEL, IMAGES, algorithm="permutation"), r"; the method is chosen here"),
        (lambda: Saliency(MODEL)(IMAGES, 0, background=IMAGES), r"did you mean baselines\?"),
        (lambda: KernelShap(MODEL, device="cuda"), r"device is that of the model"),
        (
            lambda: caricature(MODEL, IMAGES, "conv1", transforms="default"),
            r"did you mean views, preprocess\?",
        ),
        (lambda: FFTImage(1, 3, 32, 32, transforms="default"), r"Transform\(picture, \*transforms\)"),
        (
            lambda: pipeline().attach(MODEL).optimize(transforms="default"),
            r"Transform\(picture, \*transforms\)",
        ),
    ],
)
def test_an_argument_of_another_library_is_answered_with_what_exists_here(call, message):
    with pytest.raises(TypeError, match=message):
        call()


def test_a_device_that_torch_knows_and_this_machine_has_not_says_both():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ValueError, match=r"no device 'cuda': this machine has cpu.*\. ."):
        pipeline().attach(MODEL).to("cuda")
