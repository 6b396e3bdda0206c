"""Loads models and adapters of decoders that this crate wrote, with every warning an error, and compares the
logits or the scores.

    WRITTEN_MODELS=target/models cargo test --test suite models_written_here
    python tests/golden/load_models.py target/models
"""

import pathlib
import sys
import warnings

sys.dont_write_bytecode = True

import torch
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

CLOSE = 1e-5
HERE = pathlib.Path(__file__).parent / "checkpoints"


def loaded(folder):
    """A model of a folder; nothing in it may be missing, unexpected or of another shape."""
    classifies = any("Classification" in name for name in AutoConfig.from_pretrained(folder).architectures)
    auto = AutoModelForSequenceClassification if classifies else AutoModelForCausalLM
    model, report = auto.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not any(report.values()), (folder.name, report)
    return model.eval()


def full(folder):
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}, folder.name
    model = loaded(folder)
    tied = model.config.tie_word_embeddings and hasattr(model, "lm_head")
    assert not tied or model.lm_head.weight is model.model.embed_tokens.weight, folder.name
    return model


def model_of(folder):
    name, kind = folder.name.split(".")
    if kind in ("adapter", "prompt", "prefix"):
        return PeftModel.from_pretrained(loaded(HERE / name), folder).eval()
    if kind == "classifier_adapter":
        return PeftModel.from_pretrained(full(folder.with_name(f"{name}.classifier")), folder).eval()
    return full(folder)


def check(folder):
    want = load_file(folder / "outputs.safetensors")
    tokens, mask = want["tokens"], want["mask"]
    with torch.no_grad():
        found = model_of(folder)(input_ids=tokens, attention_mask=mask, use_cache=False).logits
    if found.dim() == 3:
        # virtual tokens have logits too
        found = found[:, -tokens.shape[1] :]
        found = found * mask[..., None]
        want["outputs"] = want["outputs"] * mask[..., None]
    distance = ((found - want["outputs"]).abs().max() / want["outputs"].abs().max()).item()
    print(f"{folder.name:32}{distance:.1e}")
    assert distance < CLOSE, folder.name


if __name__ == "__main__":
    warnings.simplefilter("error")
    # not of these models: transformers speaks of itself
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    folders = sorted(f for f in pathlib.Path(sys.argv[1]).iterdir() if f.is_dir())
    assert len(folders) == 62, "models are missing"
    for folder in folders:
        check(folder)
    print(f"{len(folders)} models and adapters loaded without a warning, logits to {CLOSE}")
