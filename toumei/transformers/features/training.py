"""The training of sparse autoencoders and transcoders."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ...core.checks import checked
from ...core.devices import as_device
from ...core.errors import ArgumentError, NonFiniteError
from ...core.interrupts import uninterrupted
from ...core.progress import tqdm
from .activation_source import Activations, Block, as_activations, one_name
from .checkpoints import read_checkpoint, write_checkpoint
from .dictionary import SparseAutoencoder
from .initialization import begin_again, initial_weights, scale_of
from .objective import BatchLoss, batch_loss
from .settings import DictionarySettings
from .shuffling import shuffled_batches
from .training_result import DictionaryTraining

_LEARNED = ("encoder", "encoder_bias", "decoder", "decoder_bias", "thresholds")
_CURVES = ("losses", "unexplained", "active", "dead")
_SAMPLE = 2**13  # activations that scale and median are measured on
_SECONDS = 60.0  # between two checkpoints


@torch.inference_mode(False)  # which has no gradients
@torch.enable_grad()
@checked
def train_dictionary(
    activations: Any,
    settings: DictionarySettings,
    *,
    reads: str | None = None,
    writes: str | None = None,
    device: torch.device | str = "cpu",
    checkpoint: str | Path | None = None,
    verbose: bool = True,
) -> DictionaryTraining:
    """Returns a dictionary that was trained on activations.

    The decoder's rows keep the length 1: the part of the gradient along them is removed, and they are
    normalized after each step. The bias begins in the geometric median, the encoder is tied to the decoder at
    the beginning, and dead features are revived: by an auxiliary loss (TopK, BatchTopK), a penalty of their
    thresholds (JumpReLU), or resampling (ReLU). Ctrl-C returns the dictionary after the last finished step.

    Args:
        activations: An `ActivationSource`, an `ActivationStore`, synthetic data, a tensor (tokens, width), or
            a dictionary of tensors by their names.
        settings: How to train it.
        reads: The name of the activation that is read; not needed where there is one only.
        writes: The name of the activation that is reconstructed; by default the one that is read. Another
            one makes a transcoder.
        device: Where to compute.
        checkpoint: A file that is written about once a minute and at the end, ending in ``.safetensors``. If
            it exists, the training goes on from it.
        verbose: Show a progress bar.

    Raises:
        ArgumentError: There are no activations, or too few and they cannot be read again; a name that is
            missing; a checkpoint of another training.
        NonFiniteError: The activations or the loss are not finite.

    Example:
        >>> values = torch.rand(500, 8, generator=torch.Generator().manual_seed(0))
        >>> settings = DictionarySettings(features=16, k=2, tokens=2000, batch_size=100)
        >>> train_dictionary(values, settings, verbose=False)
        DictionaryTraining(16 features, topk, 20 steps of 100: unexplained ... with 2.0 active, 0.0% dead)
    """
    source = as_activations(activations)
    read = one_name(source.names, reads, "reads")
    training = Training(source, settings, read, read if writes is None else writes, as_device(device))
    try:
        training.run(checkpoint, verbose)
    except KeyboardInterrupt:
        if not training.curves["losses"]:
            raise
    return training.result()


class Training:
    """The state of a training, which takes one step after the other.

    Args:
        source: The activations.
        settings: How to train.
        reads: The name of the activation that is read.
        writes: The name of the one that is reconstructed.
        device: Where to compute.
    """

    def __init__(
        self, source: Activations, settings: DictionarySettings, reads: str, writes: str, device: torch.device
    ) -> None:
        self.source, self.settings, self.device = source, settings, device
        self.reads, self.writes = reads, one_name(source.names, writes, "writes")
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.curves: dict[str, list[float]] = {name: [] for name in _CURVES}
        names = tuple(dict.fromkeys((reads, self.writes)))
        self.batches = shuffled_batches(source, names, settings.batch_size, settings.buffer, settings.seed)
        first = self._first_batches()
        inputs, targets = (torch.cat([one[name] for one in first])[:_SAMPLE] for name in (reads, self.writes))
        self.scales = scale_of(inputs), scale_of(targets)
        self.waiting = first
        self.weights = initial_weights(
            inputs * self.scales[0],
            targets * self.scales[1],
            settings,
            reads != self.writes,
            self.generator,
        )
        for name in _LEARNED:
            trained = name != "thresholds" or settings.activation == "jump_relu"
            setattr(self.weights, name, getattr(self.weights, name).to(device).requires_grad_(trained))
        parameters = [one for name in _LEARNED if (one := getattr(self.weights, name)).requires_grad]
        self.optimizer = torch.optim.Adam(parameters, lr=settings.rate, eps=6.25e-10, fused=True)
        self.silent = torch.zeros(settings.features, dtype=torch.long, device=device)

    def _first_batches(self) -> list[Block]:
        """Enough batches to measure scale and median on, which the training sees later."""
        batches: list[Block] = []
        for _ in range(min(self.settings.steps, -(-_SAMPLE // self.settings.batch_size))):
            batches.append(self._next())
        return batches

    def _next(self) -> Block:
        batch = next(self.batches)
        return {name: batch[name] for name in dict.fromkeys((self.reads, self.writes))}

    def _steps(self) -> Iterator[Block]:
        yield from self.waiting
        self.waiting = []
        while True:
            yield self._next()

    def run(self, checkpoint: str | Path | None, verbose: bool) -> None:
        """Takes the steps that are left.

        Args:
            checkpoint: The file that the training goes on from and that it writes.
            verbose: Show a progress bar.
        """
        done = self._resume(checkpoint) if checkpoint is not None and Path(checkpoint).exists() else 0
        steps, last = self._steps(), time.monotonic()
        with tqdm(
            total=self.settings.steps, initial=done, desc="dictionary", disable=not verbose
        ) as progress:
            try:
                for step in range(self.settings.steps):
                    batch = next(steps)
                    if step < done:  # seen before the training was killed
                        continue
                    self.step(step, batch)
                    progress.update()
                    progress.set_postfix(unexplained=f"{self.curves['unexplained'][-1]:.3f}", refresh=False)
                    if checkpoint is not None and time.monotonic() - last > _SECONDS:
                        self._save(checkpoint)
                        last = time.monotonic()
            finally:
                if checkpoint is not None and self.curves["losses"]:
                    self._save(checkpoint)

    def step(self, step: int, batch: Block) -> None:
        """Takes a step.

        Args:
            step: Its number, which says how large the learning rate is.
            batch: The activations.

        Raises:
            NonFiniteError: The loss is not finite.
        """
        settings, weights = self.settings, self.weights
        inputs = batch[self.reads].to(self.device) * self.scales[0]
        targets = inputs if self.reads == self.writes else batch[self.writes].to(self.device) * self.scales[1]
        dead = self.silent >= settings.dead_tokens
        found = batch_loss(weights, inputs, targets, dead, settings)
        if not bool(found.loss.isfinite()):
            raise NonFiniteError(
                f"the loss of step {step} is not finite: give a learning_rate below {settings.rate:.2g}, or "
                f"activations without NaN"
            )
        self.optimizer.zero_grad()
        found.loss.backward()
        for group in self.optimizer.param_groups:
            group["lr"] = settings.rate * settings.share_of_rate(step)
        with uninterrupted(), torch.no_grad():
            decoder = weights.decoder
            if decoder.grad is not None:
                decoder.grad -= (decoder.grad * decoder).sum(1, keepdim=True) * decoder
            self.optimizer.step()
            F.normalize(decoder, dim=1, out=decoder)
            if settings.activation == "jump_relu":
                weights.thresholds.clamp_min_(0.0)
            self.silent += len(inputs)
            self.silent[found.fired] = 0
            self._note(found, targets)
            if settings.activation == "relu" and step + 1 in settings.resampling_steps:
                dead = self.silent >= min(settings.dead_tokens, settings.tokens // 16)
                begin_again(weights, self.optimizer, inputs, found.error, dead, self.generator)
                self.silent[dead] = 0

    def _note(self, found: BatchLoss, targets: Tensor) -> None:
        variance = (targets - targets.mean(0)).square().sum()
        values = {
            "losses": float(found.loss),
            "unexplained": float(found.error.square().sum() / variance),
            "active": found.active,
            "dead": float((self.silent >= self.settings.dead_tokens).float().mean()),
        }
        for name, value in values.items():
            self.curves[name].append(value)

    @property
    def _identity(self) -> dict[str, Any]:
        """What has to be the same where a training goes on."""
        return {"reads": self.reads, "writes": self.writes, "fingerprint": self.source.fingerprint}

    def _save(self, path: str | Path) -> None:
        with uninterrupted():
            tensors = {name: getattr(self.weights, name).detach() for name in _LEARNED}
            for name in _LEARNED:
                for part, value in self.optimizer.state.get(getattr(self.weights, name), {}).items():
                    tensors[f"{name}.{part}"] = value
            tensors |= {
                name: torch.tensor(values, dtype=torch.float64) for name, values in self.curves.items()
            }
            tensors |= {"silent": self.silent, "generator": self.generator.get_state()}
            notes = {"settings": asdict(self.settings), "scales": self.scales, "cut": self.weights.cut}
            write_checkpoint(path, tensors, {**notes, **self._identity})

    def _resume(self, path: str | Path) -> int:
        """Takes over the state of a file; returns how many steps were done."""
        tensors, notes = read_checkpoint(path, self.settings, self._identity)
        try:
            return self._take_over(path, tensors, notes)
        except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
            if isinstance(error, ArgumentError):
                raise
            raise ArgumentError(f"{path} is a damaged checkpoint of a training: {error}") from error

    def _take_over(self, path: str | Path, tensors: Mapping[str, Tensor], notes: Mapping[str, Any]) -> int:
        if list(notes["scales"]) != list(self.scales):
            raise ArgumentError(f"{path} was made of other activations: remove it, or give another path")
        with torch.no_grad():
            for name in _LEARNED:
                parameter = getattr(self.weights, name)
                parameter.copy_(tensors[name])
                state = {part: tensors.get(f"{name}.{part}") for part in ("step", "exp_avg", "exp_avg_sq")}
                if parameter.requires_grad and state["step"] is not None:
                    self.optimizer.state[parameter] = {
                        part: value.to(self.device) for part, value in state.items() if value is not None
                    }
        self.silent = tensors["silent"].to(self.device)
        self.generator.set_state(tensors["generator"])
        self.weights.cut = notes["cut"]
        self.curves = {name: tensors[name].tolist() for name in _CURVES}
        return len(self.curves["losses"])

    def result(self) -> DictionaryTraining:
        """The dictionary, which reads the activations as they are."""
        (read, write), weights, settings = self.scales, self.weights, self.settings
        thresholds = weights.thresholds.detach()
        if settings.activation == "batch_topk":
            thresholds = torch.full_like(thresholds, weights.cut)
        dictionary = SparseAutoencoder(
            W_enc=(weights.encoder.detach().T * (read / write)).cpu().contiguous(),
            b_enc=(weights.encoder_bias.detach() / write).cpu(),
            W_dec=weights.decoder.detach().cpu().clone(),
            b_dec=(weights.decoder_bias.detach() / write).cpu(),
            thresholds=(thresholds / write).cpu(),
            activation=settings.activation,
            k=0 if settings.activation == "relu" else settings.k,
            subtract_bias=weights.subtract_bias,
            normalization="none",
            reads=self.reads,
            writes=self.writes,
        )
        curves = {name: torch.tensor(values) for name, values in self.curves.items()}
        return DictionaryTraining(
            dictionary=dictionary, settings=settings, fingerprint=self.source.fingerprint, **curves
        )
