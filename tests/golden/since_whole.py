"""Whole losses since the survey that no trainer computes in one call: papers written out in scalars, answer by answer."""

import torch

from common import Draw, case, counted, gradients, write


def phi(z):
    """-log sigma(z)."""
    return torch.log(1 + torch.exp(-z))


def answers(draw, lengths, width, first=0):
    """Log-probabilities of tokens that count from `first` on, with other numbers around them."""
    values = -draw.uniform(len(lengths), width, low=0.05, high=3.0)
    mask = torch.tensor([[int(first <= t < first + n) for t in range(width)] for n in lengths])
    return values, mask


def on_pairs(cases, name, kind, config, form, first=0):
    """`form` takes the tokens of both answers and of both under the reference: loss, both rewards."""
    draw = Draw(f"since whole {name}")
    chosen, chosen_mask = answers(draw, [4, 1, 3], 5, first)
    rejected, rejected_mask = answers(draw, [2, 3, 3], 4, first)
    ref_chosen, _ = answers(draw, [4, 1, 3], 5)
    ref_rejected, _ = answers(draw, [2, 3, 3], 4)
    chosen.requires_grad_()
    rejected.requires_grad_()
    rows = [
        form(counted(chosen[b], w), counted(rejected[b], l), counted(ref_chosen[b], w), counted(ref_rejected[b], l))
        for b, (w, l) in enumerate(zip(chosen_mask, rejected_mask))
    ]
    loss, up, down = [torch.stack([torch.as_tensor(x) for x in column]) for column in zip(*rows)]
    cases.append(
        case(
            name,
            "scalars: the paper's equation",
            config=dict(kind=kind, **config),
            inputs=dict(
                chosen=chosen, chosen_mask=chosen_mask, rejected=rejected, rejected_mask=rejected_mask,
                ref_chosen=ref_chosen, ref_rejected=ref_rejected,
            ),
            outputs=dict(loss=loss, reward_chosen=up, reward_rejected=down),
            grads=gradients(loss, chosen=chosen, rejected=rejected),
        )
    )


def rpo(cases):
    """arXiv:2404.19733, eq. 1: DPO, and the likelihood of the chosen answer."""
    for beta, alpha, tokens in [(0.1, 1.0, "mean"), (0.7, 0.3, "sum"), (0.4, 0.0, "mean")]:

        def form(w, l, ref_w, ref_l):
            up, down = beta * (sum(w) - sum(ref_w)), beta * (sum(l) - sum(ref_l))
            likelihood = sum(w) / len(w) if tokens == "mean" else sum(w)
            return phi(up - down) - alpha * likelihood, up, down

        on_pairs(cases, f"rpo, beta {beta}, alpha {alpha}, {tokens}", "rpo", dict(beta=beta, alpha=alpha, tokens=tokens), form)


def orpo(cases):
    """arXiv:2403.07691, eq. 4 to 7: probabilities are geometric means, and odds are quotients of them."""
    for weight, tokens in [(0.1, "mean"), (1.3, "sum")]:

        def form(w, l, *_):
            def probability(tokens):
                product = torch.tensor(1.0)
                for t in tokens:
                    product = product * torch.exp(t)
                return product ** (1 / len(tokens))

            p, q = probability(w), probability(l)
            ratio = (p / (1 - p)) / (q / (1 - q))
            likelihood = sum(w) / len(w) if tokens == "mean" else sum(w)
            sigma = 1 / (1 + torch.exp(-torch.log(ratio)))
            return -likelihood - weight * torch.log(sigma), torch.log(p), torch.log(q)

        on_pairs(cases, f"orpo, lambda {weight}, {tokens}", "orpo", {"lambda": weight, "tokens": tokens}, form)


def ld_dpo(cases):
    """arXiv:2409.06411, eq. 9 to 11: tokens beyond the length of the shorter answer weigh alpha, in both models."""
    for beta, alpha, first in [(0.1, 0.5, 0), (0.8, 0.3, 1), (0.5, 0.0, 0), (0.5, 1.0, 1)]:

        def form(w, l, ref_w, ref_l):
            shared = min(len(w), len(l))

            def weighed(tokens):
                return sum(t if i < shared else alpha * t for i, t in enumerate(tokens))

            up, down = beta * (weighed(w) - weighed(ref_w)), beta * (weighed(l) - weighed(ref_l))
            return phi(up - down), up, down

        on_pairs(cases, f"ld-dpo, beta {beta}, alpha {alpha}, from {first}", "ld_dpo", dict(beta=beta, alpha=alpha), form, first)


def online_dpo(cases):
    """arXiv:2402.04792: two answers to each prompt, and the one with the higher score is chosen."""
    for beta, ties in [(0.1, "skip"), (0.7, "first_wins")]:
        name = f"online dpo, beta {beta}, {ties}"
        draw = Draw(f"since whole {name}")
        policy = (-draw.uniform(4, 2, low=1.0, high=8.0)).requires_grad_()
        reference = -draw.uniform(4, 2, low=1.0, high=8.0)
        scores = torch.tensor([[0.3, 0.9], [1.5, -0.2], [0.4, 0.4], [-1.0, -3.0]])
        rows = []
        for b in range(4):
            first, second = [beta * (policy[b, i] - reference[b, i]) for i in range(2)]
            if scores[b, 0] > scores[b, 1]:
                rows.append((phi(first - second), first, second))
            elif scores[b, 0] < scores[b, 1]:
                rows.append((phi(second - first), second, first))
            else:
                rows.append((phi(first - second) * (ties == "first_wins"), first, second))
        loss, up, down = [torch.stack(column) for column in zip(*rows)]
        cases.append(
            case(
                name,
                "scalars: the paper's equation",
                config=dict(kind="online_dpo", beta=beta, ties=ties),
                inputs=dict(policy=policy, reference=reference, scores=scores),
                outputs=dict(loss=loss, reward_chosen=up, reward_rejected=down),
                grads=gradients(loss, policy=policy),
            )
        )


def since_whole():
    cases = []
    rpo(cases)
    orpo(cases)
    ld_dpo(cases)
    online_dpo(cases)
    write("since_whole", cases)


if __name__ == "__main__":
    since_whole()
