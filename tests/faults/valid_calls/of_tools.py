"""Valid calls of the tools of Arrakis."""

import toumei.transformers.tools as tools

from .of_heads import hooked
from .small_models import text


def inside(context):
    """A pass of the model in a context that changes it."""

    def run(**given):
        with context(**given) as model:
            return model("a")

    return run


def attention(model, ids):
    found = tools.AttentionTools(model)
    head = {"layer_idx": 0, "head_idx": 1}
    yield tools.AttentionTools, {"model": model}
    yield found.attention_patterns, {"input_ids": ids, **head}
    yield found.top_attended_ids, {"input_ids": ids, **head, "num_tokens": 2, "query": 1}
    yield inside(found.ablate_head), head
    yield inside(found.merge_heads), {"layer_idx": 0, "head_idx1": 0, "head_idx2": 1, "alpha": 0.5}
    composer = tools.AttentionComposer(model)
    yield tools.AttentionComposer, {"model": model}
    yield composer.head_composition, {"head1": (0, 1), "head2": (1, 0)}
    yield composer.apply_composed_head, {"input_ids": ids, "head1": (0, 1), "head2": (1, 0)}
    path = {"src": (0, 1), "dst": (2, 0), "inputs": ("q", "v"), "through_mlps": True}
    yield composer.attention_path_patching, {"input_ids": ids, "corrupted_ids": ids.flip(1), **path}


def stream(model, ids):
    decomposer, found = tools.ResidualDecomposer(model), tools.ResidualTools(model)
    yield tools.ResidualDecomposer, {"model": model}
    yield decomposer.mlp_basis, {"layer_idx": 0}
    yield decomposer.decompose_residual, {"input_ids": ids, "layer_idx": 1, "top_k": 2}
    yield tools.ResidualTools, {"model": model}
    yield found.residual_decomposition, {"input_ids": ids, "layer_idx": 1}
    yield found.residual_movement, {"input_ids": ids, "layer_idx1": 0, "layer_idx2": 1}
    yield found.feature_attribution, {"input_ids": ids, "target_ids": [1, 2]}
    analyzer = tools.WriteReadAnalyzer(model)
    yield tools.WriteReadAnalyzer, {"model": model}
    yield analyzer.identify_write_heads, {"layer_idx": 0, "threshold": 0.8}
    yield analyzer.identify_read_heads, {"layer_idx": 0, "dim_idx": 3, "threshold": 0.8}
    tokens = {"src_token": 0, "dst_token": 2, "n_layers": 2}
    yield analyzer.trace_information_flow, {"input_ids": ids, **tokens}


def logits(model, ids):
    target = {"input_ids": ids, "target_idx": 3}
    tracing = tools.CausalTracingIntervention(model)
    yield tools.CausalTracingIntervention, {"model": model}
    draws = {"positions": [0, 1], "noise": 3.0, "samples": 1, "seed": 0}
    yield tracing.trace_token_probability, {**target, **draws}
    neuron = {"layer_idx": 0, "neuron_idx": 2, "scale": 0.5}
    yield tracing.intervene_on_neuron, {"input_ids": ids, **neuron}
    attributor, lens = tools.LogitAttributor(model), tools.LogitLens(model)
    yield tools.LogitAttributor, {"model": model}
    yield attributor.logit_attribution, target
    yield attributor.integrated_gradients, {**target, "steps": 2}
    yield attributor.component_attribution, target
    yield attributor.track_token_circulation, {"input_ids": ids, "target_token": 1, "n_layers": 2}
    yield tools.LogitLens, {"model": model}
    yield lens.layer_attributions, target
    yield lens.logit_lens, {**target, "layer_idx": 1}


def knowledge(model, ids):
    surgery, prober = tools.ModelSurgery(model), tools.KnowledgeProber(model)
    yield tools.ModelSurgery, {"model": model}
    yield inside(surgery.replace_layers), {"replacements": {0: 1}}
    yield inside(surgery.delete_layers), {"layer_idxs": [1]}
    yield inside(surgery.permute_layers), {"permutation": [1, 0, 2, 3, 4, 5]}
    yield tools.KnowledgeProber, {"model": model}
    yield prober.polysemantic_score, {"layer_idx": 0, "k": 2}
    yield prober.knowledge_probe, {"pairs": [("a", "b")], "neuron": (0, 1)}
    extractor = tools.KnowledgeGraphExtractor(model)
    yield tools.KnowledgeGraphExtractor, {"model": model}
    yield extractor.extract_relational_subspaces, {"layer_idx": 0, "top_k": 2}
    yield extractor.project_token_embeddings, {"layer_idx": 0, "top_k": 2}
    yield extractor.identify_relation_types, {"layer_idx": 0, "head_idx": 1, "top_k": 2, "tokens": 2}
    yield extractor.extract, {"subjects": {"seat": ["a"]}, "templates": {"seat": "{} is in"}}


def arrakis():
    model, (_, fact) = hooked(), text()
    ids = model.to_tokens(fact.prompt.format(fact.subject))
    for part in (attention, stream, logits, knowledge):
        yield from part(model, ids)
