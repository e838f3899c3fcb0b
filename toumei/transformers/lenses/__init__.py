"""What each block already knows of the answer."""

from .logit_lens import Probe, probe

__all__ = [
    "Probe",
    "probe",
]
