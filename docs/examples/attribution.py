"""
What decided
============

Four attribution methods on four shapes, and how much of what they show lies inside the shape, whose mask is
known.
"""

import torch
from matplotlib import pyplot as plt

from toumei.attribution import (
    DeepLift,
    GradCam,
    IntegratedGradients,
    KernelShap,
    Mean,
    relevance_mass_accuracy,
)
from toumei.models import ShapesCNN, ShapesDataset
from toumei.plots import diverging_map

model = ShapesCNN(pretrained=True).eval()
images, labels, masks = ShapesDataset(seed=3).batch(range(4))

# %%
# Settings belong to the constructor, data to the call. The score is the logit of the right class, and the
# baseline the mean colour of each image.

blocks = torch.arange(64).reshape(8, 8).repeat_interleave(8, 0).repeat_interleave(8, 1)
methods = [
    IntegratedGradients(model, tolerance=0.05),
    DeepLift(model),
    GradCam(model, layer="relu5"),
    KernelShap(model, samples=300, features=blocks, verbose=False),
]
results = [method(images, labels, Mean()) for method in methods]

# %%
# Orange places speak for the class, blue ones against it.

figure, axes = plt.subplots(4, 4, figsize=(9, 9), layout="constrained")
for row, result in zip(axes, results, strict=True):
    for column, ax in enumerate(row):
        heat = result.values[column].sum(0) if result.values.dim() == 4 else result.values[column]
        limit = heat.abs().max()
        drawn = ax.imshow((heat / limit).numpy(), cmap=diverging_map(), vmin=-1, vmax=1)
        ax.set(xticks=[], yticks=[])
    row[0].set_ylabel(result.method)
for column, label in enumerate(labels.tolist()):
    axes[0, column].set_title(model.categories[label])
figure.colorbar(drawn, ax=axes, shrink=0.5, label="contribution, 1: strongest of each map")
figure.suptitle("What speaks for the class")

# %%
# The share of the contributions, by magnitude, that lies inside the shape:

for result in results:
    print(f"{result.method:20} {relevance_mass_accuracy(result, masks).mean():.0%}")
