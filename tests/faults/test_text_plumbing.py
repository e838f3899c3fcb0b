"""Texts, answers and data sets reach a language model as they are meant."""

import itertools
import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2TokenizerFast

from toumei.attribution import Occlusion, generation_attribution, token_attribution
from toumei.core.errors import ArgumentError
from toumei.instrument import KeyValueMemories
from toumei.models import facts_gpt
from toumei.transformers import CausalTracer, HookedModel, direct_logit_attribution, logit_lens
from toumei.transformers.model.families import anatomy
from toumei.transformers.model.sampling import sample_tokens
from toumei.transformers.model.scoring import score_answers
from toumei.transformers.model.spaces import space_between
from toumei.transformers.model.tokens import continuation, encode, tokenize
from toumei.transformers.rome.evaluation import counterfact_cases
from toumei.transformers.rome.statistics import collect_statistics


@pytest.fixture(scope="module")
def facts():
    return facts_gpt()


@pytest.fixture(scope="module")
def stories(realdata):
    folder = realdata / "stories260k"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder).eval(), tokenizer


# ---------------------------------------------------------------- beginnings


@pytest.mark.parametrize("text", ["Lily had a red ball.", " Lily", "<s Lily"])
def test_a_text_that_begins_with_the_beginning_token_gets_no_second(stories, text):
    _, tokenizer = stories
    plain = encode(tokenizer, text)
    assert plain[0] == tokenizer.bos_token_id and plain[1] != plain[0]
    begun = tokenizer(f"<s>{text}", add_special_tokens=False)["input_ids"]
    assert encode(tokenizer, f"<s>{text}") == begun == list(tokenize(tokenizer, f"<s>{text}").ids)
    assert begun[:2] != [1, 1]


def test_spans_of_a_text_with_a_beginning_token_fit_its_characters(stories):
    _, tokenizer = stories
    prompt = "<s>Lily had"
    tokens = tokenize(tokenizer, prompt)
    assert tokens.spans[0] == (0, 3) and "".join(prompt[a:b] for a, b in tokens.spans) == prompt


def test_everything_reads_a_prompt_of_a_chat_template_alike(stories):
    model, tokenizer = stories
    parts, prompt = anatomy(model), "Lily had a red ball. Lily liked to"
    plain, begun = (score_answers(parts, tokenizer, [(start + prompt, "play")])[0] for start in ("", "<s>"))
    assert plain == begun
    assert continuation(tokenizer, f"<s>{prompt}", "play") == continuation(tokenizer, prompt, "play")
    traces = [
        CausalTracer(model, tokenizer).trace(start + prompt, "Lily", samples=1) for start in ("", "<s>")
    ]
    assert traces[0].ids == traces[1].ids and torch.equal(traces[0].scores, traces[1].scores)
    lenses = [logit_lens(model, tokenizer, start + prompt, "play") for start in ("", "<s>")]
    assert torch.equal(lenses[0].probabilities, lenses[1].probabilities)
    rows = [sample_tokens(parts, tokenizer, start + prompt, 1, 2) for start in ("", "<s>")]
    assert rows[0] == rows[1]
    sums = [
        collect_statistics(model, tokenizer, [start + prompt] * 3, [0], verbose=False)
        for start in ("", "<s>")
    ]
    assert torch.equal(sums[0][0].total, sums[1][0].total) and sums[0].corpus == sums[1].corpus


@pytest.mark.filterwarnings("ignore:the completeness gap of 1 of 1 input")
def test_attributions_and_memories_read_one_beginning_token(stories):
    model, tokenizer = stories
    method = Occlusion(model)
    found = [
        token_attribution(model, tokenizer, start + "Lily had a", "red", method=method)
        for start in ("", "<s>")
    ]
    assert found[0].tokens == found[1].tokens and torch.equal(found[0].values, found[1].values)
    generated = [
        generation_attribution(
            model, tokenizer, start + "Lily had", max_new_tokens=2, method=Occlusion(model)
        )
        for start in ("", "<s>")
    ]
    assert generated[0].output.tolist() == generated[1].output.tolist()
    settings = {"layers": ["model.layers.2.mlp.down_proj"], "triggers": 1, "promoted": 0, "verbose": False}
    kept = [
        KeyValueMemories(model, tokenizer, **settings)([start + "Lily had", start + "Tom ran"])
        for start in ("", "<s>")
    ]
    assert repr(kept[0]) == repr(kept[1])
    hooked = HookedModel(model, tokenizer)
    assert torch.equal(hooked.to_tokens("Lily had"), hooked.to_tokens("<s>Lily had"))


