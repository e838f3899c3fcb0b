"""Edits of tiny models: that they write what they should, and that nothing else stays behind."""

import copy
import json

import pytest
import torch

from toumei.core.errors import ArchitectureError, ArgumentError, EditError, NonFiniteError
from toumei.core.hooks import hooked, run
from toumei.transformers.rome.editing import Edit, RankOneEditor, export_lora, value
from toumei.transformers.rome.editing.requests import EditRequest, subject_text
from toumei.transformers.rome.editing.settings import EditSettings
from toumei.transformers.rome.editing.suffix import Suffix
from toumei.transformers.rome.editing.value import optimize_values
from toumei.transformers.rome.statistics import collect_statistics

PROMPT, SUBJECT, TARGET = "w9 w8 {}", "w3 w4 w5", "w11"
ASK = {"prompt": PROMPT, "subject": SUBJECT, "target": TARGET}
CONTEXTS = ("w20 w21. {}", "w22 w23 w24. {}")
EDITABLE = [
    "gpt2",
    "gptj",
    "gpt_neo",
    "gpt_neox",
    "llama",
    "gemma2",
    "phi3",
    "opt",
    "bloom",
    "falcon",
    "mpt",
    "olmo2",
]
MANY = ("memit", "emmet", "alphaedit")
FACTS = [EditRequest("w8 {}", f"w{a} w{a + 1}", f"w{a + 20}") for a in range(2, 10, 2)]


def corpus(count=120):
    draw = torch.Generator().manual_seed(0)
    return [
        " ".join(f"w{i}" for i in torch.randint(1, 64, (20,), generator=draw).tolist()) for _ in range(count)
    ]


@pytest.fixture
def editor_of(language_model, tokenizer):
    """From the name of an architecture to an editor with statistics of all layers of a tiny model of it."""

    def build(kind, count=20, contexts=CONTEXTS):
        model = language_model(kind)
        statistics = collect_statistics(model, tokenizer, corpus(count), [0, 1, 2], verbose=False)
        return RankOneEditor(model, tokenizer, statistics, contexts=contexts)

    return build


@pytest.fixture
def editor(editor_of):
    return editor_of("gpt2")


@pytest.fixture
def exact(editor_of):
    """An editor that reads a subject in the bare prompt only, where an edit is exact then."""
    return editor_of("gpt2", contexts=())


def probability(model, tokenizer, request):
    ids = tokenizer(request.text, return_tensors="pt").input_ids
    with torch.no_grad():
        return float(model(ids).logits[0, -1].softmax(0)[tokenizer(request.target).input_ids[0]])


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(model, before):
    return all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("kind", EDITABLE)
def test_the_end_of_a_model_gives_the_logits_of_all_of_it(kind, language_model, tokenizer):
    from toumei.transformers.model.families import anatomy

    parts = anatomy(language_model(kind))
    rows = [
        subject_text(tokenizer, template, SUBJECT, TARGET) for template in (PROMPT, "{} w8 w9 w10 w11 w12")
    ]
    draw = torch.Generator().manual_seed(3)
    for layer, stream in ((0, False), (1, False), (1, True), (2, True)):
        suffix = Suffix(parts, layer, stream, rows)
        added = torch.randn(2, parts.width, generator=draw)
        places = [range(len(r.ids)) for r in rows]
        found = suffix.logits([0, 1], places, added).split([len(r.ids) for r in rows])
        for r, mine, delta in zip(rows, found, added, strict=True):

            def add(output, r=r, delta=delta):
                output.view(1, len(r.ids), -1)[0, r.subject] += delta
                return output

            with hooked(parts.model, edit={suffix.module: add}), torch.no_grad():
                wanted = parts.model(torch.tensor([r.ids])).logits[0]
            assert torch.allclose(mine, wanted, atol=1e-4)


