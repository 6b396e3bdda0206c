"""The learning rates of Transformers' schedules, by the arguments that TRL's trainers take.

    python trl_schedules.py       (writes ./trl_schedules.json)

Each case has `lr_scheduler_type`, `lr_scheduler_kwargs`, `warmup_steps`, `max_steps` and `learning_rate`, and the
factor on the rate of every step. Needs torch 2.15.0 and transformers 5.23.0.
"""

import json
import pathlib

import torch
import transformers
from transformers import TrainingArguments, get_scheduler

STAGES = [
    dict(num_decay_steps=5),
    dict(num_decay_steps=4, warmup_type="cosine", decay_type="linear", min_lr_ratio=0.1),
    dict(num_decay_steps=6, warmup_type="1-sqrt", decay_type="1-sqrt", min_lr_ratio=0.3),
    dict(num_decay_steps=3, num_stable_steps=4, min_lr_ratio=0.05),
    dict(num_decay_steps=8, num_cycles=1.5),
    dict(num_decay_steps=0, min_lr_ratio=0.5),
    # does not fit beside a warm-up
    dict(num_decay_steps=11, decay_type="linear"),
]
KINDS = {
    "linear": [None],
    "constant_with_warmup": [None],
    "cosine": [None, dict(num_cycles=1.25), dict(num_cycles=0)],
    "cosine_with_restarts": [None, dict(num_cycles=3), dict(num_cycles=2.5)],
    "polynomial": [None, dict(power=2.0), dict(lr_end=2e-4, power=0.5), dict(lr_end=0.0, power=3)],
    "inverse_sqrt": [None, dict(timescale=7)],
    "cosine_with_min_lr": [
        dict(min_lr=2e-4),
        dict(min_lr_rate=0.1),
        dict(min_lr_rate=0.25, num_cycles=1.5),
    ],
    "cosine_warmup_with_min_lr": [
        dict(min_lr=2e-4),
        dict(min_lr_rate=0.1, warmup_lr_rate=0.2),
        dict(min_lr_rate=0.0, num_cycles=1),
    ],
    "warmup_stable_decay": STAGES,
}
# the third is longer than the run
WARMUPS = [0, 4, 15, 0.15]
STEPS, RATE = 12, 1e-3


def factors(kind, kwargs, warmup):
    args = TrainingArguments("unused", warmup_steps=warmup, max_steps=STEPS, use_cpu=True)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=RATE)
    schedule = get_scheduler(kind, optimizer, args.get_warmup_steps(STEPS), STEPS, kwargs)
    return [float(schedule.lr_lambdas[0](step)) for step in range(STEPS)]


if __name__ == "__main__":
    cases = [
        {
            "lr_scheduler_type": kind,
            "lr_scheduler_kwargs": kwargs,
            "warmup_steps": warmup,
            "max_steps": STEPS,
            "learning_rate": RATE,
            "factors": factors(kind, kwargs, warmup),
        }
        for kind, all_kwargs in KINDS.items()
        for kwargs in all_kwargs
        for warmup in WARMUPS
    ]
    cases.append(dict(cases[0], lr_scheduler_type="constant", factors=factors("constant", None, 0)))
    versions = {"script": "trl_schedules.py", "transformers": transformers.__version__, "torch": torch.__version__}
    path = pathlib.Path(__file__).with_suffix(".json")
    lines = ",\n".join(json.dumps(case) for case in cases)
    path.write_text('{"versions": %s, "cases": [\n%s\n]}\n' % (json.dumps(versions), lines))
    print(f"{len(cases)} cases, {path.stat().st_size / 1000:.0f} kB")
