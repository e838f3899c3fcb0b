"""How a corpus lights up a model: maps and graphs of the states of its texts, layer by layer.

After "LLM-MRI Python module: a brain scanner for LLMs" (Costa et al., SBBD 2024,
https://sol.sbc.org.br/index.php/sbbd_estendido/article/view/30782), whose calls work here: each layer's
states are reduced to two coordinates, cut into N x N cells, and the cells of neighbouring layers are joined
by the texts that they share.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from ...core.checks import check_choice, check_counts, checked
from ...core.errors import ArgumentError
from ...core.summaries import counted
from ...core.user_warnings import warn
from ..model.hooked_model import HookedModel
from .comparison import AreaComparison
from .corpus import LabelledTexts
from .doubts import doubts_about_texts
from .enough_texts import check_categories, check_cells
from .evaluation import AreaEvaluation, evaluated
from .fitting import Coordinates, coordinates_of_states, gathered, read_twice
from .grid import Bins
from .hidden_states import hidden_state_layers, named_layers
from .loading import model_and_tokenizer
from .pictures import plot_graph
from .pooling import Pooling
from .reductions import Reduction, reduction_of
from .result import Areas
from .states import StateReader, States

if TYPE_CHECKING:
    import networkx as nx
    from matplotlib.figure import Figure


@checked
class ActivationAreas:
    """The areas of a model that the texts of each category activate.

    The reduction and the cells of a layer are fitted once, to the texts of all categories, so that maps of
    categories can be compared. Texts run in batches of about the same length; reading ends after the deepest
    layer. The model stays as it is.

    Args:
        model: A Hugging Face model of texts, encoder or decoder, a `HookedModel`, or the name of one, which
            is loaded in float32.
        texts: Texts, or a dataset: an iterable of rows with ``"text"`` and ``"label"``.
        labels: The category of each text, strings or whole numbers; not for a dataset.
        tokenizer: The tokenizer of the model.
        layers: Names of layers with a vector for each token, also such as ``("mlp_out", 3)``; by default the
            embedding and all blocks, whose outputs are the ``hidden_states`` of Hugging Face.
        reduction: ``"pca"`` of standardized states, ``"svd"`` of states as they are, ``"umap"``; or a `PCA`,
            `SVD` or `UMAP` with settings.
        map_dimension: Cells in a row of a map, by default 10; a map has at most as many cells as there are
            texts, those of all categories together.
        bins: Cells of equal ``"width"``, or ``"quantile"``: with about as many texts in each column and row.
        pooling: Which states of a text count: of its ``"last"`` token, of its ``"first"``, or the ``"mean"``.
            By default the last where no token sees those that follow it, else the mean.
        groups: What each text is a part of, such as a document; texts of a group are never on both sides of a
            classifier, and keep the same category in permutation tests.
        batch_size: Most texts in a forward pass.
        max_length: The number of tokens at which longer texts are cut off; by default the model's limit, with
            a warning.
        keep_states: Keep the pooled states, which classifiers and UMAP need: texts x layers x width numbers
            in float32. Without them memory grows by the coordinates only, and the texts are read twice.
        verbose: Show progress bars.
        dataset: Another name of `texts`, that of LLM-MRI.
        device: Where a model that is named is loaded, by default the CPU.
        reduction_method: Another name of `reduction`, that of LLM-MRI.

    Raises:
        ArgumentError: Texts, labels or the tokenizer are missing, or are not the same number.
        LayerError: A layer that the model does not have; the message names the nearest ones.
        ArchitectureError: There are no layers given, and the model has no residual stream.
        MissingDependencyError: UMAP without the package umap-learn.

    Example:
        >>> from toumei.models import facts_gpt
        >>> model, tokenizer, world = facts_gpt()
        >>> facts = [fact for fact in world.facts if fact.relation in ("residence", "instrument")][:80]
        >>> areas = ActivationAreas(
        ...     model,
        ...     [fact.text for fact in facts],
        ...     [fact.relation for fact in facts],
        ...     tokenizer=tokenizer,
        ...     map_dimension=8,
        ...     verbose=False,
        ... )
        >>> areas.process_activation_areas()
        Areas(80 texts of instrument, residence in 7 layers, pca, 8 x 8 cells)
        >>> graph = areas.get_composed_graph("instrument", "residence")
        >>> sum(weight for one, _, weight in graph.edges(data="weight") if one.startswith("3_"))
        80
    """

    def __init__(
        self,
        model: "nn.Module | HookedModel | str",
        texts: Any = None,
        labels: Any = None,
        *,
        tokenizer: Any = None,
        layers: Any = None,
        reduction: "Literal['pca', 'svd', 'umap'] | Reduction" = "pca",
        map_dimension: int | None = None,
        bins: Bins = "width",
        pooling: Pooling | None = None,
        groups: Iterable[Any] | None = None,
        batch_size: int = 32,
        max_length: int | None = None,
        keep_states: bool = True,
        verbose: bool = True,
        dataset: Any = None,
        device: str | torch.device | None = None,
        reduction_method: "Literal['pca', 'svd', 'umap'] | Reduction | None" = None,
    ) -> None:
        check_choice("bins", bins, ("width", "quantile"))
        if pooling is not None:
            check_choice("pooling", pooling, ("last", "mean", "first"))
        check_counts(1, map_dimension=map_dimension, max_length=max_length, batch_size=batch_size)
        if texts is not None and dataset is not None:
            raise ArgumentError("texts and dataset are two names of the same: give one of them")
        self.corpus = LabelledTexts(dataset if texts is None else texts, labels)
        self.reduction = reduction_of(reduction if reduction_method is None else reduction_method)
        self.groups = None if groups is None else list(groups)
        if self.groups is not None and len(self.corpus):
            self._numbered_groups(len(self.corpus))
        self._check_streaming(keep_states)
        self.model, self.tokenizer = model_and_tokenizer(model, tokenizer, device)
        self.layers = hidden_state_layers(self.model) if layers is None else named_layers(self.model, layers)
        self.map_dimension = map_dimension or self.reduction.gridsize
        self.bins, self.keep_states, self.verbose = bins, keep_states, verbose
        self._reader = StateReader(
            self.model,
            self.tokenizer,
            self.layers,
            pooling=pooling,
            batch_size=batch_size,
            max_length=max_length,
            verbose=verbose,
        )
        self._states: States | None = None
        self._read_fields: dict[str, Any] | None = None
        self._areas: Areas | None = None

    def _check_streaming(self, keep_states: bool) -> None:
        if keep_states:
            return
        if self.reduction.name == "umap":
            raise ArgumentError("UMAP needs the states of all texts: give keep_states=True")
        if not self.corpus.can_repeat:
            raise ArgumentError(
                "keep_states=False reads the texts twice, and an iterator can be read once: give a list, a "
                "dataset or keep_states=True"
            )

    @checked
    def process_activation_areas(self, map_dimension: int | None = None) -> Areas:
        """Reads all texts, the first time, and returns the areas.

        Args:
            map_dimension: Cells in a row of a map, by default that of the constructor.

        Raises:
            ArgumentError: There are no texts, labels are missing, a category has a single text, or maps have
                more cells than there are texts. Where the texts are no iterator, that is known before the
                model runs.
            ForwardError: The model cannot run on them.
            ShapeError: A layer returns something else than a vector for each token.
        """
        check_counts(1, map_dimension=map_dimension)
        size = map_dimension or self.map_dimension
        if self._areas is None:
            if self._read_fields is None and self.corpus.check():
                self._check_enough(size)
            fields = self._read_fields = self._read_fields or self._fields()
            self._check_enough(size)
            self._areas = Areas.of(size, self.bins, **fields)
            for doubt in [*self._reader.doubts(), *doubts_about_texts(self._areas)]:
                warn(doubt)
        elif size != self._areas.size:
            self._areas = self._areas.resized(size)
        return self._areas

    def _check_enough(self, size: int) -> None:
        """Raises an error where the texts are too few for their categories or for maps of this size."""
        categories, labels = self.corpus.categories()
        check_categories(categories, labels)
        if self.reduction.n_components == 2:
            check_cells(size, len(labels))

    def _fields(self) -> dict[str, Any]:
        """What is read once, for maps of any size."""
        coordinates = self._read()
        categories, labels = self.corpus.categories()
        return {
            "layers": self.layers,
            "categories": categories,
            "labels": torch.tensor(labels),
            "groups": self._numbered_groups(len(labels)),
            "coordinates": coordinates.values,
            "explained": coordinates.explained,
            "constant": coordinates.constant,
            "reduction": self.reduction.name,
            "pooling": str(self._reader.pooling),
        }

    def _read(self) -> Coordinates:
        """Where the texts lie, after one pass over them or two."""

        def batches(description: str) -> Any:
            return self._reader.batches(self.corpus.texts(), len(self.corpus), description)

        if not self.keep_states:
            return read_twice(self.reduction, batches)
        self._states = gathered(batches("states"), len(self.corpus))
        return coordinates_of_states(self.reduction, self._states)

    def _numbered_groups(self, texts: int) -> Tensor:
        if self.groups is None:
            return torch.arange(texts)
        if len(self.groups) != texts:
            raise ArgumentError(
                f"expected a group for each text, got {len(self.groups)} for {counted(texts, 'text')}"
            )
        numbers: dict[Any, int] = {}
        return torch.tensor([numbers.setdefault(group, len(numbers)) for group in self.groups])

    @property
    def areas(self) -> Areas:
        """What `process_activation_areas` returned.

        Raises:
            ArgumentError: It was not called.
        """
        if self._areas is None:
            raise ArgumentError("there are no areas yet: call process_activation_areas() first")
        return self._areas

    @property
    def states(self) -> States:
        """The pooled states of the texts by layer, (texts, width), float32.

        Raises:
            ArgumentError: They were not kept, or not read yet.
        """
        if not self.keep_states:
            raise ArgumentError("states were not kept: give keep_states=True")
        if self._states is None:
            raise ArgumentError("there are no states yet: call process_activation_areas() first")
        return self._states

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the categories."""
        return self.areas.categories

    @checked
    def get_layer_image(self, layer: int | str, category: str | int | None = None) -> "Figure":
        """Returns a figure with the map of a layer: how many texts of a category each cell has.

        Args:
            layer: The number of a layer, 0 for the embedding, or its name.
            category: The name of a category or its number; None for all texts.

        Raises:
            LayerError: There is no such layer.
            ArgumentError: There is no such category, or the reduction has more than two components.
        """
        return self.areas.plot(layer, category).figure  # type: ignore[return-value]

    get_grid = get_layer_image

    @checked
    def get_graph(
        self, category: str | int | Sequence[str | int] | None = None, threshold: float = 0.3
    ) -> "nx.DiGraph":
        """Returns the graph of the areas of a category, of two, or of all texts; see `Areas.graph`.

        Args:
            category: A category, a list of two, or None.
            threshold: For reductions to more than two components, the least absolute correlation.

        Raises:
            ArgumentError: There is no such category, or there are more than two.
        """
        return self.areas.graph(category, threshold)

    @checked
    def get_composed_graph(self, category1: str | int, category2: str | int) -> "nx.DiGraph":
        """Returns the graph of two categories, with the weights of both on each edge.

        Raises:
            ArgumentError: There is no such category, or both are the same.
        """
        return self.areas.graph([category1, category2])

    @checked
    def get_graph_image(
        self, graph: "nx.DiGraph", colormap: str = "coolwarm", fix_node_positions: bool = True
    ) -> "Figure":
        """Returns a figure with a graph; see `plot_graph`.

        Args:
            graph: A graph of `get_graph` or `get_composed_graph`.
            colormap: A diverging colour map, for two categories.
            fix_node_positions: Give each cell the same place in all graphs.

        Raises:
            ArgumentError: It is no such graph, it has no edges, or there is no such colour map.
        """
        return plot_graph(graph, colormap, fix_node_positions).figure  # type: ignore[return-value]

    @checked
    def compare(
        self, category1: str | int, category2: str | int, permutations: int = 999, seed: int = 0
    ) -> AreaComparison:
        """Returns how two categories differ, against shuffled categories; see `Areas.compare`."""
        return self.areas.compare(category1, category2, permutations, seed, self.verbose)

    @checked
    def evaluate(self, folds: int = 5, seed: int = 0) -> AreaEvaluation:
        """Returns how well classifiers tell the categories apart in each layer, from states and from maps.

        The reduction is fitted again inside the training part of each fold.

        Args:
            folds: How many.
            seed: Of the folds.

        Raises:
            ArgumentError: States were not kept, there is one category, or one with too few texts.
        """
        areas = self.areas
        return evaluated(
            self.states,
            areas.labels,
            areas.groups,
            self.reduction,
            folds=folds,
            seed=seed,
            verbose=self.verbose,
        )
