"""The world of facts is drawn from its seed, and holds what its documentation says."""

import itertools
from collections import Counter, defaultdict

import pytest

from toumei.core.errors import ArgumentError
from toumei.models import FactsWorld


@pytest.fixture(scope="module")
def world():
    return FactsWorld()


def some_texts(world, count, **settings):
    return list(itertools.islice(world.texts(**settings), count))


def test_one_seed_gives_one_world_and_another_seed_another(world):
    assert FactsWorld(0).facts == world.facts
    assert FactsWorld(1).facts != world.facts
    assert FactsWorld(1).vocabulary == world.vocabulary


def test_the_world_is_as_large_as_it_says(world):
    assert len(world.subjects) == len(set(world.subjects)) == 400
    assert len(world.facts) == 320 * 6 + 80 * 4 == 2240
    assert len({(fact.subject, fact.relation) for fact in world.facts}) == 2240
    assert repr(world) == "FactsWorld(seed=0): 2240 facts of 400 subjects"


def test_words_of_names_values_and_texts_are_disjoint(world):
    values = {value for relation in world.relations for value in world.values(relation)}
    templates = {word for fact in world.facts for phrasing in fact.phrasings for word in phrasing.split()}
    assert not values & world.name_words and not values & templates and not templates & world.name_words
    assert values | world.name_words | templates - {"{}"} < set(world.vocabulary)


def test_values_of_different_kinds_are_disjoint(world):
    kinds = {frozenset(world.values(relation)) for relation in world.relations}
    assert all(not one & other for one, other in itertools.combinations(kinds, 2))


def test_only_all_parts_of_a_name_identify_the_subject(world):
    parts = [name.split() for name in world.subjects]
    assert set(map(len, parts)) == {2, 3}
    holders = Counter(word for name in parts for word in name)
    assert min(holders.values()) >= 2
    beginnings = Counter(tuple(name[:length]) for name in parts for length in range(1, len(name)))
    assert not any(tuple(name) in beginnings for name in parts), "a name begins with another name"
    assert sum(beginnings[tuple(name[:-1])] > 1 for name in parts) > 40


def test_the_words_of_people_and_firms_differ(world):
    people = {word for name in world.subjects[:320] for word in name.split()}
    firms = {word for name in world.subjects[320:] for word in name.split()}
    assert not people & firms


def test_every_value_is_true_of_about_as_many_subjects(world):
    for relation in world.relations:
        counts = Counter(fact.target for fact in world.facts if fact.relation == relation)
        assert set(counts) == set(world.values(relation))
        assert max(counts.values()) - min(counts.values()) <= 1


def test_prompts_end_where_the_target_begins(world):
    for fact in world.facts:
        assert fact.prompt == fact.phrasings[0] and fact.text == fact.prompt.replace("{}", fact.subject)
        assert all(phrasing.count("{}") == 1 for phrasing in fact.phrasings)
        assert not any(text.endswith((" ", ".")) for text in (*fact.phrasings, *fact.paraphrases))
        assert " " not in fact.target


def test_phrasings_and_paraphrases_share_nothing(world):
    templates = defaultdict(set)
    for fact in world.facts:
        held_out = {text.replace(fact.subject, "{}") for text in fact.paraphrases}
        assert len(held_out) == 2 and len(set(fact.phrasings)) == 4 and not held_out & set(fact.phrasings)
        templates[fact.relation] |= held_out
    # Held out for some, trained with others: what a phrasing means is known.
    assert all(len(several) == 6 for several in templates.values())


def test_neighbours_share_the_target_and_not_the_subject(world):
    holds = {(fact.text, fact.target): fact for fact in world.facts}
    for fact in world.facts:
        neighbours = [holds[text, fact.target] for text in fact.neighbourhood]
        assert 3 <= len(set(neighbours)) == len(neighbours) <= 10
        assert all(other.relation == fact.relation for other in neighbours)
        assert fact.subject not in {other.subject for other in neighbours}


def test_generation_prompts_name_the_subject_and_not_the_target(world):
    for fact in world.facts:
        assert all(fact.subject in text and fact.target not in text for text in fact.generation)


def test_others_alternatives_and_namesakes(world):
    for fact in world.facts[::97]:
        others = world.others(fact)
        assert {other.subject for other in others} == {fact.subject}
        assert {*others, fact} == set(world.about(fact.subject))
        assert {*world.alternatives(fact), fact.target} == set(world.values(fact.relation))
        assert fact.target not in world.alternatives(fact)
        for other in world.namesakes(fact):
            assert set(other.subject.split()) & set(fact.subject.split()) and other.subject != fact.subject
            assert other.relation == fact.relation and other.target != fact.target


def test_texts_follow_the_seed_and_state_trained_phrasings_only(world):
    texts = some_texts(world, 5000, seed=3)
    assert texts == some_texts(world, 5000, seed=3) != some_texts(world, 5000, seed=4)
    held_out = {f"{text} {fact.target}." for fact in world.facts for text in fact.paraphrases}
    stated = {text.split(".")[0] + "." for text in texts}
    assert not stated & held_out
    trained = {f"{p.format(f.subject)} {f.target}." for f in world.facts for p in f.phrasings}
    assert len(stated & trained) > 1500


def test_texts_say_only_what_is_true(world):
    targets = defaultdict(set)
    values = {value for relation in world.relations for value in world.values(relation)}
    for fact in world.facts:
        targets[fact.subject].add(fact.target)
    for text in some_texts(world, 2000, seed=5):
        subjects = [name for name in world.subjects if name in text]
        words = {word.strip(".,:") for word in text.split()}
        assert words <= set(world.vocabulary)
        if subjects:
            assert words & values <= targets[subjects[0]] and len(subjects) == 1


def test_texts_about_few_subjects(world):
    texts = some_texts(world, 2000, seed=0, subjects=20)
    named = {name for name in world.subjects for text in texts if name in text}
    assert len(named) == 20
    more = some_texts(world, 2000, seed=0, subjects=40)
    assert named < {name for name in world.subjects for text in more if name in text}


def test_unknown_relations_subjects_and_seeds_are_refused(world):
    with pytest.raises(ArgumentError, match="'hobby'; there are residence"):
        world.values("hobby")
    with pytest.raises(ArgumentError, match="'Nobody'"):
        world.about("Nobody")
    with pytest.raises(ArgumentError, match="-1"):
        FactsWorld(-1)
    for count in (0, 401):
        with pytest.raises(ArgumentError, match="400"):
            next(world.texts(0, subjects=count))
