"""A transformer that adds modulo a prime by rotations, weights included."""

from pathlib import Path

import torch
from torch import Tensor, nn

from ..core.checks import check_counts, checked
from ..core.errors import ArgumentError
from ..core.seeding import seeded
from .attention_decoder import AttentionConfig, DecoderForCausalLM
from .download import load_state_dict

_WEIGHTS = Path(__file__).parent / "data" / "modular_addition.safetensors"
_PRIME = 113  # of the weights that ship with the package


class ModularAddition(DecoderForCausalLM):
    """A transformer of one layer that answers ``a b =`` with (a + b) modulo a prime.

    It has width 128, 4 heads, an MLP of 512 neurons with ReLU, no norm, and learned positions; the answer is
    read from the logits at the last position. It is the network of Nanda et al. 2023, "Progress measures for
    grokking via mechanistic interpretability" (arXiv:2301.05217). It learns the sums by heart first and
    finds the algorithm later. The algorithm is known: for a few key frequencies k it maps a and b to
    cos(2 pi k a / p) and sin(2 pi k a / p), multiplies these in the attention and the MLP to the cosine and
    sine of a + b, and reads logits that are sums of cos(2 pi k (a + b - c) / p) for the answers c.

    Modules have the names of Llama: ``model.layers.0.self_attn``, ``model.layers.0.mlp``, ``lm_head``.

    Args:
        pretrained: True loads the weights of the package, which are for the prime 113 and right on all
            12,769 pairs, a path those that experiments/train_modular_addition.py wrote. Otherwise weights
            are drawn from torch's generator as in the paper.
        prime: What sums are taken modulo, p. Tokens are the numbers from 0 to p - 1, and p for the sign of
            equality.

    Attributes:
        config: The sizes.
        prime: As given.

    Raises:
        FileNotFoundError: There is no such file.
        ArgumentError: It is damaged, or holds weights of another network or prime.

    Example:
        >>> model = ModularAddition(pretrained=True)
        >>> tokens, sums = model.pairs()
        >>> tokens[115], sums[115]
        (tensor([  1,   2, 113]), tensor(3))
        >>> model(tokens[115:116]).logits[0, -1].argmax()
        tensor(3)
    """

    @checked
    def __init__(self, pretrained: bool | str | Path = False, prime: int = _PRIME) -> None:
        check_counts(2, prime=prime)
        if pretrained is True and prime != _PRIME:
            raise ArgumentError(f"the weights of the package are for the prime {_PRIME}, got {prime}")
        config = AttentionConfig(
            vocab_size=prime + 1,
            max_position_embeddings=3,
            hidden_size=128,
            head_dim=32,
            num_hidden_layers=1,
            num_attention_heads=4,
            intermediate_size=512,
            bos_token_id=None,
            model_type="modular_addition",
        )
        with seeded(0):  # weights that are overwritten do not change the global generator
            super().__init__(config, prime)
        self.prime = prime
        if pretrained:
            self._load(_WEIGHTS if pretrained is True else Path(pretrained))
        else:
            self._initialize()
        self.eval()

    def pairs(self) -> tuple[Tensor, Tensor]:
        """Returns the tokens (p * p, 3) of all pairs, ``a b =``, and their sums (p * p,).

        Example:
            >>> ModularAddition(prime=2).pairs()[0]
            tensor([[0, 0, 2],
                    [0, 1, 2],
                    [1, 0, 2],
                    [1, 1, 2]])
        """
        numbers = torch.arange(self.prime)
        pairs = torch.cartesian_prod(numbers, numbers)
        tokens = torch.cat([pairs, torch.full((len(pairs), 1), self.prime)], 1)
        return tokens, pairs.sum(1) % self.prime

    @torch.no_grad()
    def _initialize(self) -> None:
        """Draws weights with variance 1 / width, and 1 / p for the logits; biases are 0."""
        width = self.config.hidden_size
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                module.weight.normal_(std=(len(module.weight) if module is self.lm_head else width) ** -0.5)
            if isinstance(module, nn.Linear) and module.bias is not None:
                module.bias.zero_()

    def _load(self, path: Path) -> None:
        weights = {name: tensor.float() for name, tensor in load_state_dict(path).items()}
        shapes = {name: tensor.shape for name, tensor in self.state_dict().items()}
        if {name: tensor.shape for name, tensor in weights.items()} != shapes:
            raise ArgumentError(f"{path} holds weights of another network or prime than {self.prime}")
        self.load_state_dict(weights)