# ---------------------------------------------------------------- token ids


def test_prompts_may_be_token_ids(facts):
    model, tokenizer, world = facts
    fact = world.facts[0]
    tracer, ids = CausalTracer(model, tokenizer), tokenizer(fact.text)["input_ids"]
    want = tracer.trace(fact.text, fact.subject, samples=2)
    lens = logit_lens(model, tokenizer, fact.text, fact.target)
    for given in (ids, tuple(ids), torch.tensor(ids), torch.tensor([ids]), tokenizer(fact.text), [ids]):
        got = tracer.trace(given, fact.subject, samples=2)
        assert got.ids == want.ids and got.subject_range == want.subject_range and got.prompt == want.prompt
        assert torch.equal(got.scores, want.scores) and tracer.knows(given, fact.target)
        assert torch.equal(logit_lens(model, tokenizer, given, fact.target).probabilities, lens.probabilities)
        assert score_answers(anatomy(model), tokenizer, [(given, fact.target)]) == score_answers(
            anatomy(model), tokenizer, [(fact.text, fact.target)]
        )


def test_ids_are_read_as_they_are_also_where_the_text_has_other_tokens(stories):
    _, tokenizer = stories
    pieces = tokenizer.convert_tokens_to_ids(["▁", "L", "i", "l", "y"])
    tokens = tokenize(tokenizer, [1, *pieces])
    assert tokens.ids == (1, *pieces) != tuple(encode(tokenizer, "Lily"))
    assert tokens.spans[-1][1] - tokens.spans[-2][1] == 1


@pytest.mark.parametrize("given", [[], [[1], [2]], [10**9], [-1], [0.5], [True], 5, None, {"a": 1}])
def test_what_is_neither_text_nor_ids_is_refused(facts, given):
    model, tokenizer, _ = facts
    for call in (lambda: tokenize(tokenizer, given), lambda: logit_lens(model, tokenizer, given, "a")):
        with pytest.raises(ArgumentError, match="expected a prompt with words, or ids from 0"):
            call()


# ---------------------------------------------------------------- spaces


SPACES = [
    ("The tower is in", "Paris", " "),
    ("The tower is in ", "Paris", ""),
    ("The tower is in\n", "Paris", ""),
    ("The tower is in", " Paris", ""),
    ("", "Paris", ""),
    ("The tower (", "Paris", ""),
    ("in [", "x", ""),
    ("The tower (in Paris)", "is", " "),
    ('She said "', "yes", ""),
    ('She said ("', "yes", ""),
    ('She said "yes"', "and", " "),
    ("She said \u201c", "yes", ""),
    ("She said \u201cyes\u201d", "and", " "),
    ("«", "oui", ""),
    ("It is great", ".", ""),
    ("It is great", ", and", ""),
    ("It is great", "!", ""),
    ("The tower (in Paris", ")", ""),
    ("Ann", "'s house", ""),
    ("Ann", "\u2019s house", ""),
    ("She said", "'yes'", " "),
    ("She said", '"yes"', " "),
    ('She said "yes', '"', ""),
    ("a well-", "known", ""),
    ("a well", "-known", ""),
    ("He scored", "-3", " "),
    ("and/", "or", ""),
    ("It costs $", "5", ""),
    ("It costs", "$5", " "),
    ("It grew by 5", "%", ""),
    ("mail@", "home", ""),
    ("Hello,", "Ann", " "),
    ("The answer:", "yes", " "),
    ("It cost 3.", "Then", " "),
    ("I love \U0001f355", "pizza", " "),
    ("I love", "\U0001f355", " "),
    ("I love ❤\ufe0f", "you", " "),
    ("เมืองหลวงของประเทศไทยคือ", "กรุงเทพ", ""),
    ("ເມືອງຫຼວງ", "ວຽງຈັນ", ""),
    ("រាជធានី", "ភ្នំពេញ", ""),
    ("မြို့တော်", "နေပြည်တော်", ""),
    ("བོད་", "ལྷ་ས", ""),
    ("首都は", "東京", ""),
    ("首都は", "パリ", ""),
    ("ﾄﾞｲﾂﾉｼｭﾄﾊ", "ﾍﾞﾙﾘﾝ", ""),
    ("中国的首都是", "北京", ""),
    ("他说\uff1a", "好", ""),
    ("法国的首都是", "Paris", ""),
    ("대한민국의 수도는", "부산", " "),
    ("Столица России", "Москва", " "),
    ("πρωτεύουσα είναι", "Αθήνα", " "),
    ("भारत की राजधानी", "दिल्ली", " "),
    ("عاصمة مصر هي", "القاهرة", " "),
    ("בירת ישראל היא", "ירושלים", " "),
]


