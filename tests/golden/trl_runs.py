"""Training runs of TRL's own trainers on a tiny checkpoint, step by step.

    python trl_runs.py            (writes ./trl/)

| file | what |
|---|---|
| `trl/model/`, `trl/reward/` | a llama checkpoint and the same with a reward head; weights by a formula |
| `trl/model_trap/`, `trl/reward_trap/` | the same, tied, with the end token as the padding token |
| `trl/adapter/`, `trl/reward_adapter/` | the LoRA adapter at the start of every adapter run |
| `trl/rows.jsonl` | prompt, chosen, rejected |
| `trl/runs.json` | every run: its trainer, its settings, and the log of each optimizer step |
| `trl/<run>.safetensors` | the trained tensors at the end |

Everything is float32 on the CPU without dropout.
"""

import json
import os
import pathlib
import shutil
import sys
import tempfile

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
sys.dont_write_bytecode = True

import torch
import transformers
import trl
from datasets import Dataset
from peft import LoraConfig
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, LlamaConfig
from transformers import PreTrainedTokenizerFast, TrainerCallback
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer

HERE = pathlib.Path(__file__).parent / "trl"
STEPS = 30
SIZES = dict(
    vocab_size=32,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    rms_norm_eps=1e-5,
    bos_token_id=1,
    eos_token_id=2,
)
MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
COMMON = dict(
    bf16=False,
    fp16=False,
    use_cpu=True,
    gradient_checkpointing=False,
    per_device_train_batch_size=2,
    gradient_accumulation_steps=2,
    max_steps=STEPS,
    learning_rate=1e-2,
    lr_scheduler_type="linear",
    warmup_steps=0,
    weight_decay=0.1,
    max_grad_norm=1.0,
    optim="adamw_torch",
    logging_steps=1,
    seed=42,
    train_sampling_strategy="sequential",
    max_length=64,
    report_to="none",
    save_strategy="no",
    disable_tqdm=True,
)
OTHER = dict(
    train_sampling_strategy="random",
    lr_scheduler_type="cosine",
    warmup_steps=4,
    max_grad_norm=0.3,
    per_device_train_batch_size=3,
    gradient_accumulation_steps=3,
    learning_rate=3e-3,
)

# name: (trainer, adapter or not, settings beyond COMMON, checkpoint, prompts with an end token in the middle)
RUNS = {
    "sft": ("sft", False, {}, "model", False),
    "sft_lora": ("sft", True, {}, "model", False),
    "sft_other": ("sft", False, dict(OTHER, max_length=6), "model", False),
    "sft_trap": ("sft", False, {}, "model_trap", True),
    "reward": ("reward", False, dict(center_rewards_coefficient=0.01), "reward", False),
    "reward_lora": ("reward", True, dict(center_rewards_coefficient=0.01), "reward", False),
    "reward_other": ("reward", False, OTHER, "reward", False),
    "reward_trap": ("reward", False, dict(center_rewards_coefficient=0.01), "reward_trap", False),
    "dpo": ("dpo", False, dict(beta=0.1), "model", False),
    "dpo_lora": ("dpo", True, dict(beta=0.1), "model", False),
    "dpo_other": ("dpo", True, dict(OTHER, beta=0.5, max_length=7), "model", False),
    "dpo_sft": ("dpo", False, dict(beta=0.1, loss_type=["sigmoid", "sft"], loss_weights=[1.0, 0.5]), "model", False),
    "dpo_sft_lora": (
        "dpo",
        True,
        dict(beta=0.1, loss_type=["sigmoid", "sft"], loss_weights=[1.0, 0.5]),
        "model",
        False,
    ),
}
TRAINERS = {"sft": (SFTTrainer, SFTConfig), "reward": (RewardTrainer, RewardConfig), "dpo": (DPOTrainer, DPOConfig)}


def formula(k, shape):
    i = torch.arange(torch.Size(shape).numel(), dtype=torch.int64)
    x = ((31 * i * i + 7919 * i + 104729 * k + 12345) % 1009).double() / 1009 - 0.5
    return x.reshape(shape)


def fill(model):
    for k, (name, weight) in enumerate(sorted(model.named_parameters())):
        x = formula(k, weight.shape)
        norm = name.endswith(("norm.weight", "layernorm.weight"))
        weight.data.copy_(1 + 0.2 * x if norm else 0.4 * x)


def tokenizer(pad):
    words = {"<pad>": 0, "<s>": 1, "</s>": 2} | {f"t{i}": i for i in range(3, 32)}
    inner = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token=pad, unk_token="<pad>"
    )


