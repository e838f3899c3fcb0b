"""Attributions of tokens, on tiny random models and on the network that knows facts."""

import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from toumei.attribution import (
    LRP,
    Attribution,
    Constant,
    DeepLift,
    ExactShapley,
    ExpectedGradients,
    FromData,
    GradCam,
    InputXGradient,
    IntegratedGradients,
    LayerConductance,
    LogProbability,
    Occlusion,
    Saliency,
    SmoothGrad,
    token_attribution,
)
from toumei.core import evaluating
from toumei.core.errors import ArchitectureError, ArgumentError, ShapeError, UnitError
from toumei.models import facts_gpt

SMALL = {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2, "vocab_size": 20}
TOKENS = torch.tensor([[3, 7, 1, 19]])


def gpt2():
    return GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=16, n_head=2, vocab_size=20, n_positions=12))


def llama():
    return LlamaForCausalLM(LlamaConfig(**SMALL, intermediate_size=24, max_position_embeddings=12))


def bert():
    config = BertConfig(**SMALL, intermediate_size=24, max_position_embeddings=12, num_labels=3)
    return BertForSequenceClassification(config)


@pytest.fixture(params=[gpt2, llama, bert])
def model(request, watched):
    torch.manual_seed(0)
    return watched(request.param())


def score(model, embeddings, target, against=None):
    """The score by definition."""
    with evaluating(model):
        logits = model(inputs_embeds=embeddings).logits
    if logits.dim() == 3:
        logits = logits[:, -1].log_softmax(-1)
    return logits[:, target] - (0 if against is None else logits[:, against])


def embeddings(model):
    """The name of the layer that embeds the tokens."""
    return next(name for name, module in model.named_modules() if module is model.get_input_embeddings())


def last_layer(model):
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear)][-1]


@pytest.mark.parametrize("against", [None, 0])
def test_gradients_at_the_embeddings(model, against):
    embedded = model.get_input_embeddings()(TOKENS).detach().requires_grad_()
    scores = score(model, embedded, 2, against)
    (gradient,) = torch.autograd.grad(scores.sum(), embedded)
    result = token_attribution(model, None, TOKENS, 2, against, method=InputXGradient(model))
    assert torch.allclose(result.values, (gradient * embedded).sum(-1).detach(), atol=1e-6)
    assert torch.allclose(result.output, scores.detach(), atol=1e-6)
    saliency = token_attribution(model, None, TOKENS, 2, against, method=Saliency(model))
    assert torch.allclose(saliency.values, gradient.abs().sum(-1), atol=1e-6)


@pytest.mark.parametrize("method", [IntegratedGradients, DeepLift, ExactShapley])
@pytest.mark.parametrize("baseline", [None, 5])
def test_contributions_of_tokens_add_up(model, method, baseline):
    result = token_attribution(model, None, TOKENS, [2, 1], method=method(model), baseline=baseline)
    assert result.values.shape == (2, 1, 4)
    wanted = (result.output - result.baseline_output).abs().clamp(min=1e-3)
    assert (result.gap.abs() <= 1.1e-2 * wanted).all()
    start = model.get_input_embeddings()(torch.full_like(TOKENS, 5 if baseline else 0)).detach()
    if method is not ExactShapley and baseline is None:
        start = torch.zeros_like(start)
    assert torch.allclose(result.baseline_output[0], score(model, start, 2), atol=1e-5)


def test_methods_that_sample(model):
    baseline = FromData(torch.randn(6, 4, 16))
    for method, options in ((SmoothGrad, {}), (ExpectedGradients, {"baseline": baseline})):
        first, second = (
            token_attribution(model, None, TOKENS, 2, method=method(model, samples=8, seed=1), **options)
            for _ in range(2)
        )
        assert torch.equal(first.values, second.values) and first.standard_error is None


def test_tokens_behind_one_another_do_not_matter_to_a_causal_model():
    torch.manual_seed(0)
    model = gpt2()
    result = IntegratedGradients(model, layer="transformer.wte", steps=4)(
        TOKENS, target=[LogProbability(4, position=1), LogProbability(4, 6, position=1)]
    )
    assert result.values[:, :, 2:].abs().max() == 0 and result.values[:, :, :2].abs().min() > 0


