"""Areas of a corpus against the forward passes alone, in turns (wanted: at most 1.3 times).

The network has the shape of MiniLM (6 layers of width 384), with the weights of `--model` if there are any;
texts are sentences of the world of facts_gpt, six to a text, read by its tokenizer. A part of 10,000 texts
is measured: looking for the layers, reading the texts, the fit of the reduction, the maps and one graph. The
plain passes have the same texts in batches of the same size, sorted by length in the same windows, tokenized
before the clock starts. The fit is also timed on 10,000 texts.

    python benchmarks/areas.py [--texts 512]
"""

import statistics
from itertools import islice
from typing import Any

import torch
from transformers import AutoModel, BertConfig, BertModel

from timing import Call, basic_parser, describe, in_turns, ratios, spread, timed, write
from toumei.models import facts_gpt
from toumei.transformers.areas import PCA, ActivationAreas
from toumei.transformers.areas.fitting import coordinates_of_states

TEXTS = 10_000
WINDOW = 512  # texts that are sorted by length together


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = basic_parser(__doc__)
    parser.add_argument("--model", help="a folder with MiniLM; else random weights of its shape")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--texts", type=int, default=WINDOW, help="in a round")
    parser.add_argument("--batch-size", type=int, default=32)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = network(options.model).eval().to(options.device)
    _, tokenizer, world = facts_gpt()
    sentences = list(islice(world.texts(seed=0), 6 * options.texts))
    texts = [" ".join(sentences[start : start + 6]) for start in range(0, len(sentences), 6)]
    labels = [index % 2 for index in range(len(texts))]
    batches = list(batches_of(tokenizer, texts, options.batch_size, options.device))

    def plain() -> None:
        for batch in batches:
            model(**batch)

    def areas(keep_states: bool = True) -> ActivationAreas:
        found = ActivationAreas(
            model,
            texts,
            labels,
            tokenizer=tokenizer,
            batch_size=options.batch_size,
            keep_states=keep_states,
            map_dimension=8,
            verbose=False,
        )
        found.process_activation_areas()
        found.get_composed_graph(0, 1)
        return found

    contenders: dict[str, Call] = {
        "plain": plain,
        "areas": areas,
        "two passes": lambda: areas(keep_states=False),
    }
    with torch.no_grad():
        times = in_turns(contenders, options.rounds, options.device, warm_up=1)
    results = {name: statistics.median(values) for name, values in times.items()}
    found, twice = ratios(times, "areas", "plain"), ratios(times, "two passes", "plain")
    results["areas / plain"], results["two passes / plain"] = map(statistics.median, (found, twice))
    states = {str(layer): torch.randn(TEXTS, 384) for layer in range(7)}
    results["fit"] = timed(lambda: coordinates_of_states(PCA(), states))
    share = results["fit"] / (results["plain"] * TEXTS / options.texts)
    tokens = sum(int(batch["attention_mask"].sum()) for batch in batches) / options.texts
    where = describe(torch.device(options.device))
    print(f"MiniLM's shape, {options.texts} texts of {tokens:.0f} tokens, {where}")
    print(f"  areas / passes: {spread(found)}; states not kept, two passes: {spread(twice)}")
    print(f"  fit to {TEXTS:,} texts: {results['fit']:.1f} s, {share:.1%} of their passes")
    write(results, options.json)
    return results


def network(folder: str | None) -> Any:
    """MiniLM, or a network of its shape."""
    if folder is not None:
        return AutoModel.from_pretrained(folder, dtype=torch.float32)
    config = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
    return BertModel(config)


def batches_of(tokenizer: Any, texts: list[str], batch_size: int, device: str) -> Any:
    """The texts as batches of about the same length, padded, as the analysis makes them."""
    for begin in range(0, len(texts), WINDOW):
        window = sorted(texts[begin : begin + WINDOW], key=lambda text: len(tokenizer(text)["input_ids"]))
        for start in range(0, len(window), batch_size):
            batch = tokenizer(window[start : start + batch_size], padding=True, return_tensors="pt")
            yield {name: batch[name].to(device) for name in ("input_ids", "attention_mask")}


if __name__ == "__main__":
    main()
