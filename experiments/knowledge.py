"""What a language model knows: probes with controls, facts as a graph, and a direction that steers it.

    python experiments/knowledge.py
    python experiments/knowledge.py --model HuggingFaceTB/SmolLM2-135M-Instruct --facts known_1000.json \
        --texts wikitext.txt --layer 12

By default on the small GPT that ships with toumei, whose world is known: probes of a profession on names
alone, all facts of the world asked by prompts and read out of heads, and a vector that turns the question for
a profession into that for a residence. With --facts, a file with subject, attribute, template and relation_id
of each fact as that of Meng et al. (2022), the probes tell by the last token of a subject which relation is
asked of it, and a vector steers between liking and disliking. The figures are outputs/knowledge_probes.png,
knowledge_graph.png, knowledge_heads.png and knowledge_steering.png.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from common import basic_parser, language_model
from toumei.models import facts_gpt
from toumei.plots import look, save_figure
from toumei.transformers import HookedModel, logit_difference
from toumei.transformers.knowledge import (
    GraphComparison,
    HeadRelations,
    KnowledgeGraphExtractor,
    KnowledgeProber,
    ProbeResult,
    SteeringSweep,
    steering_sweep,
    steering_vector,
)

STRENGTHS = (-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0)
LIKED = ("wonderful", "delicious", "brilliant", "beautiful", "excellent", "lovely")
DISLIKED = ("terrible", "disgusting", "stupid", "ugly", "horrible", "nasty")
THINGS = ("The food was", "The book was", "The weather was", "The music was")


class Facts(NamedTuple):
    """What the experiment asks.

    Attributes:
        known: Triples (subject, relation, object).
        templates: A prompt for each relation.
        probed: Subjects and their labels.
        question: What the probes say.
        steered: From where to where the vector leads.
    """

    known: list[tuple[str, str, str]]
    templates: dict[str, str]
    probed: list[tuple[str, str]]
    question: str
    steered: str


class Found(NamedTuple):
    """What it found."""

    probes: ProbeResult
    graph: GraphComparison
    heads: HeadRelations
    steering: SteeringSweep


@look()
def main(argv: Sequence[str] | None = None) -> Found:
    options = parse_arguments(argv)
    started = time.perf_counter()
    hooked, facts, steering = loaded(options)
    subjects, labels = zip(*facts.probed, strict=True)
    prober = KnowledgeProber(hooked, options.kind, splits=options.splits, seed=options.seed)
    names = [("resid_post", layer) for layer in range(0, hooked.layers, options.every)]
    probes = prober(subjects, labels, names=names, groups=subjects, verbose=True)
    extractor = KnowledgeGraphExtractor(hooked)
    asked: dict[str, list[str]] = {}
    objects: dict[str, list[str]] = {}
    for subject, relation, target in facts.known:
        asked.setdefault(relation, []).append(subject)
        objects.setdefault(relation, []).append(target)
    among = {relation: list(dict.fromkeys(several)) for relation, several in objects.items()}
    graph = extractor.from_prompts(asked, facts.templates, among, verbose=True)
    heads = extractor.from_heads(facts.known, seed=options.seed, verbose=True)
    found = Found(probes, graph.compared(facts.known), heads, steering(options))
    out = Path(options.out)
    titles = {"probes": facts.question, "steering": facts.steered}
    for name, result in (
        ("probes", probes),
        ("graph", graph),
        ("heads", heads),
        ("steering", found.steering),
    ):
        ax = result.plot()
        if name in titles:
            ax.set_title(titles[name])
        figure: Any = ax.figure
        save_figure(figure, out / f"knowledge_{name}.png")
    for part in found:
        print(part)
    print(f"{out}, {time.perf_counter() - started:.0f} s")
    return found


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser: argparse.ArgumentParser = basic_parser(__doc__, "outputs", seed=0, device="auto")
    parser.add_argument("--model", help="a causal language model to download, or a folder with one")
    parser.add_argument("--facts", help="with --model: a file of facts")
    parser.add_argument("--texts", help="with --model: a file with a text on each line, for the loss")
    parser.add_argument("--relations", type=int, default=8, help="of a file, those with the most facts")
    parser.add_argument("--layer", type=int, default=3, help="the layer after which the model is steered")
    parser.add_argument("--every", type=int, default=1, help="probe every so many layers")
    parser.add_argument("--kind", choices=("linear", "mlp"), default="linear")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--max-tokens", type=int, default=2048, help="of the texts for the loss")
    options = parser.parse_args(argv)
    if options.model and not (options.facts and options.texts):
        parser.error("--model needs --facts and --texts")
    return options


def loaded(options: argparse.Namespace) -> tuple[HookedModel, Facts, Any]:
    """The model, the facts, and what measures the steering."""
    if options.model:
        model, tokenizer = language_model(options.model)
        hooked = HookedModel(model.to(options.device).eval(), tokenizer)
        return hooked, facts_of_file(options), lambda options: liking(hooked, options)
    model, tokenizer, world = facts_gpt()
    hooked = HookedModel(model.to(options.device), tokenizer)
    known = [(fact.subject, fact.relation, fact.target) for fact in world.facts]
    templates = {fact.relation: fact.prompt for fact in reversed(world.facts)}
    probed = [(subject, target) for subject, relation, target in known if relation == "profession"]
    words = "The profession of a name", "From asking for a profession to a residence"
    return hooked, Facts(known, templates, probed, *words), lambda options: residence(hooked, world, options)


def facts_of_file(options: argparse.Namespace) -> Facts:
    """The relations of a file with the most facts, each named by its most frequent template."""
    rows = json.loads(Path(options.facts).read_text(encoding="utf-8"))
    counts = Counter((row["relation_id"], row["template"].strip()) for row in rows)
    chosen: dict[str, str] = {}
    for (relation, template), _ in counts.most_common():
        if len(chosen) < options.relations and template.startswith("{}") and relation not in chosen:
            chosen[relation] = template
    words = {
        relation: f"{template.removeprefix('{}').strip(' ,')} ({relation})"
        for relation, template in chosen.items()
    }
    kept = [row for row in rows if row["relation_id"] in chosen]
    known = {(row["subject"], words[row["relation_id"]]): row["attribute"] for row in kept}
    triples = [(subject, relation, target) for (subject, relation), target in known.items()]
    once = Counter(subject for subject, *_ in triples)
    probed = [(subject, relation) for subject, relation, _ in triples if once[subject] == 1]
    templates = {words[relation]: template for relation, template in chosen.items()}
    return Facts(triples, templates, probed, "The relation of a subject", "From disliking to liking")


def residence(hooked: HookedModel, world: Any, options: argparse.Namespace) -> SteeringSweep:
    """From the question for a profession to that for a residence, on people the vector was not made of."""
    by_relation = {
        relation: {fact.subject: fact for fact in world.facts if fact.relation == relation}
        for relation in ("residence", "profession")
    }
    names = [name for name in by_relation["residence"] if len(name.split()) == 2]
    texts = {
        relation: [facts[name].phrasings[0].format(name) for name in names]
        for relation, facts in by_relation.items()
    }
    half = len(names) // 2
    lengths = [len(hooked.to_tokens(text)[0]) for text in texts["profession"]]
    tested = [place for place in range(half, len(names)) if lengths[place] == lengths[-1]]
    answers = [[facts[names[place]].target for place in tested] for facts in by_relation.values()]
    vector = steering_vector(
        hooked, texts["residence"][:half], texts["profession"][:half], ("resid_post", options.layer)
    )
    return steering_sweep(
        hooked,
        vector,
        [texts["profession"][place] for place in tested],
        logit_difference(answers[0], answers[1]),
        list(islice(world.texts(seed=options.seed + 1), 500)),
        strengths=STRENGTHS,
        max_tokens=options.max_tokens,
        verbose=True,
    )


def liking(hooked: HookedModel, options: argparse.Namespace) -> SteeringSweep:
    """From disliking things to liking them."""
    texts = [[f"{thing} {word}." for thing in THINGS for word in words] for words in (LIKED, DISLIKED)]
    vector = steering_vector(hooked, texts[0], texts[1], ("resid_post", options.layer))
    prompts = ["I think that this movie is", "To me this old hotel is"]
    same = [
        text for text in prompts if len(hooked.to_tokens(text)[0]) == len(hooked.to_tokens(prompts[0])[0])
    ]
    sweep = steering_sweep(
        hooked,
        vector,
        same,
        logit_difference(" great", " terrible"),
        Path(options.texts),
        strengths=STRENGTHS,
        max_tokens=options.max_tokens,
        batch_size=4,
        verbose=True,
    )
    for strength in (-1.0, 0.0, 1.0):
        with vector.steering(hooked, strength):
            print(f"{strength:+}: {prompts[0]}{hooked.generate(prompts[0], 16)}")
    return sweep


if __name__ == "__main__":
    main()
