"""Judgments of models: alpaca_eval's own functions, and the formulas of MT-bench's `show_result.py`, FairEval and
FActScore written out; correlations by SciPy; pass@k by counting every draw."""

import itertools
import logging
import math
import random
import sys
import types
import warnings

import numpy as np
import pandas as pd
import scipy.stats
import sklearn
from patsy import build_design_matrices, dmatrix
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.metrics import make_scorer
from sklearn.model_selection import GroupKFold

from evaluation_common import function, released, write

PACKAGE = "alpaca_eval==0.6.6"
GLM = released(PACKAGE, "alpaca_eval/metrics/glm_winrate.py")


def head_to_head():
    """`AbsoluteScoringRule` and `ZeroOneScoringRule`, from a module with no other import of the package."""
    valid = function(released(PACKAGE, "alpaca_eval/utils.py"), "validate_alpacaeval_preference", np=np)
    sys.modules["alpaca_eval"] = types.ModuleType("alpaca_eval")
    sys.modules["alpaca_eval.utils"] = types.SimpleNamespace(validate_alpacaeval_preference=valid)
    module = types.ModuleType("helpers")
    sys.modules["helpers"] = module
    exec(compile(released(PACKAGE, "alpaca_eval/metrics/helpers.py"), "helpers", "exec"), module.__dict__)
    return module


def alpaca():
    rules = head_to_head()
    rng = random.Random("alpaca")
    cases = []
    for values, count in [([1.0, 2.0], 20), ([1.0, 1.5, 2.0, 0.0], 30), (None, 40)]:
        preferences = [rng.choice(values) if values else round(1 + rng.random(), 4) for _ in range(count)]
        of = rules.AbsoluteScoringRule().describe_head2head(preferences)
        discrete = rules.ZeroOneScoringRule().describe_head2head(preferences)
        cases.append(
            dict(
                preferences=preferences,
                win_rate=float(of["win_rate"]),
                standard_error=float(of["standard_error"]),
                wins=int(of["n_wins"]),
                losses=int(of["n_wins_base"]),
                draws=int(of["n_draws"]),
                discrete_win_rate=float(discrete["win_rate"]),
            )
        )
    return cases


FORMULA = "np.tanh(std_delta_len) + instruction_difficulty + not_gamed_baseline.astype(float) - 1"


def length_controlled():
    warnings.simplefilter("ignore")
    losses = function(GLM, "logloss", np=np)
    environment = dict(
        sklearn=sklearn, pd=pd, np=np, make_scorer=make_scorer, GroupKFold=GroupKFold, LogisticRegression=LogisticRegression
    )
    environment["logloss_continuous"] = function(GLM, "logloss_continuous", np=np, logloss=losses)
    matrix = function(GLM, "make_dmatrix_for_model", np=np, dmatrix=dmatrix, build_design_matrices=build_design_matrices)
    cases = []
    for name, count, gamed in [("plain", 60, 0), ("gamed", 80, 40), ("hard", 120, 30)]:
        rng = np.random.default_rng(len(name) + count)
        base = rng.integers(200, 2000, count)
        own = rng.integers(200, 3000, count)
        difficulty = np.round(rng.normal(0, 1, count), 3)
        raw = base - own
        df = pd.DataFrame(dict(std_delta_len=raw / pd.Series(raw).std(), instruction_difficulty=difficulty))
        z = -1.2 * np.tanh(df["std_delta_len"]) + 0.4 * difficulty + (0.8 if name == "hard" else -0.3)
        df["preference"] = np.round(1 / (1 + np.exp(-(z + rng.normal(0, 0.5, count)))), 4)
        df.loc[3, "preference"] = np.nan
        df["not_gamed_baseline"] = True
        test = df[["instruction_difficulty", "not_gamed_baseline"]].copy()
        test["std_delta_len"] = 0
        extra = pd.DataFrame(
            dict(
                std_delta_len=np.round(rng.normal(0, 1, gamed), 3),
                instruction_difficulty=np.round(rng.normal(0, 1, gamed), 3),
                preference=np.round(rng.random(gamed), 3),
                not_gamed_baseline=np.zeros(gamed, dtype=bool),
            )
        )
        train = pd.concat([extra, df], axis=0).reset_index(drop=True) if gamed else df
        weight = None
        if gamed:
            weight = train["not_gamed_baseline"].astype(float) + (0.2 * (~train["not_gamed_baseline"])).astype(float) / 2
        xy, x = matrix(train, test, formula=FORMULA)
        kept = xy["preference"].notna()
        xy, weight = xy[kept], None if weight is None else weight[kept]

        for tolerance in [1e-4, 1e-12]:
            # the package's call, and the same with the solver's tolerance out of the way
            class CV(LogisticRegressionCV):
                def __init__(self, **kwargs):
                    super().__init__(**kwargs)
                    self.tol, self.max_iter = tolerance, 100 if tolerance == 1e-4 else 100000

                @classmethod
                def _get_param_names(cls):
                    return LogisticRegressionCV._get_param_names()

            fit = function(GLM, "fit_LogisticRegressionCV", LogisticRegressionCV=CV, **environment)
            np.random.seed(0)
            model = fit(xy, "preference", is_ytrue_proba=True, sample_weight=weight, n_splits=5)
            predicted = pd.Series(model.predict_proba(x)[:, 1])
            rows = lambda d: [  # noqa: E731
                [None if math.isnan(p) else 1 + p, s, g]
                for p, s, g in zip(d["preference"], d["std_delta_len"], d["instruction_difficulty"])
            ]
            cases.append(
                dict(
                    name=name,
                    tolerance=tolerance,
                    lengths=[base.tolist(), own.tolist()],
                    rows=rows(df),
                    gamed=rows(extra),
                    coefficients=model.coef_[0].tolist(),
                    c=float(np.ravel(model.C_)[0]),
                    win_rate=float(predicted.mean() * 100),
                    standard_error=float(predicted.sem() * 100),
                )
            )
    return cases


