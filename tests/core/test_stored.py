"""Results as files: whole or not there, what was put in comes out, and other files are errors."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from toumei.core.errors import ArgumentError, EditError
from toumei.core.serialization import load_tensors, save_tensors


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool])
def test_tensors_and_header_come_back(tmp_path, dtype):
    tensors = {"a": torch.arange(6).view(2, 3).to(dtype), "empty": torch.zeros(0, 3), "one": torch.ones(())}
    header = {"names": ["ä", None], "seed": 3, "value": float("inf"), "what": "of the result's own"}
    save_tensors(tmp_path / "new" / "x.safetensors", "Thing", tensors, header)
    loaded, read = load_tensors(tmp_path / "new" / "x.safetensors", "Thing")
    assert read == header
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        torch.testing.assert_close(loaded[name], tensor, rtol=0, atol=0)


def test_tensors_in_one_memory_are_written_each(tmp_path):
    whole = torch.rand(1000, 4)
    tensors = {"whole": whole, "again": whole, "part": whole[3:5], "turned": whole.T, "flag": whole[:, 2]}
    path = tmp_path / "x.safetensors"
    save_tensors(path, "Thing", tensors, {})
    loaded, _ = load_tensors(path, "Thing")
    for name, tensor in tensors.items():
        assert torch.equal(loaded[name], tensor)
    save_tensors(path, "Thing", {"part": whole[3:5]}, {})
    assert path.stat().st_size < 500


def test_the_format_is_safetensors_with_a_header_of_json(tmp_path):
    save_tensors(tmp_path / "x.safetensors", "Thing", {"a": torch.ones(2)}, {"seed": 3})
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        assert json.loads(file.metadata()["toumei"]) == {"what": "Thing", "header": {"seed": 3}}
        assert torch.equal(file.get_tensor("a"), torch.ones(2))


def test_a_file_is_replaced_whole_or_stays(tmp_path):
    path = tmp_path / "x.safetensors"
    save_tensors(path, "Thing", {"a": torch.ones(2)}, {})
    before = path.read_bytes()
    with pytest.raises(TypeError):
        save_tensors(path, "Thing", {"a": torch.zeros(2)}, {"seed": object()})
    with pytest.raises(AttributeError):
        save_tensors(path, "Thing", {"a": None}, {})
    with pytest.raises(ArgumentError, match=r"save Thing as '\.pt': results are saved as \.safetensors"):
        save_tensors(tmp_path / "x.pt", "Thing", {}, {})
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_other_files_are_errors_that_say_so(tmp_path):
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(2)}, path)
    with pytest.raises(ArgumentError, match=r"x\.safetensors is no saved Thing$"):
        load_tensors(path, "Thing")
    save_tensors(path, "Other", {"a": torch.ones(2)}, {})
    with pytest.raises(EditError, match=r"x\.safetensors is no saved Thing$"):
        load_tensors(path, "Thing", EditError)
    for content in (b"", b"something else", path.read_bytes()[:-3]):
        path.write_bytes(content)
        with pytest.raises(ArgumentError, match=r"no saved Thing or cut short, it cannot be read: "):
            load_tensors(path, "Thing")
    with pytest.raises(FileNotFoundError, match="nothing"):
        load_tensors(tmp_path / "nothing", "Thing")
