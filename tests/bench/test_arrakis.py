"""What the README of Arrakis shows runs, with the import path changed."""

import importlib

import pytest
import torch
from matplotlib import pyplot as plt

from toumei.bench import *  # noqa: F403, as there
from toumei.bench import Bench, Tool
from toumei.bench.tools import workbench_tools
from toumei.core.errors import ArgumentError
from toumei.transformers import *  # noqa: F403, as there
from toumei.transformers.tools.base import HookedTool

ARCHITECTURES = ["gpt2", "gpt-neo", "gpt-neox", "llama", "gemma", "phi3", "qwen2", "mistral", "stable-lm"]
KEYS = {"attention", "composer", "logit", "logit_lens", "causal", "decomposer", "write_read", "residual"}


class CustomTool(BaseInterpretabilityTool):  # noqa: F405
    def __init__(self, model):
        super().__init__(model)
        self.model = model

    def custom_function(self, *args, **kwargs):
        return "computed"

    def another_custom_function(self, *args, **kwargs):
        return self.model.layers


@pytest.fixture(scope="module")
def model():
    config = HookedAutoConfig(  # noqa: F405
        name="llama",
        vocab_size=50256,
        hidden_size=8,
        intermediate_size=2,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
    )
    return HookedAutoModel(config)  # noqa: F405


@pytest.fixture
def exp(model, tmp_path):
    class MIExperiment(BaseInterpretabilityBench):  # noqa: F405
        def __init__(self, model, save_dir="experiments"):
            super().__init__(model, save_dir)
            self.tools.update({"custom": CustomTool(model)})

    return MIExperiment(model, tmp_path / "experiments")


def test_the_default_folder_is_that_of_arrakis(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(BaseInterpretabilityBench(model).folder) == "experiments"  # noqa: F405


def test_experiments_are_logged_and_their_versions_listed(exp, capsys):
    @exp.log_experiment
    def attention_experiment():
        print("This is a placeholder for the experiment. Use as is.")
        return 4

    assert attention_experiment() == 4
    versions = exp.list_versions("attention_experiment")
    assert len(versions) == 1 and "return 4" in exp.get_version("attention_experiment", versions[0])["source"]
    assert "placeholder" in capsys.readouterr().out


def test_tools_are_given_as_arguments(exp):
    @exp.use_tools("write_read")
    def read_write_analysis(read_layer_idx, write_layer_idx, src_idx, write_read=None):
        write_heads = write_read.identify_write_heads(read_layer_idx)
        read_heads = write_read.identify_read_heads(write_layer_idx, dim_idx=src_idx)
        return {"write_heads": write_heads, "read_heads": read_heads}

    found = read_write_analysis(0, 1, 0)
    assert set(found) == {"write_heads", "read_heads"} and set(found["write_heads"]) <= set(range(4))

    @exp.use_tools("custom")
    def test_custom_function(args, kwargs, custom):
        return custom.custom_function(), custom.another_custom_function()

    assert test_custom_function((), {}) == ("computed", 4)


def test_plots_are_given_as_arguments(exp):
    input_ids = torch.arange(3, 8)[None]
    exp.set_plotting_lib(MatplotlibWrapper)  # noqa: F405

    @exp.plot_results(
        PlotSpec(plot_type="attention", data_keys="h.1.attn.c_attn"),  # noqa: F405
        input_ids=input_ids,
    )
    def attention_heatmap(fig=None):
        return fig

    figure = attention_heatmap()
    assert [ax.get_title() for ax in figure.axes][:4] == [f"head 1.{head}" for head in range(4)]
    plt.close("all")


def test_models_are_profiled_and_hypotheses_tested(exp):
    @exp.profile_model("module")
    @exp.test_hypothesis(lambda shift: torch.randn(()), lambda shift: torch.randn(()) + shift, n_samples=20)
    def experiment(shift):
        exp.model(torch.arange(3, 8)[None])
        return {"shift": shift}

    torch.manual_seed(0)
    found = experiment(3.0)
    assert found["shift"] == 3.0 and found["hypothesis_test"].reject_null
    assert found["profiling"].whole.flops > 0


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_each_architecture_of_the_readme_has_a_name(name):
    assert HookedAutoConfig(name=name)  # noqa: F405


def test_every_tool_of_the_workbench_has_a_key_and_those_of_arrakis_are_as_there():
    tools = importlib.import_module("toumei.transformers.tools")
    exported = {getattr(tools, name) for name in tools.__all__}
    kinds = {kind for kind in exported if isinstance(kind, type) and issubclass(kind, HookedTool)}
    found = workbench_tools()
    assert set(found.values()) == kinds
    assert set(found) >= KEYS


def test_each_tool_is_made_with_the_model_of_the_bench(exp, tmp_path):
    for key, kind in workbench_tools().items():
        assert isinstance(exp.tools[key], kind) and exp.tools[key] is exp.tools[key]
    plain = Bench(tmp_path / "plain", exp.model.model)
    assert plain.tools["write_read"].identify_write_heads(0) == exp.tools["write_read"].identify_write_heads(
        0
    )
    with pytest.raises(ArgumentError, match="give the bench one"):
        Bench(tmp_path / "none").tools["write_read"]


def test_tools_are_registered_by_name(exp, tmp_path, monkeypatch):
    monkeypatch.setattr(Tool, "registered", {})

    class Named(Tool, key="named"):
        def layers(self):
            return self.model.layers

    bench = Bench(tmp_path / "new", exp.model)
    assert bench.tools["named"].layers() == 4 and "named" not in exp.tools
    for key in ("no name", 3, ""):
        with pytest.raises(ArgumentError, match="the name of an argument"):
            bench.tools[key] = Named