def checkpoints():
    for trap in (False, True):
        suffix = "_trap" if trap else ""
        config = LlamaConfig(**SIZES, pad_token_id=2 if trap else 0, tie_word_embeddings=trap)
        words = tokenizer("</s>" if trap else "<pad>")
        for folder, kind, extra in [
            ("model", AutoModelForCausalLM, {}),
            ("reward", AutoModelForSequenceClassification, {"num_labels": 1}),
        ]:
            for key, value in extra.items():
                setattr(config, key, value)
            model = kind.from_config(config)
            fill(model)
            model.save_pretrained(HERE / (folder + suffix))
            words.save_pretrained(HERE / (folder + suffix))


def rows(interrupted):
    def words(a, r, n):
        return [f"t{3 + (7 * a + 5 * j + 3 * j * j + 11 * r) % 29}" for j in range(n)]

    out = []
    for r in range(12):
        prompt = words(1, r, 3 + r % 4)
        if interrupted:
            prompt.insert(1, "</s>")
        chosen, rejected = words(2, r, 2 + 3 * r % 5), words(3, r, 2 + 5 * r % 4)
        out.append(
            {"prompt": " ".join(prompt), "chosen": " " + " ".join(chosen), "rejected": " " + " ".join(rejected)}
        )
    return out


class Log(TrainerCallback):
    def __init__(self):
        self.steps = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in logs:
            self.steps.append({"step": state.global_step} | logs)


def run(name, trainer, adapted, settings, checkpoint, interrupted, data=None, words=None):
    """`data` and `words` are rows and a tokenizer in place of the usual ones."""
    data = data or rows(interrupted)
    if trainer == "sft":
        data = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in data]
    kind = AutoModelForSequenceClassification if trainer == "reward" else AutoModelForCausalLM
    extra = {"num_labels": 1} if trainer == "reward" else {}
    model = kind.from_pretrained(HERE / checkpoint, dtype=torch.float32, **extra)
    lora = None
    if adapted:
        task = "SEQ_CLS" if trainer == "reward" else "CAUSAL_LM"
        lora = LoraConfig(r=2, lora_alpha=8, lora_dropout=0.0, bias="none", target_modules=MODULES, task_type=task)
    make, config = TRAINERS[trainer]
    log = Log()
    fitted = make(
        model=model,
        args=config(output_dir=tempfile.mkdtemp(), **(COMMON | settings)),
        train_dataset=Dataset.from_list(data),
        processing_class=words or tokenizer("</s>" if "trap" in checkpoint else "<pad>"),
        peft_config=lora,
        callbacks=[log],
    )
    if adapted:
        fill_adapter(fitted.model)
        start = HERE / ("reward_adapter" if trainer == "reward" else "adapter")
        if not start.exists():
            fitted.model.save_pretrained(start)
            (start / "README.md").unlink()
            settings_file = start / "adapter_config.json"
            saved = json.loads(settings_file.read_text()) | {"base_model_name_or_path": checkpoint}
            settings_file.write_text(json.dumps(saved, indent=2) + "\n")
    fitted.train()
    final = {n: p.detach().clone().contiguous() for n, p in fitted.model.named_parameters() if p.requires_grad}
    save_file(final, HERE / f"{name}.safetensors")
    norm = sum((p.double() ** 2).sum() for p in final.values()).sqrt().item()
    print(f"{name}: {[round(s['loss'], 6) for s in log.steps[:3]]} {[round(s['grad_norm'], 6) for s in log.steps[:3]]}")
    skipped = {"epoch", "mean_token_accuracy"}
    steps = [{k: v for k, v in step.items() if k not in skipped} for step in log.steps]
    return {
        "name": name,
        "trainer": trainer,
        "adapter": adapted,
        "checkpoint": checkpoint,
        "interrupted_prompts": interrupted,
        "settings": {k: v for k, v in (COMMON | settings).items() if k not in IDLE},
        "final_norm": norm,
        "steps": steps,
    }


IDLE = ("report_to", "save_strategy", "disable_tqdm", "use_cpu", "gradient_checkpointing", "bf16", "fp16", "optim")


def fill_adapter(model):
    names = sorted(n for n, p in model.named_parameters() if "lora_" in n)
    index = {n: k for k, n in enumerate(n for n in names if "lora_A" in n)}
    for name, weight in model.named_parameters():
        if "lora_A" in name:
            weight.data.copy_(0.4 * formula(index[name] + 50, weight.shape))
        if "lora_B" in name:
            weight.data.zero_()


if __name__ == "__main__":
    torch.set_num_threads(1)
    shutil.rmtree(HERE, ignore_errors=True)
    checkpoints()
    (HERE / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(False)))
    done = [run(name, *case) for name, case in RUNS.items()]
    versions = {"trl": trl.__version__, "transformers": transformers.__version__, "torch": torch.__version__}
    runs = ",\n".join(json.dumps(one) for one in done)
    (HERE / "runs.json").write_text('{"versions": %s, "runs": [\n%s\n]}\n' % (json.dumps(versions), runs))
    size = sum(f.stat().st_size for f in HERE.rglob("*") if f.is_file())
    print(f"{size / 1000:.0f} kB")
