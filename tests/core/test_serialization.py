"""Results as files: whole or not there, what was put in comes out bit for bit, and other files are errors."""

import importlib
import json
import os
import pkgutil
import stat
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

import toumei
from toumei.core import serialization
from toumei.core.errors import ArgumentError, EditError
from toumei.core.serialization import VERSION, Saved, load_result, save_result
from toumei.core.stored_fields import stored_annotations
from toumei.core.tensor_specs import Spec, specs


@dataclass(frozen=True, eq=False)
class Part:
    left: Tensor
    name: str = "part"

    _specs = specs(left=Spec("n n", finite=True))


@dataclass(frozen=True, eq=False)
class Thing(Saved):
    tensor: Tensor
    values: Tensor | tuple[Tensor, ...] | dict[str, Tensor]
    maybe: Tensor | None = None
    seed: int | None = None
    share: float = 0.5
    flag: bool = False
    kind: Literal["a", "b"] = "a"
    names: Sequence[str] = ()
    pairs: tuple[tuple[str, int], ...] = ()
    size: tuple[float, float] = (1.0, 2.0)
    parts: Mapping[int, Part] = field(default_factory=dict)
    left_out: Any = None

    _specs = specs(tensor=Spec("rows columns", "any"), names="rows", maybe="rows")
    _not_stored = ("left_out",)


def thing(**more):
    given = {"tensor": torch.arange(6.0).view(2, 3), "values": torch.ones(4), **more}
    return Thing(**given)


def same(first, second):
    """Whether two values are equal bit for bit, and of the same types."""
    if isinstance(first, Tensor):
        return (
            isinstance(second, Tensor)
            and (first.dtype, first.shape) == (second.dtype, second.shape)
            and first.contiguous().flatten().view(torch.uint8).equal(second.flatten().view(torch.uint8))
        )
    if is_dataclass(first):
        names = [found for found in stored_annotations(type(first)) if not found.startswith("_")]
        return type(first) is type(second) and all(
            same(getattr(first, name), getattr(second, name)) for name in names
        )
    if isinstance(first, Mapping):
        return list(first) == list(second) and all(same(first[key], second[key]) for key in first)
    if isinstance(first, (tuple, list)):
        return len(first) == len(second) and all(map(same, first, second))
    return type(first) is type(second) and (first == second or first != first)


# ---------------------------------------------------------------- what comes back


@pytest.mark.parametrize(
    "dtype",
    [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.uint8, torch.bool],
)
def test_tensors_and_fields_come_back(tmp_path, dtype):
    given = thing(
        tensor=torch.arange(6).view(2, 3).to(dtype),
        maybe=torch.tensor([float("nan"), float("inf")]),
        seed=2**70,
        share=float("inf"),
        flag=True,
        kind="b",
        names=("ä", '"\\'),
        pairs=(("a.b", 1), ("", -1)),
        parts={3: Part(torch.ones(2, 2)), -1: Part(torch.zeros(0, 0), "ü")},
    )
    given.save(tmp_path / "new" / "x.safetensors")
    assert same(given, Thing.load(tmp_path / "new" / "x.safetensors"))


@pytest.mark.parametrize(
    "values",
    [
        torch.ones(()),
        torch.zeros(0, 3),
        (torch.ones(2), torch.zeros(1)),
        (),
        {"b": torch.ones(1), "a.0": torch.zeros(2), "": torch.ones(2), "tensor": torch.ones(3)},
    ],
)
def test_values_of_every_structure_come_back(tmp_path, values):
    given = thing(values=values)
    given.save(tmp_path / "x.safetensors")
    assert same(given, Thing.load(tmp_path / "x.safetensors"))


def test_keys_that_make_the_same_name_stay_apart(tmp_path):
    @dataclass(frozen=True, eq=False)
    class Deep(Saved):
        x: dict[str, dict[str, Tensor]]

    given = Deep({"a": {"b.c": torch.ones(1)}, "a.b": {"c": torch.zeros(1)}})
    given.save(tmp_path / "x.safetensors")
    assert same(given, Deep.load(tmp_path / "x.safetensors"))


