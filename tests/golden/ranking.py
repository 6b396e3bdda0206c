"""Lists of ranked answers: PRO, SLiC, RRHF, transcribed from the papers in scalars."""

import torch

from common import Draw, case, counted, gradients, ragged, write


class Lists:
    """`rows` lists of up to k answers, each a row of token log-probabilities [rows·k, time]."""

    def __init__(self, name, rows, k, time, sizes=None, rewards=None):
        draw = Draw(f"ranking {name}")
        self.rows, self.k = rows, k
        self.values = -draw.uniform(rows * k, time, low=0.05, high=2.5)
        self.values.requires_grad_()
        self.tokens = ragged([1 + int(n) for n in draw.integers(rows * k, below=time)], time)
        self.rewards = draw.distinct(rows, k) if rewards is None else torch.tensor(rewards)
        self.mask = ragged(sizes or [k] * rows, k)

    def answers(self, row):
        """(token log-probabilities, reward) of the answers of one list, best first; ties in order."""
        every = [
            (counted(self.values[row * self.k + i], self.tokens[row * self.k + i]), self.rewards[row, i].item())
            for i in range(self.k)
            if self.mask[row, i]
        ]
        return sorted(every, key=lambda a: -a[1])

    def inputs(self):
        return dict(values=self.values, tokens=self.tokens, rewards=self.rewards, mask=self.mask)

    def case(self, name, oracle, config, parts):
        """`parts` maps the answers of one list to a dictionary of scalars that holds `loss`."""
        each = [parts(self.answers(row)) for row in range(self.rows)]
        columns = {key: torch.stack([torch.as_tensor(e[key]) for e in each]) for key in each[0]}
        grads = gradients(columns["loss"], values=self.values)
        return case(name, oracle, config=config, inputs=self.inputs(), outputs=columns, grads=grads)


def zero():
    return torch.zeros((), requires_grad=True)


def hinge(x):
    return x if x > 0 else 0.0 * x


# Song et al., arXiv:2306.17492


def pro_ranking(p, rewards, tempered):
    """eq 4, or eqs 7-9: -Σ_{k<n} log( exp(p_k / T_kk) / Σ_{i>=k} exp(p_i / T_ki) )."""
    n, total = len(p), zero()
    for k in range(n - 1):
        # (8) T_k^i = 1 / (r_k - r_i), i > k          (9) T_k^k = min over i > k of T_k^i
        if tempered:
            T = {i: 1 / (rewards[k] - rewards[i]) for i in range(k + 1, n)}
            T[k] = min(T.values())
        else:
            T = {i: 1.0 for i in range(k, n)}
        # (7)
        total = total - torch.log(torch.exp(p[k] / T[k]) / sum(torch.exp(p[i] / T[i]) for i in range(k, n)))
    return total


def pro_parts(answers, tempered, sft):
    """(5) L + β L_SFT, L_SFT = -Σ_t log P(y¹_t); (6) p_k = (1/|y_k|) Σ_t log P(y_kt)."""
    p = [sum(tokens) / len(tokens) for tokens, _ in answers]
    ranking = pro_ranking(p, [r for _, r in answers], tempered)
    beta = sft * (len(answers) - 1) ** 2
    supervised = -beta * sum(answers[0][0])
    return dict(loss=ranking + supervised, ranking=ranking, sft=supervised)


def pro():
    # the worked lists: eq 4 at (0, -0.4, -1.2), eqs 7-9 at (-1, -1.1, -1.5) with rewards (2, 1.8, 0.2)
    at = lambda *x: [torch.tensor(v) for v in x]  # noqa: E731
    assert abs(pro_ranking(at(0.0, -0.4, -1.2), None, False).item() - 1.0499026) < 5e-8
    assert abs(pro_ranking(at(-1.0, -1.1, -1.5), [2.0, 1.8, 0.2], True).item() - 2.2579204) < 5e-8
    assert abs(pro_ranking(at(-1.0, -1.1, -1.5), None, False).item() - 1.4338429) < 5e-8

    cases = []
    text = "scalars: arXiv:2306.17492 eqs 5-6 with "
    for name, rows, k, time, sizes in [
        ("pairs", 3, 2, 4, None),
        ("five answers", 2, 5, 6, None),
        ("ragged lists", 3, 4, 5, [4, 2, 3]),
    ]:
        for tempered in (True, False):
            for sft in (0.05, 0.3, 0.0):
                if sft != 0.05 and name != "ragged lists":
                    continue
                lists = Lists(f"pro {name}", rows, k, time, sizes)
                temperature = "reward_gap" if tempered else "none"
                cases.append(
                    lists.case(
                        f"{name}, temperature {temperature}, sft {sft}",
                        text + ("eqs 7-9" if tempered else "eq 4") + ", beta = sft (l - 1)^2",
                        dict(temperature=temperature, sft=sft),
                        lambda answers: pro_parts(answers, tempered, sft),
                    )
                )
    write("pro", cases)


# Zhao et al., arXiv:2210.00045