@pytest.mark.parametrize(("before", "after", "space"), SPACES)
def test_a_space_stands_where_a_writer_would_put_it(before, after, space):
    assert space_between(before, after) == space


@pytest.fixture(scope="module")
def gpt2(realdata):
    folder = realdata / "gpt2_bpe"
    return GPT2TokenizerFast(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"))


@pytest.mark.parametrize(("before", "after", "space"), [row for row in SPACES if row[0]])
def test_the_tokens_of_an_answer_have_the_space(gpt2, before, after, space):
    assert gpt2.decode(continuation(gpt2, before, after)) == space + after


@pytest.mark.parametrize(
    ("before", "after", "space"), [("Lily", "ball", " "), ("a (", "ball", ""), ("a ba", "", "")]
)
def test_sentencepiece_puts_no_space_of_its_own_before_an_answer(stories, before, after, space):
    _, tokenizer = stories
    if not after:
        with pytest.raises(ArgumentError, match="expected words to continue"):
            continuation(tokenizer, before, after)
        return
    ids = [*encode(tokenizer, before), *continuation(tokenizer, before, after)]
    assert tokenizer.decode(ids[1:]).strip() == before + space + after


def test_a_tokenizer_without_a_token_for_spaces_gets_none():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = Tokenizer(models.WordLevel({"?": 0, "A": 1, "C": 2, "G": 3, "T": 4}, "?"))
    letters.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=letters, unk_token="?")
    assert continuation(tokenizer, "ACG", "TA") == (4, 1)


# ---------------------------------------------------------------- data sets


NEW, TRUE = {"str": "Velmar"}, {"str": "Rendal"}


def nested(**others):
    rewrite = {"prompt": "{} lives in", "subject": "Yara Castell", "target_new": NEW, "target_true": TRUE}
    return {"requested_rewrite": rewrite, **others}


FLAT = {
    "prompt": "Yara Castell lives in",
    "subject": "Yara Castell",
    "target_new": "Velmar",
    "ground_truth": "Rendal",
}