def test_tensors_in_one_memory_are_written_each(tmp_path):
    whole = torch.rand(1000, 4)
    values = {"whole": whole, "again": whole, "part": whole[3:5], "turned": whole.T, "flag": whole[:, 2]}
    path = tmp_path / "x.safetensors"
    thing(values=values).save(path)
    loaded = Thing.load(path).values
    for name, tensor in values.items():
        assert torch.equal(loaded[name], tensor)
    thing(values=whole[3:5]).save(path)
    assert path.stat().st_size < 1500


def test_a_tensor_with_a_gradient_is_saved_without_it(tmp_path):
    thing(values=torch.ones(2, requires_grad=True)).save(tmp_path / "x.safetensors")
    assert not Thing.load(tmp_path / "x.safetensors").values.requires_grad


def test_what_was_loaded_does_not_change_with_the_file(tmp_path):
    path = tmp_path / "x.safetensors"
    thing().save(path)
    loaded = Thing.load(path)
    path.write_bytes(b"\0" * path.stat().st_size)
    assert same(loaded, thing())


def test_the_format_is_safetensors_with_a_header_of_json(tmp_path):
    thing(seed=3, names=["a", "b"]).save(tmp_path / "x.safetensors")
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        content = json.loads(file.metadata()["toumei"])
        assert torch.equal(file.get_tensor("values"), torch.ones(4))
    assert (content["what"], content["version"], content["notes"]) == ("Thing", VERSION, {})
    header = content["header"]
    assert (header["seed"], header["names"], header["maybe"]) == (3, ["a", "b"], None)
    assert header["values"] == {"tensor": "values", "dtype": "float32", "shape": [4]}
    assert "left_out" not in header


def test_notes_and_fields_that_are_not_stored(tmp_path):
    path = tmp_path / "x.safetensors"
    save_result(thing(left_out=object()), path, {"of": "ä"})
    loaded, notes = load_result(Thing, path, left_out="given")
    assert (loaded.left_out, notes) == ("given", {"of": "ä"})
    assert Thing.load(path).left_out is None


# ---------------------------------------------------------------- every class of the package


def saved_classes():
    for module in pkgutil.walk_packages(toumei.__path__, "toumei."):
        importlib.import_module(module.name)
    found, waiting = [], [Saved]
    while waiting:
        below = waiting.pop().__subclasses__()
        waiting += below
        found += [kind for kind in below if kind.__module__.startswith("toumei.")]
    return sorted(found, key=lambda kind: kind.__name__)


CLASSES = saved_classes()
SIZES = {"*T": 0, "...": 1}


def example(kind, spec=None, several=True):
    """A value of an annotation, with tensors as a specification declares them."""
    if kind is Tensor:
        spec = spec or Spec("_ _")
        if spec.kind == "integer":
            return torch.randint(-5, 5, shape(spec.axes))
        return torch.randn(shape(spec.axes), dtype=torch.float64 if several else torch.float32)
    if get_origin(kind) is Literal:
        return get_args(kind)[-1]
    if NoneType in get_args(kind):
        return example(get_args(kind)[0], spec) if several else None
    if kind in (str, int, float, bool):
        return {str: "ä {}", int: 5, float: 0.1, bool: several}[kind]
    arguments = get_args(kind)
    if get_origin(kind) is tuple and Ellipsis not in arguments:
        return tuple(example(argument, spec) for argument in arguments)
    if get_origin(kind) in (tuple, list, Sequence):
        count = shape(spec.axes)[0] if spec and arguments[0] is not Tensor else 2
        return (list if get_origin(kind) is list else tuple)(example(arguments[0]) for _ in range(count))
    if get_origin(kind) in (dict, Mapping):
        keys = [3, 11] if arguments[0] is int else ["a.b", "layer/add#1"]
        return {key: example(arguments[1], spec) for key in keys}
    if is_dataclass(kind):
        return kind(**example_fields(kind, several))
    return example(arguments[int(several)], spec)  # a union


