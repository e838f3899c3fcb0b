"""The calls of LLM-MRI's READMEs run as they stand there; only the paths of imports are others."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import networkx as nx
import pytest
from architectures import build
from area_helpers import texts_of_two_kinds
from matplotlib.figure import Figure


class Dataset(list):
    """What the package datasets returns: rows, and the names of the labels."""

    features = {"label": SimpleNamespace(names=["true", "fake"])}  # noqa: RUF012


@pytest.fixture(scope="module")
def dataset():
    texts, labels = texts_of_two_kinds(60)
    pairs = zip(texts, labels, strict=True)
    return Dataset({"text": text, "label": int(label == "high")} for text, label in pairs)


@pytest.fixture
def model_ckpt(tmp_path, tokenizer):
    build("gpt2").save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return str(tmp_path)


def test_the_first_readme(model_ckpt, dataset):
    from toumei.transformers.areas import LLM_MRI

    map_dimension, layer, category = 10, 1, "true"

    llm_mri = LLM_MRI(model=model_ckpt, device="cpu", dataset=dataset)
    llm_mri.process_activation_areas(map_dimension)
    fig = llm_mri.get_layer_image(layer, category)
    graph = llm_mri.get_graph(category)
    graph_image = llm_mri.get_graph_image(graph)
    g_composed = llm_mri.get_composed_graph("true", "fake")
    g_composed_img = llm_mri.get_graph_image(g_composed)

    assert all(isinstance(one, Figure) for one in (fig, graph_image, g_composed_img))
    assert llm_mri.class_names == ("true", "fake") and "true in" in fig.axes[0].get_title()
    for found, texts in ((graph, 60), (g_composed, 120)):
        leaving = [weight for one, _, weight in found.edges(data="weight") if one.startswith("2_")]
        assert sum(leaving) == texts
    assert {node.count("_") for node in graph} == {2} and isinstance(graph, nx.Graph)
    # its examples number categories
    assert nx.utils.graphs_equal(llm_mri.get_graph(category=0), graph)


def test_the_newer_readme(model_ckpt, dataset):
    from toumei.transformers.areas import PCA, ActivationAreas, Evaluation, Metrics

    n_components, random_state, gridsize = 2, 42, 8
    layer, category, colormap, fix_node_positions = 2, ["true", "fake"], "coolwarm", False
    model, label = "gpt2", "true"

    pca = PCA(n_components,
              random_state,
              gridsize)  # fmt: skip
    llm_mri = ActivationAreas(model=model_ckpt,
                              device="cpu",
                              dataset=dataset,
                              reduction_method=pca)  # fmt: skip
    llm_mri.process_activation_areas()
    fig = llm_mri.get_grid(layer, "fake")
    graph = llm_mri.get_graph(category)
    graph_image = llm_mri.get_graph_image(graph, colormap, fix_node_positions)
    metrics = Metrics(graph, model, label)
    metrics_dictionary = metrics.get_basic_metrics()
    evaluation = Evaluation(activation_areas=llm_mri)
    classifier_metrics = evaluation.evaluate_model()
    img = evaluation.display_metrics(classifier_metrics)
    plt.show()

    assert all(isinstance(one, Figure) for one in (fig, graph_image, img))
    assert llm_mri.areas.size == 8 and graph.graph["label_names"] == ["true", "fake"]
    documented = {"mean_degree", "kurt_degree", "mean_strength", "skew_strength", "assortativity", "density"}
    assert documented <= set(metrics_dictionary) and "center_of_mass" in metrics_dictionary
    assert -1 < classifier_metrics["f1_macro"] < 1


def test_more_components_of_the_newer_readme(model_ckpt, dataset):
    from toumei.transformers.areas import SVD, ActivationAreas

    llm_mri = ActivationAreas(model_ckpt, dataset=dataset, reduction_method=SVD(4), verbose=False)
    llm_mri.process_activation_areas()
    graph = llm_mri.get_graph("true", threshold=0.2)
    assert isinstance(llm_mri.get_graph_image(graph), Figure)
    assert all(data["weight"] > 0.2 for *_, data in graph.edges(data=True))
