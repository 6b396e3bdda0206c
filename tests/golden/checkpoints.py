"""Tiny random checkpoints of each family, as Transformers saves them, and what Transformers computes from
them: logits at every position, gradients of every weight, and greedy continuations.

    python checkpoints.py            (writes ./checkpoints/<name>/)

Each folder is what `save_pretrained` wrote, and beside it `expected.safetensors`:

| tensor | what |
|---|---|
| `tokens`, `mask` | three rows of different length, padded on the right |
| `logits.right`, `logits.left` | logits of the batch padded on that side; rows of padding are zero |
| `loss` | mean cross-entropy of all next tokens |
| `gradient.<name>` | the gradient of `loss` |
| `greedy` | 32 greedy tokens after each row, generated in one batch padded on the left; no end token |
"""

import pathlib
import shutil

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, CONFIG_MAPPING

HERE = pathlib.Path(__file__).parent / "checkpoints"
LENGTHS = [5, 11, 8]
VOCABULARY = 40
NEW = 32

SIZES = dict(
    vocab_size=VOCABULARY,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
    rms_norm_eps=1e-5,
    attn_implementation="eager",
)

LLAMA3 = dict(rope_type="llama3", rope_theta=1e4, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0)
LLAMA3["original_max_position_embeddings"] = 16
YARN = dict(rope_type="yarn", rope_theta=1e4, factor=4.0, original_max_position_embeddings=16)
LONG = dict(rope_type="longrope", rope_theta=1e4, short_factor=[1.0, 1.1], long_factor=[1.5, 2.0])

# name: (model type, what differs from SIZES, stored type, largest shard)
CASES = {
    "llama": ("llama", {}, torch.float32, None),
    "llama_tied": ("llama", dict(tie_word_embeddings=True, rope_parameters=LLAMA3), torch.float32, "8KB"),
    "llama_biased": (
        "llama",
        dict(attention_bias=True, mlp_bias=True, rope_parameters=dict(rope_type="linear", rope_theta=1e4, factor=4.0)),
        torch.bfloat16,
        None,
    ),
    "llama_yarn": ("llama", dict(rope_parameters=YARN, num_key_value_heads=4), torch.float16, None),
    "llama_dynamic": (
        "llama",
        dict(rope_parameters=dict(rope_type="dynamic", rope_theta=1e4, factor=2.0), num_key_value_heads=1),
        torch.float32,
        None,
    ),
    "mistral": ("mistral", dict(sliding_window=4, head_dim=6), torch.float32, None),
    "qwen2": (
        "qwen2",
        dict(use_sliding_window=True, sliding_window=5, max_window_layers=1, tie_word_embeddings=True),
        torch.float32,
        None,
    ),
    "qwen3": ("qwen3", dict(head_dim=8, attention_bias=False), torch.bfloat16, None),
    "gemma2": (
        "gemma2",
        dict(head_dim=8, sliding_window=4, query_pre_attn_scalar=16, tie_word_embeddings=True),
        torch.float32,
        None,
    ),
    "gemma3": (
        "gemma3_text",
        dict(head_dim=8, sliding_window=4, query_pre_attn_scalar=16, tie_word_embeddings=True, num_hidden_layers=3,
             layer_types=["sliding_attention", "full_attention", "sliding_attention"]),
        torch.float32,
        None,
    ),
    "phi3": ("phi3", dict(sliding_window=6), torch.float32, None),
}
ONE_BASED = ("gemma2", "gemma3_text")  # their norms multiply by 1 + w


def draw(model, kind, generator):
    """Weights large enough that every part of the model shows in the logits."""
    for name, weight in model.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        if "norm" in name:
            value = 0.2 * noise + (0.0 if kind in ONE_BASED else 1.0)
        else:
            value = noise * (0.5 if "embed" in name else 0.3)
        weight.data.copy_(value)


def padded(rows, left):
    width = max(map(len, rows))
    fill = [[0] * (width - len(row)) for row in rows]
    tokens = [f + row if left else row + f for f, row in zip(fill, rows)]
    mask = [[0] * len(f) + [1] * len(row) if left else [1] * len(row) + [0] * len(f) for f, row in zip(fill, rows)]
    return torch.tensor(tokens), torch.tensor(mask)


def logits(model, tokens, mask):
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    out = model(input_ids=tokens, attention_mask=mask, position_ids=positions, use_cache=False).logits.float()
    return out * mask[..., None]


def checkpoint(name, kind, differences, dtype, shard):
    generator = torch.Generator().manual_seed(sum(map(ord, name)))
    config = CONFIG_MAPPING[kind](**{**SIZES, **differences})
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    draw(model, kind, generator)
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    extra = {} if shard is None else {"max_shard_size": shard}
    model.to(dtype).save_pretrained(folder, **extra)

    # what is computed, is computed in float32 from the file
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    rows = [torch.randint(3, VOCABULARY, (n,), generator=generator).tolist() for n in LENGTHS]
    tokens, mask = padded(rows, left=False)
    expected = {"tokens": tokens, "mask": mask}
    right = logits(model, tokens, mask)
    expected["logits.right"] = right.detach()
    expected["logits.left"] = logits(model, *padded(rows, left=True)).detach()
    labels = tokens.masked_fill(mask == 0, -100)
    loss = torch.nn.functional.cross_entropy(right[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    loss.backward()
    expected["loss"] = loss.detach()
    for weight, value in model.named_parameters():
        expected[f"gradient.{weight}"] = value.grad.float()

    left, left_mask = padded(rows, left=True)
    out = model.generate(
        left, attention_mask=left_mask, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False, eos_token_id=None,
        output_logits=True, return_dict_in_generate=True,
    )  # fmt: skip
    expected["greedy"] = out.sequences[:, left.shape[1] :]
    best = torch.stack(out.logits).float().topk(2, -1).values
    gap = (best[..., 0] - best[..., 1]).min().item()
    expected["greedy_gap"] = torch.tensor(gap)
    expected = {key: value.contiguous() for key, value in expected.items()}
    save_file(expected, folder / "expected.safetensors", {"transformers": transformers.__version__})
    print(f"{name}: loss {loss.item():.6f}, smallest gap {gap:.2e}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name, case in CASES.items():
        checkpoint(name, *case)
    size = sum(f.stat().st_size for f in HERE.rglob("*") if f.is_file())
    print(f"{size / 1000:.0f} kB")
