"""Writes every golden file beside this script."""

import os
import sys

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
sys.dont_write_bytecode = True
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import adapter_files  # noqa: E402
import adapters  # noqa: E402
import adapters_more  # noqa: E402
import alignment  # noqa: E402
import auxiliary  # noqa: E402
import builders  # noqa: E402
import calibration  # noqa: E402
import decoder  # noqa: E402
import distillation  # noqa: E402
import language  # noqa: E402
import online  # noqa: E402
import optimizer  # noqa: E402
import policy_gradient  # noqa: E402
import preference  # noqa: E402
import prompts  # noqa: E402
import quantized  # noqa: E402
import raft  # noqa: E402
import ranking  # noqa: E402
import rollout  # noqa: E402
import since_others  # noqa: E402
import since_pairs  # noqa: E402
import since_whole  # noqa: E402
import supervised  # noqa: E402

if __name__ == "__main__":
    supervised.log_probs()
    supervised.sft()
    preference.dpo()
    preference.reward_model()
    ranking.pro()
    ranking.slic()
    ranking.rrhf()
    calibration.brio()
    calibration.expected_risk()
    online.ppo()
    rollout.rollout()
    raft.raft()
    raft.sampling()
    adapters.lora()
    prompts.prompts()
    quantized.quantized()
    quantized.qlora()
    decoder.decoder()
    adapter_files.adapter_files()
    alignment.stable_alignment()
    alignment.edit_script()
    adapters_more.adalora()
    adapters_more.dora()
    adapters_more.ia3()
    adapters_more.vera()
    adapters_more.targets()
    auxiliary.auxiliary()
    language.language()
    builders.builders()
    optimizer.adamw()
    optimizer.lora_plus()
    optimizer.schedule()
    since_pairs.since_dpo()
    since_others.since_trl()
    since_others.since_scalar()
    since_whole.since_whole()
    distillation.distillation()
    policy_gradient.policy_gradient()
