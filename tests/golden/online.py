"""RLHF with PPO: rewards, advantages, clipped losses, whitening, the KL controller."""

import types

import torch

from common import Draw, case, counted, function, gradients, ragged, released, statements, write

PPO = "trl/experimental/ppo/ppo_trainer.py"


def shaped(log_probs, reference, score, beta):
    """r_t = -β (log π(a_t) - log ρ(a_t)), and the score added to the last token, for one row."""
    rewards = [-beta * (p - q) for p, q in zip(log_probs, reference)]
    rewards[-1] = rewards[-1] + score
    return rewards


def gae(rewards, values, gamma, lam):
    """Eqs 11-12 of PPO: Â_t = δ_t + γλ Â_{t+1}, δ_t = r_t + γ V(s_{t+1}) - V(s_t), V = 0 at the end."""
    n, advantages = len(rewards), []
    for t in range(n):
        # the sum written out, not the recursion: Σ_l (γλ)^l δ_{t+l}
        total = 0.0
        for l in range(n - t):
            following = values[t + l + 1] if t + l + 1 < n else 0.0
            total = total + (gamma * lam) ** l * (rewards[t + l] + gamma * following - values[t + l])
        advantages.append(total)
    return advantages, [a + v for a, v in zip(advantages, values)]


def spread(rows, mask):
    """Lists of the counted numbers, back at their positions."""
    out = torch.zeros(mask.shape)
    for b, row in enumerate(rows):
        out[b, mask[b] > 0] = torch.stack([torch.as_tensor(x) for x in row])
    return out


def rollouts(cases, source):
    shaping = statements(source, "logr = ", "rewards[actual_start")
    setup = "lastgaelam = 0"
    advantage = statements(source, setup, "returns = ")
    for name, rows, time, beta, gamma, lam, estimator in [
        ("defaults", 3, 5, 0.02, 1.0, 0.95, "k1"),
        ("discounted", 2, 7, 0.3, 0.9, 0.6, "k1"),
        ("one token", 2, 1, 0.5, 0.7, 0.3, "k1"),
        ("lambda 1", 2, 4, 0.1, 1.0, 1.0, "k1"),
        ("lambda 0, k3", 2, 4, 0.1, 0.8, 0.0, "k3"),
    ]:
        draw = Draw(f"ppo rollout {name}")
        log_probs, reference = (-draw.uniform(rows, time, low=0.01, high=4.0) for _ in range(2))
        values, scores = draw.normal(rows, time), draw.normal(rows, scale=2.0)
        args = types.SimpleNamespace(kl_estimator=estimator, kl_coef=beta, gamma=gamma, lam=lam)
        last = torch.full((rows,), time - 1)
        made = shaping(
            torch=torch, args=args, ref_logprobs=reference, logprobs=log_probs, scores=scores,
            sequence_lengths=last, sequence_lengths_p1=last + 1,
        )
        out = advantage(
            torch=torch, args=args, rewards=made.rewards, values=values, responses=torch.zeros(rows, time)
        )
        cases.append(
            case(
                f"full rows, {name}",
                f"trl 1.12.0 PPOTrainer.train: the statements of its reward and of its advantages, cut from {PPO}",
                config=dict(kind="rollout", beta=beta, gamma=gamma, estimator=estimator, **{"lambda": lam}),
                inputs=dict(
                    log_probs=log_probs, reference=reference, scores=scores, values=values,
                    mask=torch.ones(rows, time).long(),
                ),
                outputs=dict(rewards=made.rewards, advantages=out.advantages, returns=out.returns),
            )
        )

    masks = {
        "ragged": ragged([4, 1, 6], 6),
        "holes": torch.tensor([[0, 1, 1, 0, 0, 1, 1], [1, 0, 1, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0, 1]]),
    }
    for name, mask in masks.items():
        beta, gamma, lam = 0.25, 0.85, 0.7
        draw = Draw(f"ppo {name}")
        shape = mask.shape
        log_probs, reference = (-draw.uniform(*shape, low=0.01, high=4.0) for _ in range(2))
        values, scores = draw.normal(*shape), draw.normal(shape[0], scale=2.0)
        rewards, advantages, returns = [], [], []
        for b in range(shape[0]):
            pick = lambda x: counted(x[b], mask[b])  # noqa: E731
            rewards.append(shaped(pick(log_probs), pick(reference), scores[b], beta))
            a, r = gae(rewards[-1], pick(values), gamma, lam)
            advantages.append(a)
            returns.append(r)
        cases.append(
            case(
                f"masked rows, {name}",
                "scalars: arXiv:1909.08593v2 eq 2 per token with the score on the last one; advantages of "
                "arXiv:1707.06347v2 eqs 11-12 as written-out sums over the counted tokens of a row",
                config=dict(kind="rollout", beta=beta, gamma=gamma, estimator="k1", **{"lambda": lam}),
                inputs=dict(log_probs=log_probs, reference=reference, scores=scores, values=values, mask=mask),
                outputs={
                    k: spread(v, mask)
                    for k, v in dict(rewards=rewards, advantages=advantages, returns=returns).items()
                },
            )
        )


