"""
Experiments that remember
=========================

The bench keeps each run of a function with its source, arguments, weights, results and figures, tells
versions apart, and runs one again to see whether it says the same.
"""

import tempfile

import torch
from matplotlib import pyplot as plt

from toumei.bench import Bench, compare_samples
from toumei.models import facts_gpt
from toumei.plots import look
from toumei.transformers import HookedModel

model, tokenizer, world = facts_gpt()
hooked = HookedModel(model, tokenizer)
folder = tempfile.TemporaryDirectory()
bench = Bench(folder.name, model=hooked)

# %%
# After which layer does the model know the answer? The bench gives a function its tools, and keeps what it
# returns: here the logit of the answer, read after each layer.


@bench.log_experiment(seed=0)
@bench.use_tools("logit_lens")
def where_is_the_answer(text, logit_lens=None):
    """The answer to a text, and its logit after each layer."""
    tokens = hooked.to_tokens(text)
    answer = int(hooked(tokens)[0, -1].argmax())
    logits = [float(logit_lens.logit_lens(tokens, answer, layer)[0, -1]) for layer in range(hooked.layers)]
    return {"answer": hooked.to_str_tokens(torch.tensor([answer]))[0], "logits": torch.tensor(logits)}


facts = [fact.text for fact in world.facts[:3]]
found = [where_is_the_answer(text) for text in facts]
with look():  # colours that all can tell apart
    figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
for text, result in zip(facts, found, strict=True):
    axes.plot(result["logits"], "o-", label=f"{text} {result['answer']}")
axes.set(xlabel="layer", ylabel="logit of the answer", title="The logit of the answer after each layer")
axes.legend(fontsize="small")

# %%
# A version is a hash of source, arguments, weights and tools. ``rerun`` runs one again, with its seed:

versions = bench.list_versions("where_is_the_answer")
print(bench.rerun(versions[0]))
print(bench.diff(versions[0], versions[1]))
bench.table("where_is_the_answer")

# %%
# Is a difference real? Logits of the last layer against those of the one before, fact by fact:

before, after = ([float(result["logits"][layer]) for result in found] for layer in (-2, -1))
print(compare_samples(before, after, method="paired"))

# %%
# Where does the time of a pass go? ``bench.page()`` writes one page to browse all runs.


@bench.log_experiment
@bench.profile_model("module")
def one_pass(text):
    """The largest logit of the next token."""
    return {"logit": hooked(text)[0, -1].max().item()}


profile = one_pass(facts[0])["profiling"]
profile.plot()
page = bench.page(verbose=False)
folder.cleanup()
