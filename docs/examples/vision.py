"""
What units look for
===================

Pictures that excite three units of a network, and the images that excite them most.
"""

from torch.utils.data import DataLoader

import toumei.cnns.objectives as obj
import toumei.cnns.parameterization as param
from toumei.cnns import dataset_examples, robustness
from toumei.models import ShapesCNN, ShapesDataset

model = ShapesCNN(pretrained=True).eval()
units = ["conv6:46", "conv6:58", "conv6:76"]

# %%
# A picture, transforms of it, an objective for each picture of the batch.

picture = param.Transform(param.FFTImage(3, 3, 64, 64, seed=0), robustness.light())
pipeline = obj.Pipeline(picture, [obj.Neuron(unit) for unit in units]).attach(model)
pipeline.optimize(256, seed=0, tv_loss=True, verbose=False)
pipeline.plot()

# %%
# The images of the network's world that excite the same units most:

loader = DataLoader(ShapesDataset(seed=5, size=500), batch_size=100)
examples = dataset_examples(model, "conv6", loader, k=6, lowest=False, verbose=False)
examples.plot(units)
