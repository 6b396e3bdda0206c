"""Stable Alignment and the edit distance, in scalars."""

import itertools

import torch

from common import Draw, case, write
from ranking import Lists


# Liu et al., arXiv:2305.16960


def stable_alignment_parts(answers, margin, ratio, scale, form):
    """J_SFT(best) + λ max(0, mean or max over the others of J_SFT(best) - J_SFT(i) + (r_best - r_i) M / scale)."""
    (best, top), *others = answers
    entropy = lambda tokens: -sum(tokens) / len(tokens)  # noqa: E731
    imitation = entropy(best)
    penalty = torch.zeros((), requires_grad=True)
    if others:
        terms = [imitation - entropy(tokens) + (top - r) / scale * margin for tokens, r in others]
        inner = max(terms, key=lambda t: t.item()) if form == "max" else sum(terms) / len(terms)
        penalty = ratio * inner if inner > 0 else 0.0 * inner
    return dict(loss=imitation + penalty, ranking=penalty, sft=imitation)


def stable_alignment():
    # ratings (1, 5, 3): the mean gap is 3, each rating staying with its own answer
    at = lambda *x: [torch.tensor(v) for v in x]  # noqa: E731
    worked = stable_alignment_parts([(at(-0.5), 5.0), (at(-2.0), 3.0), (at(-1.0), 1.0)], 1.0, 1.0, 1.0, "mean")
    assert abs(worked["ranking"].item() - (0.5 - 1.5 + 3.0)) < 1e-15

    cases = []
    for name, rows, k, time, sizes, rewards in [
        ("pairs", 4, 2, 3, None, None),
        ("six answers", 2, 6, 5, None, None),
        ("ragged lists", 4, 4, 4, [2, 4, 1, 3], None),
        ("tied below the best", 2, 4, 4, None, [[3.0, 7.0, 3.0, 1.0], [2.0, 2.0, 2.0, 6.0]]),
    ]:
        for margin, ratio, scale in [(10.0, 0.2, 7.0), (1.0, 0.5, 7.0), (0.0, 1.3, 1.0)]:
            for form in ("mean", "max"):
                lists = Lists(f"stable alignment {name}", rows, k, time, sizes, rewards)
                cases.append(
                    lists.case(
                        f"{name}, {form}, margin {margin}, ratio {ratio}, scale {scale}",
                        "scalars: arXiv:2305.16960, contrastive preference optimisation, margin over rating scale",
                        dict(margin=margin, ratio=ratio, scale=scale, form=form),
                        lambda answers: stable_alignment_parts(answers, margin, ratio, scale, form),
                    )
                )
    write("stable_alignment", cases)


# Liu et al., arXiv:2301.00355: the cheapest edits


def edit_distance(source, target, insert, delete, replace):
    """By alignments rather than prefixes: choose which tokens keep company, delete and insert the rest.

    For every k, every k positions of the source are set beside every k of the target, in order; a pair
    of unequal tokens is replaced.
    """
    n, m = len(source), len(target)
    best = None
    for k in range(min(n, m) + 1):
        for left in itertools.combinations(source, k):
            for right in itertools.combinations(target, k):
                replaced = sum(a != b for a, b in zip(left, right))
                cost = delete * (n - k) + insert * (m - k) + replace * replaced
                best = cost if best is None else min(best, cost)
    return best


COSTS = [(1.0, 1.0, 1.0), (1.0, 1.0, 2.0), (1.0, 2.0, 2.5), (3.0, 1.0, 0.5), (0.25, 0.75, 4.0)]


def edit_script():
    letters = lambda word: [ord(c) for c in word]  # noqa: E731
    assert edit_distance(letters("kitten"), letters("sitting"), 1, 1, 1) == 3
    assert edit_distance(letters("intention"), letters("execution"), 1, 1, 2) == 8

    cases = []
    draw = Draw("edit distance")
    for number in range(30):
        n, m = (int(x) for x in draw.integers(2, below=8))
        source, target = draw.integers(n, below=3 + number % 3), draw.integers(m, below=3 + number % 3)
        found = [edit_distance(source.tolist(), target.tolist(), *costs) for costs in COSTS]
        cases.append(
            case(
                f"{number}: {n} to {m} tokens",
                "scalars: the least over all alignments of two texts",
                inputs=dict(source=source, target=target, costs=torch.tensor(COSTS)),
                outputs=dict(cost=torch.tensor(found)),
            )
        )
    write("edit_script", cases)
