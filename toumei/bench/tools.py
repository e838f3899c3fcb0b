"""The tools of a bench by their keys, which are those of Arrakis, and tools of the user."""

from collections.abc import Iterator, MutableMapping
from difflib import get_close_matches
from typing import Any, ClassVar

from ..core.errors import ArgumentError
from ..core.kinds import shown
from ..transformers import tools as workbench
from ..transformers.model.hooked_model import HookedModel
from ..transformers.tools.base import HookedTool

_KEYS = {
    "attention": "AttentionTools",
    "composer": "AttentionComposer",
    "logit": "LogitAttributor",
    "logit_lens": "LogitLens",
    "knowledge": "KnowledgeProber",
    "k_prober": "KnowledgeProber",
    "kg_extractor": "KnowledgeGraphExtractor",
    "causal": "CausalTracingIntervention",
    "decomposer": "ResidualDecomposer",
    "superposition": "SuperpositionDisentangler",
    "sparsity": "SparsityAnalyzer",
    "write_read": "WriteReadAnalyzer",
    "residual": "ResidualTools",
    "surgery": "ModelSurgery",
    "feature_viz": "FeatureViz",
}


class Tool:
    """What a tool of the user derives from: something with methods that look into a model.

    A subclass with a key is among the tools of each bench that is made afterwards.

    Args:
        model: The model of the bench.

    Example:
        >>> class Widths(Tool, key="widths"):
        ...     def of_stream(self):
        ...         return self.model.width
        >>> from toumei.models import InductionTransformer
        >>> Tools(HookedModel(InductionTransformer(vocabulary=8, positions=16)))["widths"].of_stream()
        40
    """

    registered: ClassVar[dict[str, type["Tool"]]] = {}

    def __init__(self, model: Any) -> None:
        self.model = model

    def __init_subclass__(cls, key: str | None = None, **options: Any) -> None:
        super().__init_subclass__(**options)
        if key is not None:
            _check_key(key)
            Tool.registered[key] = cls

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model!r})"


def workbench_tools() -> dict[str, type[HookedTool]]:
    """Returns the tools of `toumei.transformers.tools` by the keys that Arrakis has for them."""
    found = {key: getattr(workbench, name) for key, name in _KEYS.items() if hasattr(workbench, name)}
    for name in workbench.__all__:
        kind = getattr(workbench, name)
        is_tool = isinstance(kind, type) and issubclass(kind, HookedTool)
        if is_tool and name not in _KEYS.values():
            found[name] = kind
    return found


class Tools(MutableMapping[str, Any]):
    """The tools of a bench, made when they are first asked for.

    Args:
        model: The model that they look into.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self._kinds: dict[str, Any] = {**workbench_tools(), **Tool.registered}
        self._made: dict[str, Any] = {}
        self._hooked: HookedModel | None = None

    def __getitem__(self, key: str) -> Any:
        self.check(key)
        if key not in self._made:
            self._made[key] = self._kinds[key](self._model_for(self._kinds[key]))
        return self._made[key]

    def __setitem__(self, key: str, tool: Any) -> None:
        """Adds a tool, or a class of tools."""
        _check_key(key)
        self._made.pop(key, None)
        if isinstance(tool, type):
            self._kinds[key] = tool
        else:
            self._kinds[key] = type(tool)
            self._made[key] = tool

    def __delitem__(self, key: str) -> None:
        self.check(key)
        del self._kinds[key]
        self._made.pop(key, None)

    def __iter__(self) -> Iterator[str]:
        return iter(self._kinds)

    def __len__(self) -> int:
        return len(self._kinds)

    def __contains__(self, key: object) -> bool:
        return key in self._kinds

    def __repr__(self) -> str:
        return f"Tools({', '.join(self._kinds)})"

    def check(self, key: object) -> None:
        """Makes sure that there is a tool.

        Raises:
            ArgumentError: There is none with this key.
        """
        if not isinstance(key, str) or key not in self._kinds:
            near = get_close_matches(str(key), self._kinds) or list(self._kinds)
            raise ArgumentError(f"there is no tool {shown(key)}: did you mean {', '.join(map(repr, near))}?")

    @property
    def hooked(self) -> HookedModel:
        """The model under the names of TransformerLens.

        Raises:
            ArgumentError: There is no model.
            ArchitectureError: It is no transformer.
        """
        if self.model is None:
            raise ArgumentError("tools look into a model: give the bench one, Bench(folder, model=hooked)")
        if not isinstance(self.model, HookedModel):
            self._hooked = self._hooked or HookedModel(self.model)
            return self._hooked
        return self.model

    def _model_for(self, kind: type) -> Any:
        return self.hooked if issubclass(kind, HookedTool) or self.model is None else self.model


def _check_key(key: Any) -> None:
    if not isinstance(key, str) or not key.isidentifier():
        raise ArgumentError(f"a tool has the name of an argument, such as 'distances', got {shown(key)}")
