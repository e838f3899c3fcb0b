"""The graph of operations of GPT-2 small's shape against the plain forward pass and torchlens, in turns.

Prints the ratios to the plain pass as medians: all tensors kept (wanted: at most 1.3), the graph without
tensors (1.1), the attention weights of all layers by name (1.03), and torchlens' trace of the same pass.

    python benchmarks/instrument.py [--device cuda] [--tokens 64] [--rows 4]
"""

import statistics

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from timing import basic_parser, in_turns, ratios, spread, write
from toumei.instrument import instrument


def main(argv: list[str] | None = None) -> dict[str, float]:
    parser = basic_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--layers", type=int, default=12)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    model = GPT2LMHeadModel(GPT2Config(n_layer=options.layers)).eval().to(options.device)
    model.set_attn_implementation("eager")  # whose softmax is an operation
    tokens = torch.randint(50257, (options.rows, options.tokens), device=options.device)
    softmaxes = [f"transformer.h.{layer}.attn/softmax" for layer in range(options.layers)]

    def tracked(only: list[str] | None) -> object:
        with instrument(model) as probe, probe.track(only) as tracker:
            model(tokens)
        return tracker

    contenders = {
        "plain": lambda: model(tokens),
        "all tensors": lambda: tracked(None),
        "names": lambda: tracked([]),
        "named tensors": lambda: tracked(softmaxes),
    }
    try:
        import torchlens
    except ImportError:
        print("torchlens is not installed and left out")
    else:
        contenders["torchlens"] = lambda: torchlens.trace(model, tokens)
    with torch.no_grad():
        times = in_turns(contenders, options.rounds, options.device, warm_up=1)
        with instrument(model) as probe, probe.track([]) as tracker:
            model(tokens)
    size = f"{len(tracker.build_graph())} operations, {options.rows} x {options.tokens} tokens"
    print(f"GPT-2's shape with {options.layers} layers, {size}, {options.device}")
    results = {name: statistics.median(values) for name, values in times.items()}
    for name in list(contenders)[1:]:
        found = ratios(times, name, "plain")
        results[f"{name} / plain"] = statistics.median(found)
        print(f"  {name} / plain: {spread(found)}")
    write(results, options.json)
    return results


if __name__ == "__main__":
    main()
