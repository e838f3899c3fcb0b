"""Progress bars, imported in one place: widgets in notebooks that have them, else lines of text."""

import warnings

from tqdm import TqdmWarning

with warnings.catch_warnings():
    # in a notebook without ipywidgets tqdm.auto warns, and then draws lines of text, which is what is wanted
    warnings.simplefilter("ignore", TqdmWarning)
    from tqdm.auto import tqdm, trange

__all__ = ["tqdm", "trange"]
