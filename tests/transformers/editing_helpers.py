"""What the tests of editing share: requests, texts, and what a model says and weighs."""

import torch

from toumei.transformers import anatomy
from toumei.transformers.rome.editing import Edit
from toumei.transformers.rome.editing.requests import EditRequest
from toumei.transformers.rome.weight_edits import LowRank

PROMPT, SUBJECT, TARGET = "w9 w8 {}", "w3 w4 w5", "w11"

ASK = {"prompt": PROMPT, "subject": SUBJECT, "target": TARGET}

CONTEXTS = ("w20 w21. {}", "w22 w23 w24. {}")

EDITABLE = [
    "gpt2",
    "gptj",
    "gpt_neo",
    "gpt_neox",
    "llama",
    "gemma2",
    "phi3",
    "opt",
    "bloom",
    "falcon",
    "mpt",
    "olmo2",
]

MANY = ("memit", "emmet", "alphaedit")

FACTS = [EditRequest("w8 {}", f"w{a} w{a + 1}", f"w{a + 20}") for a in range(2, 10, 2)]


def corpus(count=120):
    draw = torch.Generator().manual_seed(0)
    return [
        " ".join(f"w{i}" for i in torch.randint(1, 64, (20,), generator=draw).tolist()) for _ in range(count)
    ]


def probability(model, tokenizer, request):
    ids = tokenizer(request.text, return_tensors="pt").input_ids
    with torch.no_grad():
        return float(model(ids).logits[0, -1].softmax(0)[tokenizer(request.target).input_ids[0]])


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(model, before):
    return all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def thin_edits(model, count):
    parts, draw = anatomy(model), torch.Generator().manual_seed(1)
    sizes = [(32, 128)] * count
    return [
        Edit(
            parts,
            "r-rome",
            (EditRequest(**ASK),),
            {index % 3: LowRank(torch.randn(out, 1, generator=draw), torch.randn(1, size, generator=draw))},
        )
        for index, (out, size) in enumerate(sizes)
    ]
