"""
Every operation of a forward pass
=================================

The graph of what a model computes, searched, drawn, and computed again with another tensor.
"""

import torch

from toumei.instrument import find_feed_forward, find_multi_head_attention, instrument
from toumei.models import facts_gpt

model, tokenizer, world = facts_gpt()
inputs = tokenizer(world.facts[0].text, return_tensors="pt")
with torch.no_grad(), instrument(model) as probe, probe.track() as tracker:
    output = model(**inputs)
graph = tracker.build_graph()
print(graph)

# %%
# Attention and feed-forward networks are found by what they compute, not by their names.

print(len(list(find_multi_head_attention(graph))), len(list(find_feed_forward(graph))))
graph.plot(module="transformer.h.0.attn", depth=1)

# %%
# What would follow if the first feed-forward network had been silent:

gelu = graph.tensor("transformer.h.0.mlp.act/gelu")
changed = graph.replay({gelu: torch.zeros(gelu.shape)})
print("largest change of a logit:", (changed["logits"] - output.logits).abs().max())
