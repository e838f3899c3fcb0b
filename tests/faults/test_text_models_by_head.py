"""What a text model says is read by its head: words, words in gaps, classes, labels of tokens, answers."""

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from toumei.attribution import (
    AnswerSpan,
    Attribution,
    DeepLift,
    ExactShapley,
    InputXGradient,
    IntegratedGradients,
    Occlusion,
    Saliency,
    generation_attribution,
    token_attribution,
)
from toumei.core.errors import ArchitectureError, ArgumentError, ToumeiError, UnitError

WORDS = ["<pad>", "<unk>", "<s>", "</s>", "<mask>", "a", "the", "film", "play", "was", "is", "dull", "fine"]
WORDS += ["what", "not", "so"]
TEXT = "the film was fine"
LABELS = {
    "id2label": {0: "dull", 1: "fair", 2: "good"},
    "label2id": {"dull": 0, "fair": 1, "good": 2},
}
HEADS = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", "ForMaskedLM")


@pytest.fixture(scope="module")
def words():
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B:1 </s>:1", special_tokens=[("<s>", 2), ("</s>", 3)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        cls_token="<s>",
        sep_token="</s>",
        mask_token="<mask>",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


@pytest.fixture(scope="module")
def plain(words):
    """The same words without tokens around them and without token types, as causal models have them."""
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        model_input_names=["input_ids", "attention_mask"],
    )


def encoder(head, family="Bert", **options):
    torch.manual_seed(1)
    config = getattr(transformers, f"{family}Config")(
        vocab_size=len(WORDS),
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=24,
        initializer_range=0.5,
        **({} if head == "ForQuestionAnswering" else LABELS),
        **options,
    )
    return getattr(transformers, family + head)(config).eval()


def causal(family="GPT2LMHeadModel"):
    torch.manual_seed(2)
    sizes = {"vocab_size": len(WORDS), "initializer_range": 0.5}
    if family.startswith("GPT2"):
        config = transformers.GPT2Config(n_layer=2, n_embd=12, n_head=2, n_positions=24, **sizes)
    else:
        config = transformers.LlamaConfig(
            hidden_size=12, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, **sizes
        )
    return getattr(transformers, family)(config).eval()


@torch.no_grad()
def logits(model, encoding):
    return model(**encoding).logits


# classes and labels


@pytest.mark.parametrize("target", ["dull", "DULL", 0])
def test_a_class_has_a_name(words, target):
    model = encoder("ForSequenceClassification")
    want = logits(model, words(TEXT, return_tensors="pt"))[0]
    result = token_attribution(model, words, TEXT, target)
    assert result.names == ("dull",) and torch.allclose(result.output, want[:1], atol=1e-5)
    result = token_attribution(model, words, TEXT, ["dull", "good"], against="fair", method=Saliency(model))
    assert result.names == ("dull - fair", "good - fair")
    assert torch.allclose(result.output[:, 0], want[[0, 2]] - want[1], atol=1e-5)


def test_a_class_may_be_named_like_a_word(words):
    """The word "fine" is in the vocabulary, but it is no class, and its number is no class either."""
    model = encoder("ForSequenceClassification")
    for given in ({"target": "fine"}, {"target": 0, "against": "fine"}):
        with pytest.raises(UnitError, match="no class 'fine': there are 'dull', 'fair', 'good'"):
            token_attribution(model, words, TEXT, **given)
    with pytest.raises(ArgumentError, match="has no places"):
        token_attribution(model, words, TEXT, 0, position=1)


def test_labels_are_those_of_a_token(words):
    model = encoder("ForTokenClassification")
    want = logits(model, words(TEXT, return_tensors="pt"))[0]
    with pytest.raises(ArgumentError, match="gives labels to tokens: name one of .*'film'.* with position="):
        token_attribution(model, words, TEXT, 1)
    for position in (2, -4, "film"):
        result = token_attribution(model, words, TEXT, "good", position=position)
        assert torch.allclose(result.output, want[2, 2:3], atol=1e-5) and result.names == ("good",)
        assert result.values.shape == (1, 6)
    likeliest = token_attribution(model, words, TEXT, position="was", method=Occlusion(model))
    assert torch.allclose(likeliest.output[0], want[3].max(), atol=1e-5)
    against = token_attribution(model, words, TEXT, "good", "dull", position="was", method=Occlusion(model))
    assert torch.allclose(against.output[0], want[3, 2] - want[3, 0], atol=1e-5)
    wrong = (("play", "nowhere"), (6, "no position 6"), (-7, "no position -7"), (1.5, "1.5"), ([1], "1"))
    for position, said in wrong:
        with pytest.raises((UnitError, ArgumentError), match=said):
            token_attribution(model, words, TEXT, 1, position=position)