def clipped(ratio, advantage, low, high):
    """Eq 7 of PPO, negated: -min(ρA, clip(ρ, 1-ε, 1+ε) A)."""
    bounded = min(max(ratio, 1 - low), 1 + high)
    return -min(ratio * advantage, bounded * advantage)


def losses(cases, source):
    masked_mean = function(source, "masked_mean")
    run = statements(source, "vpredclipped = ", "loss = pg_loss")
    count = statements(source, "pg_clipfrac = ", "pg_clipfrac = ")
    for name, rows, time, clip, value_clip, weight, lengths, moved in [
        ("defaults", 3, 5, 0.2, 0.2, 0.1, [5, 3, 1], 1.0),
        ("wide", 2, 6, 0.5, 0.05, 0.7, [6, 6], 1.0),
        ("the first step", 2, 4, 0.2, 0.2, 0.1, [4, 2], 0.0),
    ]:
        draw = Draw(f"ppo losses {name}")
        mask = ragged(lengths, time)
        old = -draw.uniform(rows, time, low=0.1, high=3.0)
        log_probs = torch.round(old + draw.normal(rows, time, scale=0.5) * moved, decimals=3).requires_grad_()
        advantages, returns = draw.normal(rows, time, scale=1.5), draw.normal(rows, time)
        old_values = draw.normal(rows, time)
        values = torch.round(old_values + draw.normal(rows, time, scale=0.3) * moved, decimals=3).requires_grad_()
        padding = mask == 0
        out = run(
            torch=torch, masked_mean=masked_mean,
            args=types.SimpleNamespace(cliprange=clip, cliprange_value=value_clip, vf_coef=weight),
            vpred=values, mb_values=old_values, mb_return=returns, new_logprobs=log_probs, mb_logprobs=old,
            mb_advantage=advantages, padding_mask=padding, padding_mask_p1=padding,
            micro_batch_inds=slice(None),
        )
        counts = count(
            masked_mean=masked_mean, pg_losses=out.pg_losses, pg_losses2=out.pg_losses2, padding_mask=padding,
            micro_batch_inds=slice(None),
        )
        cases.append(
            case(
                f"losses, {name}",
                f"trl 1.12.0 PPOTrainer.train: the statements of its loss and masked_mean, cut from {PPO}; "
                "means over the counted tokens of the batch",
                config=dict(kind="losses", clip=clip, value_clip=value_clip, value_weight=weight),
                inputs=dict(
                    log_probs=log_probs, old=old, advantages=advantages, values=values, old_values=old_values,
                    returns=returns, mask=mask,
                ),
                outputs=dict(
                    loss=out.loss, policy=out.pg_loss, value=out.vf_loss, ratio=out.ratio * mask,
                    clip_fraction=counts.pg_clipfrac,
                ),
                grads=gradients(out.loss, log_probs=log_probs, values=values),
            )
        )

    # per token, with unequal clips and with the dual clip
    for name, low, high, dual in [
        ("plain", 0.2, 0.2, None),
        ("unequal", 0.1, 0.4, None),
        ("dual", 0.2, 0.2, 3.0),
        ("dual 1.5, unequal", 0.3, 0.1, 1.5),
    ]:
        draw = Draw(f"ppo token {name}")
        old = -draw.uniform(2, 8, low=0.1, high=4.0)
        log_probs = torch.round(old + draw.normal(2, 8, scale=1.0), decimals=3).requires_grad_()
        advantages = draw.normal(2, 8, scale=1.5)
        mask = torch.tensor([[1, 1, 1, 1, 1, 1, 1, 1], [0, 1, 1, 0, 1, 1, 1, 0]])
        rows = []
        for b in range(2):
            row = []
            for p, o, a in zip(counted(log_probs[b], mask[b]), counted(old[b], mask[b]), counted(advantages[b], mask[b])):
                token = clipped(torch.exp(p - o), a, low, high)
                # dual clip, eq 5 of Ye et al.: for A < 0 the objective is at least cA
                if dual and a < 0:
                    token = min(token, -dual * a)
                row.append(token)
            rows.append(row)
        loss = spread(rows, mask)
        cases.append(
            case(
                f"policy per token, {name}",
                "scalars: arXiv:1707.06347v2 eq 7, negated"
                + (", bounded as in Ye et al. arXiv:1912.09729v3 eq 5" if dual else ""),
                config=dict(kind="policy", clip_low=low, clip_high=high, dual_clip=dual),
                inputs=dict(log_probs=log_probs, old=old, advantages=advantages, mask=mask),
                outputs=dict(loss=loss),
                grads=gradients(loss, log_probs=log_probs),
            )
        )


