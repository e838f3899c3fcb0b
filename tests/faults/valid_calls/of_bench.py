"""Valid calls of the bench, on a folder that goes with the process."""

import atexit
from tempfile import TemporaryDirectory

import torch

import toumei.bench as benches

from .of_heads import hooked


def samples():
    groups = {"first": [0.1, 0.4, 0.2, 0.3, 0.5], "second": torch.tensor([0.5, 0.9, 0.7, 0.6, 0.8])}
    test = {"method": "bootstrap", "alternative": "greater", "alpha": 0.1, "resamples": 99, "seed": 1}
    yield benches.compare_samples, {**groups, **test, "names": ("a", "b"), "family": "heads"}
    yield benches.compare_family, {"groups": {"head": tuple(groups.values())}, **test}
    yield benches.adjusted, {"p_values": [0.1, 0.2], "method": "holm"}


def looking_on(bench, model):
    ids = torch.arange(2, 8)[None]

    def plotted(plot_type, data_keys, title, text, count, input_ids):
        spec = benches.PlotSpec(plot_type, data_keys, title, text, count)
        return bench.plot_results(spec, input_ids=input_ids)(lambda fig=None: None)()

    def tested(**given):
        return bench.test_hypothesis(**given)(lambda: {})()

    def profiled(granularity):
        return bench.profile_model(granularity)(lambda: model(ids))()["profiling"].whole

    options = {"title": "a", "text": 0, "count": 2, "input_ids": ids}
    yield plotted, {"plot_type": "attention", "data_keys": 0, **options}
    yield plotted, {"plot_type": "neuron_activation", "data_keys": ["blocks.0.mlp.hook_post"], **options}
    yield bench.set_plotting_lib, {"library": "matplotlib"}
    draws = {"null_func": lambda: torch.rand(()), "alt_func": lambda: torch.rand(())}
    test = {"method": "paired", "alternative": "less", "family": "heads", "seed": 0}
    yield tested, {**draws, "n_samples": 5, "alpha": 0.1, **test}
    yield profiled, {"granularity": "module"}

    def whole(**given):
        return benches.profile_call(**given)[1].whole

    yield whole, {"model": model.model, "call": lambda: model(ids), "granularity": "operation"}


def bench():
    folder = TemporaryDirectory()
    atexit.register(folder.cleanup)
    model = hooked()
    made = benches.Bench(folder.name, model)

    def opened(model):
        return benches.Bench(folder.name, model)

    def as_in_arrakis(model):
        return benches.BaseInterpretabilityBench(model, folder.name)

    yield opened, {"model": model}
    yield as_in_arrakis, {"model": model}

    def half(number):
        return number / 2

    logged = made.log_experiment(half)
    logged(1)
    logged(2)
    first, second = made.list_versions("half")
    yield made.log_experiment, {"function": half, "seed": 1}
    yield made.list_versions, {"experiment": "half"}
    yield made.get_version, {"experiment": "half", "version": first}
    yield made.runs, {"experiment": "half", "version": second}
    yield made.diff, {"first": first, "second": second}
    yield made.rerun, {"version": first, "tolerance": 1e-6}
    yield made.table, {"experiment": "half"}
    yield made.family, {"name": "heads"}
    yield made.use_tools, {}
    yield from looking_on(made, model)
    yield from samples()
