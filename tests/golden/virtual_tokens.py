"""Prompt tuning and prefix tuning on the tiny checkpoints, as PEFT computes and saves them.

    python virtual_tokens.py         (writes ./virtual_tokens/<checkpoint>.<kind>/; run checkpoints.py first)

Each folder is what `save_pretrained` wrote, and beside it `expected.safetensors`:

| tensor | what |
|---|---|
| `tokens`, `mask` | the rows of the checkpoint, padded on the right |
| `logits` | logits of the rows' own positions; rows of padding are zero |
| `loss` | mean cross-entropy of all next tokens |
| `gradient` | the gradient of `loss` with respect to the saved vectors |
| `greedy` | 12 greedy tokens after each row, each from a whole pass over the row alone, without a cache |

peft 0.21.2, transformers 5.23.0, torch 2.15.0.
"""

import pathlib
import shutil

import peft
import torch
import transformers
from peft import PrefixTuningConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

HERE = pathlib.Path(__file__).parent
OUT = HERE / "virtual_tokens"
NAMES = ["llama", "mistral", "gemma2"]
VIRTUAL = 3
NEW = 12


def adapted(name, kind, generator):
    base = AutoModelForCausalLM.from_pretrained(
        HERE / "checkpoints" / name, dtype=torch.float32, attn_implementation="eager"
    )
    base.name_or_path = base.config._name_or_path = f"checkpoints/{name}"
    if kind == "prompt":
        config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=VIRTUAL)
    else:
        # PEFT divides the hidden size by the heads, which is not the width of a head everywhere
        heads = base.config.num_key_value_heads
        config = PrefixTuningConfig(
            task_type="CAUSAL_LM",
            num_virtual_tokens=VIRTUAL,
            num_attention_heads=heads,
            token_dim=heads * base.config.head_dim,
        )
    model = get_peft_model(base, config).eval()
    weight = model.prompt_encoder["default"].embedding.weight
    weight.data.copy_(0.7 * torch.randn(weight.shape, generator=generator))
    return model, weight


def logits(model, kind, tokens, mask):
    out = model(input_ids=tokens, attention_mask=mask).logits.float()
    return out[:, VIRTUAL:] if kind == "prompt" else out


def golden(name, kind):
    generator = torch.Generator().manual_seed(sum(map(ord, name + kind)))
    model, weight = adapted(name, kind, generator)
    given = load_file(HERE / "checkpoints" / name / "expected.safetensors")
    tokens, mask = given["tokens"], given["mask"]
    out = logits(model, kind, tokens, mask) * mask[..., None]
    labels = tokens.masked_fill(mask == 0, -100)
    loss = torch.nn.functional.cross_entropy(out[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    loss.backward()
    greedy = []
    with torch.no_grad():
        for row, length in zip(tokens, mask.sum(-1).tolist()):
            row = row[:length].tolist()
            for _ in range(NEW):
                one = torch.tensor([row])
                row.append(logits(model, kind, one, torch.ones_like(one))[0, -1].argmax().item())
            greedy.append(row[length:])
    folder = OUT / f"{name}.{kind}"
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    expected = {
        "tokens": tokens,
        "mask": mask,
        "logits": out.detach(),
        "loss": loss.detach(),
        "gradient": weight.grad,
        "greedy": torch.tensor(greedy),
    }
    expected = {key: value.contiguous() for key, value in expected.items()}
    words = {"peft": peft.__version__, "transformers": transformers.__version__}
    save_file(expected, folder / "expected.safetensors", words)
    print(f"{name}.{kind}: loss {loss.item():.6f}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in NAMES:
        for kind in ["prompt", "prefix"]:
            golden(name, kind)
