"""Writes small dictionaries with SAELens itself, and what it computes with them, to `saelens_files.zip`.

Run it where SAELens is installed: ``python tests/transformers/features/saelens_files.py``.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import torch
from safetensors.torch import save_file

ARCHIVE = Path(__file__).with_suffix(".zip")
WIDTH, FEATURES, OUT, SCALING = 6, 10, 4, 0.7
READS, WRITES = "blocks.1.ln2.hook_normalized", "blocks.1.hook_mlp_out"
CASES = {  # kind of dictionary and settings
    "standard": ("Standard", {}),
    "layer_norm": ("Standard", {"normalize_activations": "layer_norm", "apply_b_dec_to_input": False}),
    "constant_norm": ("JumpReLU", {"normalize_activations": "constant_norm_rescale"}),
    "topk": ("TopK", {"k": 3}),
    "topk_with_norms": ("TopK", {"k": 3, "rescale_acts_by_decoder_norm": True}),
    "jumprelu": ("JumpReLU", {}),
    "batchtopk": ("BatchTopKTraining", {"k": 2.5}),
    "batchtopk_checkpoint": (
        "BatchTopKTraining",
        {"k": 2.5, "normalize_activations": "expected_average_only_in"},
    ),
    "transcoder": ("Transcoder", {}),
    "jumprelu_transcoder": ("JumpReLUTranscoder", {}),
}


def write_case(name: str, folder: Path) -> None:
    """Writes a dictionary, inputs, and the features and reconstructions of SAELens."""
    import sae_lens
    from sae_lens.saes.sae import SAEMetadata

    kind, settings = CASES[name]
    ending = "SAE" if "coder" not in kind else ""
    settings = {"d_in": WIDTH, "d_sae": FEATURES, "metadata": SAEMetadata(hook_name=READS), **settings}
    if not ending:
        settings |= {"d_out": OUT, "apply_b_dec_to_input": False}
        settings["metadata"].hook_name_out = WRITES
    config = getattr(sae_lens, f"{kind}{ending}Config")(**settings)
    found = getattr(sae_lens, f"{kind}{ending}")(config)
    draw = torch.Generator().manual_seed(sorted(CASES).index(name))
    with torch.no_grad():
        for part, weights in found.named_parameters():
            weights.copy_(torch.randn(weights.shape, generator=draw))
            if part == "threshold":
                weights.abs_()
        if kind == "BatchTopKTraining":
            found.topk_threshold.fill_(1.5)
        inputs = 2 * torch.randn(8, WIDTH, generator=draw) + 1
        if "checkpoint" in name:  # as its trainer writes it: before the number is folded into the weights
            found.save_model(folder)
            (folder / "activation_scaler.json").write_text(f'{{"scaling_factor": {SCALING}}}')
            found.fold_activation_norm_scaling_factor(SCALING)
        with TemporaryDirectory() as other:
            (found.save_inference_model if "Training" in kind else found.save_model)(other)
            loaded = sae_lens.SAE.load_from_disk(other)
            expected = {"inputs": inputs, "features": loaded.encode(inputs), "outputs": loaded(inputs)}
            if "checkpoint" not in name:
                for file in Path(other).iterdir():
                    (folder / file.name).write_bytes(file.read_bytes())
    save_file({key: one.contiguous() for key, one in expected.items()}, folder / "expected.safetensors")


def main() -> None:
    """Writes all cases to the archive, whose bytes depend on the version of SAELens only."""
    with TemporaryDirectory() as scratch, ZipFile(ARCHIVE, "w") as archive:
        for name in sorted(CASES):
            folder = Path(scratch) / name
            folder.mkdir()
            write_case(name, folder)
            for file in sorted(folder.iterdir()):
                entry = ZipInfo(f"{name}/{file.name}")
                entry.compress_type = ZIP_DEFLATED
                archive.writestr(entry, file.read_bytes())


if __name__ == "__main__":
    main()
