"""Policy losses without a critic: the own code of TRL's trainers for GRPO, RLOO and GMPO, on stubs."""

import contextlib
import functools
import inspect
import types

import torch
from trl.experimental.gmpo.gmpo_trainer import GMPOTrainer
from trl.rewards import get_soft_overlong_punishment
from trl.trainer import grpo_trainer, rloo_trainer
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.rloo_trainer import RLOOTrainer
from trl.trainer.utils import nanstd

from common import Draw, case, gradients, ragged, statements, trainer, write

LOSSES = ["grpo", "bnpo", "dr_grpo", "dapo", "luspo", "cispo", "sapo", "vespo"]
LENGTHS = [5, 3, 1, 4]
GRPO = "trl 1.16.0 GRPOTrainer._compute_loss, loss_type {}, on a stub in evaluation mode"


@contextlib.contextmanager
def in_double():
    """The trainer's f32 is f64 here: the quantile of entropies is computed in f32."""
    single = torch.Tensor.float
    try:
        torch.Tensor.float = lambda x: x.double()
        yield
    finally:
        torch.Tensor.float = single


def policy(method, values, entropies, mask, inputs, **fields):
    defaults = dict(
        loss_type="grpo", importance_sampling_level="token", epsilon_low=0.2, epsilon_high=0.28, beta=0.0,
        top_entropy_quantile=1.0, off_policy_mask_threshold=None, max_completion_length=7, use_vllm=False,
        vllm_importance_sampling_correction=False, current_gradient_accumulation_steps=1,
        _entropy_bonus_enabled=False, use_adaptive_entropy=False, entropy_coef=0.0,
    )
    args = dict(
        delta=None, use_bias_correction_kl=True, sapo_temperature_pos=1.0, sapo_temperature_neg=1.05,
        vespo_k_pos=2.0, vespo_lambda_pos=3.0, vespo_k_neg=3.0, vespo_lambda_neg=2.0, steps_per_generation=1,
    )
    args.update({k: fields.pop(k) for k in list(fields) if k in args})
    defaults.update(fields)
    stub = trainer(args=types.SimpleNamespace(**args), **defaults)
    stub.accelerator.reduce = lambda x, reduction: x
    stub.accelerator.pad_across_processes = lambda x, dim, pad_index: x
    stub.get_off_policy_mask = GRPOTrainer.get_off_policy_mask
    stub.get_gamma_weights = GRPOTrainer.get_gamma_weights
    stub.get_high_entropy_mask = functools.partial(GRPOTrainer.get_high_entropy_mask, stub)
    stub._get_per_token_logps_and_entropies = lambda *_, **__: (values, entropies, None)
    ids = torch.zeros_like(mask)
    inputs = dict(
        prompt_ids=ids[:, :1], prompt_mask=ids[:, :1], completion_ids=ids, completion_mask=mask,
        num_items_in_batch=mask.sum(), **inputs,
    )
    with in_double():
        return method(stub, None, inputs)


