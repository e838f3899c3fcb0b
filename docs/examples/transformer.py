"""
Heads of a transformer
======================

The attention of a circuit that is known, and which heads of a small GPT attend alike.
"""

import torch
from matplotlib import pyplot as plt

from toumei.instrument import AttentionHeadClusterAnalyzer, instrument
from toumei.models import InductionTransformer, facts_gpt
from toumei.transformers import HookedModel
from toumei.transformers.patching import head_ablation

# %%
# Two layers whose weights are set by hand: head 0.0 attends to the previous token, head 1.0 to what followed
# the last time that a token was there.

circuit = HookedModel(InductionTransformer())
texts = circuit.model.sequences(4, 12, seed=0)
_, cache = circuit.run_with_cache(texts)
figure, axes = plt.subplots(1, 2, figsize=(8, 4), layout="constrained")
for layer, attended in enumerate(("the previous token", "what came next")):
    pattern = cache["pattern", layer][0, 0].numpy()
    drawn = axes[layer].imshow(pattern, cmap="Blues", vmin=0, vmax=1)
    axes[layer].set(title=f"head {layer}.0: {attended}", xlabel="attended token", ylabel="token")
figure.colorbar(drawn, ax=axes, shrink=0.6, label="attention")
print(head_ablation(circuit, texts))

# %%
# The 24 heads of ``facts_gpt`` by how alike they attend, as Clark et al. (2019) measure it.

model, tokenizer, world = facts_gpt()
with instrument(model.eval()) as probe, torch.no_grad():
    analyzer = AttentionHeadClusterAnalyzer(probe)
    for fact in world.facts[:20]:
        with analyzer.track_batch():
            model(**tokenizer(fact.text, return_tensors="pt"))
result = analyzer.analyze()
result.plot_divergences()
