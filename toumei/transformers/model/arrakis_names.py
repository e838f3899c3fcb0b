"""Hooked models with random weights from a configuration, under the names that Arrakis gave them."""

from difflib import get_close_matches
from typing import Any

from ...core.checks import checked
from ...core.errors import ArgumentError
from ...core.seeding import seeded
from .hooked_model import HookedModel, auto_class

# Names of Arrakis that transformers writes in another way.
_NAMES = {"gpt-neo": "gpt_neo", "gpt-neox": "gpt_neox", "stable-lm": "stablelm"}


class HookedAutoConfig:
    """The configuration of a transformer by the name of its architecture.

    Args:
        name: ``"gpt2"``, ``"gpt-neo"``, ``"gpt-neox"``, ``"llama"``, ``"gemma"``, ``"phi3"``, ``"qwen2"``,
            ``"mistral"``, ``"stable-lm"``, or any other model type of transformers.
        **options: Options of its configuration in transformers, such as ``hidden_size``.

    Attributes:
        name: The model type of transformers.
        config: The configuration.

    Raises:
        ArgumentError: A name or an option that transformers does not have.

    Example:
        >>> HookedAutoConfig(name="stable-lm", hidden_size=8, num_hidden_layers=2)
        HookedAutoConfig('stablelm', hidden_size=8, num_hidden_layers=2)
    """

    def __init__(self, name: str, **options: Any) -> None:
        from transformers import CONFIG_MAPPING, AutoConfig

        if not isinstance(name, str):
            raise ArgumentError(f"expected the name of an architecture, such as 'llama', got {name!r}")
        self.name, self._options = _NAMES.get(name, name), options
        if self.name not in CONFIG_MAPPING:
            near = get_close_matches(name, CONFIG_MAPPING, n=4) or ["gpt2", "llama", "mistral"]
            raise ArgumentError(
                f"transformers has no architecture {name!r}: did you mean {', '.join(map(repr, near))}?"
            )
        known = AutoConfig.for_model(self.name)
        for option in options:
            if not hasattr(known, option):
                near = get_close_matches(option, dir(known), n=4)
                hint = f": did you mean {', '.join(near)}?" if near else ""
                raise ArgumentError(f"the configuration of {self.name!r} has no {option!r}{hint}")
        try:
            self.config = AutoConfig.for_model(self.name, **options)
        except Exception as error:
            raise ArgumentError(
                f"transformers refuses this configuration of {self.name!r}: {error}"
            ) from error

    def __repr__(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self._options.items())
        shown = f"HookedAutoConfig({self.name!r}{options})"
        return shown if len(shown) <= 200 else f"{shown[:196]}...)"


class HookedAutoModel(HookedModel):
    """A hooked model with random weights from a configuration, with a head for tokens if there is one.

    Args:
        config: The configuration.
        tokenizer: A tokenizer; without one, inputs are token ids.
        seed: Seed of the weights.

    Raises:
        ArgumentError: The sizes of the configuration do not fit together.
        ArchitectureError: The architecture has no attention or no residual stream.

    Example:
        >>> config = HookedAutoConfig(
        ...     name="llama",
        ...     vocab_size=64,
        ...     hidden_size=8,
        ...     intermediate_size=16,
        ...     num_hidden_layers=2,
        ...     num_attention_heads=4,
        ...     num_key_value_heads=4,
        ... )
        >>> model = HookedAutoModel(config)
        >>> model
        HookedAutoModel(LlamaForCausalLM, 2 layers, 4 heads, width 8)
        >>> model([[3, 4, 5]]).shape
        torch.Size([1, 3, 64])
    """

    @checked
    def __init__(self, config: HookedAutoConfig, tokenizer: Any = None, *, seed: int = 0) -> None:
        try:
            with seeded(seed):
                model = auto_class(config.config).from_config(config.config)
        except (ValueError, TypeError, RuntimeError, ZeroDivisionError, AssertionError) as error:
            raise ArgumentError(f"transformers builds no model of {config!r}: {error}") from error
        super().__init__(model.eval(), tokenizer)

    @classmethod
    def from_pretrained(cls, name_or_path: str, **options: Any) -> HookedModel:
        """Returns a model with the weights of a folder or of the hub: `HookedModel.from_pretrained`."""
        return HookedModel.from_pretrained(name_or_path, **options)