def test_an_answer_is_a_part_of_the_text(words):
    model, pair = encoder("ForQuestionAnswering"), ("what was fine", "the film was so fine")
    with torch.no_grad():
        said = model(**words(*pair, return_tensors="pt"))
    start, end = said.start_logits[0].log_softmax(0), said.end_logits[0].log_softmax(0)
    for target in ("the film", AnswerSpan(5, 6)):
        result = token_attribution(model, words, pair, target)
        assert result.names == ("the film",) and torch.allclose(
            result.output[0], start[5] + end[6], atol=1e-5
        )
    likeliest = token_attribution(model, words, pair, method=Saliency(model))
    best = max(
        (float(start[first] + end[last]), first, last) for first in range(5, 11) for last in range(first, 11)
    )
    assert abs(float(likeliest.output) - best[0]) < 1e-5
    # the word stands in the question too, where no answer is
    assert token_attribution(model, words, pair, "fine", method=Saliency(model)).names == ("fine",)
    for target in (1, [3, 5], True):
        with pytest.raises(ArgumentError, match="answers with a part of the text|target is a string, "):
            token_attribution(model, words, pair, target)
    with pytest.raises(ArgumentError, match="start is a whole number, got 'a'"):
        AnswerSpan("a", 2)
    for target in ("dull", AnswerSpan(6, 5), AnswerSpan(3, 40)):
        with pytest.raises(UnitError):
            token_attribution(model, words, pair, target)


# heads


@pytest.mark.parametrize("family", ["Bert", "Roberta", "DistilBert", "Electra"])
def test_a_bare_encoder_says_nothing(words, family):
    options = {"dim": 12, "n_layers": 2, "n_heads": 2, "hidden_dim": 24} if family == "DistilBert" else {}
    if family == "DistilBert":
        torch.manual_seed(0)
        config = transformers.DistilBertConfig(vocab_size=len(WORDS), max_position_embeddings=24, **options)
        model = transformers.DistilBertModel(config).eval()
    else:
        model = encoder("Model", family, **options)
    for target in (None, 1, "fine"):
        with pytest.raises(ArchitectureError, match="no head that is known"):
            token_attribution(model, words, TEXT, target)


def test_other_models_without_words_or_classes(words):
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=16, n_layer=1, n_embd=12, n_head=2, n_positions=24)
    for model in (
        transformers.GPT2Model(config),
        encoder("ForMultipleChoice"),
        encoder("ForPreTraining"),
        encoder("ForNextSentencePrediction"),
    ):
        with pytest.raises(ArchitectureError, match="no head that is known"):
            token_attribution(model, words, TEXT, 1)


def test_an_encoder_is_no_causal_model_unless_it_is_told_so(plain):
    with pytest.raises(ArchitectureError, match="is_decoder=True"):
        token_attribution(encoder("LMHeadModel", is_decoder=False), plain, TEXT, "so")
    told = encoder("LMHeadModel", is_decoder=True)
    want = logits(told, plain(TEXT, return_tensors="pt"))[0, -1].log_softmax(-1)[15]
    assert torch.allclose(token_attribution(told, plain, TEXT, "so").output[0], want, atol=1e-5)


def test_a_class_with_another_name_is_told_its_task(words):
    class Reader(transformers.BertPreTrainedModel):
        def __init__(self, inner):
            super().__init__(inner.config)
            self.inner = inner

        def get_input_embeddings(self):
            return self.inner.get_input_embeddings()

        def forward(self, input_ids=None, attention_mask=None, token_type_ids=None):
            return self.inner(input_ids, attention_mask, token_type_ids)

    class Renamed(transformers.BertForSequenceClassification):
        pass

    model = encoder("ForSequenceClassification")
    want = token_attribution(model, words, TEXT, "good", method=Saliency(model)).values
    with pytest.raises(ArchitectureError, match="give task=, one of text-generation"):
        token_attribution(Reader(model), words, TEXT, "good")
    reader = Reader(model).eval()
    told = token_attribution(reader, words, TEXT, "good", method=Saliency(reader), task="text-classification")
    assert torch.allclose(told.values, want)
    renamed = Renamed(model.config).eval()
    renamed.load_state_dict(model.state_dict())
    assert torch.allclose(
        token_attribution(renamed, words, TEXT, "good", method=Saliency(renamed)).values, want
    )
    with pytest.raises(ArgumentError, match="task is one of"):
        token_attribution(model, words, TEXT, "good", task="sentiment")


