"""A text model as a network of tokens, which computes no more than the scores need."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import ArchitectureError, UnitError
from ...core.outputs import main_tensor
from .encoding import Encoded
from .tasks import Task, arguments_of, reads_last_token

Continuation = tuple[int, ...]


class TextNetwork(nn.Module):
    """A model of Hugging Face from tokens (N, T) to what it says.

    It may be given continuations of the text, which are no inputs and do not change. For each of them it
    returns the logits at the last token of the text, then those at the tokens of the continuation. The layer
    ``prompt`` has the embeddings of the text alone, to which embeddings contribute then.

    Args:
        model: The model.
        task: What it is for.
        encoded: The text, whose token types and attention mask are passed on.
        last: Whether only what follows the text is asked for.
        continuations: Tokens that follow the text; the empty one is the text alone.

    Attributes:
        vocabulary: How many tokens there are.
        embeddings: The name of the layer that embeds tokens.
        layer: The layer to attribute to for methods that need gradients.

    Raises:
        UnitError: Tokens that the model does not have.
        ArchitectureError: Embeddings that are no table of tokens.
    """

    def __init__(
        self,
        model: Any,
        task: Task,
        encoded: Encoded,
        last: bool,
        continuations: Sequence[Continuation] = ((),),
    ) -> None:
        super().__init__()
        self.model = model
        self.task = task
        self.continuations = tuple(continuations)
        self.others = encoded.others
        self.last = last
        self.prompt = nn.Identity()
        self.known = arguments_of(model)
        self.last_token = reads_last_token(model, task)
        embeddings = model.get_input_embeddings()
        if not isinstance(getattr(embeddings, "weight", None), Tensor):
            raise ArchitectureError(f"{type(model).__name__} does not embed tokens by a table of weights")
        self.embeddings = next(name for name, module in self.named_modules() if module is embeddings)
        self.vocabulary = int(embeddings.weight.shape[0])
        self.continues = any(self.continuations)
        self.layer = "prompt" if self.continues else self.embeddings
        for token in [
            *encoded.tokens.unique().tolist(),
            *(one for many in self.continuations for one in many),
        ]:
            if not 0 <= token < self.vocabulary:
                raise UnitError(f"no token {token}: there are {self.vocabulary}, 0 to {self.vocabulary - 1}")

    def forward(self, tokens: Tensor) -> Tensor:
        """Returns logits, (N, T, V), (N, classes) or (N, T, labels); of answers those of start and end."""
        if not self.continues:
            # a classifier that looks for the last token would take a hidden one for padding
            embeds = self.last_token and "inputs_embeds" in self.known
            inputs = {"inputs_embeds": self._embed(tokens)} if embeds else {"input_ids": tokens}
            return self._said(inputs, tokens, 0)
        embedded = self._embed(tokens) if "inputs_embeds" in self.known else None
        prompt = None if embedded is None else self.prompt(embedded)
        return torch.cat([self._continued(tokens, prompt, one) for one in self.continuations], 1)

    def _continued(self, tokens: Tensor, prompt: Tensor | None, continuation: Continuation) -> Tensor:
        """The logits at the last token of the text and at the tokens of a continuation."""
        following = tokens.new_tensor(continuation).expand(len(tokens), -1)
        if prompt is None:
            inputs = {"input_ids": torch.cat([tokens, following], 1)}
        else:
            inputs = {"inputs_embeds": torch.cat([prompt, self._embed(following)], 1)}
        return self._said(inputs, tokens, len(continuation))

    def _said(self, inputs: dict[str, Tensor], tokens: Tensor, more: int) -> Tensor:
        options: dict[str, Any] = {"use_cache": False}
        if self.last:
            options["logits_to_keep"] = 1 + more
        # every token counts, also a hidden one that is replaced by the padding token
        others = {"attention_mask": torch.ones_like(tokens[:1]), **self.others}
        for name, tensor in others.items():
            longer = torch.cat([tensor, tensor[:, -1:].expand(-1, more)], 1)
            options[name] = longer.expand(len(tokens), -1)
        output = self.model(**inputs, **{name: one for name, one in options.items() if name in self.known})
        if self.task == "question-answering":
            return torch.stack([main_tensor(output, [name]) for name in ("start_logits", "end_logits")], -1)
        logits = main_tensor(output)
        return logits[:, -1 - more :] if self.last else logits

    def _embed(self, tokens: Tensor) -> Tensor:
        embedded: Tensor = self.model.get_input_embeddings()(tokens.long())
        return embedded
