"""Candidates beside a reference answer: BRIO and expected risk, transcribed from the papers in scalars."""

import torch

from common import Draw, case, counted, gradients, ragged, write
from ranking import Lists, hinge, zero

VOCABULARY = 5


class References:
    """One reference answer per list: logits [rows, time, vocabulary], tokens and which of them count."""

    def __init__(self, name, rows, time):
        draw = Draw(f"calibration {name}")
        self.logits = draw.normal(rows, time, VOCABULARY, scale=1.2).requires_grad_()
        self.targets = draw.integers(rows, time, below=VOCABULARY)
        self.counts = ragged([1 + int(n) for n in draw.integers(rows, below=time)], time)

    def tokens(self, row, epsilon):
        """-Σ_s p_true(s) log p(s) of each token; p_true is 1 - ε on the target, and ε spread over all."""
        losses = []
        for logits, target, count in zip(self.logits[row], self.targets[row], self.counts[row]):
            if not count:
                continue
            total = sum(torch.exp(z) for z in logits)
            log_p = [torch.log(torch.exp(z) / total) for z in logits]
            p_true = [epsilon / VOCABULARY + (1 - epsilon if s == target else 0.0) for s in range(VOCABULARY)]
            losses.append(-sum(p * l for p, l in zip(p_true, log_p)))
        return losses

    def inputs(self):
        return dict(logits=self.logits, targets=self.targets, reference=self.counts)


def over(losses, how):
    return sum(losses) / len(losses) if how == "mean" else sum(losses)


def whole(name, oracle, lists, references, config, parts):
    """`parts` maps the answers and the reference's token losses of one list to its scalars."""
    epsilon = config["label_smoothing"]
    each = [parts(lists.answers(row), references and references.tokens(row, epsilon)) for row in range(lists.rows)]
    columns = {key: torch.stack([torch.as_tensor(e[key]) for e in each]) for key in each[0]}
    inputs, learned = lists.inputs(), dict(values=lists.values)
    if references:
        inputs |= references.inputs()
        learned |= dict(logits=references.logits)
    return case(name, oracle, config=config, inputs=inputs, outputs=columns, grads=gradients(columns["loss"], **learned))


# Liu et al., arXiv:2203.16804


def places(answers):
    """How many answers are strictly better: without ties the position in the ranking."""
    return [sum(other > reward for _, other in answers) for _, reward in answers]


def contrastive(answers, margin, alpha, pairs):
    """Σ_{i before j} max(0, f(S_j) - f(S_i) + (j - i) λ), f(S) = Σ_t log p(s_t) / |S|^α; or the mean per j - i."""
    f = [sum(tokens) / len(tokens) ** alpha for tokens, _ in answers]
    at = places(answers)
    by_distance = {}
    for i in range(len(f)):
        for j in range(len(f)):
            if at[i] < at[j]:
                d = at[j] - at[i]
                by_distance.setdefault(d, []).append(hinge(f[j] - f[i] + d * margin))
    return zero() + sum(over(terms, "mean" if pairs == "mean_per_distance" else "sum") for terms in by_distance.values())


def brio_parts(answers, tokens, config):
    """L = L_xent + γ L_ctr."""
    ranking = config["gamma"] * contrastive(answers, config["lambda"], config["alpha"], config["pairs"])
    supervised = zero() if tokens is None else over(tokens, config["tokens"])
    return dict(loss=ranking + supervised, ranking=ranking, sft=supervised)


def torch_margins(scores, margin):
    """The mean over the pairs of each distance by torch's own ranking loss; scores [1, k], best first."""
    k, total = scores.shape[1], 0.0
    for d in range(1, k):
        ones = torch.ones(1, k - d)
        total = total + torch.nn.functional.margin_ranking_loss(scores[:, : k - d], scores[:, d:], ones, margin=d * margin)
    return total