@pytest.mark.parametrize(
    ("record", "neighbours", "paraphrases"),
    [
        (nested(neighborhood_prompts=["Ann lives in"]), [("Ann lives in", "Rendal")], ()),
        (
            nested(neighborhood_prompts=[{"prompt": "Ann lives in", "target": " Oslo"}]),
            [("Ann lives in", " Oslo")],
            (),
        ),
        (
            {
                **FLAT,
                "rephrase_prompt": "Her home is",
                "locality_prompt": "Ann lives in",
                "locality_ground_truth": "Oslo",
            },
            [("Ann lives in", "Oslo")],
            ("Her home is",),
        ),
        (
            {
                **FLAT,
                "rephrase": ["Her home is"],
                "locality_prompt": ["A", "B"],
                "locality_ground_truth": ["C", "D"],
            },
            [("A", "C"), ("B", "D")],
            ("Her home is",),
        ),
        (
            {
                **FLAT,
                "ground_truth": ["Rendal", "R."],
                "locality": {"neighborhood": {"prompt": "A", "ground_truth": "C"}},
            },
            [("A", "C")],
            (),
        ),
        (
            {**FLAT, "locality": {"Relation": [{"prompt": "A", "ground_truth": [["C", "c"]]}]}},
            [("A", "C")],
            (),
        ),
        (
            {
                "src": "Yara Castell lives in",
                "subject": "Yara Castell",
                "alt": "Velmar",
                "answers": ["Rendal"],
                "rephrase": "Her home is",
                "loc": "Who sings?",
                "loc_ans": "Bo",
            },
            [("Who sings?", "Bo")],
            ("Her home is",),
        ),
        ({**FLAT, "target_new": {"str": "Velmar"}, "prompt": "{} lives in"}, [], ()),
    ],
)
def test_records_of_all_layouts_are_one_case(record, neighbours, paraphrases, tmp_path):
    (tmp_path / "records.json").write_text(json.dumps([record]))
    for given in ([record], tmp_path / "records.json"):
        (case,) = counterfact_cases(given)
        assert case.request.prompt == "{} lives in" and case.request.text == "Yara Castell lives in"
        assert (case.request.target, case.truth) == ("Velmar", "Rendal")
        assert case.neighbours == tuple(neighbours) and case.paraphrases == paraphrases


@pytest.mark.parametrize(
    "record",
    [
        5,
        None,
        {},
        {"prompt": "a", "target_new": "b"},
        {**FLAT, "subject": "Bob"},
        {**FLAT, "ground_truth": 3},
        {**FLAT, "ground_truth": []},
        {**FLAT, "locality": {"a": 3}},
        nested(neighborhood_prompts=[{"target": "a"}]),
        nested(neighborhood_prompts=[3]),
    ],
)
def test_records_of_no_layout_are_refused_by_their_number(record):
    with pytest.raises(ArgumentError, match="record 1"):
        counterfact_cases([FLAT, record])


@pytest.mark.parametrize("content", [b"", b"[", b"{}", b"\xff\xfe", b"[" * 100_000])
def test_damaged_files_of_records_are_one_kind_of_error(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(ArgumentError):
        counterfact_cases(tmp_path / "x.json")
    with pytest.raises(ArgumentError):
        counterfact_cases(tmp_path)


# ---------------------------------------------------------------- precision and lengths


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.int64, torch.bool, torch.complex64, "float32"]
)
def test_statistics_are_summed_in_single_or_double_precision(facts, dtype):
    model, tokenizer, _ = facts
    with pytest.raises(ArgumentError, match="float32 or float64|dtype is a dtype"):
        collect_statistics(model, tokenizer, ["a"], [1], dtype=dtype, verbose=False)


def test_single_precision_is_close_to_double(facts):
    model, tokenizer, world = facts
    texts = list(itertools.islice(world.texts(seed=0), 40))
    one, other = (
        collect_statistics(model, tokenizer, texts, [1], dtype=dtype, verbose=False)[1].matrix
        for dtype in (torch.float32, torch.float64)
    )
    assert (one - other).norm() < 1e-5 * other.norm()


def test_prompts_that_are_too_long_are_refused_everywhere(facts):
    model, tokenizer, _ = facts
    prompt, parts = "the " * 600 + "the", anatomy(model)
    tracer = CausalTracer(model, tokenizer)
    calls = [
        lambda: logit_lens(model, tokenizer, prompt, "a"),
        lambda: tracer.knows(prompt, "a"),
        lambda: tracer.trace(prompt, "the"),
        lambda: score_answers(parts, tokenizer, [(prompt, "a")]),
        lambda: sample_tokens(parts, tokenizer, prompt, 1, 1),
        lambda: token_attribution(model, tokenizer, prompt, "the"),
        lambda: HookedModel(model, tokenizer)(prompt),
        lambda: direct_logit_attribution(model, tokenizer, prompt, "the"),
    ]
    for call in calls:
        with pytest.raises(ArgumentError, match="tokens long, GPT2LMHeadModel reads at most 128"):
            call()
