"""The answers of a model from plain forward passes, to compare scores with."""

import torch


def likelihood(model, tokenizer, prompt, answer):
    ids = tokenizer(f"{prompt} {answer}", return_tensors="pt").input_ids
    start = len(tokenizer(prompt).input_ids)
    with torch.no_grad():
        said = model(ids).logits[0].log_softmax(1)
    chosen = [float(said[place - 1, ids[0, place]]) for place in range(start, ids.shape[1])]
    return sum(chosen) / len(chosen), all(
        said[place - 1].argmax() == ids[0, place] for place in range(start, ids.shape[1])
    )


def best(model, tokenizer, prompt):
    with torch.no_grad():
        return tokenizer.decode(model(**tokenizer(prompt, return_tensors="pt")).logits[0, -1].argmax())