# words


@pytest.mark.parametrize("model", [encoder("ForMaskedLM"), causal()], ids=["masked", "causal"])
def test_unknown_words_are_no_targets(words, plain, model):
    tokenizer, text = (
        (plain, TEXT) if isinstance(model, transformers.GPT2LMHeadModel) else (words, "the <mask>")
    )
    for given in ({"target": "superb"}, {"target": "so", "against": "superb"}, {"baseline": "superb"}):
        with pytest.raises(UnitError, match="'superb' is not in the vocabulary"):
            token_attribution(model, tokenizer, text, **given)
    # the token for unknown words may be meant by its name
    assert token_attribution(model, tokenizer, text, "so", baseline="<unk>", method=Occlusion(model))
    with pytest.warns(UserWarning, match="the vocabulary lacks 1 of .* tokens of the text"):
        token_attribution(model, tokenizer, text + " superb", "so", method=Saliency(model))


def test_a_masked_model_fills_all_its_gaps(words):
    model, text = encoder("ForMaskedLM"), "the <mask> was <mask>"
    said = logits(model, words(text, return_tensors="pt"))[0].log_softmax(-1)
    both = token_attribution(model, words, text, "film dull")
    assert torch.allclose(both.output[0], said[2, 7] + said[4, 11], atol=1e-5) and both.names == (
        "film dull",
    )
    one = token_attribution(model, words, text, "film", position=2)
    assert torch.allclose(one.output[0], said[2, 7], atol=1e-5)
    likeliest = token_attribution(model, words, text, method=Saliency(model))
    assert torch.allclose(likeliest.output[0], said[2].max() + said[4].max(), atol=1e-5)
    with pytest.raises(ArgumentError, match=r"'film'.* is 1, and there are 2, \[2, 4\]"):
        token_attribution(model, words, text, "film")
    with pytest.raises(ArgumentError, match="mask token, '<mask>', which the text does not have"):
        token_attribution(model, words, TEXT, "film")


# pairs, batches, what tokenizers return


def test_a_pair_has_token_types(words):
    model, pair = encoder("ForSequenceClassification"), (TEXT, "the play was dull")
    encoding = words(*pair, return_tensors="pt")
    assert encoding["token_type_ids"].any()
    want = logits(model, encoding)[0]
    for text in (pair, encoding, dict(encoding), words(*pair)):
        result = token_attribution(model, words, text, 1)
        assert torch.allclose(result.output, want[1:2], atol=1e-5)
        assert result.tokens[0][-2] == "dull" and result.values.shape == (1, 11)
    single = logits(model, {"input_ids": encoding["input_ids"]})[0]
    assert (single - want).abs().max() > 1e-3
    hidden = token_attribution(model, words, pair, 1, method=Occlusion(model))
    replaced = encoding["input_ids"].clone()
    replaced[0, 3] = words.mask_token_id
    drop = want[1] - logits(model, {**encoding, "input_ids": replaced})[0, 1]
    assert torch.allclose(hidden.values[0, 3], drop, atol=1e-5)


@pytest.mark.parametrize("as_tensors", [True, False])
def test_a_batch_gives_an_attribution_for_each_text(words, as_tensors):
    model, texts = encoder("ForSequenceClassification"), [TEXT, "the play was not so dull", ("so", "what")]
    alone = [token_attribution(model, words, text, "good") for text in texts]
    together = token_attribution(model, words, texts, "good")
    padded = words(texts[:2], padding=True, return_tensors="pt" if as_tensors else None)
    batch = token_attribution(model, words, padded, "good")
    assert len(together) == 3 and len(batch) == 2
    for first, second in (*zip(alone, together, strict=True), *zip(alone, batch, strict=False)):
        assert first.tokens == second.tokens and torch.allclose(first.values, second.values, atol=1e-6)
    numbers = [words(text)["input_ids"] for text in texts[:2]]
    for first, second in zip(alone, token_attribution(model, words, numbers, "good"), strict=False):
        assert torch.allclose(first.values, second.values, atol=1e-6)
    (only,) = token_attribution(model, words, [TEXT], "good")
    assert torch.equal(only.values, alone[0].values)


