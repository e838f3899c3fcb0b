"""
Where a fact is, and another one in its place
=============================================

A causal trace finds the layer that holds a fact, and a rank-one edit of that layer changes it.
"""

from itertools import islice

from toumei.models import facts_gpt
from toumei.transformers import CausalTracer, RankOneEditor, collect_statistics, logit_lens

model, tokenizer, world = facts_gpt()
fact = world.facts[0]
print(fact.text, "->", fact.target)

# %%
# Noise on the subject takes the fact away; some states bring it back.

trace = CausalTracer(model, tokenizer).trace(fact.text, fact.subject, verbose=False)
trace.plot()

# %%
# The edit solves a least-squares problem over statistics of the layer's keys. ``hold`` keeps what the model
# says about the subject otherwise.

statistics = collect_statistics(model, tokenizer, islice(world.texts(seed=1), 300), layers=[2], verbose=False)
editor = RankOneEditor(model, tokenizer, statistics)
other = world.alternatives(fact)[0]
edit = editor.edit(fact.prompt, fact.subject, other, layer=2, hold=5, verbose=False)
for effect in edit.effects:
    print(f"{other}: {effect.target[0]:.3f} before, {effect.target[1]:.3f} after")
    print(f"{effect.old_answer}: {effect.old[0]:.3f} before, {effect.old[1]:.3f} after")

# %%
# Inside the block the model is edited, after it the old one bit for bit. What each layer predicts:

with edit:
    logit_lens(model, tokenizer, fact.text).plot()
