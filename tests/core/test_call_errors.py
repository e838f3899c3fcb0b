"""Arguments that a public function does not have: the message names the function and what it takes."""

import pytest
import torch
from torch import nn

from toumei.attribution import GradCam, IntegratedGradients, Occlusion, explain
from toumei.cnns.parameterization import FFTImage

MODEL = nn.Linear(3, 2)
ROWS = torch.rand(2, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: IntegratedGradients(MODEL, n_steps=20),
            r"IntegratedGradients\(\) got .* argument 'n_steps': did you mean steps, max_steps\?",
        ),
        (
            lambda: IntegratedGradients(MODEL)(ROWS, 1, n_steps=20),
            r"IntegratedGradients.__call__\(\) got .*: settings belong to the constructor, which has steps",
        ),
        (
            lambda: Occlusion(MODEL)(ROWS, 1, baseline=0),
            r"'baseline': did you mean baselines\?",
        ),
        (lambda: GradCam(MODEL), r"GradCam\(\) missing a required argument: 'layer': it takes model, layer"),
        (lambda: FFTImage(1, 3, 8, 8, 1, 1, 1, 1, 1, 1, 1), r"FFTImage\(\) too many positional arguments"),
        (lambda: explain(MODEL), r"explain\(\) missing .* 'inputs': it takes model, inputs, .*verbose"),
    ],
    ids=["setting", "setting in a call", "singular", "missing", "many", "function"],
)
def test_a_wrong_call_says_what_the_function_takes(call, message):
    with pytest.raises(TypeError, match=message):
        call()
