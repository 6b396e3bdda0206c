"""Training runs of TRL's GRPO and RLOO trainers on the checkpoint of `trl_runs.py`, with the answers given.

    python trl_online_runs.py      (after trl_runs.py; writes into ./trl/)

| file | what |
|---|---|
| `trl/prompts.jsonl` | prompt |
| `trl/completions.jsonl` | the answers to the prompts of every round, in order; not all have an end |
| `trl/online.json` | every run: its trainer, its settings, and the log of each optimizer step |
| `trl/online_<run>.safetensors` | the trained tensors at the end of the runs in KEPT |

The trainers' own generation is replaced by one that returns the answers of the file; rewards, advantages, losses and
updates are TRL's. TRL distributes the answers of a step over its micro-batches by chance, which no loss below notices.
"""

import json
import tempfile

import torch
import transformers
import trl
import trl_runs as base
from datasets import Dataset
from peft import LoraConfig
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

STEPS = 10
ANSWERS = 4
END = 2
TARGET = 4
COMMON = {k: v for k, v in base.COMMON.items() if k not in ("max_length", "train_sampling_strategy")} | dict(
    per_device_train_batch_size=4,
    gradient_accumulation_steps=2,
    max_steps=STEPS,
    num_generations=ANSWERS,
    max_completion_length=8,
    shuffle_dataset=False,
    reward_weights=[1.0, 0.5],
    beta=0.0,
)
# one micro-batch, for what depends on how answers are distributed over them
ONE = dict(per_device_train_batch_size=8, gradient_accumulation_steps=1)
TWICE = dict(num_iterations=2, lr_scheduler_type="constant", max_grad_norm=0.0, learning_rate=3e-2)

# name: (trainer, adapter or not, settings beyond COMMON)
RUNS = {
    "grpo": ("grpo", False, {}),
    "grpo_kl": ("grpo", True, dict(TWICE, loss_type="grpo", beta=0.2, epsilon=0.1, epsilon_high=0.15)),
    "gspo": (
        "grpo",
        True,
        dict(TWICE, importance_sampling_level="sequence", loss_type="grpo", epsilon=0.02, scale_rewards="batch"),
    ),
    "rloo": ("rloo", False, dict(beta=0.05)),
    "rloo_other": ("rloo", True, dict(TWICE, beta=0.1, normalize_advantages=True)),
    # with their logs alone
    "dr_grpo": ("grpo", True, dict(TWICE, loss_type="dr_grpo", scale_rewards="none", delta=1.3)),
    "biased_kl": ("grpo", True, dict(TWICE, use_bias_correction_kl=False, beta=0.2)),
    "masked": ("grpo", True, dict(loss_type="dapo", mask_truncated_completions=True)),
    "masked_means": ("grpo", True, dict(loss_type="grpo", mask_truncated_completions=True)),
    "gdpo": ("grpo", True, dict(multi_objective_aggregation="normalize_then_sum")),
    "luspo": ("grpo", True, dict(TWICE, loss_type="luspo", importance_sampling_level="sequence")),
    "cispo": ("grpo", True, dict(TWICE, loss_type="cispo", epsilon_high=1.2)),
    "sapo": ("grpo", True, dict(TWICE, loss_type="sapo")),
    "vespo": ("grpo", True, dict(TWICE, loss_type="vespo")),
    "bnpo": ("grpo", True, dict(TWICE | ONE, loss_type="bnpo", epsilon=0.05)),
    "high_entropy": ("grpo", True, dict(ONE, top_entropy_quantile=0.4, beta=0.1)),
    "entropy": ("grpo", True, dict(TWICE | ONE, entropy_coef=0.05)),
    "high_entropy_bonus": ("grpo", True, dict(ONE, top_entropy_quantile=0.4, entropy_coef=0.05)),
    "off_policy": ("grpo", True, dict(TWICE, off_policy_mask_threshold=0.002)),
}
KEPT = list(RUNS)[:5]
LOGGED = (
    "loss",
    "grad_norm",
    "learning_rate",
    "reward",
    "reward_std",
    "frac_reward_zero_std",
    "kl",
    "completions/mean_length",
    "completions/clipped_ratio",
)


