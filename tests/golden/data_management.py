"""Ballots merged as OpenAssistant does, and mixtures as seqio computes them, transcribed. Runs alone; the
writer is that of data_instructions.py, so rouge-score has to be installed:

    python tests/golden/data_management.py
"""

import itertools
import random

from data_instructions import case, write


def votes(ballots, names):
    """How many ballots have i before j, minus how many have j before i."""
    place = [{name: at for at, name in enumerate(ballot)} for ballot in ballots]
    n = len(names)
    return [
        [sum((p[names[i]] < p[names[j]]) - (p[names[j]] < p[names[i]]) for p in place) for j in range(n)]
        for i in range(n)
    ]


def has_cycle(pairs):
    """Takes away pairs whose loser never wins, until at most one is left, or none can be taken."""
    if len(pairs) <= 1:
        return False
    winners = {w for w, _ in pairs}
    left = [p for p in pairs if p[1] in winners]
    if len(left) == len(pairs):
        return True
    return has_cycle(left)


def ranking(pairs):
    if len(pairs) == 1:
        return list(pairs[0])
    losers = {b for _, b in pairs}
    winner = next(w for w in sorted({a for a, _ in pairs}) if w not in losers)
    return [winner] + ranking([p for p in pairs if p[0] != winner])


def merged(ballots):
    """`ranked_pairs_update` to the common answers, then `ranked_pairs`."""
    common = set.intersection(*map(set, ballots))
    ballots = [[name for name in ballot if name in common] for ballot in ballots]
    names = sorted(ballots[0])
    margin = votes(ballots, names)
    n = len(names)
    pairs = [(i, j, margin[i][j]) for i in range(n) for j in range(n) if margin[i][j] >= 0 and i != j]
    pairs = sorted(pairs, key=lambda p: p[2], reverse=True)
    locked = []
    for i, j, _ in pairs:
        locked.append((i, j))
        if has_cycle(locked):
            locked = locked[:-1]
    return [names[i] for i in ranking(locked)]


def elections():
    rng = random.Random(7)
    cases = []
    tideman = (
        ["wxzy"] * 3 + ["wyxz"] * 2 + ["xyzw"] * 4 + ["xzwy"] * 5 + ["ywxz"] * 1
    )
    cases.append(tideman)
    # every profile of two ballots over three answers
    orders = ["".join(p) for p in itertools.permutations("abc")]
    cases += [[a, b] for a in orders for b in orders]
    for _ in range(150):
        names = list("abcdef"[: rng.randint(2, 6)])
        ballots = []
        for _ in range(rng.randint(1, 7)):
            ballot = names[:]
            rng.shuffle(ballot)
            if len(ballot) > 3 and rng.random() < 0.15:
                ballot.pop()
            ballots.append("".join(ballot))
        if len(set.intersection(*map(set, ballots))) >= 2:
            cases.append(ballots)
    return case(
        "ballots",
        "transcribed: LAION-AI/Open-Assistant, backend/oasst_backend/utils/ranking.py and tree_manager.py",
        elections=[[ballots, "".join(merged([list(b) for b in ballots]))] for ballots in cases],
    )


def rates(sizes, maximum, temperature):
    """`mixing_rate_num_examples` of each task, then divided by their sum."""
    out = []
    for size in sizes:
        rate = size
        if maximum:
            rate = min(rate, maximum)
        if temperature != 1.0:
            rate = rate ** (1.0 / temperature)
        out.append(rate)
    return [rate / sum(out) for rate in out]


def mixtures():
    sizes = [250, 3_000, 12_345, 400_000, 1]
    return [
        case(
            f"mixture, maximum {maximum}, temperature {temperature}",
            "transcribed: google/seqio, mixing_rate_num_examples",
            sizes=sizes, maximum=maximum, temperature=temperature, rates=rates(sizes, maximum, temperature),
        )
        for maximum in [None, 3_000, 1]
        for temperature in [1.0, 2.0, 8.0]
    ]


if __name__ == "__main__":
    write("data_management", [elections(), *mixtures()], {})
