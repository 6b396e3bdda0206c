"""Pairs and rankings by preference: DPO and reward models."""

import math
import types

import torch
import torch.nn.functional as F
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.reward_trainer import RewardTrainer

from common import Draw, case, function, gradients, ragged, released, trainer, write


def trl_dpo(values, mask, reference, beta):
    """DPOTrainer._compute_loss, sigmoid, on log-probs [2B, T-1] under a mask [2B, T]."""
    answer = mask[:, 1:]
    outputs = types.SimpleNamespace(
        log_probs=values * answer,
        entropy=torch.zeros_like(values),
        mean_logits=torch.zeros_like(values),
        is_top1=answer.bool(),
    )
    stub = trainer(
        args=None,
        loss_types=["sigmoid"],
        loss_weights=[1.0],
        beta=beta,
        ld_alpha=None,
        f_divergence_type="reverse_kl",
        use_weighting=False,
        precompute_ref_logps=True,
    )
    inputs = dict(
        input_ids=torch.zeros_like(mask),
        attention_mask=torch.ones_like(mask),
        completion_mask=mask,
        ref_chosen_logps=reference[0],
        ref_rejected_logps=reference[1],
    )
    loss = DPOTrainer._compute_loss(stub, lambda **_: outputs, inputs, False)
    metrics = {k: v[0] for k, v in stub._metrics["eval"].items() if k.startswith("rewards/")}
    return loss, metrics


def smoke():
    """Two pairs whose margins are 0.1 and 0.2, and whose loss one can write down."""
    values = torch.zeros(4, 5)
    mask = torch.cat([torch.ones(4, 1).long(), ragged([4, 2, 3, 4], 5)], 1)
    for row, total in enumerate([-3.5, -2.7, -4.5, -4.8]):
        values[row, 0] = total
    loss, _ = trl_dpo(values, mask, (torch.tensor([-3.1, -3.0]), torch.tensor([-4.0, -4.9])), 0.1)
    by_hand = (math.log1p(math.exp(-0.01)) + math.log1p(math.exp(-0.02))) / 2
    assert abs(loss.item() - by_hand) < 1e-15, (loss.item(), by_hand)
    return values, mask


def dpo():
    cases = []
    text = "trl 1.16.0 DPOTrainer._compute_loss, loss_type sigmoid, on a stub; the mean over pairs"

    def add(name, values, mask, reference, beta):
        values = values.requires_grad_()
        loss, metrics = trl_dpo(values, mask, reference, beta)
        if metrics["rewards/margins"] == 0:
            del metrics["rewards/accuracies"]  # every pair a tie, which TRL counts as lost
        cases.append(
            case(
                name,
                text,
                config=dict(beta=beta, label_smoothing=0.0),
                inputs=dict(
                    values=values, mask=mask[:, 1:], reference_chosen=reference[0], reference_rejected=reference[1]
                ),
                outputs=dict(loss=loss, **metrics),
                grads=gradients(loss, values=values),
            )
        )

    values, mask = smoke()
    add("worked example", values, mask, (torch.tensor([-3.1, -3.0]), torch.tensor([-4.0, -4.9])), 0.1)
    for beta in (0.05, 0.5, 2.0):
        draw = Draw(f"dpo {beta}")
        mask = torch.cat([torch.zeros(6, 1).long(), ragged([5, 1, 3, 2, 4, 5], 5)], 1)
        values = -draw.uniform(6, 5, high=4.0)
        sums = (values * mask[:, 1:]).sum(1)
        reference = torch.round(sums + draw.normal(6, scale=2.0), decimals=3).chunk(2)
        add(f"ragged, beta {beta}", values, mask, reference, beta)
    values = -draw.integers(6, 5, below=32) / 8
    add("the first step", values, mask, (values * mask[:, 1:]).sum(1).chunk(2), 0.3)
    mask = torch.ones(4, 2).long()
    values = torch.tensor([[-3.0], [-900.0], [-900.0], [-3.0]])
    add("margins of 897 either way", values, mask, (torch.zeros(2), torch.zeros(2)), 1.0)

    # the smoothed form left the library after 0.2x
    source = released("trl==0.24.0", "trl/trainer/dpo_trainer.py")
    kinds = types.SimpleNamespace(ALPHA_DIVERGENCE="alpha", JS_DIVERGENCE="js")
    dpo_loss = function(source, "dpo_loss", torch=torch, F=F, FDivergenceType=kinds)
    for name, beta, epsilon, reference_free in [
        ("smoothed 0.1", 0.1, 0.1, False),
        ("smoothed 0.35, beta 0.7", 0.7, 0.35, False),
        ("reference-free", 0.3, 0.0, True),
        ("reference-free, smoothed", 1.3, 0.2, True),
    ]:
        draw = Draw(f"dpo {name}")
        chosen, rejected = (draw.normal(4, scale=3.0, shift=-8.0).requires_grad_() for _ in range(2))
        # the rewards of this function subtract the reference even where its loss does not: give it zeros
        references = [draw.normal(4, scale=3.0, shift=-8.0) * (not reference_free) for _ in range(2)]
        stub = trainer(
            reference_free=reference_free, f_divergence_type="reverse_kl", beta=beta, label_smoothing=epsilon
        )
        loss, reward_chosen, reward_rejected = dpo_loss(stub, chosen, rejected, *references, "sigmoid")
        inputs = dict(policy_chosen=chosen, policy_rejected=rejected)
        if not reference_free:
            inputs.update(reference_chosen=references[0], reference_rejected=references[1])
        cases.append(
            case(
                name,
                "trl 0.24.0 DPOTrainer.dpo_loss, loss_type sigmoid, cut from trl/trainer/dpo_trainer.py",
                config=dict(beta=beta, label_smoothing=epsilon),
                inputs=inputs,
                outputs=dict(loss=loss, rewards_chosen=reward_chosen, rewards_rejected=reward_rejected),
                grads=gradients(loss, policy_chosen=chosen, policy_rejected=rejected),
            )
        )
    write("dpo", cases)


