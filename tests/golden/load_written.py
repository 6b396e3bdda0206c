"""Loads adapters that this crate wrote, with every warning an error, and compares the logits.

    WRITTEN_ADAPTERS=target/written cargo test --test suite adapters_written_here
    python tests/golden/load_written.py target/written
"""

import contextlib
import pathlib
import re
import shutil
import sys
import tempfile
import warnings

sys.dont_write_bytecode = True

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from adapter_files import CASES, KINDS, TABLES, TIED, base, logits

CLOSE = 1e-5
# PEFT 0.21 warns of every file of AdaLoRA that was cut, its own too: it takes the entries of
# `rank_pattern` for LoRA's
ITS_OWN = {"adalora": "The following rank_pattern keys did not match any targeted module"}


# of an adapter on a tied table, and of a merge into it; the logits below say what it does
OF_TIED = ["Model has `tie_word_embeddings=True`", "Model with `tie_word_embeddings=True`", "Input and output embeddings"]


AUTO = {"gpt2": AutoModelForCausalLM, "classifier": AutoModelForSequenceClassification}
# what PEFT holds of a base model, and this crate writes only where it is not the base's: weights under
# an adapter on an embedding, and the other copies of the biases of a module trained whole
OF_THE_BASE = (".base_layer.weight", ".original_module.", ".modules_to_save.")


def loaded(kind, bases):
    """The base model as a user gets it: from a folder that transformers wrote."""
    return AUTO[kind].from_pretrained(bases / kind) if kind in AUTO else base(kind)


def far(got, want):
    return ((got - want).abs() / want.abs().clamp(min=1.0)).max().item()


def state(model):
    """What PEFT would save."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it saves embeddings too
        return {key: tensor.clone() for key, tensor in get_peft_model_state_dict(model).items()}


def check(folder, bases):
    name = folder.name.removesuffix("_baked").removesuffix("_filled").removesuffix("_ordered")
    kind, _ = CASES[name]
    file = load_file(folder / "adapter_model.safetensors")
    want = load_file(folder / "logits.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # not of adapters: transformers speaks of itself
        warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
        if folder.name in ITS_OWN:
            warnings.filterwarnings("ignore", message=ITS_OWN[folder.name])
        if name.startswith("gpt2_mixed"):
            warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")  # one word for two kinds
        for message in OF_TIED if name in TIED else []:
            warnings.filterwarnings("ignore", message=message)
        model = PeftModel.from_pretrained(loaded(kind, bases), folder).eval()
        held = state(model)
        if name in TABLES:
            held |= {key: tensor.clone() for key, tensor in model.state_dict().items() if key in file}
        found = {"adapted": logits(kind, model)}
        if name in TIED:
            del want["merged"]  # PEFT's merge into a tied table is another model
        if "merged" in want:
            found["merged"] = logits(kind, model.merge_and_unload())
    # PEFT says nothing of a tensor that it has no place for: all of the file must be in the model
    for key, tensor in file.items():
        assert torch.equal(held[key], tensor), (folder.name, key)
    more = held.keys() - file.keys()
    assert all(any(part in key for part in OF_THE_BASE) for key in more), (folder.name, more)
    assert found.keys() == want.keys(), folder.name
    distances = {key: far(found[key], want[key]) for key in want}
    print(f"{folder.name:32}" + "  ".join(f"{key} {far:.1e}" for key, far in distances.items()))
    assert max(distances.values()) < CLOSE, folder.name


def readme(folder, bases):
    """Runs the Python of the README as it stands there, with this adapter."""
    text = (pathlib.Path(__file__).parents[2] / "README.md").read_text()
    (lines,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    with tempfile.TemporaryDirectory() as at, contextlib.chdir(at):
        shutil.copytree(bases / "gpt2", "base")
        shutil.copytree(folder, "adapter")
        names = {}
        exec(lines, names)
    want = load_file(folder / "logits.safetensors")["merged"]
    distance = far(logits("gpt2", names["merged"].eval()), want)
    print(f"{'README':32}merged {distance:.1e}")
    assert distance < CLOSE, "README"


if __name__ == "__main__":
    torch.manual_seed(0)
    folders = sorted(f for f in pathlib.Path(sys.argv[1]).iterdir() if f.is_dir())
    assert {f.name for f in folders} >= set(CASES), "adapters are missing"
    with tempfile.TemporaryDirectory() as bases:
        bases = pathlib.Path(bases)
        for kind in AUTO:
            base(kind).save_pretrained(bases / kind)
        for folder in folders:
            check(folder, bases)
        readme(pathlib.Path(sys.argv[1]).resolve() / "gpt2_lora", bases)
    print(f"{len(folders)} adapters loaded without a warning, logits to {CLOSE}")
