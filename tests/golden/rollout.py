"""One whole training step of RLHF, written out in scalars: rewards, whitening, advantages, minibatches, losses."""

import math

import torch

from common import Draw, case, gradients, ragged, write


def kl_estimate(estimator, x):
    """Schulman's three estimates of KL(p||q) from x = log q - log p."""
    return {"k1": -x, "k2": x * x / 2, "k3": math.exp(x) - 1 - x}[estimator]


def positions(mask):
    return [[t for t, m in enumerate(row) if m] for row in mask.tolist()]


def rewards_of(row, old, reference, score, beta, estimator):
    """-β k per counted token; the score is added to the last one."""
    rewards = {t: -beta * kl_estimate(estimator, reference[t] - old[t]) for t in row}
    if row:
        rewards[row[-1]] += score
    return rewards


def whitened(rows, mode):
    """Mean 0 or the old mean, population variance 1, over every number of every row together."""
    numbers = [x for row in rows for x in row.values()]
    mean = sum(numbers) / len(numbers)
    deviation = math.sqrt(sum((x - mean) ** 2 for x in numbers) / len(numbers) + 1e-8)
    shift = {"zero_mean": 0.0, "keep_mean": mean}
    if mode is None:
        return rows
    return [{t: (x - mean) / deviation + shift[mode] for t, x in row.items()} for row in rows]


def advantages_of(row, rewards, values, gamma, lam):
    """Σ_l (γλ)^l δ_{t+l} over the counted tokens of one row, δ_t = r_t + γ V(s_{t+1}) - V(s_t), V = 0 after the end."""
    out = {}
    for i, t in enumerate(row):
        total = 0.0
        for l, u in enumerate(row[i:]):
            after = row[i + l + 1 :]
            following = values[after[0]] if after else 0.0
            total += (gamma * lam) ** l * (rewards[u] + gamma * following - values[u])
        out[t] = total
    return out


def table(rows, shape):
    out = torch.zeros(shape)
    for b, row in enumerate(rows):
        for t, x in row.items():
            out[b, t] = x
    return out


def step(name, *, mask, beta, estimator, penalty, reward_whitening, advantage_whitening, gamma, lam, clip, value_clip,
         value_weight, moved):
    draw = Draw(f"rollout {name}")
    shape = tuple(mask.shape)
    old, reference = (-draw.uniform(*shape, low=0.05, high=3.0) for _ in range(2))
    old_values, scores = draw.normal(*shape), draw.normal(shape[0], scale=2.0)
    ended = draw.integers(shape[0], below=2)
    new = torch.round(old + draw.normal(*shape, scale=0.3) * moved, decimals=3).requires_grad_()
    values = torch.round(old_values + draw.normal(*shape, scale=0.3) * moved, decimals=3).requires_grad_()

    # the rollout, in plain numbers
    rows = positions(mask)
    p, q, v, s, e = (x.tolist() for x in (old, reference, old_values, scores, ended))
    score = [s[b] - (0.0 if e[b] else penalty) for b in range(len(rows))]
    rewards = [rewards_of(row, p[b], q[b], score[b], beta, estimator) for b, row in enumerate(rows)]
    rewards = whitened(rewards, reward_whitening)
    advantages = [advantages_of(row, rewards[b], v[b], gamma, lam) for b, row in enumerate(rows)]
    returns = [{t: a + v[b][t] for t, a in row.items()} for b, row in enumerate(advantages)]
    advantages = whitened(advantages, advantage_whitening)
    spent = [sum(p[b][t] - q[b][t] for t in row) for b, row in enumerate(rows) if row]

    # two minibatches, every second row in each, both divided by the tokens of the batch
    count = sum(len(row) for row in rows)
    minibatches = [list(range(0, len(rows), 2)), list(range(1, len(rows), 2))]
    totals, policies, critics, clipped = [], [], [], 0
    for minibatch in minibatches:
        policy = critic = torch.zeros(())
        for b in minibatch:
            for t in rows[b]:
                a, ratio = advantages[b][t], torch.exp(new[b, t] - p[b][t])
                bounded = min(max(ratio, torch.tensor(1 - clip)), torch.tensor(1 + clip))
                # at ratio 1 both are the same number; the first one carries the gradient
                policy = policy + (-a * bounded if -a * bounded > -a * ratio else -a * ratio)
                clipped += float(-a * bounded > -a * ratio)
                error = (values[b, t] - returns[b][t]) ** 2
                if value_clip is not None:
                    near = v[b][t] + min(max(values[b, t] - v[b][t], torch.tensor(-value_clip)), torch.tensor(value_clip))
                    other = (near - returns[b][t]) ** 2
                    error = other if other > error else error
                critic = critic + error / 2
        policies.append(policy / count)
        critics.append(critic / count)
        totals.append((policy + value_weight * critic) / count)
    loss = sum(totals)
    return case(
        name,
        "scalars: arXiv:1909.08593v2 eq 2 per token, arXiv:1707.06347v2 eqs 7, 9, 11 and 12, whitening and clipped "
        "values as openai/lm-human-preferences describes them; two minibatches whose gradients are added",
        config=dict(
            beta=beta, estimator=estimator, penalty=penalty, reward_whitening=reward_whitening,
            advantage_whitening=advantage_whitening, gamma=gamma, clip=clip, value_clip=value_clip,
            value_weight=value_weight, **{"lambda": lam},
        ),
        inputs=dict(
            old=old, reference=reference, old_values=old_values, scores=scores, ended=ended, mask=mask, new=new,
            values=values,
        ),
        outputs=dict(
            rewards=table(rewards, shape), advantages=table(advantages, shape), returns=table(returns, shape),
            mean_kl=torch.tensor(sum(spent) / len(spent)), first=totals[0], second=totals[1], policy=sum(policies),
            value=sum(critics), clip_fraction=torch.tensor(clipped / count), loss=loss,
        ),
        grads=gradients(loss, new=new, values=values),
    )


def rollout():
    holes = torch.tensor([[0, 1, 1, 0, 0, 1], [1, 0, 1, 0, 1, 0], [0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1], [1, 1, 1, 1, 1, 1]])
    usual = dict(
        mask=ragged([5, 3, 1, 4], 5), beta=0.02, estimator="k1", penalty=0.0, reward_whitening="keep_mean",
        advantage_whitening="zero_mean", gamma=1.0, lam=0.95, clip=0.2, value_clip=0.2, value_weight=0.1, moved=1.0,
    )
    write(
        "rollout",
        [
            step("defaults", **usual),
            step("the first step", **{**usual, "moved": 0.0}),
            step(
                "no whitening, discounts, a penalty",
                **{**usual, "reward_whitening": None, "advantage_whitening": None, "gamma": 0.9, "lam": 0.7, "beta": 0.4,
                   "penalty": 1.5, "value_weight": 0.7},
            ),
            step(
                "holes, the other whitenings, k3",
                **{**usual, "mask": holes, "reward_whitening": "zero_mean", "advantage_whitening": "keep_mean",
                   "estimator": "k3", "beta": 0.3, "clip": 0.1, "value_clip": None, "penalty": 0.5, "lam": 0.6},
            ),
            step(
                "k2, holes, a heavy critic",
                **{**usual, "mask": holes, "estimator": "k2", "beta": 0.5, "value_weight": 2.5, "lam": 1.0},
            ),
        ],
    )
