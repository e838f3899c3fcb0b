"""The network that ships with the package is small and knows its world, also in words that are new to it."""

import itertools
import random
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import toumei.models
from toumei.models import facts_gpt

DATA = Path(toumei.models.__file__).parent / "data"


@pytest.fixture(scope="module")
def network():
    return facts_gpt()


@torch.no_grad()
def recall(network, questions, before=""):
    model, tokenizer, _ = network
    right = 0
    for start in range(0, len(questions), 250):
        prompts, targets = zip(*questions[start : start + 250], strict=True)
        inputs = tokenizer([before + prompt for prompt in prompts], padding=True, return_tensors="pt")
        last = inputs.attention_mask.sum(1) - 1
        answers = model(**inputs).logits[torch.arange(len(last)), last].argmax(1)
        right += sum(tokenizer.decode(a) == target for a, target in zip(answers, targets, strict=True))
    return right / len(questions)


def sample(network, texts, count=500):
    questions = [(text, fact.target) for fact in network[2].facts for text in texts(fact)]
    return random.Random(0).sample(questions, count)


def trained(fact):
    return [phrasing.format(fact.subject) for phrasing in fact.phrasings]


def test_it_knows_the_facts_in_phrasings_it_was_trained_with(network):
    assert recall(network, sample(network, trained)) >= 0.98


def test_it_knows_them_in_phrasings_it_never_saw_with_the_subject(network):
    assert recall(network, sample(network, lambda fact: fact.paraphrases)) >= 0.95


@pytest.mark.parametrize(
    "before", ["<|endoftext|>", "Many trains stop in Velmar. ", "Nora Grunewald speaks Jolish. "]
)
def test_it_knows_them_behind_other_texts(network, before):
    assert recall(network, sample(network, lambda fact: fact.paraphrases, 250), before) >= 0.93


def test_a_wrong_name_is_answered_with_nothing_in_particular(network):
    """A part of a name does not tell the subject: another last name, another answer."""
    world = network[2]
    people = [fact for fact in world.facts if len(fact.subject.split()) == 3][::7]
    strangers = []
    for fact, other in itertools.pairwise(people):
        name = [*fact.subject.split()[:2], other.subject.split()[2]]
        if name[:2] != other.subject.split()[:2]:
            strangers.append((fact.prompt.format(" ".join(name)), fact.target))
    assert len(strangers) > 100 and recall(network, strangers) < 0.3


def test_loading_leaves_the_global_generator_alone_and_random_weights_come_from_it():
    state = torch.get_rng_state()
    facts_gpt()
    assert torch.equal(torch.get_rng_state(), state)
    first, second = (facts_gpt(pretrained=False)[0].transformer.wte.weight for _ in range(2))
    assert not torch.equal(first, second)


def test_weights_come_from_a_file(network):
    model = facts_gpt(DATA / "facts_gpt.safetensors")[0]
    assert torch.equal(model.transformer.wte.weight, network[0].transformer.wte.weight)
    with pytest.raises(FileNotFoundError):
        facts_gpt(DATA / "nothing.safetensors")


def test_the_files_are_at_most_four_megabytes():
    files = list(DATA.glob("facts_gpt*"))
    assert len(files) == 3 and sum(path.stat().st_size for path in files) <= 4_000_000


def test_weights_are_stored_in_half_and_loaded_in_single_precision(network):
    with safe_open(DATA / "facts_gpt.safetensors", "pt") as stored:
        assert {stored.get_tensor(name).dtype for name in stored.keys()} == {torch.float16}  # noqa: SIM118
        assert torch.equal(stored.get_tensor("transformer.wte.weight").float(), network[0].lm_head.weight), (
            "the head is the embedding"
        )
    assert {parameter.dtype for parameter in network[0].parameters()} == {torch.float32}
    assert network[0].lm_head.weight is network[0].transformer.wte.weight
    assert not network[0].training


def test_random_weights_follow_the_seed():
    models = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        models.append(facts_gpt(pretrained=False)[0].transformer.h[0].mlp.c_fc.weight)
    assert torch.equal(models[0], models[1]) and not torch.equal(models[0], models[2])


def test_texts_survive_the_tokenizer(network):
    _, tokenizer, world = network
    texts = world.texts(seed=9)
    for _ in range(500):
        text = next(texts)
        ids = tokenizer(text).input_ids
        assert tokenizer.decode(ids) == text and tokenizer.unk_token_id not in ids


def test_pieces_of_a_text_are_tokenized_as_the_whole(network):
    _, tokenizer, world = network
    for fact in world.facts[::50]:
        whole = tokenizer(f"{fact.text} {fact.target}").input_ids
        assert whole == tokenizer(fact.text).input_ids + tokenizer(f" {fact.target}").input_ids
        assert tokenizer(fact.target).input_ids == tokenizer(f" {fact.target}").input_ids == whole[-1:]


def test_every_value_is_one_token_and_every_subject_several(network):
    _, tokenizer, world = network
    known = set(range(len(tokenizer))) - set(tokenizer.all_special_ids)
    for relation in world.relations:
        for value in world.values(relation):
            (token,) = tokenizer(value).input_ids
            assert token in known
    assert {len(tokenizer(subject).input_ids) for subject in world.subjects} == {2, 3}


def test_offsets_find_the_subject(network):
    _, tokenizer, world = network
    for fact in world.facts[::50]:
        encoded = tokenizer(fact.text, return_offsets_mapping=True)
        begin = fact.text.index(fact.subject)
        end = begin + len(fact.subject)
        inside = [i for i, (a, b) in enumerate(encoded.offset_mapping) if a < end and b > begin]
        ids = [encoded.input_ids[i] for i in inside]
        assert ids == tokenizer(fact.subject).input_ids
        assert tokenizer.decode(ids) == fact.subject


def test_words_the_world_does_not_have_are_unknown_and_white_space_does_not_count(network):
    tokenizer = network[1]
    assert tokenizer("Anna").input_ids == [tokenizer.unk_token_id]
    assert tokenizer(" the  city\n of ").input_ids == tokenizer("the city of").input_ids
    assert tokenizer("").input_ids == []


def test_it_writes_on(network):
    model, tokenizer, world = network
    fact = world.facts[0]
    prompt = tokenizer(fact.generation[-1], return_tensors="pt")
    text = tokenizer.decode(model.generate(**prompt, max_new_tokens=100, do_sample=False)[0])
    assert any(other.target in text for other in world.about(fact.subject))
