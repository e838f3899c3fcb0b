"""Requests from what users have, and the tokens of their subjects."""

import pytest

from toumei.core.errors import ArgumentError
from toumei.models.facts_world import FactsWorld
from toumei.transformers.rome.editing.requests import EditRequest, subject_text


def test_requests_from_what_users_have():
    fact = FactsWorld().facts[0]
    assert EditRequest.of(fact).text == fact.text
    assert EditRequest.of({"prompt": "{} is", "subject": " a ", "target": "b"}).text == "a is"
    with pytest.raises(ArgumentError, match="subject, target missing"):
        EditRequest.of({"prompt": "{} is"})


@pytest.mark.filterwarnings("ignore:Deprecated in 0.9.0:DeprecationWarning")  # inside of transformers 5.4
def test_the_subjects_last_token_with_special_and_multi_byte_tokens(realdata):
    from transformers import GPT2TokenizerFast

    folder = realdata / "gpt2_bpe"
    tokenizer = GPT2TokenizerFast(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"))
    for subject in ("Karlsruhe Institute of Technology", "東京タワー", "Zoë 🤖", "{weird} name"):
        for template in ("{} is in", "The place of {} is", "It is {},"):
            found = subject_text(tokenizer, template, subject, "New York City")
            text, end = template.replace("{}", subject), template.index("{}") + len(subject)
            assert tokenizer.decode(found.ids) == f"{text} New York City"
            assert found.target == 3 and tokenizer.decode(found.ids[-3:]) == " New York City"
            upto = tokenizer.decode(found.ids[: found.subject + 1])
            assert upto.startswith(text[:end]) and len(upto) <= end + 1


def test_a_tokenizer_that_adds_a_beginning_token(tokenizer):
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    words.add_special_tokens(["<s>"])
    begin = words.token_to_id("<s>")
    words.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", begin)])
    beginning = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="w0", bos_token="<s>")
    plain, shifted = (subject_text(each, "w1 {} w2", "w3 w4", "w5 w6") for each in (tokenizer, beginning))
    assert shifted.ids == (begin, *plain.ids) and shifted.subject == plain.subject + 1 and shifted.target == 2