def mt_bench():
    rng = random.Random("mt-bench")
    cases = []
    for count in [6, 50]:
        games = [[rng.choice(["first", "second", "tie"]) for _ in range(2)] for _ in range(count)]
        win = loss = tie = 0
        for g1, g2 in games:
            # g2 is told of the positions that the judge saw
            g2 = {"first": "second", "second": "first", "tie": "tie"}[g2]
            if g1 == "tie" or g1 != g2:
                tie += 1
            elif g1 == "first":
                win += 1
            else:
                loss += 1
        cases.append(
            dict(games=games, win_rate=win / count, loss_rate=loss / count, win_rate_adjusted=(win + 0.5 * tie) / count)
        )
    return cases


def fair_eval():
    rng = random.Random("faireval")
    cases = []
    for k in [1, 3, 6]:
        forward = [[float(rng.randint(5, 9)), float(rng.randint(5, 9))] for _ in range(k)]
        backward = [[float(rng.randint(5, 9)), float(rng.randint(5, 9))] for _ in range(k)]
        everything = forward + backward
        results = ["win" if a > b else "lose" if a < b else "tie" for a, b in everything]
        shares = [results.count(r) / (2 * k) for r in ["win", "tie", "lose"]]
        cases.append(
            dict(
                forward=forward,
                backward=backward,
                scores=[sum(s[i] for s in everything) / (2 * k) for i in range(2)],
                entropy=float(scipy.stats.entropy(shares)),
            )
        )
    return cases


def fact_score():
    rng = random.Random("factscore")
    cases = []
    for gamma in [10, 0, 4]:
        answers = [[rng.random() < 0.7 for _ in range(rng.randint(1, 15))] if rng.random() < 0.8 else None for _ in range(12)]
        given = [a for a in answers if a is not None]
        plain = [float(np.mean(a)) for a in given]
        penalty = [1.0 if not gamma or len(a) > gamma else float(np.exp(1 - gamma / len(a))) for a in given]
        cases.append(
            dict(
                answers=answers,
                gamma=gamma,
                score=float(np.mean(np.array(plain) * penalty)),
                unpenalized=float(np.mean(plain)),
                answered=len(given) / len(answers),
                facts=float(np.mean([len(a) for a in given])),
            )
        )
    return cases


def correlations():
    rng = random.Random("meta")
    cases = []
    for n, levels in [(5, None), (12, 4), (40, 3), (100, None)]:
        x = [rng.randrange(levels) / 2 if levels else round(rng.gauss(0, 1), 4) for _ in range(n)]
        y = [round(a + rng.gauss(0, 1), 0 if levels else 4) for a in x]
        cases.append(
            dict(
                x=x,
                y=y,
                pearson=float(scipy.stats.pearsonr(x, y).statistic),
                spearman=float(scipy.stats.spearmanr(x, y).statistic),
                kendall_b=float(scipy.stats.kendalltau(x, y, variant="b").statistic),
                kendall_c=float(scipy.stats.kendalltau(x, y, variant="c").statistic),
            )
        )
    return cases


def levels():
    rng = random.Random("levels")
    human = [[float(rng.randint(1, 5)) for _ in range(4)] for _ in range(10)]
    human[2] = [3.0] * 4
    metric = [[round(h + rng.gauss(0, 1), 3) for h in row] for row in human]
    metric[5] = [0.5] * 4
    tau = lambda x, y: float(scipy.stats.kendalltau(x, y).statistic)  # noqa: E731
    kept = [(x, y) for x, y in zip(metric, human) if len(set(x)) > 1 and len(set(y)) > 1]
    return [
        dict(
            metric=metric,
            human=human,
            sample=float(np.mean([tau(x, y) for x, y in kept])),
            system=tau(np.mean(metric, 0), np.mean(human, 0)),
            dataset=tau(np.concatenate(metric), np.concatenate(human)),
        )
    ]


def pass_at_k():
    cases = []
    for n, c, k in [(5, 2, 3), (10, 1, 5), (10, 10, 1), (10, 0, 4), (12, 6, 6), (8, 7, 2)]:
        draws = list(itertools.combinations(range(n), k))
        cases.append(dict(n=n, c=c, k=k, share=sum(min(d) < c for d in draws) / len(draws)))
    # exact fractions beyond the reach of a double's factorials
    for n, c, k in [(1000, 3, 500), (200, 40, 100)]:
        cases.append(dict(n=n, c=c, k=k, share=1 - math.comb(n - c, k) / math.comb(n, k)))
    return cases


if __name__ == "__main__":
    logging.disable()
    write(
        "evaluation_model",
        dict(
            alpaca=alpaca(),
            length_controlled=length_controlled(),
            mt_bench=mt_bench(),
            fair_eval=fair_eval(),
            fact_score=fact_score(),
            correlations=correlations(),
            levels=levels(),
            pass_at_k=pass_at_k(),
        ),
    )