def example_fields(kind, several=True):
    declared = getattr(kind, "_specs", {})
    return {
        name: example(annotation, declared.get(name), several)
        for name, annotation in stored_annotations(kind).items()
    }


def shape(axes):
    """A size for each axis, the same for the same name everywhere."""
    names = [name for name in axes.split() if name != "*T"]
    return [1 if name == "..." else int(name) if name.isdigit() else 2 + len(name) % 3 for name in names]


def test_the_walk_finds_the_results():
    names = {kind.__name__ for kind in CLASSES}
    assert {
        "Attribution", "Comparison", "Curve", "Removals", "Randomization", "SanityScore", "Visualization",
        "DatasetExamples", "ExpandedWeights", "ActivationAtlas", "ChannelGroups", "CausalTrace",
        "AverageEffects", "Edit", "Evaluation", "KeyStatistics", "LogitLens", "NullTest",
    } <= names  # fmt: skip


@pytest.mark.parametrize("several", [True, False])
@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_result_comes_back_bit_for_bit(kind, several, tmp_path):
    torch.manual_seed(0)
    given = kind(**example_fields(kind, several), **{name: None for name in unstored(kind)})
    save_result(given, tmp_path / "x.safetensors")
    loaded, _ = load_result(kind, tmp_path / "x.safetensors", **{name: None for name in unstored(kind)})
    assert type(loaded) is kind and same(given, loaded)


def unstored(kind):
    return [found.name for found in fields(kind) if found.name in kind._not_stored]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_what_is_declared_of_a_result_are_its_fields(kind):
    hints = get_type_hints(kind)
    assert {*kind._specs, *kind._not_stored} <= set(hints)
    assert Any not in {hints[name] for name in stored_annotations(kind)}


