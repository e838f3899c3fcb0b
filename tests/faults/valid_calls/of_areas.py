"""Valid calls of activation areas, in LLM-MRI `LLM_MRI`, of facts in two layers of facts_gpt."""

from functools import cache

import toumei.transformers.areas as ar

from .small_models import QUIET, world


@cache
def corpus():
    facts = [fact for fact in world()[2].facts if fact.relation in ("residence", "instrument")][:24]
    return [fact.text for fact in facts], [fact.relation for fact in facts]


def settings():
    model, tokenizer, _ = world()
    texts, labels = corpus()
    layers = ["transformer.h.1", "transformer.h.3"]
    return {
        "model": model,
        "texts": texts,
        "labels": labels,
        "tokenizer": tokenizer,
        "layers": layers,
        **QUIET,
    }


def read(**given):
    """The areas of a corpus that was read."""
    return ar.ActivationAreas(**given).process_activation_areas()


@cache
def areas(**more):
    found = ar.ActivationAreas(**settings(), **{"map_dimension": 4, **more})
    found.process_activation_areas()
    return found


def read_areas():
    yield read, {**settings(), "map_dimension": 3, "bins": "quantile", "pooling": "mean", "batch_size": 8}
    yield (
        read,
        {
            **settings(),
            "groups": corpus()[0],
            "max_length": 4,
            "keep_states": False,
            "reduction": "svd",
            "map_dimension": 4,
        },
    )
    dataset = [{"text": text, "label": label} for text, label in zip(*corpus(), strict=True)]
    given = {name: value for name, value in settings().items() if name not in ("texts", "labels")}
    yield read, {**given, "dataset": dataset, "device": "cpu", "reduction_method": ar.PCA(2, 0, 4)}
    yield ar.PCA, {"n_components": 2, "random_state": 1, "gridsize": 5}
    yield ar.SVD, {"n_components": 3, "random_state": None, "gridsize": 5}
    yield ar.UMAP, {"n_components": 2, "random_state": 1, "gridsize": 5, "metric": "cosine"}
    yield areas().process_activation_areas, {"map_dimension": 4}


def asked_areas():
    found = areas()
    components = areas(reduction=ar.PCA(3))
    yield found.get_layer_image, {"layer": 1, "category": "residence"}
    yield found.get_graph, {"category": "residence", "threshold": 0.3}
    yield components.get_graph, {"category": ["residence", "instrument"], "threshold": 0.3}
    graph = found.get_composed_graph("residence", "instrument")
    yield found.get_composed_graph, {"category1": "residence", "category2": 0}
    yield found.get_graph_image, {"graph": graph, "colormap": "coolwarm", "fix_node_positions": True}
    yield found.compare, {"category1": 0, "category2": 1, "permutations": 3, "seed": 1}
    yield found.evaluate, {"folds": 2, "seed": 1}
    yield found.areas.counts, {"layer": 0, "category": None}
    yield found.areas.resized, {"size": 3}
    yield found.areas.plot, {"layer": 0, "category": 1, "ax": None}
    yield found.areas.plot_points, {"layer": 0, "ax": None}
    yield found.compare(0, 1, permutations=3).plot, {"ax": None}
    yield found.evaluate(folds=2).plot, {"ax": None}
    yield ar.plot_graph, {"graph": graph, "colormap": "bwr", "fix_node_positions": False, "ax": None}
    yield ar.graph_metrics, {"graph": graph}
    yield ar.Metrics, {"graph": graph, "model": "facts_gpt", "label": "both"}
    evaluation = ar.Evaluation(found)
    yield ar.Evaluation, {"activation_areas": found}
    settings = {"n_splits": 2, "test_size": 0.4, "random_state": 0, "n_components": 3, "metrics": "accuracy"}
    yield evaluation.evaluate_model, settings
    yield evaluation.display_metrics, {"classifier_metrics": {"accuracy": 0.1}}


def areas_of_texts():
    yield from read_areas()
    yield from asked_areas()