def prompts():
    return [{"prompt": row["prompt"]} for row in base.rows(False)]


def completions():
    """For each prompt of each round its answers: 1 to 8 tokens, without an end where they have 8."""
    out = []
    for line in range(2 * STEPS):
        group = []
        for answer in range(ANSWERS):
            n = 1 + (3 * line + 2 * answer + line * answer) % 8
            ids = [3 + (5 * j + 3 * j * j + 11 * line + 7 * answer * (j + 1)) % 29 for j in range(n)]
            group.append(ids if n == 8 else [*ids, END])
        out.append(group)
    return out


def length(completion_ids, **_):
    said = [len(ids) - (ids[-1] == END) for ids in completion_ids]
    return [1.0 - abs(n - TARGET) / TARGET for n in said]


def contains(completions, **_):
    return [float("t7" in text) for text in completions]


def run(name, trainer, adapted, settings):
    make, config = {"grpo": (GRPOTrainer, GRPOConfig), "rloo": (RLOOTrainer, RLOOConfig)}[trainer]

    class Given(make):
        asked = 0

        def _generate_single_turn(self, prompt_ids, *_, **__):
            groups = len(prompt_ids) // ANSWERS
            given = completions()[self.asked : self.asked + groups]
            self.asked += groups
            ids = [ids for group in given for ids in group]
            # beside log-probabilities, which GRPO takes from vLLM
            return (ids, None) if trainer == "grpo" else ids

    model = AutoModelForCausalLM.from_pretrained(base.HERE / "model", dtype=torch.float32)
    lora = None
    if adapted:
        lora = LoraConfig(
            r=2, lora_alpha=8, lora_dropout=0.0, bias="none", target_modules=base.MODULES, task_type="CAUSAL_LM"
        )
    log = base.Log()
    fitted = Given(
        model=model,
        args=config(output_dir=tempfile.mkdtemp(), **(COMMON | settings)),
        reward_funcs=[length, contains],
        train_dataset=Dataset.from_list(prompts()),
        processing_class=base.tokenizer("<pad>"),
        peft_config=lora,
        callbacks=[log],
    )
    if adapted:
        base.fill_adapter(fitted.model)
    fitted.train()
    final = {n: p.detach().clone().contiguous() for n, p in fitted.model.named_parameters() if p.requires_grad}
    if name in KEPT:
        save_file(final, base.HERE / f"online_{name}.safetensors")
    norm = sum((p.double() ** 2).sum() for p in final.values()).sqrt().item()
    shown = [(round(s["loss"], 6), round(s["grad_norm"], 6), s.get("clip_ratio/region_mean")) for s in log.steps[:4]]
    print(f"{name}: {shown}", flush=True)
    logged = lambda key: key in LOGGED or key.startswith("rewards/")
    return {
        "name": name,
        "trainer": trainer,
        "adapter": adapted,
        "settings": {k: v for k, v in (COMMON | settings).items() if k not in base.IDLE},
        "final_norm": norm,
        "steps": [{k: float(f"{v:.7g}") for k, v in step.items() if logged(k)} for step in log.steps],
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    lines = lambda rows: "".join(json.dumps(row) + "\n" for row in rows)
    (base.HERE / "prompts.jsonl").write_text(lines(prompts()))
    (base.HERE / "completions.jsonl").write_text(lines({"completions": group} for group in completions()))
    done = [run(name, *case) for name, case in RUNS.items()]
    versions = {"trl": trl.__version__, "transformers": transformers.__version__, "torch": torch.__version__}
    runs = ",\n".join(json.dumps(one) for one in done)
    text = '{"script": "trl_online_runs.py", "versions": %s, "runs": [\n%s\n]}\n' % (json.dumps(versions), runs)
    (base.HERE / "online.json").write_text(text)
