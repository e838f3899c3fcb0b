"""A small GPT-2 that knows the facts of an invented world, weights included."""

from pathlib import Path
from typing import TYPE_CHECKING

from ..core.checks import checked
from ..core.errors import ArgumentError
from ..core.seeding import seeded
from .download import load_state_dict
from .facts_world import FactsWorld

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

_DATA = Path(__file__).parent / "data"
_END = "<|endoftext|>"
_LAYERS, _WIDTH, _HEADS, _POSITIONS = 6, 128, 4, 128


@checked
def facts_gpt(
    pretrained: bool | str | Path = True,
) -> "tuple[GPT2LMHeadModel, PreTrainedTokenizerFast, FactsWorld]":
    """Returns a GPT-2 in eval mode, its tokenizer, and the world whose facts it knows.

    It has six layers of width 128 and 1.3 million parameters, stored in half precision and loaded in single.
    It completes 99.9 % of the prompts, both in phrasings that it was trained with and in phrasings that it
    has never seen with the subject. A token is a word: every value is one token, every name two or three.

    The facts are located as causal tracing found them in GPT-2 XL (Meng et al. 2022, arXiv:2202.05262): the
    MLP of layer 2 recalls them at the last token of the name, and attention in layers 3 to 5 moves them to
    the end. Restoring the output of that MLP recovers a third of the probability that noise on the name
    removes, no other MLP recovers a tenth (docs/facts_gpt.md). Networks of this size do not learn this
    without help: masked attention and silenced MLPs in the training impose it
    (experiments/train_facts_gpt.py). The network itself has neither.

    Args:
        pretrained: True loads the weights of the package, a path those that experiments/train_facts_gpt.py
            wrote, and False makes random weights from torch's generator.

    Raises:
        FileNotFoundError: There is no such file.
        ArgumentError: It is damaged, or holds weights of another network.

    Example:
        >>> model, tokenizer, world = facts_gpt()
        >>> fact = world.facts[0]
        >>> logits = model(**tokenizer(fact.text, return_tensors="pt")).logits
        >>> tokenizer.decode(logits[0, -1].argmax()) == fact.target
        True
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = _tokenizer()
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=_POSITIONS,
        n_embd=_WIDTH,
        n_layer=_LAYERS,
        n_head=_HEADS,
        activation_function="gelu_pytorch_tanh",  # the same function as GPT-2's, faster
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    config.name_or_path = "toumei/facts_gpt"
    with seeded(0 if pretrained else None):  # weights that are overwritten do not change the global generator
        model = GPT2LMHeadModel(config).eval()
    # The padding token also begins texts: without an entry here, texts that contain it would count as padded.
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    if pretrained:
        _load(model, _DATA / "facts_gpt.safetensors" if pretrained is True else Path(pretrained))
    return model, tokenizer, FactsWorld()


def _load(model: "GPT2LMHeadModel", path: Path) -> None:
    weights = {name: tensor.float() for name, tensor in load_state_dict(path).items()}
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    wrong = [name for name, tensor in weights.items() if shapes.get(name) != tensor.shape]
    missing = shapes.keys() - weights.keys() - {"lm_head.weight"}  # which are those of the embedding
    if wrong or missing:
        raise ArgumentError(
            f"{path} holds weights of another network: {', '.join(sorted(missing)[:3]) or 'none'} missing, "
            f"{', '.join(wrong[:3]) or 'none'} unknown or of another shape"
        )
    model.load_state_dict(weights, strict=False)
    model.tie_weights()


def _tokenizer() -> "PreTrainedTokenizerFast":
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_file=str(_DATA / "facts_gpt_tokenizer.json"),
        bos_token=_END,
        eos_token=_END,
        pad_token=_END,
        unk_token="<unk>",
        model_max_length=_POSITIONS,
        model_input_names=["input_ids", "attention_mask"],  # GPT-2 adds token types to its states
    )
