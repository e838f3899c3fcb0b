"""
Does a network fall into modules?
=================================

The weights of a network as a graph, cut into clusters, against networks whose weights are shuffled.
"""

from toumei.misc import WeightGraph, null_test
from toumei.models import ShapesCNN

graph = WeightGraph.from_model(ShapesCNN(pretrained=True)).without("input", "head")
print(graph)

# %%
# Numbers of cuts mean little alone: here with those of 20 networks with shuffled weights.

test = null_test(graph, n_clusters=8, samples=20, verbose=False)
print(test)
test.plot()
