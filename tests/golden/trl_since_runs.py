"""Training runs of TRL's own trainers for objectives since the survey, on the checkpoint of `trl_runs.py`.

    python trl_since_runs.py      (after trl_runs.py; writes into ./trl/)

| file | what |
|---|---|
| `trl/labeled.jsonl` | prompt, completion, label |
| `trl/triples.jsonl` | prompt, chosen, rejected, reference |
| `trl/since.json` | every run: its trainer, its settings, and the log of each optimizer step |
| `trl/since_<run>.safetensors` | the trained tensors at the end of the runs in KEPT |

The tokenizer of CPO and ORPO has no token for the beginning: these two trainers put it before every prompt, and
the others do not. Rows, settings and weights are otherwise those of `trl_runs.py`.

GKD runs with `lmbda=0`, so on the answers of the rows. Its own collator needs a chat template; the one here gives
the tokens and labels that the supervised trainer has. The teacher is `trl/model_trap`. The trainer's `temperature`
is that of drawn answers alone.
"""

import json

import torch
import transformers
import trl
import trl_runs as base
from datasets import Dataset
from trl import KTOConfig, KTOTrainer
from transformers import AutoModelForCausalLM
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.gkd import GKDConfig, GKDTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer
from trl.experimental.tpo import TPOConfig, TPOTrainer


def answers(rows):
    """Prompt, answer and end token; the labels cover the last two."""
    words, out = base.tokenizer("<pad>"), {"input_ids": [], "labels": [], "attention_mask": []}
    texts = [[words(row[key])["input_ids"] for key in ("prompt", "completion")] for row in rows]
    longest = max(len(prompt) + len(answer) for prompt, answer in texts) + 1
    for prompt, answer in texts:
        answer = answer + [words.eos_token_id]
        empty = longest - len(prompt) - len(answer)
        out["input_ids"].append(prompt + answer + [words.pad_token_id] * empty)
        out["labels"].append([-100] * len(prompt) + answer + [-100] * empty)
        out["attention_mask"].append([1] * (len(prompt) + len(answer)) + [0] * empty)
    return {key: torch.tensor(value) for key, value in out.items()}


def gkd(**settings):
    teacher = AutoModelForCausalLM.from_pretrained(base.HERE / "model_trap", dtype=torch.float32)
    return GKDTrainer(teacher_model=teacher, data_collator=answers, **settings)


base.TRAINERS |= {
    "kto": (KTOTrainer, KTOConfig),
    "cpo": (CPOTrainer, CPOConfig),
    "orpo": (ORPOTrainer, ORPOConfig),
    "tpo": (TPOTrainer, TPOConfig),
    "gkd": (gkd, GKDConfig),
}
SEQUENTIAL = base.OTHER | dict(train_sampling_strategy="sequential")

