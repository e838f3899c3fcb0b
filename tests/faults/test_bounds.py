"""What cannot be done is refused at once: in a process with little memory and little time."""

import sys

import pytest
import torch
from fresh_interpreters import run_fresh
from torch import nn

from toumei.attribution import IntegratedGradients
from toumei.attribution.gradient import path

CODE = """
import resource, signal
import torch
from torch import nn
import toumei.attribution as att, toumei.cnns as cnns, toumei.cnns.objectives as obj
import toumei.cnns.parameterization as param, toumei.cnns.robustness as rob, toumei.misc as misc
import toumei.models as models, toumei.transformers as trans
from functools import partial
from toumei.core.errors import ToumeiError
small, wide = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), nn.Linear(1 << 20, 2)
cnn = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
x, long, picture = torch.randn(1, 3), torch.randn(1, 1 << 20), torch.rand(1, 3, 8, 8)
data = att.FromData(torch.randn(5, 3))
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (3 << 29),) * 2)
signal.setitimer(signal.ITIMER_PROF, 30)  # seconds of work
for line in {calls!r}:
    try:
        eval(line)
    except ToumeiError as error:
        print("refused", line, error)
    except BaseException as error:
        print(type(error).__name__, line, str(error)[:100])
    else:
        print("done", line)
"""
CALLS = (
    "att.IntegratedGradients(small, steps=10**9)(x, 1)",
    "att.IntegratedGradients(small, steps=10**8)(x, 1)",
    "att.LayerConductance(small, '0', steps=10**9)(x, 1)",
    "att.ExactShapley(wide)(long, 0)",
    "att.PartitionShap(wide)(long, 0)",
    "att.ShapleySampling(wide, samples=64, seed=0)(long, 0)",
    "att.KernelShap(wide)(long, 0)",
    "att.Lime(wide)(long, 0)",
    "att.Occlusion(wide)(long, 0)",
    "att.Rise(wide)(long, 0)",
    "att.Rise(small, samples=10**12)(x, 1)",
    "att.SmoothGrad(small, samples=10**12)(x, 1)",
    "att.VarGrad(small, samples=10**12)(x, 1)",
    "att.ExpectedGradients(small, samples=10**12)(x, 1, data)",
    "att.DeepLiftShap(small, samples=10**12)(x, 1, data)",
    "att.KernelShap(small, samples=10**12)(x, 1)",
    "att.Lime(small, samples=10**12)(x, 1)",
    "att.KernelShap(small, baseline_samples=10**12)(x, 1, data)",
    "att.Occlusion(small, baseline_samples=10**12)(x, 1, att.Gaussian())",
    "att.removals(small, x, x, 1, samples=10**12)",
    "att.insertion(small, x, x, 1, steps=10**12)",
    "att.max_sensitivity(att.Saliency(small), x, 1, samples=10**12)",
    "att.superpixels(picture, 10**12)",
    "att.grid(picture, 10**12)",
    "cnns.dataset_examples(cnn, '0', [picture], k=10**12)",
    "cnns.dataset_examples(cnn, '0', [picture], k=9 * 10**7)",
    "param.FFTImage(1, 3, 10**6, 10**6)",
    "param.PixelImage(1, 3, 10**6, 10**6)",
    "param.MACO(1, 3, 10**6, 10**6)",
    "param.LaplacianImage(1, 3, 10**6, 10**6)",
    "param.frequencies(10**6, 10**6)",
    "rob.Pad(10**6)(picture)",
    "rob.CropOrPad(10**6, 10**6)(picture)",
    "rob.Crops(10**6, 10**4)(picture)",
    "cnns.render_icons(cnn, '0', torch.eye(4), size=10**6)",
    "obj.Pipeline(param.PixelImage(1, 3, 8, 8), '0:1').attach(cnn).optimize(10**12)",
    "cnns.deep_dream(cnn, picture, '0', octaves=10**12)",
    "misc.CircuitDetector(small, ['1'], partial(att.IntegratedGradients, steps=10**9))(x, 0.0, 1)",
    "misc.CircuitDetector(small, ['1'], partial(att.ShapleySampling, samples=10**12))(x, 0.0, 1)",
    "att.attribute_many(att.IntegratedGradients(small, steps=10**9), x, 1, verbose=False)",
    "trans.train_dictionary(torch.rand(200, 128), trans.DictionarySettings(features=5 * 10**7, k=2))",
    "trans.DictionarySettings(features=8, k=2, tokens=10**12)",
    "trans.EditSettings(layers=(1,), steps=10**12)",
    "trans.TraceSettings(samples=10**12)",
    "trans.SyntheticFeatures(5 * 10**7, 10**4)",
    "trans.repeated_tokens(10**5, 10**5, 1, 9)",
    "models.ShapesDataset(size=8).batch(range(10**9))",
    "models.InductionTransformer(vocabulary=9 * 10**7, positions=8)",
    "models.CPPN(hidden=10**6, layers=10**3)",
    "cnns.unit_pictures(cnn, '0', [1], size=10**6, steps=1)",
    "misc.spectral_partition(misc.WeightGraph.from_model(small, x), 9 * 10**7)",
    "misc.hessian_trace(small, nn.functional.cross_entropy, x, torch.tensor([0]), samples=10**12)",
)


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory")
def test_what_cannot_be_meant_is_refused_in_little_memory_and_time():
    ended = run_fresh(CODE.replace("{calls!r}", repr(CALLS)))
    said = ended.stdout.strip().splitlines()
    assert len(said) == len(CALLS), f"ended with {ended.returncode} after {said[-1:]}: {ended.stderr[-500:]}"
    assert not [line for line in said if not line.startswith(("refused", "done"))]


def test_many_nodes_come_in_pieces_that_are_a_quadrature(monkeypatch):
    monkeypatch.setattr(path, "_AT_ONCE", 400)  # the eigenvalues of 4096 nodes take seconds
    positions, weights = path.nodes(901)
    assert len(positions) == 901 and bool((positions.diff() > 0).all())
    torch.testing.assert_close((weights * positions**7).sum(), torch.tensor(1 / 8, dtype=torch.double))
    torch.testing.assert_close(weights.sum(), torch.tensor(1.0, dtype=torch.double))


def test_many_steps_are_done():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    x = torch.randn(1, 3, dtype=torch.double)
    assert float(IntegratedGradients(model, steps=2000)(x, 1).gap.abs()) < 1e-9