def slic_pairs(answers, beta, margin):
    """Every pair that the paper's draw could return: s(ŷ+) > s(ŷ-)."""
    terms = []
    for plus, s_plus in answers:
        for minus, s_minus in answers:
            if s_plus > s_minus:
                gap = beta * (s_plus - s_minus) if margin else beta
                terms.append(hinge(gap - sum(plus) + sum(minus)))
    return terms


def slic_list(answers, beta):
    """Σ_{i<j} max(0, β|i - j| - log P(ŷ_i) + log P(ŷ_j))."""
    l = [sum(tokens) for tokens, _ in answers]
    n = len(l)
    return [hinge(beta * (j - i) - l[i] + l[j]) for i in range(n) for j in range(i + 1, n)]


def slic_reward(answers):
    """Σ_i -s(ŷ_i) P(ŷ_i) / Σ_j P(ŷ_j)."""
    P = [torch.exp(sum(tokens)) for tokens, _ in answers]
    return sum(-s * p for p, (_, s) in zip(P, answers)) / sum(P)


def token_kl(policy, reference):
    """KL(P_θ ‖ P_θft) of one pair of next-token distributions, from logits."""
    p = [torch.exp(z) / sum(torch.exp(v) for v in policy) for z in policy]
    q = [torch.exp(z) / sum(torch.exp(v) for v in reference) for z in reference]
    return sum(a * torch.log(a / b) for a, b in zip(p, q))


def slic():
    cases = []
    algorithm = "scalars: arXiv:2210.00045, Algorithm 1, calibration loss "
    for name, rows, k, time, sizes, rewards in [
        ("pairs", 3, 2, 3, None, None),
        ("four answers", 3, 4, 4, None, None),
        ("ragged lists", 3, 5, 3, [5, 2, 3], None),
        ("tied rewards", 2, 4, 3, None, [[0.7, 0.2, 0.7, -0.4], [0.1, 0.5, 0.1, 0.1]]),
    ]:
        for beta in (1.0, 0.3):
            lists = Lists(f"slic {name}", rows, k, time, sizes, rewards)
            for kind in ("rank", "margin", "list"):
                if kind == "list":
                    if name == "tied rewards":
                        continue  # the paper's positions are undefined
                    terms = lambda answers: slic_list(answers, beta)  # noqa: E731
                else:
                    terms = lambda answers: slic_pairs(answers, beta, kind == "margin")  # noqa: E731
                cases.append(
                    lists.case(
                        f"{kind}, {name}, beta {beta}",
                        algorithm + kind + ("" if kind == "list" else ", summed over every pair that its draw could return"),
                        dict(kind=kind, beta=beta),
                        lambda answers: dict(loss=sum(terms(answers))),
                    )
                )
        lists = Lists(f"slic {name}", rows, k, time, sizes, rewards)
        cases.append(
            lists.case(
                f"reward, {name}",
                algorithm + "reward",
                dict(kind="reward"),
                lambda answers: dict(loss=slic_reward(answers)),
            )
        )

    draw = Draw("slic kl")
    policy = draw.normal(2, 4, 5, scale=1.3).requires_grad_()
    reference = draw.normal(2, 4, 5, scale=1.3)
    mask = torch.tensor([[1, 1, 0, 1], [0, 1, 0, 0]])
    loss = torch.stack(
        [
            torch.stack([token_kl(policy[b, t], reference[b, t]) if mask[b, t] else zero() for t in range(4)])
            for b in range(2)
        ]
    )
    cases.append(
        case(
            "kl",
            "scalars: arXiv:2210.00045, Algorithm 1, regularisation KL(P_theta || P_theta_ft) per target token",
            config=dict(kind="kl"),
            inputs=dict(policy=policy, reference=reference, mask=mask),
            outputs=dict(loss=loss),
            grads=gradients(loss, policy=policy),
        )
    )
    write("slic", cases)


# Yuan et al., arXiv:2304.05302


def rrhf_parts(answers):
    """(2) p_i, length means; (3) Σ_{r_i<r_j} max(0, p_i - p_j); (4) -Σ_t of the best; (5) their sum."""
    p = [sum(tokens) / len(tokens) for tokens, _ in answers]
    r = [reward for _, reward in answers]
    n = len(p)
    ranking = zero() + sum(hinge(p[i] - p[j]) for i in range(n) for j in range(n) if r[i] < r[j])
    best = max(range(n), key=lambda i: r[i])
    supervised = -sum(answers[best][0])
    return dict(loss=ranking + supervised, ranking=ranking, sft=supervised)


def rrhf():
    cases = []
    for name, rows, k, time, sizes, rewards in [
        ("pairs", 4, 2, 3, None, None),
        ("six answers", 2, 6, 5, None, None),
        ("ragged lists", 3, 4, 4, [2, 4, 3], None),
        ("tied below the best", 2, 4, 4, None, [[0.3, 1.0, 0.3, -0.2], [0.0, 0.0, 0.0, 2.0]]),
    ]:
        lists = Lists(f"rrhf {name}", rows, k, time, sizes, rewards)
        cases.append(lists.case(name, "scalars: arXiv:2304.05302 eqs 2-5", dict(), rrhf_parts))
    write("rrhf", cases)
