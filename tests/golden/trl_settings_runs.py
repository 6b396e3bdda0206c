"""Training runs of TRL's supervised trainer with other arguments of Transformers, on the checkpoint of `trl_runs.py`.

    python trl_settings_runs.py   (after trl_runs.py; writes ./trl/settings.json)

Epochs in place of steps, epochs without their last short micro-batch, AdamW's constants, and schedules with settings.
Rows, settings and weights are otherwise those of `trl_runs.py`. No weights are written: `final_norm` is the norm of
all of them at the end.
"""

import json

import torch
import transformers
import trl
import trl_runs as base

# 12 rows: three micro-batches of 5, 5 and 2
EPOCHS = dict(max_steps=-1, per_device_train_batch_size=5, train_sampling_strategy="random", warmup_steps=2)
RUNS = {
    # 2 steps an epoch, 7 in all
    "drop_last": dict(
        EPOCHS,
        num_train_epochs=3.4,
        gradient_accumulation_steps=1,
        dataloader_drop_last=True,
        adam_beta1=0.8,
        adam_beta2=0.95,
        adam_epsilon=1e-3,
        lr_scheduler_type="cosine_with_restarts",
        lr_scheduler_kwargs=dict(num_cycles=2),
    ),
    # 2 steps an epoch, the second of one micro-batch of 2 rows; 9 in all
    "epochs": dict(
        EPOCHS,
        num_train_epochs=4.2,
        lr_scheduler_type="warmup_stable_decay",
        lr_scheduler_kwargs=dict(num_decay_steps=4, decay_type="1-sqrt", min_lr_ratio=0.1),
    ),
    # 1 step an epoch
    "drop_last_accumulated": dict(
        EPOCHS,
        num_train_epochs=6,
        gradient_accumulation_steps=3,
        dataloader_drop_last=True,
        adam_beta2=0.9,
        lr_scheduler_type="polynomial",
        lr_scheduler_kwargs=dict(lr_end=1e-3, power=2.0),
        warmup_steps=0.3,
    ),
    # a warm-up longer than the run
    "warmup": dict(max_steps=4, warmup_steps=6, lr_scheduler_type="inverse_sqrt", adam_beta1=0.5),
}


if __name__ == "__main__":
    torch.set_num_threads(1)
    done = []
    for name, settings in RUNS.items():
        done.append(base.run(f"settings_{name}", "sft", False, settings, "model", False))
        (base.HERE / f"settings_{name}.safetensors").unlink()
    versions = {"trl": trl.__version__, "transformers": transformers.__version__, "torch": torch.__version__}
    runs = ",\n".join(json.dumps(one) for one in done)
    (base.HERE / "settings.json").write_text('{"versions": %s, "runs": [\n%s\n]}\n' % (json.dumps(versions), runs))