def test_a_masked_model_is_asked_for_its_mask(watched):
    torch.manual_seed(0)
    model = watched(BertForMaskedLM(BertConfig(**SMALL, intermediate_size=24, max_position_embeddings=12)))

    class Tokenizer:
        mask_token_id = 7

        def decode(self, tokens):
            return f"<{tokens[0]}>"

    result = token_attribution(model, Tokenizer(), TOKENS, method=Saliency(model))
    with evaluating(model):
        logits = model(TOKENS).logits[0, 1]
    assert result.names == (f"<{logits.argmax()}>",)
    assert torch.allclose(result.output[0], logits.log_softmax(-1).max().detach(), atol=1e-6)
    assert result.tokens == (("<3>", "<7>", "<1>", "<19>"),)


def test_a_classifier_on_a_causal_model():
    torch.manual_seed(0)
    config = GPT2Config(n_layer=1, n_embd=16, n_head=2, vocab_size=20, n_positions=12, num_labels=3)
    config.pad_token_id, config.id2label = 0, {0: "bad", 1: "fair", 2: "good"}
    model = GPT2ForSequenceClassification(config)
    result = token_attribution(model, None, TOKENS, [0, 2], 1, method=IntegratedGradients(model, steps=8))
    assert result.names == ("bad - fair", "good - fair")


@pytest.fixture(scope="module")
def facts():
    return facts_gpt()


def test_the_name_decides_between_values_and_the_question_between_facts(facts):
    model, tokenizer, world = facts
    shares = []
    for fact in world.facts[::230]:
        against = world.alternatives(fact)[0], world.others(fact)[0].target
        for other in against:
            result = token_attribution(
                model, tokenizer, fact.text, fact.target, other, method=DeepLift(model)
            )
            assert result.names == (f"{fact.target} - {other}",)
            speaks = result.values[0].clamp(min=0)
            named = torch.tensor([token in fact.subject.split() for token in result.tokens[0]])
            shares.append(float(speaks[named].sum() / speaks.sum()))
    assert all(value > question for value, question in zip(shares[::2], shares[1::2], strict=True))


def test_what_the_model_says_is_explained_by_default(facts):
    model, tokenizer, world = facts
    assert token_attribution(model, tokenizer, world.facts[0].text, method=Saliency(model)).names == (
        "Rendal",
    )


def test_a_token_as_baseline_by_its_string(facts):
    model, tokenizer, world = facts
    text = world.facts[0].text
    method = IntegratedGradients(model, steps=8)
    by_string, by_index, constant = (
        token_attribution(model, tokenizer, text, "Rendal", method=method, baseline=baseline).values
        for baseline in ("<unk>", tokenizer.unk_token_id, Constant(0.1))
    )
    assert torch.equal(by_string, by_index) and not torch.equal(constant, by_string)


def test_a_page_and_a_picture(facts, tmp_path):
    model, tokenizer, world = facts
    fact = world.facts[0]
    result = token_attribution(
        model, tokenizer, fact.text, [fact.target, "Velmar"], method=InputXGradient(model)
    )
    html = result._repr_html_()
    assert html.count(">Castell</span>") == 2 and "Rendal: " in html and "Velmar: " in html
    for outside in ("http", "<script", "src=", "url("):
        assert outside not in html
    shown = [text.get_text() for text in result.plot().texts]
    assert [name for name in shown if name in result.names] == [fact.target, "Velmar"]
    assert [token for token in shown if token in result.tokens[0]] == 2 * list(result.tokens[0])
    assert len(result[0].plot().patches) == len(result.tokens[0])
    result.save(tmp_path / "own.safetensors")
    loaded = Attribution.load(tmp_path / "own.safetensors")
    assert loaded.tokens == result.tokens and loaded.names == result.names
    assert loaded[1].names == ("Velmar",)


