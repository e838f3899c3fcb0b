"""Every error that toumei raises on purpose.

All are a `ToumeiError` and also the builtin exception that fits, so that ``except ValueError`` works as
well as ``except ToumeiError``. A message says what was given, what was expected and what exists.
"""


class ToumeiError(Exception):
    """Base class of all errors that toumei raises on purpose."""

    def __str__(self) -> str:
        # KeyError shows the repr of its message, OSError an errno: a sentence should read as a sentence.
        return str(self.args[0]) if self.args else ""


class LayerError(ToumeiError, KeyError):
    """A layer name that the model does not have, or that is not being recorded."""


class UnreachedLayerError(LayerError):
    """A layer that exists but that the forward pass never reached."""


class UnitError(ToumeiError, ValueError):
    """A unit string that cannot be read, or a channel or position outside of its layer."""


class ItemError(ToumeiError, IndexError):
    """An index outside of a dataset."""


class ShapeError(ToumeiError, ValueError):
    """A tensor of the wrong rank, size or range."""


class OutputError(ToumeiError, TypeError):
    """A module output in which no tensor can be found or replaced."""


class OverwrittenError(ToumeiError, RuntimeError):
    """A tensor recorded by reference that a later operation overwrote in place."""


class ArchitectureError(ToumeiError, TypeError):
    """A model whose parts cannot be found, or that lacks the part that is needed."""


class ArgumentError(ToumeiError, ValueError):
    """An argument whose value makes no sense."""


class FolderError(ArgumentError, NotADirectoryError):
    """A file where a folder was expected."""


class NotATensorError(ArgumentError, ShapeError):
    """Something that should be a tensor, is none and cannot be converted."""


class ForwardError(ToumeiError, RuntimeError):
    """A network that cannot run on what it is given; the error inside it is the cause."""


class OutOfMemoryError(ToumeiError, MemoryError):
    """A request that takes more memory of the CPU than there is."""


class ReplayError(ToumeiError, RuntimeError):
    """An operation that cannot be computed again, or that leads the model to go on in another way."""


class TrackingError(ToumeiError, RuntimeError):
    """Tracking that was begun twice, or that saw no forward pass."""


class BlockError(TrackingError):
    """A block that is entered a second time."""


class EditError(ToumeiError, RuntimeError):
    """An edit of weights that cannot be applied, taken back or loaded."""


class NotAttachedError(ToumeiError, RuntimeError):
    """A pipeline that was asked to run before a model was attached."""


class DeviceError(ToumeiError, RuntimeError):
    """Tensors that should meet but live on different devices."""


class BusyModelError(ToumeiError, RuntimeError):
    """A model that another thread works on, which waits for this thread."""


class NonFiniteError(ToumeiError, ArithmeticError):
    """A number that is NaN or infinite: a loss, a score, an input, a contribution."""


class SweepError(ToumeiError, RuntimeError):
    """An item of a sweep that failed with an error that cannot be sent between processes."""


class DownloadError(ToumeiError, OSError):
    """Weights that could not be fetched, or that are not the file they should be."""


class ServerError(ToumeiError, ConnectionError):
    """A server that cannot be reached, or that does not take what it is sent."""


class MissingDependencyError(ToumeiError, ImportError):
    """An optional package that is needed here and is not installed."""
