"""Loads adapters that the trainer wrote onto the same decoder in torch, with every warning an
error, and compares the logits with those of the model that was trained.

    TRAINED_ADAPTERS=target/trained cargo test --test train every_method_learns
    python tests/golden/load_trained.py target/trained
"""

import json
import pathlib
import sys
import warnings

sys.dont_write_bytecode = True

import torch
from peft import PeftModel
from safetensors.torch import load_file

from load_written import CLOSE, ITS_OWN, far, state

# true of this decoder, whose maps have no bias: PEFT could not merge the bias of B into one
NO_BIAS = "`lora_bias=True` was passed but the targeted layer of type Linear has no bias"


class Attention(torch.nn.Module):
    def __init__(self, size):
        super().__init__()
        self.heads = size["heads"]
        self.qkv = torch.nn.Linear(size["dim"], 3 * size["dim"], bias=False)
        self.output = torch.nn.Linear(size["dim"], size["dim"], bias=False)

    def forward(self, x):
        batch, time, dim = x.shape
        q, k, v = self.qkv(x).view(batch, time, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.output(mixed.transpose(1, 2).reshape(batch, time, dim))


class FeedForward(torch.nn.Module):
    def __init__(self, size):
        super().__init__()
        self.up = torch.nn.Linear(size["dim"], size["feed_forward"], bias=False)
        self.down = torch.nn.Linear(size["feed_forward"], size["dim"], bias=False)

    def forward(self, x):
        return self.down(torch.nn.functional.silu(self.up(x)))


class Block(torch.nn.Module):
    def __init__(self, size):
        super().__init__()
        self.attention_norm = torch.nn.RMSNorm(size["dim"], eps=1e-6)
        self.attention = Attention(size)
        self.feed_forward_norm = torch.nn.RMSNorm(size["dim"], eps=1e-6)
        self.feed_forward = FeedForward(size)

    def forward(self, x):
        x = x + self.attention(self.attention_norm(x))
        return x + self.feed_forward(self.feed_forward_norm(x))


class Decoder(torch.nn.Module):
    """`examples/support/src/transformer.rs`."""

    def __init__(self, size):
        super().__init__()
        self.embedding = torch.nn.Embedding(size["vocabulary"], size["dim"])
        self.position = torch.nn.Embedding(size["max_len"], size["dim"])
        self.layers = torch.nn.ModuleList(Block(size) for _ in range(size["layers"]))
        self.norm = torch.nn.RMSNorm(size["dim"], eps=1e-6)
        self.head = torch.nn.Linear(size["dim"], size["vocabulary"], bias=False)

    def forward(self, tokens):
        x = self.embedding(tokens) + self.position(torch.arange(tokens.shape[1]))
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


def decoder(run):
    model = Decoder(json.loads((run / "model.json").read_text()))
    model.load_state_dict(load_file(run / "base.safetensors"))
    return model.eval()


def check(run):
    config = json.loads((run / "adapter" / "adapter_config.json").read_text())
    want = load_file(run / "logits.safetensors")
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        if config["peft_type"] == "ADALORA":
            warnings.filterwarnings("ignore", message=ITS_OWN["adalora"])
        if config.get("lora_bias"):
            warnings.filterwarnings("ignore", message=NO_BIAS)
        model = PeftModel.from_pretrained(decoder(run), run / "adapter").eval()
        held = state(model)
        found = model(want["tokens"].long())
    # PEFT says nothing of a tensor that it has no place for: all of the file must be in the model
    for key, tensor in load_file(run / "adapter" / "adapter_model.safetensors").items():
        assert torch.equal(held[key], tensor), (run.name, key)
    distance = far(found, want["logits"])
    print(f"{run.name:16}{distance:.1e}")
    # QLoRA's adapter belongs on a base in four bits, and this one is wide: it is loaded, no more
    assert run.name.endswith("qlora") or distance < CLOSE, run.name


if __name__ == "__main__":
    # prompts and prefixes need a model of transformers: `load_written.py` has one
    folders = sorted(run for run in pathlib.Path(sys.argv[1]).iterdir() if not run.name.endswith(("prompt", "prefix")))
    assert len(folders) == 7, "runs are missing"
    for run in folders:
        check(run)
    print(f"{len(folders)} trained adapters loaded without a warning, logits to {CLOSE} but QLoRA's")