def whitening(cases, source):
    masked_mean = function(source, "masked_mean")
    masked_var = function(source, "masked_var", masked_mean=masked_mean)
    # the population variance is a setting of masked_var that masked_whiten does not pass on
    population = lambda values, mask: masked_var(values, mask, unbiased=False)  # noqa: E731
    masked_whiten = function(source, "masked_whiten", torch=torch, masked_mean=masked_mean, masked_var=population)
    for name, mask in [("ragged", ragged([5, 2, 1], 5)), ("two numbers", torch.tensor([[0, 1], [1, 0]]))]:
        x = Draw(f"whiten {name}").normal(*mask.shape, scale=3.0, shift=1.0)
        cases.append(
            case(
                f"whiten, {name}",
                f"trl 1.12.0 masked_whiten with masked_var(unbiased=False), cut from {PPO}",
                config=dict(kind="whiten"),
                inputs=dict(x=x, mask=mask),
                outputs=dict(
                    zero_mean=masked_whiten(x, mask) * mask, keep_mean=masked_whiten(x, mask, shift_mean=False) * mask
                ),
            )
        )


def controller(cases):
    for name, start, target, steps, horizon in [("sizes of the code", 0.15, 6.0, 256, 10_000), ("fast", 0.4, 2.0, 64, 200)]:
        kl = (Draw(f"controller {name}").uniform(8, low=0.0, high=2.5) * target).tolist()
        kl[3] = target
        beta, path = start, []
        for k in kl:
            # e = clip((KL - target) / target, -0.2, 0.2);  β <- β (1 + K e), K = steps / horizon
            e = min(max((k - target) / target, -0.2), 0.2)
            beta = beta * (1 + e * steps / horizon)
            path.append(beta)
        cases.append(
            case(
                f"controller, {name}",
                "scalars: arXiv:1909.08593v2 section 2.2; K = steps/horizon as in openai/lm-human-preferences",
                config=dict(kind="controller", start=start, target=target, steps=steps, horizon=horizon),
                inputs=dict(kl=torch.tensor(kl)),
                outputs=dict(beta=torch.tensor(path)),
            )
        )


def ppo():
    source = released("trl==1.12.0", PPO)
    cases = []
    rollouts(cases, source)
    losses(cases, source)
    whitening(cases, source)
    controller(cases)
    write("ppo", cases)