@pytest.mark.parametrize("kind", EDITABLE)
def test_an_edit_writes_the_fact_and_only_inside_the_block(kind, editor_of, tokenizer):
    editor = editor_of(kind, contexts=())
    request, before = EditRequest(**ASK), weights(editor.model)
    low = probability(editor.model, tokenizer, request)
    edit = editor.edit(**ASK, layer=1)
    assert same(editor.model, before) and not edit.applied
    with edit:
        assert edit.applied and not same(editor.model, before)
        assert probability(editor.model, tokenizer, request) > max(0.05, 5 * low)
        with torch.no_grad():  # tied names read the same weights, and only the down-projection differs
            changed = [n for n, t in editor.model.state_dict().items() if not torch.equal(t, before[n])]
    assert changed == [f"{editor.parts.down(1)}.weight"] and same(editor.model, before)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("method", ["rome", "r-rome"])
def test_the_edited_layer_gives_the_key_its_value(kind, method, editor_of, tokenizer):
    editor = editor_of(kind)
    edit = editor.edit(**ASK, layer=1, method=method)
    down = editor.parts.down(1)
    rows = [subject_text(tokenizer, context.replace("{}", PROMPT), SUBJECT) for context in ("{}", *CONTEXTS)]
    keys = [
        run(editor.model, torch.tensor([r.ids]), record=[down], inputs=True, detach=True)[down][0, r.subject]
        for r in rows
    ]
    key = keys[0] if method == "rome" else torch.stack(keys).mean(0)
    module = editor.parts.module(down)
    with torch.no_grad():
        old = module(key[None])[0]
        with edit:
            new = module(key[None])[0]
    assert torch.allclose(new - old, edit.values[0].delta, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", MANY)
@pytest.mark.parametrize("layers", [[1], [0, 1, 2]])
def test_many_facts_are_written_at_once(method, layers, editor_of, tokenizer):
    editor = editor_of("llama", count=120, contexts=())
    options = {"ridge": 1e-3, "null_threshold": 1.0, "null_ridge": 1e-3}
    edit = editor.edit_many(FACTS, layers=layers, method=method, verbose=False, steps=25, **options)
    assert edit.layers == tuple(layers) and all(change.left.shape[1] == 4 for change in edit.changes.values())
    before = [probability(editor.model, tokenizer, fact) for fact in FACTS]
    with edit:
        after = [probability(editor.model, tokenizer, fact) for fact in FACTS]
    assert all(high > low + 0.2 for high, low in zip(after, before, strict=True))


@pytest.mark.parametrize("kind", EDITABLE)
def test_methods_for_many_facts_need_an_mlp_that_joins_the_stream_as_it_is(kind, editor_of):
    editor = editor_of(kind, contexts=())
    options = {"layers": [1], "ridge": 1e-3, "steps": 2, "verbose": False}
    if kind in ("gemma2", "olmo2"):
        with pytest.raises(ArchitectureError, match="joins the residual stream"):
            editor.edit_many(FACTS, **options)
    else:
        assert editor.edit_many(FACTS, **options).layers == (1,)


def test_facts_that_are_optimized_side_by_side_do_not_see_each_other(editor):
    facts = [editor._fact_texts(fact, ("{}", *CONTEXTS), ()) for fact in FACTS[:3]]
    settings = EditSettings(layers=(1,), steps=6)
    together = optimize_values(editor.parts, 1, False, facts, settings)
    for fact, mine in zip(facts, together, strict=True):
        (alone,) = optimize_values(editor.parts, 1, False, [fact], settings, batch_size=1)
        assert torch.allclose(mine.delta, alone.delta, atol=1e-4) and torch.allclose(
            mine.losses, alone.losses, atol=1e-4
        )


def test_the_loss_is_the_papers(editor, tokenizer):
    fact = editor._fact_texts(EditRequest(**ASK), ("{}", *CONTEXTS), ())
    settings = EditSettings(layers=(1,), steps=2, lr=0.1, weight_decay=0.7, kl=0.3)
    (found,) = optimize_values(editor.parts, 1, False, [fact], settings)
    assert len(found.losses) == 2 and found.losses[0, 2] == 0  # nothing has changed before the first step
    site = editor.parts.down(1)

    def said(text, delta, places):
        def add(output):
            output[0, text.subject] += delta
            return output

        with hooked(editor.model, edit={site: add}), torch.no_grad():
            return editor.model(torch.tensor([text.ids])).logits[0, places].log_softmax(1)

    answer = tokenizer(TARGET).input_ids[0]
    target = -sum(said(text, found.delta, [-2])[0, answer] for text in fact.edits) / 3
    old, new = (
        said(fact.essence, delta, [fact.essence.subject])[0] for delta in (0 * found.delta, found.delta)
    )
    essence = (new.exp() * (new - old)).sum()
    loss = target + 0.3 * essence + 0.7 * found.delta.norm() / found.start.norm() ** 2
    assert torch.allclose(found.losses[1, :3], torch.stack([loss, target, essence]), atol=1e-4)


def test_the_value_stays_within_the_clamp_and_stops_early(editor):
    tight = editor.edit(**ASK, layer=1, clamp=0.1, lr=1.0).values[0]
    assert float(tight.delta.norm()) <= 0.1001 * float(tight.start.norm()) and tight.ended == "finished"
    early = editor.edit(**ASK, layer=1, stop=100.0).values[0]
    assert early.ended == "stopped" and len(early.losses) == 1 and not early.delta.any()


def test_held_continuations_drift_less(editor):
    held = ("{} w30", "{} w31 w32", "w33 {} w34")
    loose, tight = (
        editor.edit(**ASK, layer=1, hold=held, steps=15, hold_weight=w).values[0] for w in (0.0, 30.0)
    )
    drift = value.PARTS.index("hold")
    assert float(tight.losses[-1, drift]) < 0.5 * float(loose.losses[-1, drift])
    assert editor.edit(**ASK, layer=1, hold=2, steps=3).values[0].losses[1:, drift].min() > 0


def test_one_seed_gives_one_edit(language_model, tokenizer):
    model = language_model("gpt2")
    statistics = collect_statistics(model, tokenizer, corpus(20), [1], verbose=False)
    state = torch.get_rng_state()
    edits = [
        RankOneEditor(model, tokenizer, statistics, seed=seed).edit(
            **ASK, layer=1, steps=3, prefixes=((2, 4),)
        )
        for seed in (0, 0, 1)
    ]
    first, second, third = (edit.changes[1].dense for edit in edits)
    assert torch.equal(first, second) and not torch.equal(first, third)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_hundred_edits_come_and_go_bit_for_bit(dtype, language_model, tokenizer):
    model = copy.deepcopy(language_model("gpt2")).to(dtype)
    before = weights(model)
    made = thin_edits(model, 100)
    for edit in made:
        edit.apply()
    assert not same(model, before)
    for index in torch.randperm(100, generator=torch.Generator().manual_seed(0)).tolist():
        made[index].revert()
    assert same(model, before)
    for edit in made:
        with edit:
            pass
    assert same(model, before)


def thin_edits(model, count):
    from toumei.transformers.model.families import anatomy
    from toumei.transformers.rome.weight_edits.low_rank import LowRank

    parts, draw = anatomy(model), torch.Generator().manual_seed(1)
    sizes = [(32, 128)] * count
    return [
        Edit(
            parts,
            "r-rome",
            (EditRequest(**ASK),),
            {index % 3: LowRank(torch.randn(out, 1, generator=draw), torch.randn(1, size, generator=draw))},
        )
        for index, (out, size) in enumerate(sizes)
    ]


def test_edits_taken_back_in_any_order_leave_the_others_as_if_alone(language_model):
    model = copy.deepcopy(language_model("gpt2"))
    first, second = (thin_edits(model, 4)[index] for index in (0, 3))
    with second:
        alone = weights(model)
    first.apply()
    second.apply()
    first.revert()
    assert same(model, alone)
    second.revert()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_models_are_edited(dtype, language_model, tokenizer, watched):
    model = watched(copy.deepcopy(language_model("llama")).to(dtype))
    statistics = collect_statistics(model, tokenizer, corpus(20), [1], verbose=False)
    edit = RankOneEditor(model, tokenizer, statistics, contexts=()).edit(**ASK, layer=1)
    with edit:
        assert probability(model, tokenizer, EditRequest(**ASK)) > 0.3


def test_edits_in_sequence_build_on_each_other(exact, tokenizer):
    with exact.edit(**ASK, layer=1), exact.edit("w8 {}", "w6 w2", "w12", layer=1):
        assert probability(exact.model, tokenizer, EditRequest("w8 {}", "w6 w2", "w12")) > 0.3
        assert probability(exact.model, tokenizer, EditRequest(**ASK)) > 0.2


def test_alphaedit_spares_what_it_wrote_before(editor_of):
    editor = editor_of("llama", count=120)
    options = {
        "layers": [1],
        "method": "alphaedit",
        "null_threshold": 1.0,
        "null_ridge": 1e-3,
        "verbose": False,
        "steps": 4,
    }
    with editor.edit_many(FACTS[:2], **options) as first:
        aware = editor.edit_many(FACTS[2:], **options).changes[1]
    moved = (first.changes[1].keys @ aware.right.T).norm() / first.changes[1].keys.norm()
    unaware = editor.edit_many(FACTS[2:], **options).changes[1]
    assert moved < 0.2 * (first.changes[1].keys @ unaware.right.T).norm() / first.changes[1].keys.norm()


def test_saved_loaded_and_refused(editor, editor_of, tmp_path):
    path = tmp_path / "folder" / "edit.safetensors"
    edit = editor.edit(**ASK, layer=1, steps=4)
    with edit:
        edit.save(path)  # the same file whether it is applied or not
        wanted = weights(editor.model)
    again = editor.load(path)
    assert again.requests == edit.requests and repr(again) == repr(edit)
    with again:
        assert same(editor.model, wanted)
    assert path.stat().st_size < 4 * (32 + 128) + 2000
    with pytest.raises(EditError, match="other weights"):
        Edit.load(path, editor_of("llama").model)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(EditError, match="cut short"):
        editor.load(path)


def test_a_file_that_is_no_edit(editor, tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(EditError, match="is no saved Edit"):
        editor.load(tmp_path / "other.safetensors")


def test_misuse_of_an_edit(editor):
    edit = editor.edit(**ASK, layer=1, steps=2)
    with pytest.raises(EditError, match="nothing to revert"):
        edit.revert()
    with edit, pytest.raises(EditError, match="applied already"):
        edit.apply()
    with edit:
        edit.revert()  # taken back by hand inside the block
    with pytest.raises(ZeroDivisionError), edit:
        _ = 1 / 0
    assert not edit.applied


def test_a_weight_that_was_trained_meanwhile_is_not_overwritten(language_model):
    model = copy.deepcopy(language_model("gpt2"))
    edit = thin_edits(model, 1)[0].apply()
    with torch.no_grad():
        model.transformer.h[0].mlp.c_proj.weight += 1
    with pytest.raises(EditError, match="changed by something else"):
        edit.revert()


def test_quantized_weights_and_other_shapes_are_refused(language_model):
    model = copy.deepcopy(language_model("gpt2"))
    edits = thin_edits(model, 2)
    layer = model.transformer.h[1].mlp.c_proj
    layer.weight = torch.nn.Parameter(layer.weight.to(torch.int8), requires_grad=False)
    both = Edit(edits[0].parts, "memit", edits[0].requests, {0: edits[0].changes[0], 1: edits[1].changes[1]})
    before = weights(model)
    with pytest.raises(EditError, match="quantized"):
        both.apply()
    wrong = Edit(
        edits[0].parts, "memit", edits[0].requests, {0: edits[0].changes[0], 2: layer_of_other_size()}
    )
    with pytest.raises(EditError, match="does not fit"):
        wrong.apply()
    assert same(model, before)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("layers", [[1], [0, 2]])
@pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT's own use of transformers
def test_peft_gives_the_logits_of_the_edit(kind, layers, editor_of, tmp_path):
    peft = pytest.importorskip("peft", reason="PEFT is not installed")
    editor = editor_of(kind)
    edit = editor.edit_many(FACTS[:2], layers=layers, ridge=1e-3, steps=4, verbose=False)
    export_lora(edit, tmp_path)
    ids = torch.tensor([[8, 2, 3]])
    with torch.no_grad():
        with edit:
            expected = editor.model(ids).logits
        adapted = peft.PeftModel.from_pretrained(copy.deepcopy(editor.model), tmp_path)
        torch.testing.assert_close(adapted(ids).logits, expected, rtol=1e-4, atol=1e-4)


def layer_of_other_size():
    from toumei.transformers.rome.weight_edits.low_rank import LowRank

    return LowRank(torch.zeros(128, 1), torch.zeros(1, 32))


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_the_adapter_is_the_edit(kind, editor_of, tmp_path):
    from safetensors.torch import load_file

    editor = editor_of(kind)
    edit = editor.edit(**ASK, layer=1, steps=4)
    export_lora(edit, tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    name = f"base_model.model.{editor.parts.down(1)}"
    change = (
        tensors[f"{name}.lora_B.weight"]
        @ tensors[f"{name}.lora_A.weight"]
        * config["lora_alpha"]
        / config["r"]
    )
    assert config["target_modules"] == [editor.parts.down(1)] and config["fan_in_fan_out"] == (kind == "gpt2")
    original = editor.parts.module(editor.parts.down(1)).weight.detach().clone()
    with edit:
        now = editor.parts.module(editor.parts.down(1)).weight
        assert torch.allclose(now - original, change.T if kind == "gpt2" else change, atol=1e-5)


def test_the_layer_of_a_trace(editor):
    edit = editor.edit(**ASK, layer="trace", steps=2)
    assert len(edit.layers) == 1 and edit.layers[0] in range(3)


def test_ctrl_c_keeps_what_there_is(editor, monkeypatch):
    step = value._Group._step
    calls = []

    def interrupted(group, index):
        calls.append(index)
        if len(calls) == 3:
            raise KeyboardInterrupt
        step(group, index)

    monkeypatch.setattr(value._Group, "_step", interrupted)
    found = editor.edit(**ASK, layer=1).values[0]
    assert found.ended == "interrupted" and len(found.losses) == 3 and found.delta.any()


def test_nan_in_the_optimization_names_the_fact_and_changes_nothing(language_model, tokenizer):
    model = copy.deepcopy(language_model("gpt2"))
    with torch.no_grad():
        model.transformer.ln_f.bias[0] = torch.nan
    statistics = collect_statistics(model, tokenizer, corpus(20), [1], verbose=False)
    editor = RankOneEditor(model, tokenizer, statistics, contexts=CONTEXTS)
    before = weights(model)
    with pytest.raises(NonFiniteError, match="w3 w4 w5"):
        editor.edit(**ASK, layer=1)
    assert all(torch.equal(t.nan_to_num(), before[n].nan_to_num()) for n, t in model.state_dict().items())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"prompt": "w1 w2"}, "one {}"),
        ({"prompt": "{} and {}"}, "one {}"),
        ({"subject": " "}, "subject with words"),
        ({"target": ""}, "target with words"),
        ({"layer": 3}, "no layer 3"),
        ({"layer": -1}, "no layer -1"),
        ({"layer": None}, "give the layer"),
        ({"method": "mend"}, "no method 'mend'"),
        ({"speed": 3}, "no setting 'speed'"),
        ({"hold": ["w1"]}, "one {}"),
    ],
)
def test_bad_input_is_named_before_anything_runs(given, message, editor):
    with pytest.raises(ArgumentError, match=message):
        editor.edit(**{**ASK, "layer": 1, **given})