def losses(cases):
    def add(name, method=GRPOTrainer._compute_loss, oracle=None, weights=None, reference=False, sampler=False, **fields):
        draw = Draw(f"policy gradient {name}")
        rows, time = len(LENGTHS), max(LENGTHS)
        mask = ragged(LENGTHS, time)
        values = (-draw.uniform(rows, time, low=0.05, high=3.0)).requires_grad_()
        old = values.detach() + draw.normal(rows, time, scale=0.3)
        entropies = draw.uniform(rows, time, low=0.01, high=2.0).requires_grad_()
        advantages = draw.normal(rows, scale=1.2)
        inputs = dict(values=values, old=old, mask=mask, advantages=advantages)
        given = dict(advantages=advantages, old_per_token_logps=old)
        if weights is not None:
            shape = (rows, time if weights == "token" else 1)
            drawn = draw.uniform(*shape, high=2.5)
            if weights == "token":
                drawn = torch.where(mask > 0, drawn, 1.0)  # as the trainer has it: VESPO adds up the padding too
            given["importance_sampling_ratio"] = inputs["weights"] = drawn
            fields.update(use_vllm=True, vllm_importance_sampling_correction=True)
        if reference:
            given["ref_per_token_logps"] = inputs["reference"] = values.detach() + draw.normal(rows, time, scale=0.4)
        if sampler:
            given["sampling_per_token_logps"] = inputs["sampler"] = old + draw.normal(rows, time, scale=0.4)
        settings = {k: v for k, v in fields.items() if not k.startswith("use_vllm") and not k.startswith("vllm")}
        asked = fields.get("top_entropy_quantile", 1.0) < 1 or fields.get("_entropy_bonus_enabled")
        if asked:
            inputs["entropies"] = entropies
        if method is RLOOTrainer._compute_loss:
            given["old_logps"] = (old * mask).sum(1)
        loss = policy(method, values, entropies, mask, given, **fields)
        wanted = dict(values=values)
        if fields.get("_entropy_bonus_enabled"):
            wanted["entropies"] = entropies
        cases.append(
            case(
                name,
                oracle or GRPO.format(fields.get("loss_type", "grpo")),
                config=settings,
                inputs=inputs,
                outputs=dict(loss=loss),
                grads=gradients(loss, **wanted),
            )
        )

    for kind in LOSSES:
        high = 1.3 if kind == "cispo" else 0.28
        for level in ["token", "sequence"]:
            add(f"{kind}, {level}", loss_type=kind, importance_sampling_level=level, epsilon_high=high)
        for weights in ["token"] if kind == "vespo" else ["token", "sequence"]:
            add(f"{kind}, weights of the {weights}", loss_type=kind, weights=weights, epsilon_high=high)
    for delta in [1.1, 1.2, 4.0]:
        add(f"delta {delta}", loss_type="dapo", delta=delta)
        add(f"delta {delta}, sequence", loss_type="luspo", importance_sampling_level="sequence", delta=delta)
    for beta, corrected, level in [(0.3, True, "token"), (0.3, False, "token"), (0.7, True, "sequence")]:
        name = f"beta {beta}, {'with' if corrected else 'without'} the ratio, {level}"
        add(name, reference=True, beta=beta, use_bias_correction_kl=corrected, importance_sampling_level=level)
    for quantile in [0.2, 0.55]:
        add(f"entropy quantile {quantile}", loss_type="dapo", top_entropy_quantile=quantile)
    add("entropy quantile and beta", loss_type="grpo", top_entropy_quantile=0.4, beta=0.2, reference=True)
    add("entropy bonus", loss_type="dapo", _entropy_bonus_enabled=True, entropy_coef=0.05)
    add("entropy bonus, quantile", loss_type="grpo", _entropy_bonus_enabled=True, entropy_coef=0.05, top_entropy_quantile=0.3)
    for threshold in [0.05, 0.4]:
        add(f"off-policy mask {threshold}", loss_type="grpo", off_policy_mask_threshold=threshold)
        add(f"off-policy mask {threshold}, of the sampler", loss_type="dapo", off_policy_mask_threshold=threshold, sampler=True)
    add("sapo, other temperatures", loss_type="sapo", sapo_temperature_pos=0.4, sapo_temperature_neg=3.0)
    add("vespo, other shapes", loss_type="vespo", vespo_k_pos=1.0, vespo_lambda_pos=0.5, vespo_k_neg=2.5, vespo_lambda_neg=4.0)
    rloo = "trl 1.16.0 RLOOTrainer._compute_loss, on a stub"
    add("rloo", method=RLOOTrainer._compute_loss, oracle=rloo, loss_type="rloo")
    gmpo = "trl 1.16.0 GMPOTrainer._compute_loss, on a stub"
    for low, high in [(0.4, 0.4), (0.1005, 0.2505)]:  # no log-ratio at a bound
        fields = dict(loss_type="gmpo", epsilon_low=low, epsilon_high=high)
        add(f"gmpo {low} {high}", method=GMPOTrainer._compute_loss, oracle=gmpo, **fields)
    fields = dict(loss_type="gmpo", epsilon_low=0.2, epsilon_high=0.3, beta=0.3, reference=True)
    add("gmpo, beta", method=GMPOTrainer._compute_loss, oracle=gmpo, **fields)


def source(module):
    return inspect.getsource(module)