def brio():
    cases = []
    paper = {"lambda": 0.001, "gamma": 100.0, "alpha": 2.0, "pairs": "sum", "tokens": "sum", "label_smoothing": 0.1}
    authors = paper | dict(pairs="mean_per_distance", tokens="mean")
    other = {"lambda": 0.2, "gamma": 1.5, "alpha": 0.6, "pairs": "sum", "tokens": "sum", "label_smoothing": 0.0}
    oracle = "scalars: arXiv:2203.16804, f, contrastive loss and combination"
    ties = [[0.7, 0.2, 0.7, -0.4], [0.1, 0.5, 0.1, 0.1]]
    for name, rows, k, time, sizes, rewards, configs in [
        ("pairs", 3, 2, 4, None, None, [paper, other]),
        ("five answers", 2, 5, 4, None, None, [paper, authors, other]),
        ("ragged lists", 3, 4, 5, [4, 2, 1], None, [paper, authors, other, other | dict(pairs="mean_per_distance")]),
        ("tied rewards", 2, 4, 3, None, ties, [other, other | dict(pairs="mean_per_distance")]),
    ]:
        for config in configs:
            lists, references = Lists(f"brio {name}", rows, k, time, sizes, rewards), References(f"brio {name}", rows, 3)
            cases.append(
                whole(
                    f"{name}, lambda {config['lambda']}, {config['pairs']}",
                    oracle + ("; ties by the number of strictly better answers" if rewards else ""),
                    lists,
                    references,
                    config,
                    lambda answers, tokens: brio_parts(answers, tokens, config),
                )
            )
    lists = Lists("brio alone", 2, 4, 3)
    cases.append(
        whole("alone", oracle + ", without a reference", lists, None, other, lambda a, t: brio_parts(a, t, other))
    )

    # the mean per distance is torch's margin_ranking_loss at each distance
    lists = Lists("brio torch", 1, 6, 3)
    f = torch.stack([sum(tokens) / len(tokens) ** 0.6 for tokens, _ in lists.answers(0)])
    ours = contrastive(lists.answers(0), 0.2, 0.6, "mean_per_distance")
    assert abs((torch_margins(f[None, :], 0.2) - ours).item()) < 1e-14
    write("brio", cases)


# Edunov et al., arXiv:1711.04956


def risk_parts(answers, tokens, config):
    """α L_tok + (1 - α) Σ_u cost(u) p(u) / Σ_u' p(u'), log p(u) over the length to a power, cost = 1 - reward."""
    p = [torch.exp(sum(tokens) / len(tokens) ** config["power"]) for tokens, _ in answers]
    risk = sum((1 - reward) * q for q, (_, reward) in zip(p, answers)) / sum(p)
    alpha = config["alpha"]
    supervised = zero() if tokens is None else alpha * over(tokens, config["tokens"])
    ranking = (1 - alpha) * risk
    return dict(loss=ranking + supervised, ranking=ranking, sft=supervised)


def expected_risk():
    cases = []
    alone = dict(power=1.0, alpha=0.0, tokens="sum", label_smoothing=0.0)
    beside = dict(power=1.0, alpha=0.3, tokens="sum", label_smoothing=0.1)
    other = dict(power=0.4, alpha=0.5, tokens="mean", label_smoothing=0.0)
    oracle = "scalars: arXiv:1711.04956, risk and weighted combination"
    ties = [[0.7, 0.2, 0.7, 0.4], [0.1, 0.5, 0.1, 0.1]]
    for name, rows, k, time, sizes, rewards in [
        ("pairs", 3, 2, 3, None, None),
        ("five answers", 2, 5, 4, None, None),
        ("ragged lists", 3, 4, 4, [4, 2, 1], None),
        ("tied rewards", 2, 4, 3, None, ties),
    ]:
        for config in (alone, beside, other, alone | dict(power=0.0)):
            lists = Lists(f"risk {name}", rows, k, time, sizes, rewards)
            references = References(f"risk {name}", rows, 3) if config["alpha"] else None
            cases.append(
                whole(
                    f"{name}, power {config['power']}, alpha {config['alpha']}",
                    oracle,
                    lists,
                    references,
                    config,
                    lambda answers, tokens: risk_parts(answers, tokens, config),
                )
            )
    write("expected_risk", cases)
