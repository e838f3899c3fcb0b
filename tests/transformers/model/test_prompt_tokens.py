"""A subject's tokens, the roles of tokens, and what continues a prompt."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from toumei.core.errors import ArgumentError
from toumei.transformers.model.tokens import (
    ROLES,
    continuation,
    fill_subject,
    subject_range,
    token_roles,
    tokenize,
)

TEXT = "The Karlsruhe Institute of Technology is in Germany"


@pytest.fixture(scope="module", params=["plain", "begin", "begin and end"])
def byte_level(request):
    """Byte-level pairs as in GPT-2: characters of several tokens; with and without added special tokens."""
    pairs = Tokenizer(models.BPE())
    pairs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pairs.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    pairs.train_from_iterator([TEXT] * 5, trainer)
    if request.param != "plain":
        single = "<s> $A </s>" if "end" in request.param else "<s> $A"
        pairs.post_processor = processors.TemplateProcessing(
            single=single, special_tokens=[("<s>", 0), ("</s>", 1)]
        )
    return PreTrainedTokenizerFast(tokenizer_object=pairs, bos_token="<s>", eos_token="</s>")


@pytest.mark.parametrize(
    ("prompt", "subject"),
    [
        ("Karlsruhe Institute of Technology is in", "Karlsruhe Institute of Technology"),
        ("The Institute of Technology is in", "Institute of Technology"),
        ("I like Café Müller, which is in", "Café Müller"),
        ("首都の東京は", "東京"),
        ("He lives in Köln", "Köln"),
        ("ö", "ö"),
    ],
)
def test_the_range_covers_the_subject_and_nothing_else_but_a_space(byte_level, prompt, subject):
    tokens = tokenize(byte_level, prompt)
    first, end = subject_range(tokens, prompt, subject)
    assert byte_level.decode(tokens.ids[first:end]).strip(" ") == subject
    assert len(tokens) == len(tokens.texts) == len(tokens.spans)


def test_whole_words_come_first(byte_level):
    prompt = "Joanna met Ann"
    first, end = subject_range(tokenize(byte_level, prompt), prompt, "Ann")
    assert tokenize(byte_level, prompt).spans[end - 1][1] == len(prompt)
    first, end = subject_range(tokenize(byte_level, "Joanna"), "Joanna", "anna")
    assert first < end


def test_empty_spans_reach_to_the_next_token(tokenizer):
    class Old:
        """Llama 3's tokenizer once gave spans without length."""

        def __call__(self, text, **options):
            return {
                "input_ids": [9, 1, 2, 3],
                "offset_mapping": [(0, 0), (0, 0), (2, 2), (5, 5)],
                "special_tokens_mask": [1, 0, 0, 0],
            }

        def decode(self, ids):
            return str(ids)

    tokens = tokenize(Old(), "w1 w2 w3")
    assert tokens.spans == ((0, 0), (0, 2), (2, 5), (5, 8))
    assert subject_range(tokens, "w1 w2 w3", "w2") == (2, 3)


def test_a_prompt_has_no_end_token_where_a_model_is_to_go_on(byte_level):
    tokens = tokenize(byte_level, TEXT)
    assert tokens.spans[-1][1] == len(TEXT) and 1 not in tokens.ids
    assert len(tokens.ids) == len(tokens.texts) == len(tokens.spans)


def test_braces_say_where_the_subject_is(byte_level):
    prompt, start = fill_subject("Ann met {}", "Ann")
    assert (prompt, start) == ("Ann met Ann", 8)
    tokens = tokenize(byte_level, prompt)
    assert subject_range(tokens, prompt, "Ann", start)[1] == len(tokens)
    assert subject_range(tokens, prompt, "Ann")[1] < len(tokens)


def test_a_subject_that_is_not_there_shows_prompt_subject_and_tokens(tokenizer):
    tokens = tokenize(tokenizer, "w1 w2")
    with pytest.raises(ArgumentError, match="subject is a string, got None"):
        subject_range(tokens, "w1 w2", None)
    for subject in ("w3", "", "  "):
        with pytest.raises(ArgumentError, match=rf"'{subject.strip()}'.*'w1 w2'.*\['w1', 'w2'\]"):
            subject_range(tokens, "w1 w2", subject)


def test_an_empty_prompt_and_a_tokenizer_without_offsets_are_refused(tokenizer):
    for prompt in ("", "   ", None):
        with pytest.raises(ArgumentError, match="expected a prompt with words|prompt is a string, got None"):
            tokenize(tokenizer, prompt)

    class Slow:
        def __call__(self, text, **options):
            raise NotImplementedError("return_offset_mapping is not available")

    with pytest.raises(ArgumentError, match="Slow does not know which characters"):
        tokenize(Slow(), "w1")


def test_roles_at_the_edges():
    before, first, middle, last, after, further, end = ROLES
    assert token_roles(8, (1, 4)) == (before, first, middle, last, after, further, further, end)
    assert token_roles(3, (0, 1)) == (last, after, end)
    assert token_roles(3, (0, 2)) == (first, last, end)
    assert token_roles(3, (1, 3)) == (before, first, last)
    assert token_roles(1, (0, 1)) == (last,)


def test_a_continuation_is_what_follows_the_prompt_in_one_text(byte_level):
    prompt = "The Institute is in"
    follows = continuation(byte_level, prompt, "Germany")
    assert byte_level.decode(follows) == " Germany"
    assert follows == continuation(byte_level, prompt, " Germany")
    assert byte_level.decode(continuation(byte_level, "The Institute is in ", "Germany")) == "Germany"
    assert byte_level.decode(continuation(byte_level, "首都は", "東京")) == "東京"
    assert not {0, 1} & set(follows)


def test_nothing_or_unknown_words_do_not_continue(tokenizer):
    for text in ("", " ", None):
        with pytest.raises(ArgumentError, match="expected words to continue|text is a string, got None"):
            continuation(tokenizer, "w1", text)
    with pytest.raises(ArgumentError, match="no tokens for 'unknown'"):
        continuation(tokenizer, "w1", "unknown")
    assert continuation(tokenizer, "w1", "w2 w3") == (2, 3)
