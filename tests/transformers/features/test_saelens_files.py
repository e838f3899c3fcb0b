"""Files that SAELens 6.54.12 wrote give the features that it computed, and the other way round."""

import json
from itertools import product
from zipfile import ZipFile

import pytest
import torch
from saelens_files import ARCHIVE, CASES, FEATURES, OUT, READS, WIDTH, WRITES
from safetensors.torch import load_file, save_file

from toumei.core.errors import ArgumentError
from toumei.transformers.features import SparseAutoencoder, load_saelens, save_saelens
from toumei.transformers.features.dictionary import ACTIVATIONS, NORMALIZATIONS


@pytest.fixture
def unpacked(tmp_path):
    """From the name of a case to its folder."""

    def unpack(name):
        with ZipFile(ARCHIVE) as archive:
            archive.extractall(tmp_path, [one for one in archive.namelist() if one.startswith(f"{name}/")])
        return tmp_path / name

    return unpack


@pytest.mark.parametrize("case", CASES)
def test_features_are_those_that_saelens_computed(case, unpacked):
    folder = unpacked(case)
    expected, found = load_file(folder / "expected.safetensors"), load_saelens(folder)
    x = expected["inputs"]
    assert 0 < int((expected["features"] > 0).sum()) < expected["features"].numel() and found.reads == READS
    torch.testing.assert_close(found.encode(x), expected["features"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found(x), expected["outputs"], rtol=1e-5, atol=1e-5)
    assert (found.writes == WRITES) == ("transcoder" in case)


def test_checkpoints_say_which_number_they_lack(unpacked):
    folder = unpacked("batchtopk_checkpoint")
    scaling = folder / "activation_scaler.json"
    for wrong in ("-1", '"0.7"', "NaN", "[", "null}]"):
        scaling.write_text(f'{{"scaling_factor": {wrong}}}')
        with pytest.raises(ArgumentError, match=r"activation_scaler.json"):
            load_saelens(folder)
    scaling.write_text('{"scaling_factor": null}')
    folded = load_saelens(folder)
    path = folder / "sae_weights.safetensors"
    whole = path.read_bytes()
    save_file({**load_file(path), "topk_threshold": torch.ones(3)}, path)
    with pytest.raises(ArgumentError, match=r"topk_threshold is \(3,\)"):
        load_saelens(folder)
    path.write_bytes(whole)
    scaling.unlink()
    with pytest.warns(UserWarning, match=r"scaled to a norm of sqrt\(width\) .* no activation_scaler.json"):
        found = load_saelens(folder)
    assert torch.equal(found.W_enc, folded.W_enc)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("activation", "normalization"), [*product(ACTIVATIONS, NORMALIZATIONS), ("transcoder", "none")]
)
def test_saelens_computes_the_same_with_what_is_saved(activation, normalization, tmp_path):
    sae_lens = pytest.importorskip("sae_lens")
    transcoder = activation == "transcoder"
    draw = torch.Generator().manual_seed(0)
    out = OUT if transcoder else WIDTH
    given = SparseAutoencoder(
        W_enc=torch.randn(WIDTH, FEATURES, generator=draw),
        b_enc=torch.randn(FEATURES, generator=draw),
        W_dec=torch.randn(FEATURES, out, generator=draw),
        b_dec=torch.randn(out, generator=draw),
        thresholds=torch.rand(FEATURES, generator=draw),
        activation="jump_relu" if transcoder else activation,
        k=3 if "topk" in activation else 0,
        subtract_bias=not transcoder,
        normalization=normalization,
        reads=READS,
        writes=WRITES if transcoder else READS,
    )
    save_saelens(given, tmp_path)
    found, x = sae_lens.SAE.load_from_disk(tmp_path), 2 * torch.randn(8, WIDTH, generator=draw) + 1
    assert found.cfg.metadata.hook_name == READS and json.loads((tmp_path / "cfg.json").read_text())
    torch.testing.assert_close(found.encode(x), given.encode(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found(x), given(x), rtol=1e-5, atol=1e-5)