def test_texts_that_are_none(words):
    model = encoder("ForSequenceClassification")
    mask = torch.zeros(1, 3, dtype=torch.long)
    for text in (
        [],
        ("a", "the", "so"),
        ("so", 3.5),
        {"pixel_values": torch.ones(1, 3)},
        {"input_ids": mask + 5, "attention_mask": mask},
        {"input_ids": mask + 5, "token_type_ids": mask[:, :2]},
        {"input_ids": [[5, 6], [5]]},
        torch.ones(1, 3),
        None,
        7,
        object(),
    ):
        with pytest.raises(ToumeiError):
            token_attribution(model, words, text, 1)


# several tokens


@pytest.mark.parametrize("family", ["GPT2LMHeadModel", "LlamaForCausalLM"])
@pytest.mark.parametrize("method", [IntegratedGradients, DeepLift, ExactShapley])
def test_a_target_of_several_tokens_is_their_sum(plain, family, method):
    model, target = causal(family), "so not dull"
    whole = plain(f"{TEXT} {target}", return_tensors="pt")
    said = logits(model, whole)[0].log_softmax(-1)
    each = torch.stack([said[3 + index, token] for index, token in enumerate((15, 14, 11))])
    # embeddings of zero have no direction, which the normalization of Llama blows up
    given = {"method": method(model), "baseline": "a"}
    result = token_attribution(model, plain, TEXT, target, **given)
    assert torch.allclose(result.output[0], each.sum(), atol=1e-4) and result.names == (target,)
    assert result.values.shape == (1, 4)
    wanted = (result.output - result.baseline_output).abs().clamp(min=1e-3)
    assert (result.gap.abs() <= 1.1e-2 * wanted).all()
    every = generation_attribution(model, plain, TEXT, target, **given)
    assert every.names == ("so", "not", "dull", target) and every.values.shape == (4, 1, 4)
    assert torch.allclose(every.output[:, 0], torch.cat([each, each.sum()[None]]), atol=1e-4)
    room = 0.05 * every[-1].values.abs().max()
    assert (every.values[:3].sum(0) - every.values[-1]).abs().max() < room
    assert torch.allclose(every[-1].values, result.values, atol=float(room))


def test_what_follows_is_no_input(plain):
    """Gradients at the embeddings of the prompt, with those of the target as they are."""
    model, target = causal(), "so not"
    ids = plain(f"{TEXT} {target}", return_tensors="pt")["input_ids"]
    embedded = model.get_input_embeddings()(ids).detach()
    prompt = embedded[:, :4].clone().requires_grad_()
    said = model(inputs_embeds=torch.cat([prompt, embedded[:, 4:]], 1)).logits.log_softmax(-1)
    (gradient,) = torch.autograd.grad(said[0, 3, 15] + said[0, 4, 14], prompt)
    result = token_attribution(model, plain, TEXT, target, method=InputXGradient(model))
    assert torch.allclose(result.values, (gradient * prompt).sum(-1), atol=1e-4)
    hidden = token_attribution(model, plain, TEXT, target, method=Occlusion(model), baseline="a")
    changed = ids.clone()
    changed[0, 1] = 5
    after = logits(model, {"input_ids": changed})[0].log_softmax(-1)
    drop = said[0, 3, 15] + said[0, 4, 14] - after[3, 15] - after[4, 14]
    assert torch.allclose(hidden.values[0, 1], drop, atol=1e-4)


def test_targets_of_different_lengths_side_by_side(plain):
    model = causal()
    targets = ["so", "so not", "dull so not"]
    alone = [token_attribution(model, plain, TEXT, one, method=ExactShapley(model)) for one in targets]
    together = token_attribution(model, plain, TEXT, targets, method=ExactShapley(model))
    assert together.names == tuple(targets)
    for index, one in enumerate(alone):
        assert torch.allclose(together[index].values, one.values, atol=1e-4)
        assert torch.allclose(together[index].output, one.output, atol=1e-4)
    against = token_attribution(model, plain, TEXT, "so not", "dull", method=ExactShapley(model))
    only = token_attribution(model, plain, TEXT, "dull", method=ExactShapley(model))
    assert torch.allclose(against.values, alone[1].values - only.values, atol=1e-4)
    assert against.names == ("so not - dull",)


