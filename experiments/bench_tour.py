"""A bench of experiments on a language model: logged, compared, tested and profiled.

    python experiments/bench_tour.py
    python experiments/bench_tour.py --facts 60 --mlflow sqlite:///runs.db
    python experiments/bench_tour.py --model HuggingFaceTB/SmolLM2-135M --prompts prompts.txt

Asks after which layer a model knows its answers, whether the bench gets the same result again, which heads
the answers need (a paired test for each head, adjusted for their number), and where the time of a pass goes.
By default the model is the small GPT that ships with toumei, asked about facts of its world.

The folder outputs/bench_tour has every run, the page runs.html to browse and compare them, heads.png with
the effect of each head, profile.png, and trace.json.gz for https://ui.perfetto.dev.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from common import basic_parser, language_model, texts_in
from toumei.bench import Bench, HypothesisFamily, compare_family
from toumei.models import facts_gpt
from toumei.plots import look, save_figure
from toumei.transformers import HookedModel


def main(argv: Sequence[str] | None = None) -> HypothesisFamily:
    options = parse_arguments(argv)
    started = time.perf_counter()
    model, prompts = loaded(options)
    out = Path(options.out)
    bench = Bench(out, model, mlflow=options.mlflow)

    @bench.log_experiment
    @bench.use_tools("logit_lens")
    def where_is_the_answer(prompt: str, logit_lens: Any = None) -> dict[str, Any]:
        tokens = model.to_tokens(prompt)
        answer = int(model(tokens)[0, -1].argmax())
        logits = [float(logit_lens.logit_lens(tokens, answer, layer)[0, -1]) for layer in range(model.layers)]
        figure = Figure(figsize=(4, 2.6), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(logits, "o-")
        axes.set(xlabel="layer", ylabel="logit of the answer", title=word(model, answer))
        return {"answer": word(model, answer), "logits": torch.tensor(logits), "figure": figure}

    @bench.log_experiment(seed=options.seed)
    @bench.use_tools("attention")
    def which_heads(prompts: list[str], method: str = "paired", attention: Any = None) -> HypothesisFamily:
        before = [float(answer_log_probability(model, prompt)) for prompt in prompts]
        answers = [int(model(prompt)[0, -1].argmax()) for prompt in prompts]
        groups = {}
        for layer in sorted(model.points.attentions):
            for head in range(model.heads):
                with attention.ablate_head(layer, head):
                    pairs = zip(prompts, answers, strict=True)
                    after = [float(answer_log_probability(model, *pair)) for pair in pairs]
                groups[f"head {layer}.{head}"] = before, after
        return compare_family(groups, method=method, seed=options.seed)

    @bench.log_experiment
    @bench.profile_model("module")
    def one_pass(prompts: list[str]) -> dict[str, Any]:
        return {"logits": [model(prompt)[0, -1].max().item() for prompt in prompts]}

    with torch.no_grad(), look():
        for prompt in prompts[:4]:
            where_is_the_answer(prompt)
        family = which_heads(prompts)
        found = one_pass(prompts[:8])
        versions = bench.list_versions("where_is_the_answer")
        print(bench.rerun(versions[0]))
        print(bench.diff(versions[0], versions[1]))
        print(bench.table("where_is_the_answer"))
        for result, name, height in ((family, "heads.png", 7), (found["profiling"], "profile.png", 6)):
            figure = Figure(figsize=(7, height), layout="constrained")
            result.plot(figure.add_subplot())
            save_figure(figure, out / name)
    found["profiling"].save_trace(out / "trace.json.gz")
    print(family)
    print(f"{bench.page()}, {time.perf_counter() - started:.0f} s")
    return family


def answer_log_probability(model: HookedModel, prompt: str, answer: int | None = None) -> torch.Tensor:
    """The log-probability of a token after a prompt, by default of the likeliest."""
    scores = model(prompt)[0, -1].log_softmax(-1)
    return scores.max() if answer is None else scores[answer]


def word(model: HookedModel, token: int) -> str:
    """The text of a token."""
    return model.to_str_tokens(torch.tensor([token]))[0]


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser: argparse.ArgumentParser = basic_parser(__doc__, "outputs/bench_tour", seed=0)
    parser.add_argument("--model", help="a causal language model to download, or a folder with one")
    parser.add_argument("--prompts", help="with --model: a file with a prompt on each line")
    parser.add_argument("--facts", type=int, default=40, help="how many facts of the world are asked for")
    parser.add_argument("--mlflow", help="an MLflow server or database that also gets every run")
    options = parser.parse_args(argv)
    if options.model and not options.prompts:
        parser.error("--model needs --prompts")
    return options


def loaded(options: argparse.Namespace) -> tuple[HookedModel, list[str]]:
    """The model, and the prompts."""
    if options.model:
        return HookedModel(*language_model(options.model)), texts_in(options.prompts)
    model, tokenizer, world = facts_gpt()
    step = len(world.facts) // options.facts
    return HookedModel(model, tokenizer), [fact.text for fact in world.facts[::step]][: options.facts]


if __name__ == "__main__":
    main()