# name: (trainer, adapter or not, settings beyond COMMON, rows with labels or not)
RUNS = {
    "ipo": ("dpo", False, dict(loss_type=["ipo"], beta=0.1), False),
    "ipo_other": ("dpo", True, dict(base.OTHER, loss_type=["ipo"], beta=0.5), False),
    "kto": ("kto", False, dict(beta=0.1), True),
    "kto_pairs": (
        "kto",
        True,
        dict(SEQUENTIAL, beta=0.3, desirable_weight=1.5, undesirable_weight=0.5, max_length=7),
        False,
    ),
    "simpo": ("cpo", True, dict(loss_type="simpo", beta=2.0, simpo_gamma=0.5, cpo_alpha=0.0), False),
    "simpo_cpo": ("cpo", False, dict(loss_type="simpo", beta=0.1, simpo_gamma=0.5, cpo_alpha=1.0), False),
    "orpo": ("orpo", False, dict(beta=0.1), False),
    "orpo_other": ("orpo", True, dict(base.OTHER, beta=0.5), False),
    "robust": ("dpo", True, dict(loss_type=["robust"], beta=0.1, label_smoothing=0.2), False),
    "apo_zero": ("dpo", True, dict(loss_type=["apo_zero"], beta=0.1), False),
    "hinge": ("dpo", True, dict(loss_type=["hinge"], beta=1.0), False),
    "nca": ("dpo", True, dict(loss_type=["nca_pair"], beta=0.1), False),
    # with their logs alone
    "apo_zero_unpaired": ("kto", True, dict(loss_type="apo_zero_unpaired", beta=0.1, undesirable_weight=2.0), True),
    "apo_down": ("dpo", True, dict(loss_type=["apo_down"], beta=0.1), False),
    "exo": ("dpo", True, dict(loss_type=["exo_pair"], beta=0.1, label_smoothing=0.001), False),
    "bco_pair": ("dpo", True, dict(loss_type=["bco_pair"], beta=0.1), False),
    "aot": ("dpo", True, dict(loss_type=["aot"], beta=0.1, label_smoothing=0.1), False),
    "aot_unpaired": ("dpo", True, dict(loss_type=["aot_unpaired"], beta=0.1), False),
    "discopop": ("dpo", True, dict(loss_type=["discopop"], beta=0.1), False),
    "norm": ("dpo", True, dict(loss_type=["sigmoid_norm"], beta=0.5), False),
    "f_dpo": ("dpo", True, dict(f_divergence_type="js_divergence", beta=0.2), False),
    "hinge_forward": ("dpo", True, dict(loss_type=["hinge"], f_divergence_type="forward_kl", beta=0.1), False),
    "ld": ("dpo", True, dict(ld_alpha=0.3, beta=0.1), False),
    "wpo": ("dpo", True, dict(use_weighting=True, beta=0.1), False),
    "rpo": ("dpo", True, dict(loss_type=["sigmoid", "sft"], loss_weights=[1.0, 0.5], beta=0.1), False),
    "cpo": ("cpo", True, dict(loss_type="sigmoid", beta=0.1, label_smoothing=0.1), False),
    "alpha_po": ("cpo", True, dict(loss_type="alphapo", beta=2.0, simpo_gamma=0.5, alpha=0.25), False),
    "dft": ("sft", True, dict(loss_type="dft"), False),
    "tpo": ("tpo", False, dict(beta=0.01, tpo_alpha=1.0), False),
    "tpo_other": ("tpo", True, dict(base.OTHER, beta=0.1, tpo_alpha=0.5, label_smoothing=0.1, max_length=9), False),
    "tpo_l": ("tpo", True, dict(loss_type="tpo-l", beta=2.0, tpo_l_gamma=0.5, tpo_alpha=0.3), False),
    "gkd": ("gkd", False, dict(lmbda=0.0, beta=0.5), False),
    "gkd_share": ("gkd", True, dict(base.OTHER, lmbda=0.0, beta=0.1), False),
    "gkd_forward": ("gkd", True, dict(lmbda=0.0, beta=0.0), False),
    "gkd_reverse": ("gkd", True, dict(lmbda=0.0, beta=1.0), False),
}
KEPT = list(RUNS)[:12]
LOGGED = ("loss", "grad_norm", "learning_rate", "kl")


def labeled():
    out = []
    for r, row in enumerate(base.rows(False)):
        label = r % 3 != 1
        out.append({"prompt": row["prompt"], "completion": row["chosen" if label else "rejected"], "label": label})
    return out


def triples():
    rows = base.rows(False)
    return [row | {"reference": rows[(r + 5) % len(rows)]["chosen"]} for r, row in enumerate(rows)]


def run(name, trainer, adapted, settings, with_labels):
    words = base.tokenizer("<pad>")
    if trainer in ("cpo", "orpo"):
        words.bos_token = None
    data = labeled() if with_labels else None
    if trainer == "tpo":
        data = triples()
    if trainer == "gkd":
        data = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in base.rows(False)]
    out = base.run(f"since_{name}", trainer, adapted, settings, "model", False, data, words)
    logged = lambda key: key in LOGGED or key.startswith(("rewards/", "logps/"))
    out["steps"] = [{k: float(f"{v:.7g}") for k, v in step.items() if logged(k)} for step in out["steps"]]
    if name not in KEPT:
        (base.HERE / f"since_{name}.safetensors").unlink()
    return out | {"name": name, "labels": with_labels}


if __name__ == "__main__":
    torch.set_num_threads(1)
    (base.HERE / "labeled.jsonl").write_text("".join(json.dumps(row) + "\n" for row in labeled()))
    (base.HERE / "triples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in triples()))
    done = [run(name, *case) for name, case in RUNS.items()]
    versions = {"trl": trl.__version__, "transformers": transformers.__version__, "torch": torch.__version__}
    runs = ",\n".join(json.dumps(one) for one in done)
    text = '{"script": "trl_since_runs.py", "versions": %s, "runs": [\n%s\n]}\n' % (json.dumps(versions), runs)
    (base.HERE / "since.json").write_text(text)
