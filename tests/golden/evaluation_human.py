"""Elo, Bradley-Terry and agreement: FastChat's functions; scikit-learn, statsmodels, krippendorff; and the
formulas of FastChat's `rating_systems.py` and of the sandwich, written out with SciPy's minimizer."""

import math
import random
from collections import defaultdict

import krippendorff
import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import fleiss_kappa

from evaluation_common import function, released, write

ELO = released("fschat==0.2.36", "fastchat/serve/monitor/elo_analysis.py")
AGREE = released("fschat==0.2.36", "fastchat/llm_judge/compute_agreement.py")
ALPHA = math.log(10)
NAMES = {"first": "model_a", "second": "model_b", "tie": "tie"}


def tournament(name, models, games, ties):
    """Games of models with strengths 0, 0.15, 0.3, … in units of 400 points."""
    rng = random.Random(name)
    rows = []
    for _ in range(games):
        a, b = rng.sample(range(models), 2)
        win = 1 / (1 + 10 ** (0.15 * (b - a)))
        outcome = "tie" if rng.random() < ties else ("first" if rng.random() < win else "second")
        rows.append([a, b, outcome])
    return rows


def battles(games):
    return pd.DataFrame([dict(model_a=a, model_b=b, winner=NAMES[o]) for a, b, o in games])


TOURNAMENTS = [
    ("two models", 2, 12, 0.2),
    ("three models", 3, 40, 0.0),
    ("five models, ties", 5, 120, 0.3),
    ("eight models", 8, 400, 0.15),
]


def elo():
    rate = function(ELO, "compute_elo", defaultdict=defaultdict, Exception=Exception)
    cases = []
    for name, models, count, ties in TOURNAMENTS:
        games = tournament(name, models, count, ties)
        for k in [4, 32]:
            ratings = rate(battles(games), K=k)
            cases.append(dict(name=name, models=models, games=games, k=k, ratings=[ratings[m] for m in range(models)]))
    return cases


def arrays(games):
    pairs = np.array([g[:2] for g in games])
    score = np.array([{"first": 1.0, "second": 0.0, "tie": 0.5}[g[2]] for g in games])
    return pairs, score


def solve(negative, size):
    """To the last digits: BFGS, then Newton steps on numeric second derivatives of an analytic gradient."""
    result = minimize(lambda p: negative(p)[0], np.zeros(size), jac=lambda p: negative(p)[1], method="BFGS", options=dict(gtol=1e-10, maxiter=10000))
    x = result.x
    for _ in range(6):
        h = np.array([(negative(x + 1e-5 * e)[1] - negative(x - 1e-5 * e)[1]) / 2e-5 for e in np.eye(size)])
        x = x - np.linalg.pinv(h, rcond=1e-9) @ negative(x)[1]
    return x


def contextual(games, models, features, reg):
    """`contextual_bt_loss_and_grad` of rating_systems.py, commit 2bdb2e0."""
    pairs, score = arrays(games)

    def negative(p):
        z = ALPHA * (p[pairs[:, 0]] - p[pairs[:, 1]]) + features @ p[models:]
        loss = (np.logaddexp(0, z) - score * z).sum() + reg / 2 * p @ p
        error = score - expit(z)
        grad = reg * p
        np.add.at(grad, pairs[:, 0], -ALPHA * error)
        np.add.at(grad, pairs[:, 1], ALPHA * error)
        grad[models:] -= features.T @ error
        return loss, grad

    return negative


def sandwich(games, models, features, reg, point):
    """inv(H) B inv(H), where the pseudo-inverse keeps the mean rating."""
    pairs, score = arrays(games)
    rows = np.zeros((len(games), len(point)))
    rows[np.arange(len(games)), pairs[:, 0]] += ALPHA
    rows[np.arange(len(games)), pairs[:, 1]] -= ALPHA
    rows[:, models:] = features
    p = expit(rows @ point)
    hessian = rows.T @ (rows * (p * (1 - p))[:, None]) + reg * np.eye(len(point))
    scores = rows * (score - p)[:, None]
    scores = scores - scores.mean(0)
    inverse = np.linalg.pinv(hessian, rcond=1e-12)
    return inverse @ scores.T @ scores @ inverse


def bradley_terry():
    ridge = function(ELO, "compute_elo_mle_with_tie", pd=pd, np=np, math=math)
    cases = []
    for name, models, count, ties in TOURNAMENTS:
        games = tournament(name, models, count, ties)
        none = np.zeros((count, 0))
        for reg in [0.0, 0.5]:
            point = solve(contextual(games, models, none, reg), models)
            covariance = sandwich(games, models, none, reg, point)
            anchored = np.array([covariance[i, i] + covariance[1, 1] - 2 * covariance[i, 1] for i in range(models)])
            fitted = (400 * point + 1000).tolist()
            case = dict(
                name=name,
                models=models,
                games=games,
                regularization=reg,
                ratings=fitted,
                errors=(400 * np.sqrt(np.diag(covariance))).tolist(),
                anchored_ratings=[r + 1114 - fitted[1] for r in fitted],
                anchored_errors=(400 * np.sqrt(np.abs(anchored))).tolist(),
            )
            if reg == 0.5:
                of = ridge(battles(games))
                case["sklearn"] = [float(of[m]) for m in range(models)]
            cases.append(case)
    return cases