def test_a_whole_generation_is_what_the_model_would_say(plain, tmp_path):
    model = causal()
    ids = plain(TEXT, return_tensors="pt")["input_ids"]
    for _ in range(3):
        likeliest = logits(model, {"input_ids": ids})[:, -1].argmax(-1, keepdim=True)
        ids = torch.cat([ids, likeliest], 1)
    said = [WORDS[token] for token in ids[0, 4:]]
    result = generation_attribution(model, plain, TEXT, max_new_tokens=3, method=Saliency(model))
    assert result.names == (*said, plain.decode(ids[0, 4:]))
    numbers = generation_attribution(model, plain, TEXT, ids[0, 4:], method=Saliency(model))
    assert torch.equal(result.values, numbers.values)
    result.save(tmp_path / "said.safetensors")
    assert Attribution.load(tmp_path / "said.safetensors").names == result.names
    for wrong in ([], [99], [1.5]):
        with pytest.raises(ToumeiError):
            generation_attribution(model, plain, TEXT, wrong)
    with pytest.raises(ArgumentError, match="only causal language models generate"):
        generation_attribution(encoder("ForMaskedLM"), plain, TEXT)


def test_a_space_before_a_target_is_read_with_the_prompt():
    """A tokenizer that puts a space before each word anyway has no second one where the target has it."""
    pieces = ["<unk>", "\u2581", "\u2581the", "\u2581film", "\u2581was", "\u2581fine", "fine"]
    vocabulary = [(piece, -float(bool(place))) for place, piece in enumerate(pieces)]
    inner = Tokenizer(models.Unigram(vocabulary, 0))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Metaspace()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", model_input_names=["input_ids", "attention_mask"]
    )
    model = causal()
    want = logits(model, tokenizer("the film was", return_tensors="pt"))[0, -1].log_softmax(-1)[5]
    for target in ("fine", " fine"):
        result = token_attribution(model, tokenizer, "the film was", target, method=Saliency(model))
        assert torch.allclose(result.output[0], want, atol=1e-5) and result.names == ("fine",)


def test_a_tokenizer_that_ends_texts_does_not_end_prompts(words):
    """What comes next is asked of the last word, not of the end of the text that the tokenizer adds."""
    model = causal()
    want = logits(model, {"input_ids": words(TEXT, return_tensors="pt")["input_ids"][:, :-1]})[0, -1]
    result = token_attribution(model, words, words(TEXT, return_tensors="pt")["input_ids"][:, :-1], "so")
    assert torch.allclose(result.output[0], want.log_softmax(-1)[15], atol=1e-5)
    assert token_attribution(model, words, TEXT, 15, method=Saliency(model)).tokens[0][-1] == "fine"


def test_a_hidden_token_is_no_padding_to_a_classifier_that_reads_the_last(plain):
    torch.manual_seed(3)
    sizes = {"vocab_size": len(WORDS), "n_layer": 1, "n_embd": 12, "n_head": 2, "n_positions": 24}
    config = transformers.GPT2Config(**sizes, num_labels=3, initializer_range=0.5)
    model = transformers.GPT2ForSequenceClassification(config).eval()
    for method in (Occlusion(model), IntegratedGradients(model)):
        with pytest.raises(ArgumentError, match="set model.config.pad_token_id"):
            token_attribution(model, plain, TEXT, 1, method=method)
    alone = token_attribution(model, plain, TEXT, 1, method=Occlusion(model, batch_size=1), baseline="a")
    model.config.pad_token_id = 5
    result = token_attribution(model, plain, TEXT, 1, method=Occlusion(model), baseline="a")
    assert torch.allclose(result.values, alone.values, atol=1e-5)
    ids = plain(TEXT, return_tensors="pt")["input_ids"]
    hidden = ids.clone()
    hidden[0, 3] = 5
    with torch.no_grad():
        states = [model.score(model.transformer(one).last_hidden_state)[0, 3, 1] for one in (ids, hidden)]
    assert torch.allclose(result.values[0, 3], states[0] - states[1], atol=1e-5)


def test_refusals_leave_the_model_as_it_was(words, watched):
    for head in HEADS:
        model = watched(encoder(head))
        for given in (
            {"target": 99},
            {"target": 1.5},
            {"target": object()},
            {"against": [1]},
            {"target": []},
        ):
            with pytest.raises(ToumeiError):
                token_attribution(model, words, "the <mask> was fine", **given)