def advantages(cases):
    first = "if self.multi_objective_aggregation ==", "advantages = torch.nan_to_num"
    grpo = statements(source(grpo_trainer), *first)
    rloo = statements(source(rloo_trainer), "rewards = (rewards_per_func", "advantages = torch.nan_to_num")
    for name, kind, prompts, answers, rewards in [
        ("group", "group", 3, 4, 1),
        ("batch", "batch", 3, 4, 1),
        ("none", "none", 2, 5, 1),
        ("binary", "group", 4, 6, 1),
        ("several, summed", "group", 2, 4, 3),
        ("several, normalized", "gdpo", 3, 4, 3),
        ("rloo", "rloo", 3, 4, 1),
        ("unscored", "group", 3, 4, 1),
        ("rloo, unscored", "rloo", 3, 4, 1),
    ]:
        draw = Draw(f"advantages {name}")
        values = draw.normal(prompts * answers, rewards, scale=1.5)
        if name == "binary":
            values = (values > 0.8).double()
        weights = draw.uniform(rewards, low=0.2, high=2.0) if rewards > 1 else torch.ones(1)
        unscored = torch.zeros(prompts * answers, dtype=torch.bool)
        if "unscored" in name:
            unscored[[1, 6, 7]] = True
        given = values.masked_fill(unscored[:, None], float("nan"))
        stub = types.SimpleNamespace(
            multi_objective_aggregation="normalize_then_sum" if kind == "gdpo" else "sum_then_normalize",
            scale_rewards=kind, reward_weights=weights, reward_funcs=[None] * rewards,
            reward_clip_range=None, beta=0.0, normalize_advantages=False,
        )
        out = (rloo if kind == "rloo" else grpo)(
            torch=torch, self=stub, rewards_per_func=given, unscorable_mask=unscored, num_generations=answers,
            device="cpu", nanstd=nanstd, gather=lambda x: x,
        )
        cases.append(
            case(
                name,
                "trl 1.16.0, the statements of its trainer that make advantages of rewards",
                config=dict(kind=kind, weights=weights.tolist()),
                inputs=dict(rewards=values.T.reshape(rewards, prompts, answers), mask=(~unscored).long().view(prompts, answers)),
                outputs=dict(advantages=out.advantages.view(prompts, answers)),
            )
        )


def corrections(cases):
    run = statements(
        source(grpo_trainer),
        "per_token_logps_diff = (old_per_token_logps",
        "if self.vllm_importance_sampling_mode in",
    )
    import math

    for mode in ["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"]:
        for low, high in [(None, 3.0), (0.5, 1.4)]:
            draw = Draw(f"correction {mode} {low} {high}")
            old = -draw.uniform(4, 5, low=0.05, high=3.0)
            sampler = old + draw.normal(4, 5, scale=0.5)
            mask = ragged(LENGTHS, 5)
            stub = types.SimpleNamespace(
                vllm_importance_sampling_mode=mode, vllm_importance_sampling_clip_min=low,
                vllm_importance_sampling_clip_max=high,
            )
            out = run(torch=torch, math=math, self=stub, old_per_token_logps=old, sampling_per_token_logps=sampler, mask=mask)
            weights = out.vllm_importance_sampling_ratio.expand(4, 5) * mask
            cases.append(
                case(
                    f"{mode}, {low} to {high}",
                    "trl 1.16.0 GRPOTrainer, the statements that make the sampler's weights",
                    config=dict(mode=mode, low=low, high=high),
                    inputs=dict(old=old, sampler=sampler, mask=mask),
                    outputs=dict(weights=weights),
                )
            )
    lengths = [1, 59, 60, 61, 75, 99, 100, 101, 130]
    penalty = get_soft_overlong_punishment(100, 40)([[0] * n for n in lengths])
    cases.append(
        case(
            "overlong",
            "trl 1.16.0 get_soft_overlong_punishment",
            config=dict(mode="overlong", limit=100, buffer=40),
            inputs=dict(lengths=torch.tensor(lengths).double()),
            outputs=dict(penalty=torch.tensor(penalty)),
        )
    )


def policy_gradient():
    cases = []
    losses(cases)
    write("policy_gradient", cases)
    cases = []
    advantages(cases)
    write("group_advantages", cases)
    cases = []
    corrections(cases)
    write("rollout_correction", cases)


if __name__ == "__main__":
    policy_gradient()