def tied():
    """Rao-Kupper and Davidson by the formulas of their papers."""
    cases = []
    for name, models, count, ties in TOURNAMENTS[2:]:
        games = tournament(name, models, count, ties)

        def probabilities(kind, d, t):
            a, b = np.exp(d / 2), np.exp(-d / 2)
            if kind == "davidson":
                nu = np.exp(t)
                total = a + b + nu * np.sqrt(a * b)
                return {"first": a / total, "second": b / total, "tie": nu * np.sqrt(a * b) / total}
            theta = np.exp(t)
            first, second = a / (a + theta * b), b / (theta * a + b)
            return {"first": first, "second": second, "tie": (theta**2 - 1) * a * b / ((a + theta * b) * (theta * a + b))}

        for kind in ["rao_kupper", "davidson"]:

            def value(p):
                if kind == "rao_kupper" and p[-1] <= 0:
                    return 1e9
                logs = [math.log(probabilities(kind, ALPHA * (p[a] - p[b]), p[-1])[o]) for a, b, o in games]
                return -sum(logs) + p[:models].sum() ** 2

            start = np.concatenate([np.zeros(models), [1.0]])
            best = minimize(value, start, method="BFGS", options=dict(gtol=1e-7)).x
            best = minimize(value, best, method="Nelder-Mead", options=dict(xatol=1e-10, fatol=1e-12, maxiter=40000, maxfev=40000)).x
            cases.append(
                dict(
                    name=name,
                    kind=kind,
                    models=models,
                    games=games,
                    ratings=(400 * best[:models] + 1000).tolist(),
                    tie=float(np.exp(best[-1])),
                    log_likelihood=-value(best),
                )
            )
    return cases


def style():
    rng = np.random.default_rng(3)
    cases = []
    for models, count in [(3, 60), (5, 150)]:
        games = tournament(f"style {models}", models, count, 0.1)
        first = rng.integers(0, 400, (count, 2)).astype(float)
        second = rng.integers(0, 400, (count, 2)).astype(float)
        difference = (first - second) / (first + second + 1)
        features = (difference - difference.mean(0)) / difference.std(0)
        for reg in [0.5, 0.0]:
            point = solve(contextual(games, models, features, reg), models + 2)
            covariance = sandwich(games, models, features, reg, point)
            cases.append(
                dict(
                    models=models,
                    games=games,
                    first=first.tolist(),
                    second=second.tolist(),
                    regularization=reg,
                    features=features[:5].tolist(),
                    ratings=(400 * point[:models] + 1000).tolist(),
                    coefficients=point[models:].tolist(),
                    errors=np.sqrt(np.diag(covariance)).tolist(),
                )
            )
    return cases


def agreement():
    convert = function(AGREE, "convertvote")
    equal = function(AGREE, "equalvote")
    count = function(AGREE, "get_mt_bench_agreement", convertvote=convert, equalvote=equal)
    rng = random.Random("agreement")
    kinds = ["first", "second", "tie"]
    cases = []
    for items, most in [(5, 3), (30, 5)]:
        people = [[rng.choice(kinds) for _ in range(rng.randint(0, most))] for _ in range(items)]
        judge = [rng.choice(kinds) for _ in range(items)]
        votes = {
            i: {"human": [NAMES[v] for v in people[i]], "gpt4-pair": [NAMES[judge[i]]]} for i in range(items)
        }
        cases.append(
            dict(
                people=people,
                judge=judge,
                among=[list(map(int, count(votes, "human", "human", ban=ban))) for ban in [[], ["tie"]]],
                against=[list(map(int, count(votes, "gpt4-pair", "human", ban=ban))) for ban in [[], ["tie"]]],
            )
        )
    return cases


def kappas():
    rng = random.Random("kappa")
    cases = []
    for items, levels in [(10, 2), (40, 4), (200, 5)]:
        first = [rng.randrange(levels) for _ in range(items)]
        second = [x if rng.random() < 0.5 else rng.randrange(levels) for x in first]
        cases.append(
            dict(
                first=first,
                second=second,
                categories=levels,
                kappas=[cohen_kappa_score(first, second, labels=range(levels), weights=w) for w in [None, "linear", "quadratic"]],
            )
        )
    return cases


def fleiss():
    rng = random.Random("fleiss")
    cases = []
    for items, raters, levels in [(10, 14, 5), (6, 2, 2), (30, 4, 3)]:
        counts = np.zeros((items, levels), dtype=int)
        for i in range(items):
            for _ in range(raters):
                counts[i, min(rng.randrange(levels), rng.randrange(levels))] += 1
        cases.append(dict(counts=counts.tolist(), kappa=float(fleiss_kappa(counts))))
    return cases


def alpha():
    rng = random.Random("alpha")
    gap = None
    cases = []
    tables = [
        [
            [1, 2, 3, 3, 2, 1, 4, 1, 2, gap, gap, gap],
            [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, gap, 3],
            [gap, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, gap],
            [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, gap],
        ]
    ]
    for raters, items in [(2, 8), (3, 20), (5, 12)]:
        tables.append(
            [[gap if rng.random() < 0.25 else rng.choice([0, 0.5, 1, 2, 4, 7]) for _ in range(items)] for _ in range(raters)]
        )
    for table in tables:
        data = np.array([[np.nan if x is None else x for x in row] for row in table], dtype=float)
        levels = ["nominal", "ordinal", "interval", "ratio"]
        cases.append(
            dict(ratings=table, alphas=[float(krippendorff.alpha(data, level_of_measurement=level)) for level in levels])
        )
    return cases


if __name__ == "__main__":
    write(
        "evaluation_human",
        dict(
            elo=elo(),
            bradley_terry=bradley_terry(),
            tied=tied(),
            style=style(),
            agreement=agreement(),
            cohen=kappas(),
            fleiss=fleiss(),
            krippendorff=alpha(),
        ),
    )