def test_bad_input_of_many_facts(editor):
    with pytest.raises(ArgumentError, match="got none"):
        editor.edit_many([], layers=[1])
    with pytest.raises(ArgumentError, match="at once"):
        editor.edit_many([FACTS[0], EditRequest(FACTS[0].prompt, FACTS[0].subject, "w60")], layers=[1])
    with pytest.raises(ArgumentError, match="one fact at a time"):
        editor.edit_many(FACTS, layers=[1], method="rome")
    with pytest.raises(ArgumentError, match="target missing"):
        editor.edit_many([{"prompt": "{} w1", "subject": "w2"}], layers=[1])
    with pytest.raises(ArgumentError, match="edits one layer"):
        editor.edit_many(FACTS[:1], layers=[0, 1], method="rome")


def test_contexts_and_statistics_that_do_not_fit(language_model, tokenizer, editor):
    with pytest.raises(ArgumentError, match="one {}"):
        RankOneEditor(editor.model, tokenizer, contexts=["no place"])
    with pytest.raises(ArgumentError, match="other weights"):
        RankOneEditor(language_model("llama"), tokenizer, editor.statistics)
    partial = collect_statistics(editor.model, tokenizer, corpus(20), [0], verbose=False)
    with pytest.raises(ArgumentError, match="no statistics of layer 1"):
        RankOneEditor(editor.model, tokenizer, partial).edit(**ASK, layer=1)