def trl_reward(chosen, rejected, margin, centering):
    """RewardTrainer.compute_loss on given scores: the mean over pairs."""
    stub = trainer(args=types.SimpleNamespace(center_rewards_coefficient=centering))
    model = lambda **_: types.SimpleNamespace(logits=torch.cat([chosen, rejected])[:, None])  # noqa: E731
    inputs = {} if margin is None else dict(margin=margin)
    loss = RewardTrainer.compute_loss(stub, model, inputs)
    return loss, stub._metrics["eval"]["accuracy"][0]


def log_sigmoid(x):
    return -torch.log(1 + torch.exp(-x))


def ranked(scores, rewards):
    """InstructGPT eq 1 for one prompt: -1/C(K,2) Σ over pairs of log σ(r_w - r_l)."""
    k = len(scores)
    pairs = [(w, l) for w in range(k) for l in range(k) if rewards[w] > rewards[l]]
    assert len(pairs) == math.comb(k, 2)
    return -sum(log_sigmoid(scores[w] - scores[l]) for w, l in pairs) / math.comb(k, 2)


def best_of(scores, best):
    """Ziegler et al. eq 1 for one prompt: -log of the softmax of the chosen answer."""
    return -torch.log(torch.exp(scores[best]) / sum(torch.exp(s) for s in scores))


def plackett_luce(scores, rewards):
    """PRO eq 4 for one prompt: -log Π_{k=1}^{n-1} e^{r_k} / Σ_{i>=k} e^{r_i}, best first."""
    order = sorted(range(len(scores)), key=lambda i: -rewards[i])
    sorted_scores = [scores[i] for i in order]
    product = torch.ones(())
    for k in range(len(order) - 1):
        product = product * torch.exp(sorted_scores[k]) / sum(torch.exp(s) for s in sorted_scores[k:])
    return -torch.log(product)


def reward_model():
    cases = []
    for name, with_margin, centering in [
        ("plain", False, None),
        ("margin", True, None),
        ("centred", False, 0.01),
        ("margin and centred", True, 0.4),
    ]:
        draw = Draw(f"reward_model {name}")
        chosen, rejected = (draw.normal(5, scale=1.5).requires_grad_() for _ in range(2))
        margin = draw.uniform(5, low=-0.5, high=2.0) if with_margin else None
        loss, accuracy = trl_reward(chosen, rejected, margin, centering)
        inputs = dict(chosen=chosen, rejected=rejected)
        if with_margin:
            inputs["margin"] = margin
        cases.append(
            case(
                f"pairwise, {name}",
                "trl 1.16.0 RewardTrainer.compute_loss on a stub; the mean over pairs",
                config=dict(kind="pairwise", centring=centering or 0.0),
                inputs=inputs,
                outputs=dict(loss=loss, accuracy=accuracy),
                grads=gradients(loss, chosen=chosen, rejected=rejected),
            )
        )

    forms = [
        ("ranked", ranked, "scalars: Ouyang et al. arXiv:2203.02155v1 eq 1", [(3, 4, None), (3, 9, [9, 4, 2])]),
        ("plackett_luce", plackett_luce, "scalars: Song et al. arXiv:2306.17492 eq 4", [(3, 4, None), (4, 6, [6, 2, 5, 3])]),
    ]
    for kind, form, text, shapes in forms:
        for rows, k, lengths in shapes:
            draw = Draw(f"reward_model {kind} {k}")
            scores = draw.normal(rows, k, scale=1.2).requires_grad_()
            rewards = draw.distinct(rows, k)
            mask = ragged(lengths or [k] * rows, k)
            loss = torch.stack(
                [form(scores[b, mask[b] > 0], rewards[b, mask[b] > 0].tolist()) for b in range(rows)]
            )
            cases.append(
                case(
                    f"{kind}, {k} answers{', ragged' if lengths else ''}",
                    text,
                    config=dict(kind=kind),
                    inputs=dict(scores=scores, rewards=rewards, mask=mask),
                    outputs=dict(loss=loss),
                    grads=gradients(loss, scores=scores),
                )
            )

    for rows, k in [(4, 4), (2, 2)]:
        draw = Draw(f"reward_model best {k}")
        scores = draw.normal(rows, k, scale=1.5).requires_grad_()
        best = draw.integers(rows, below=k)
        loss = torch.stack([best_of(scores[b], best[b]) for b in range(rows)])
        cases.append(
            case(
                f"best of {k}",
                "scalars: Ziegler et al. arXiv:1909.08593v2 eq 1",
                config=dict(kind="best"),
                inputs=dict(scores=scores, best=best, mask=torch.ones(rows, k).long()),
                outputs=dict(loss=loss),
                grads=gradients(loss, scores=scores),
            )
        )
    write("reward_model", cases)
