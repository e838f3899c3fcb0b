"""Fixtures for all tests, and the rule that a test leaves nothing behind on a model."""

import atexit
import errno
import gc
import multiprocessing
import os
import pathlib
import resource
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test downloads anything
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests are small, and several processes run them at once

import pytest
import torch
from joblib.externals.loky.backend.context import set_start_method
from torch import nn

gc.disable()  # while tests are collected, which leaves nearly no garbage

# torch notes the stack of each call for accelerators that may come: that is nearly all of its time.
for accelerator in (torch.cuda, torch.xpu, torch.mtia):
    if not accelerator.is_available():
        accelerator.manual_seed_all = lambda seed: None

# Processes of sweeps are copies of one that has imported what they use: each would take seconds for that.
set_start_method("forkserver")
multiprocessing.set_forkserver_preload(
    [
        "torch._dynamo",
        "toumei.cnns",
        "toumei.misc",
        "toumei.transformers",
        "transformers.models.gpt2.modeling_gpt2",
    ]
)

REGISTRATIONS = (
    "register_forward_hook",
    "register_forward_pre_hook",
    "register_full_backward_hook",
    "register_full_backward_pre_hook",
)


def pytest_collection_finish():
    """Modules and tests stay to the end: the collector of garbage passes them over, which saves time."""
    gc.freeze()
    gc.enable()
    atexit.register(gc.unfreeze)  # some extension modules complain of what is not collected at the end


class Watched:
    """Models whose state after a test must be bit for bit the state before."""

    def __init__(self):
        self.models = []

    def __call__(self, model):
        self.models.append((model, self.state(model)))
        return model

    @staticmethod
    def state(model):
        tensors = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        parameters = {name: (p.requires_grad, p.grad is None) for name, p in model.named_parameters()}
        modes = {name: module.training for name, module in model.named_modules()}
        return tensors, parameters, modes

    def check(self):
        for model, (tensors, parameters, modes) in self.models:
            now_tensors, now_parameters, now_modes = self.state(model)
            assert now_parameters == parameters, "a parameter's requires_grad or grad was changed"
            assert now_modes == modes, "a module's training mode was changed"
            for name, tensor in tensors.items():
                assert torch.equal(now_tensors[name], tensor), f"{name} was changed"


@pytest.fixture(autouse=True)
def closed_figures():
    """Closes the figures that a test has left: pyplot warns when many are open."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture(autouse=True)
def watched(monkeypatch):
    """Fails a test that leaves a hook on any module, or a changed flag, mode or weight on a watched model."""
    handles = []

    def tracking(register):
        def wrapper(*args, **kwargs):
            handles.append(register(*args, **kwargs))
            return handles[-1]

        return wrapper

    for name in REGISTRATIONS:
        monkeypatch.setattr(nn.Module, name, tracking(getattr(nn.Module, name)))
    watched = Watched()
    yield watched
    left = [handle for handle in handles if handle.id in (handle.hooks_dict_ref() or {})]
    assert not left, f"{len(left)} hooks are left behind"
    watched.check()


@pytest.fixture
def small_cnn(watched):
    """Two convolutions, ReLUs in place, a head: (N, 3, H, W) -> (N, 4); 6 channels, then 5."""
    torch.manual_seed(0)
    layers = {
        "conv1": nn.Conv2d(3, 6, 3, padding=1),
        "relu1": nn.ReLU(inplace=True),
        "conv2": nn.Conv2d(6, 5, 3, stride=2, padding=1),
        "relu2": nn.ReLU(inplace=True),
        "pool": nn.AdaptiveAvgPool2d(1),
        "flatten": nn.Flatten(),
        "head": nn.Linear(5, 4),
    }
    model = nn.Sequential()
    for name, layer in layers.items():
        model.add_module(name, layer)
    return watched(model)


@pytest.fixture
def small_disk():
    """A block in which no file can become larger than a size: to write more fails as on a full disk."""

    @contextmanager
    def limited(size):
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, handler)

    return limited


@pytest.fixture
def read_only(monkeypatch):
    """A block in which nothing can be made in a folder, as on a disk that is only read; also for root."""

    @contextmanager
    def refused(folder):
        def refusing(change):
            def changed(path, *given, **options):
                writes = change is not os.open or (given[0] if given else options["flags"]) & os.O_ACCMODE
                if writes and Path(os.fspath(path)).absolute().is_relative_to(folder):
                    raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
                return change(path, *given, **options)

            return changed

        with monkeypatch.context() as patched:
            kept = getattr(pathlib, "_NormalAccessor", None)  # Python 3.10 keeps the functions of os there
            for name in ("open", "mkdir", "link", "replace"):
                given = getattr(os, name)
                refuses = refusing(given)
                patched.setattr(os, name, refuses)
                if getattr(kept, name, None) is given:
                    patched.setattr(kept, name, staticmethod(refuses))
            yield

    return refused


@pytest.fixture(scope="session")
def realdata():
    """The folder of real networks and photographs; tests that need it are skipped where it is absent."""
    root = Path(__file__).parents[1]
    folder = Path(os.environ.get("TOUMEI_REALDATA", root.parent / "shared" / "realdata"))
    if not folder.is_dir():
        pytest.skip(f"no real networks and photographs: set TOUMEI_REALDATA ({folder} does not exist)")
    return folder