@pytest.mark.parametrize(("kind", "message"), [("mixtral", "mixture of experts"), ("mamba", "state-space")])
def test_models_without_a_down_projection_say_why(kind, message, language_model, tokenizer):
    with pytest.raises(ArchitectureError, match=message):
        RankOneEditor(language_model(kind), tokenizer).edit(**ASK, layer=1)


def test_without_statistics_it_says_what_that_costs(language_model, tokenizer):
    editor = RankOneEditor(language_model("gpt2"), tokenizer, contexts=())
    with pytest.warns(UserWarning, match="identity"):
        edit = editor.edit(**ASK, layer=1)
    with edit:
        assert probability(editor.model, tokenizer, EditRequest(**ASK)) > 0.3


@pytest.mark.parametrize("prompt", ["{}", "w1 w2 {}", "{} w1"])
def test_subjects_at_the_very_end_and_the_very_start(prompt, exact, tokenizer):
    request = EditRequest(prompt, SUBJECT, TARGET)
    low = probability(exact.model, tokenizer, request)
    with exact.edit(prompt, SUBJECT, TARGET, layer=1):
        assert probability(exact.model, tokenizer, request) > 2 * low


def test_a_target_of_several_tokens(exact, tokenizer):
    ids = tokenizer("w9 w8 w3 w4 w5 w11 w12 w13", return_tensors="pt").input_ids

    def likelihood():
        with torch.no_grad():
            said = exact.model(ids).logits[0].log_softmax(1)
        return float(sum(said[place - 1, ids[0, place]] for place in (5, 6, 7)))

    before = likelihood()
    with exact.edit(PROMPT, SUBJECT, "w11 w12 w13", layer=1, steps=40):
        assert likelihood() > before + 2


def test_a_target_that_is_the_answer_already_stays_it(exact, tokenizer):
    ids = tokenizer(EditRequest(**ASK).text, return_tensors="pt").input_ids
    with torch.no_grad():
        answer = tokenizer.decode(exact.model(ids).logits[0, -1].argmax())
    with exact.edit(PROMPT, SUBJECT, answer, layer=1), torch.no_grad():
        assert tokenizer.decode(exact.model(ids).logits[0, -1].argmax()) == answer
