"""RAFT: the best answer to each prompt, the best share of a batch, the KL-adjusted ranking; and the
distributions that answers are drawn from."""

import torch
import transformers
from transformers.generation.logits_process import (
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from common import Draw, case, gradients, ragged, write


def adjusted(reward, log_policy, log_reference, beta):
    """Eq. 5 of one answer; the log-probabilities of its tokens."""
    return reward - beta * (sum(log_policy) - sum(log_reference))


def best_of_each(rewards, exists, k):
    """argmax over the answers to each prompt, one after the other."""
    kept = []
    for start in range(0, len(rewards), k):
        winner = None
        for row in range(start, start + k):
            if exists[row] and (winner is None or rewards[row] > rewards[winner]):
                winner = row
        if winner is not None:
            kept.append(winner)
    return kept


def best_of_all(rewards, exists, share):
    """The int(share n) answers than which fewest are better, of any prompt."""
    rows = [row for row in range(len(rewards)) if exists[row]]
    wanted = int(share * len(rows))
    return [row for row in rows if sum(rewards[other] > rewards[row] for other in rows) < wanted]


def raft():
    cases = []
    for name, batch, k, time, beta, share, counts in [
        ("no price", 4, 4, 5, 0.0, 0.25, None),
        ("beta 0.1", 4, 4, 5, 0.1, 0.25, None),
        ("beta 0.6, short lists", 5, 4, 6, 0.6, 0.5, [4, 1, 3, 0, 2]),
        ("one answer to each prompt, top fifth", 15, 1, 4, 0.05, 0.2, None),
        ("beta 0.01, sixteen answers", 2, 16, 3, 0.01, 0.125, None),
    ]:
        draw = Draw(f"raft {name}")
        rows = batch * k
        lengths = (1 + draw.integers(rows, below=time)).tolist()
        tokens = ragged(lengths, time)
        values = (-draw.uniform(rows, time, low=0.05, high=3.0)).requires_grad_()
        reference = -draw.uniform(rows, time, low=0.05, high=3.0)
        rewards = draw.normal(batch, k, scale=1.5)
        mask = ragged(counts or [k] * batch, k)
        exists = mask.flatten().tolist()

        said = lambda x, row: [x[row, t].item() for t in range(lengths[row])]  # noqa: E731
        ranked = [
            adjusted(rewards.flatten()[row].item(), said(values, row), said(reference, row), beta)
            for row in range(rows)
        ]
        best = best_of_each(ranked, exists, k)
        top = best_of_all(ranked, exists, share)
        # plain maximum likelihood of the answers kept: the adjustment is no part of the loss
        loss = torch.stack([-sum(values[row, t] for t in range(lengths[row])) for row in best])
        cases.append(
            case(
                name,
                "RAFT §3 and eq. 5, and the survey's top share, in scalars; the authors' int(share n)",
                config=dict(beta=beta, share=share),
                inputs=dict(values=values, reference=reference, tokens=tokens, rewards=rewards, mask=mask),
                outputs=dict(
                    adjusted=torch.tensor(ranked).reshape(batch, k), best=best, top=top, loss=loss
                ),
                grads=gradients(loss, values=values),
            )
        )
    write("raft", cases)


def sampling():
    cases = []
    for name, temperature, top_k, top_p, symbols in [
        ("the model itself", 1.0, None, 1.0, 9),
        ("temperature 0.7", 0.7, None, 1.0, 9),
        ("temperature 1.8", 1.8, None, 1.0, 9),
        ("top-k 5", 1.0, 5, 1.0, 20),
        ("top-k 50, more than there are", 1.0, 50, 1.0, 20),
        ("top-k 1", 1.3, 1, 1.0, 20),
        ("top-p 0.9", 1.0, None, 0.9, 20),
        ("top-p 0.3", 1.0, None, 0.3, 20),
        ("all three", 0.85, 12, 0.8, 40),
        ("all three, hot", 1.5, 25, 0.95, 40),
    ]:
        logits = Draw(f"sampling {name}").normal(4, symbols, scale=2.0, decimals=6)
        warpers = [TemperatureLogitsWarper(temperature)]
        if top_k is not None:
            warpers.append(TopKLogitsWarper(top_k))
        if top_p < 1.0:
            warpers.append(TopPLogitsWarper(top_p))
        scores = logits
        for warper in warpers:
            scores = warper(None, scores)
        cases.append(
            case(
                name,
                f"transformers {transformers.__version__} "
                "generation/logits_process.py Temperature-, TopK- and TopPLogitsWarper, in this order",
                config=dict(temperature=temperature, top_k=top_k, top_p=top_p),
                inputs=dict(logits=logits),
                outputs=dict(probabilities=scores.softmax(-1)),
            )
        )
    write("sampling", cases)
