"""What must be installed before `toumei.attribution` can be imported."""

import subprocess
import sys

NOT_NEEDED = (
    *("captum", "skimage", "sklearn", "kornia", "transformers", "torchvision", "scipy", "networkx"),
    *("seaborn", "joblib"),
)
SCRIPT = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
import torch
from torch import nn
from toumei.attribution import KernelShap, IntegratedGradients, deletion
model, inputs = nn.Linear(4, 2), torch.randn(3, 4)
result = KernelShap(model)(inputs, target=1)
deletion(model, inputs, IntegratedGradients(model)(inputs, target=1).values, 1)
result.plot()
"""


def test_torch_numpy_matplotlib_tqdm_and_safetensors_are_enough():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(names=NOT_NEEDED)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
