"""Objectives over written feedback: class-weighted fine-tuning, Chain of Hindsight."""

import math

import torch

from common import Draw, case, gradients, write


def batch(draw, rows, time, vocabulary):
    """Logits, tokens, and a mask with several learned stretches in each row."""
    logits = draw.normal(rows, time, vocabulary, scale=1.5, decimals=2).requires_grad_()
    tokens = draw.integers(rows, time, below=vocabulary)
    mask = draw.integers(rows, time, below=2)
    mask[:, 0] = 0
    mask[:, 1] = 1
    return logits, tokens, mask


def negative_log(logits, tokens, mask):
    """-log p(x_t | x_<t) of every counted token, row by row, in scalars."""
    rows = []
    for b in range(tokens.shape[0]):
        row = []
        for t in range(1, tokens.shape[1]):
            if mask[b, t]:
                z = logits[b, t - 1]
                row.append(torch.log(sum(torch.exp(v) for v in z)) - z[tokens[b, t]])
        rows.append(row)
    return rows


def c_rlft(draw, beta):
    """One batch of two classes and the three ways to divide."""
    logits, tokens, mask = batch(draw, 4, 6, 5)
    mask[2, 2:] = 0
    rewards = torch.tensor([1.0, 0.1, 0.1, 1.0])
    weights = [math.exp(r / beta) if beta else float(r) for r in rewards]
    rows = negative_log(logits, tokens, mask)
    weighted = sum(w * sum(row) for w, row in zip(weights, rows))
    losses = {
        "sequence_mean": weighted / len(rows),
        "token_weight": weighted / sum(w * len(row) for w, row in zip(weights, rows)),
        "sequence_weight": sum(w * sum(row) / len(row) for w, row in zip(weights, rows)) / sum(weights),
    }
    return dict(logits=logits, tokens=tokens, mask=mask, rewards=rewards), losses


def c_rlft_cases():
    cases = []
    divisors = {
        "sequence_mean": "a mean over rows",
        "token_weight": "imoneoi/openchat's sum of w CE over the sum of w",
        "sequence_weight": "imoneoi/openchat's option w / turn length, over the sum of w",
    }
    for name, beta in [("beta 0.5", 0.5), ("beta 1", 1.0), ("linear", None)]:
        inputs, losses = c_rlft(Draw(f"c-rlft {name}"), beta)
        for divisor, loss in losses.items():
            cases.append(
                case(
                    f"{name}, {divisor}",
                    "scalars: arXiv:2309.11235, -E exp(r_c / beta) log p, or with the weight r_c; as "
                    + divisors[divisor],
                    config=dict(objective="c_rlft", beta=beta, divisor=divisor),
                    inputs=inputs,
                    outputs=dict(loss=loss),
                    grads=gradients(loss, logits=inputs["logits"]),
                )
            )
    return cases


def hindsight_cases():
    cases = []
    reductions = {
        "sum": lambda rows: sum(sum(row) for row in rows),
        "token_mean": lambda rows: sum(sum(row) for row in rows) / sum(len(row) for row in rows),
        "sequence_mean": lambda rows: sum(sum(row) for row in rows) / len(rows),
    }
    for reduction, weight in [("sum", 1.5), ("token_mean", 0.01), ("sequence_mean", 1.5), ("token_mean", None)]:
        draw = Draw(f"hindsight {reduction} {weight}")
        logits, tokens, mask = batch(draw, 3, 7, 4)
        inputs = dict(logits=logits, tokens=tokens, mask=mask)
        trained = dict(logits=logits)
        loss = reductions[reduction](negative_log(logits, tokens, mask))
        if weight is not None:
            text, words, _ = batch(draw, 2, 4, 4)
            every = torch.ones_like(words)
            loss = loss + weight * reductions[reduction](negative_log(text, words, every))
            inputs.update(text_logits=text, text_tokens=words)
            trained.update(text_logits=text)
        cases.append(
            case(
                f"{reduction}, weight {weight}",
                "scalars: arXiv:2302.02676v6, eqs. 2 and 3, negated",
                config=dict(objective="hindsight", reduction=reduction, weight=weight),
                inputs=inputs,
                outputs=dict(loss=loss),
                grads=gradients(loss, **trained),
            )
        )
    return cases


def language():
    write("language", c_rlft_cases() + hindsight_cases())
