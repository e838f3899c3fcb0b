"""Valid calls of circuits by feature attribution, of a small network and of an induction head."""

import torch
from torch import nn

import toumei.misc.circuits as circuits
import toumei.models as models
import toumei.transformers as trans

TOKENS = torch.tensor([[0, 3, 1, 4, 3, 1]])


def node_circuits():
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 2))
    settings = {"nodes": ["1", "3"], "method": "gradient", "edges": 2, "batch_size": 2}
    yield circuits.CircuitDetector, {"model": model, **settings}
    detector = circuits.CircuitDetector(model, **settings)
    data = {"inputs": torch.rand(2, 4), "baselines": 0.0, "target": 1}
    yield detector.__call__, data
    circuit = detector(**data)
    yield detector.faithfulness, {"circuit": circuit, **data, "random": 2, "seed": 0}
    yield circuit.prune, {"top": 2, "by_site": True}
    yield circuit.auroc, {"known": ["1:0"]}
    yield circuit.__getitem__, {"node": "1:0"}
    yield circuit.plot, {"ax": None}
    yield detector.faithfulness(circuit, **data).plot, {"ax": None}
    induction = trans.HookedModel(models.InductionTransformer(vocabulary=8, positions=8))
    yield (
        circuits.CircuitDetector(induction).__call__,
        {"inputs": TOKENS, "baselines": TOKENS % 3, "target": 4},
    )