# ---------------------------------------------------------------- what is refused when it is saved


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"seed": object()}, r"field 'seed' should be int, got object"),
        ({"seed": True}, r"field 'seed' should be int, got bool True"),
        ({"flag": 1}, r"field 'flag' should be bool, got int 1"),
        ({"share": "0.5"}, r"field 'share' should be float, got str '0.5'"),
        ({"kind": "c"}, r"field 'kind' should be Literal\['a', 'b'\], got str 'c'"),
        ({"tensor": None}, r"field 'tensor' should be Tensor, got NoneType None"),
        ({"values": [1.0]}, r"field 'values' should be .*, got list \[1.0\]"),
        ({"names": "ab"}, r"field 'names' should be .*Sequence\[str\], got str 'ab'"),
        ({"size": (1.0,)}, r"field 'size' should have 2 items, got 1"),
        ({"parts": {"a": Part(torch.ones(1, 1))}}, r"field 'parts' should have keys of int, got \['a'\]"),
        (
            {"parts": {1: Part(torch.ones(1, 2))}},
            r"field 'parts.left' should be of shape \(n, n\), got \(1, 2\)",
        ),
        ({"parts": {1: Part(torch.tensor([[torch.nan]]))}}, r"is not finite in 1 of 1 number$"),
        ({"names": ("a",)}, r"field 'names' should be of shape \(rows\), got \(1,\) where rows is 2"),
        ({"tensor": torch.ones(3)}, r"field 'tensor' should be of shape \(rows, columns\), got \(3,\)"),
        (
            {"maybe": torch.ones(2).long()},
            r"field 'maybe' should hold floating-point numbers, got torch.int64",
        ),
        ({"values": torch.ones(2, device="meta")}, r"field 'values' is a tensor without plain numbers"),
        ({"values": torch.ones(2).to_sparse()}, r"field 'values' is a tensor without plain numbers"),
        ({"values": torch.ones(2, dtype=torch.complex128)}, r"\['values'\] is of torch.complex128, which"),
    ],
)
def test_a_field_that_cannot_be_saved_is_named_and_the_file_stays(tmp_path, given, match):
    path = tmp_path / "x.safetensors"
    thing().save(path)
    before = path.read_bytes()
    with pytest.raises(ArgumentError, match=rf"cannot save Thing to .*x\.safetensors: .*{match}"):
        thing(**given).save(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_results_are_saved_as_safetensors_only(tmp_path):
    with pytest.raises(ArgumentError, match=r"save Thing as '\.pt': results are saved as \.safetensors"):
        thing().save(tmp_path / "x.pt")
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- what is refused when it is loaded


@pytest.fixture
def path(tmp_path):
    thing(maybe=torch.ones(2), seed=3, parts={1: Part(torch.ones(2, 2))}).save(tmp_path / "x.safetensors")
    return tmp_path / "x.safetensors"


def rewrite(path, change, sign=True, tensors=lambda found: found):
    """Writes the file again with another header; signed, as a program that knows the format could do it."""
    with safe_open(path, "pt") as file:
        content = json.loads(file.metadata()["toumei"])
        found = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    changed = change(content)
    if sign and isinstance(changed, dict) and {"what", "version", "header", "notes"} <= set(changed):
        changed["digest"] = serialization._digest(changed)
    text = changed if isinstance(changed, str) else json.dumps(changed)
    save_file(tensors(found), path, {"toumei": text})


def with_field(**more):
    return lambda content: {**content, "header": {**content["header"], **more}}


def refused(path, match="", kind=Thing, error=ArgumentError):
    match = rf"x\.safetensors is no saved {kind.__name__} that this toumei can read: .*{match}"
    with pytest.raises(error, match=match) as raised:
        kind.load(path)
    assert type(raised.value) is error


def test_a_rewritten_header_that_is_right_is_read(path):
    before = Thing.load(path)
    rewrite(path, lambda content: content, sign=False)
    assert same(Thing.load(path), before)


@pytest.mark.parametrize("header", ["{", "", "[" * 100_000, "[]", "null", "3", '"text"', "{}"])
def test_a_header_that_is_no_json_object(path, header):
    rewrite(path, lambda _: header)
    refused(path, "its header")


@pytest.mark.parametrize("name", ["what", "version", "header", "notes", "digest"])
def test_a_header_without_one_of_its_parts(path, name):
    rewrite(path, lambda content: {key: value for key, value in content.items() if key != name}, sign=False)
    refused(path)


def test_a_newer_version_is_refused_by_its_number(path):
    rewrite(path, lambda content: {**content, "version": VERSION + 3, "parts": []})
    refused(path, rf"it has version {VERSION + 3} of the format, .* up to {VERSION}: a newer toumei reads it")


@pytest.mark.parametrize("version", [0, -1, "1", 1.0, True, None, [1]])
def test_a_version_that_is_none(path, version):
    rewrite(path, lambda content: {**content, "version": version})
    refused(path, "its version of the format should be a whole number from 1 on, got")


def test_a_file_of_toumei_0_1_is_told_as_one(path):
    rewrite(path, lambda content: {"what": "Thing", "header": {"seed": 3}})
    refused(path, "its header has no version of the format. Files of toumei 0.1 had none")


def test_a_file_of_another_class(path):
    @dataclass(frozen=True, eq=False)
    class Other(Saved):
        tensor: Tensor

    refused(path, "it holds 'Thing'", Other)


@pytest.mark.parametrize(
    "kind", [kind for kind in CLASSES if kind.__name__ != "Edit"], ids=lambda kind: kind.__name__
)
def test_every_class_refuses_the_file_of_another(path, kind):
    refused(path, "it holds 'Thing'", kind, kind._load_error)


@pytest.mark.parametrize("name", [found for found in stored_annotations(Thing)])
def test_a_field_that_is_missing_or_of_a_wrong_type(path, name):
    whole = path.read_bytes()

    def without(content):
        return {**content, "header": {key: value for key, value in content["header"].items() if key != name}}

    rewrite(path, without)
    refused(path, f"field '{name}' is missing")
    for wrong in (
        {"a": 1},
        [None],
        [[1]],
        1.5 if name != "share" else "1.5",
        {"tensor": "nothing"},
        {"tensor": 1},
    ):
        path.write_bytes(whole)
        rewrite(path, with_field(**{name: wrong}))
        refused(path, f"field '{name}")


def test_a_field_that_is_not_known(path):
    rewrite(path, with_field(added=1))
    refused(path, "field 'added' is not known")


def test_tensors_that_differ_from_the_header(path):
    whole = path.read_bytes()
    for tensors, match in (
        (
            lambda found: {**found, "more": torch.ones(1)},
            "field 'more' is a tensor that the class does not have",
        ),
        (
            lambda found: {**found, "tensor": torch.ones(3, 2)},
            r"field 'tensor' is .*\[3, 2\].* header says .*\[2, 3\]",
        ),
        (lambda found: {**found, "tensor": found["tensor"].int()}, "field 'tensor' is .*int32.*float32"),
        (lambda found: {"tensor": found["tensor"]}, "field 'values' is missing: there is no tensor 'values'"),
    ):
        path.write_bytes(whole)
        rewrite(path, lambda content: content, tensors=tensors)
        refused(path, match)


def test_one_tensor_for_two_fields(path):
    rewrite(path, lambda content: with_field(maybe=content["header"]["values"])(content))
    refused(path, "field 'maybe' is")


def test_relations_of_shapes_and_finite_numbers_are_checked_on_loading(path):
    whole = path.read_bytes()
    rewrite(path, with_field(names=["one"]))
    refused(path, r"field 'names' should be of shape \(rows\), got \(1,\) where rows is 2")
    path.write_bytes(whole)
    rewrite(
        path,
        lambda content: content,
        tensors=lambda found: {**found, "parts.1.left": torch.full((2, 2), torch.inf)},
    )
    refused(path, r"field 'parts.left' is not finite in 4 of 4 numbers")


def test_a_changed_value_of_the_right_type_is_noticed(path):
    rewrite(path, with_field(seed=4), sign=False)
    refused(path, "its header has been changed")


def test_other_files_are_errors_that_say_so(path):
    whole = path.read_bytes()
    for content in (b"", b"something else", b"PK\x03\x04" + b"\0" * 50, whole[:-3], whole + b"more"):
        path.write_bytes(content)
        refused(path, "it cannot be read, for it is cut short, damaged or of another format: ")
    save_file({"a": torch.ones(2)}, path)
    refused(path, "toumei did not write this file")
    save_file({"a": torch.ones(2)}, path, {"toumei": "{}"})
    refused(path)


def test_no_file_and_what_is_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing"):
        Thing.load(tmp_path / "nothing")
    with pytest.raises(
        ArgumentError, match=rf"{tmp_path} cannot be read: it is a folder, and a file was expected"
    ):
        Thing.load(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ArgumentError, match="pipe cannot be read: it is a device or a pipe"):
        Thing.load(tmp_path / "pipe")


def test_a_file_cut_anywhere_is_refused(path):
    whole = path.read_bytes()
    for length in {*range(0, len(whole), 7), *range(20), *range(len(whole) - 20, len(whole))}:
        path.write_bytes(whole[:length])
        refused(path)


def test_a_flipped_byte_anywhere_in_the_header_is_refused(path):
    whole = path.read_bytes()
    (size,) = struct.unpack("<Q", whole[:8])
    text = whole[: 8 + size].rstrip(b" ")  # the rest fills up
    for place in range(len(text)):
        flip = (1, 4, 32, 128)[place % 4]
        path.write_bytes(whole[:place] + bytes([whole[place] ^ flip]) + whole[place + 1 :])
        refused(path)


def test_a_class_chooses_its_error(path):
    @dataclass(frozen=True, eq=False)
    class Other(Saved):
        tensor: Tensor

        _load_error = EditError

    refused(path, "it holds 'Thing'", Other, EditError)
    path.write_bytes(b"")
    refused(path, "it cannot be read", Other, EditError)


# ---------------------------------------------------------------- writing


def test_a_saved_file_has_the_permissions_of_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        thing().save(tmp_path / "x.safetensors")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x.safetensors").stat().st_mode) == 0o640


def test_a_file_that_cannot_be_written_is_an_os_error_that_names_it(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file/x\.safetensors"):
        thing().save(tmp_path / "file" / "x.safetensors")
