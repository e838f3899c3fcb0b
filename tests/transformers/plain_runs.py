"""The plain way of patching: one pass of the whole model with an edit for each patch."""

from architectures import ARCHITECTURES

WITH_HEADS = [kind for kind in ARCHITECTURES if kind not in ("mamba", "mamba2", "qwen2_moe")]


def edited_logits(model, inputs, name, index, new):
    """The logits of a pass in which some numbers of an activation are others."""

    def put(tensor):
        tensor[index] = new if isinstance(new, float) else new[index]

    with model.edit({name: put}):
        return model(inputs).detach()


def losses(logits, rows):
    """The mean next-token loss of each text, without padding."""
    found = []
    for scores, row in zip(logits, rows, strict=True):
        logs = scores[: len(row) - 1].log_softmax(-1)
        found.append(-sum(float(logs[place, token]) for place, token in enumerate(row[1:])) / (len(row) - 1))
    return found
