"""Loads adapters that this crate wrote, with every warning an error, and compares the logits.

    WRITTEN_ADAPTERS=target/written cargo test --test golden adapters_written_here
    python tests/golden/load_written.py target/written
"""

import pathlib
import sys
import warnings

sys.dont_write_bytecode = True

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file

from adapter_files import CASES, base, logits

CLOSE = 1e-5
# PEFT 0.21 warns of every file of AdaLoRA that was cut, its own too: it takes the entries of
# `rank_pattern` for LoRA's
ITS_OWN = {"adalora": "The following rank_pattern keys did not match any targeted module"}


def far(got, want):
    return ((got - want).abs() / want.abs().clamp(min=1.0)).max().item()


def state(model):
    """What PEFT would save."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it saves embeddings too
        return {key: tensor.clone() for key, tensor in get_peft_model_state_dict(model).items()}


def check(folder):
    name = folder.name.removesuffix("_baked").removesuffix("_filled")
    kind, _ = CASES[name]
    file = load_file(folder / "adapter_model.safetensors")
    want = load_file(folder / "logits.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # not of adapters: transformers speaks of itself
        warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
        if folder.name in ITS_OWN:
            warnings.filterwarnings("ignore", message=ITS_OWN[folder.name])
        model = PeftModel.from_pretrained(base(kind), folder).eval()
        held = state(model)
        found = {"adapted": logits(kind, model)}
        if "merged" in want:
            found["merged"] = logits(kind, model.merge_and_unload())
    # PEFT says nothing of a tensor that it has no place for: all of the file must be in the model
    for key, tensor in file.items():
        assert torch.equal(held[key], tensor), (folder.name, key)
    assert all(key.endswith("base_layer.weight") for key in held.keys() - file.keys()), folder.name
    assert found.keys() == want.keys(), folder.name
    distances = {key: far(found[key], want[key]) for key in want}
    print(f"{folder.name:24}" + "  ".join(f"{key} {far:.1e}" for key, far in distances.items()))
    assert max(distances.values()) < CLOSE, folder.name


if __name__ == "__main__":
    torch.manual_seed(0)
    folders = sorted(f for f in pathlib.Path(sys.argv[1]).iterdir() if f.is_dir())
    assert {f.name for f in folders} >= set(CASES), "adapters are missing"
    for folder in folders:
        check(folder)
    print(f"{len(folders)} adapters loaded without a warning, logits to {CLOSE}")