def test_bad_input(facts, model):
    fact_model, tokenizer, _ = facts
    with pytest.raises(ArgumentError, match="expected one token, 'Yara Castell' is 2: .*Yara"):
        token_attribution(fact_model, tokenizer, "The town", "Rendal", baseline="Yara Castell")
    with pytest.raises(ArgumentError, match="texts with at least one token"):
        token_attribution(fact_model, tokenizer, torch.ones(1, 0).long(), 3)
    with pytest.raises(UnitError, match="no token or class 20"):
        token_attribution(model, None, TOKENS, 20)
    with pytest.raises(ArgumentError, match="without a tokenizer, texts are tokens .* got 'The"):
        token_attribution(model, None, "The town", 3)
    # a classifier has names of classes
    error, message = (
        (UnitError, "no class 'Rendal': there are 'LABEL_0', 'LABEL_1', 'LABEL_2'")
        if hasattr(model, "classifier")
        else (ArgumentError, "without a tokenizer, texts are tokens .* got 'Ren")
    )
    with pytest.raises(error, match=message):
        token_attribution(model, None, TOKENS, "Rendal")


@pytest.mark.parametrize(
    ("configured", "plain"),
    [
        (lambda model: SmoothGrad(model, of=Saliency), SmoothGrad),
        (lambda model: DeepLift(model, unknown="warn"), DeepLift),
        (lambda model: IntegratedGradients(model, embeddings(model)), IntegratedGradients),
        (Occlusion, lambda model: Occlusion(model, window=1)),
        (IntegratedGradients, lambda model: None),
    ],
)
def test_a_method_is_for_the_embeddings_if_it_needs_gradients(model, configured, plain):
    first, second = configured(model), plain(model)
    values, expected = (
        token_attribution(model, None, TOKENS, 2, method=method).values for method in (first, second)
    )
    assert torch.equal(values, expected) and first.model is model


def test_a_configured_method_is_the_one_that_is_asked(model):
    result = token_attribution(model, None, TOKENS, 2, method=SmoothGrad(model, of=InputXGradient, noise=0.0))
    expected = token_attribution(model, None, TOKENS, 2, method=InputXGradient(model))
    assert torch.allclose(result.values, expected.values, atol=1e-6)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (
            lambda model: GradCam(model, embeddings(model), grid=(2, 2)),
            r"GradCam does not attribute to tokens: its values are \(1, 1, 2, 2\) for 4 tokens",
        ),
        (lambda model: LayerConductance(model, embeddings(model)), "conductance follows a path of inputs"),
        (LRP, "LRP takes no layer, got 'model"),
        (lambda model: Saliency(model, last_layer(model)), "attributes to a layer, but tokens need"),
        (lambda model: Saliency(nn.Linear(2, 2)), "is a method of another model"),
        (lambda model: Saliency, "method is configured, such as .*, got <class"),
        (lambda model: "Saliency", "method is configured, such as .*, got 'Saliency'"),
        (lambda model: lambda other: Saliency(other), "method is configured, such as .*, got <function"),
    ],
)
def test_methods_that_do_not_attribute_to_tokens(model, method, message):
    with pytest.raises(ArgumentError, match=message):
        token_attribution(model, None, TOKENS, 2, method=method(model))


def test_tokens_and_positions_that_there_are_not(model):
    logits = torch.zeros(2, 3, 20)
    for wrong in (LogProbability(20), LogProbability(-1), LogProbability(1, against=99)):
        with pytest.raises(UnitError, match="no token .*: there are 20, 0 to 19"):
            wrong(logits)
    for position in (3, -4):
        with pytest.raises(UnitError, match=f"no position {position} in a text of 3 tokens"):
            LogProbability(1, position=position)(logits)
    with pytest.raises(ShapeError, match=r"logits \(N, T, V\)"):
        LogProbability(1)(logits[:, 0])
    for tokens in ([[3, 20]], [[-1, 2]]):
        with pytest.raises(UnitError, match="no token .*: there are 20"):
            token_attribution(model, None, torch.tensor(tokens), 2)
    with pytest.raises(UnitError, match="no token 20"):
        token_attribution(model, None, TOKENS, 2, baseline=20)


def test_an_encoder_decoder_is_said_not_to_be_supported():
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    model = T5ForConditionalGeneration(T5Config(vocab_size=20, decoder_start_token_id=0, **sizes))
    with pytest.raises(ArchitectureError, match="T5ForConditionalGeneration is an encoder-decoder"):
        token_attribution(model, None, TOKENS, 2)


def test_a_model_that_is_not_from_hugging_face():
    with pytest.raises(ArgumentError, match="get_input_embeddings"):
        token_attribution(nn.Linear(2, 2), None, TOKENS, 0)
