"""AdamW by torch, over fifty steps of given gradients."""

import torch

from common import Draw, case, write

STEPS = 50


def adamw():
    cases = []
    for name, precision, betas, epsilon, decays, rates in [
        ("defaults", "float64", (0.9, 0.999), 1e-8, (0.01, 0.01), (1.0, 1.0)),
        ("groups: their own rate and decay", "float64", (0.8, 0.95), 1e-3, (0.1, 0.0), (1.0, 16.0)),
        ("defaults, in single precision", "float32", (0.9, 0.999), 1e-8, (0.01, 0.0), (1.0, 2.0)),
    ]:
        draw = Draw(f"adamw {name}")
        kind = getattr(torch, precision)
        starts = [draw.normal(2, 3), draw.normal(4)]
        slopes = [draw.normal(STEPS, 2, 3), draw.normal(STEPS, 4)]
        factors = [1.0 / (1 + step // 10) for step in range(STEPS)]
        variables = [x.clone().to(kind).requires_grad_() for x in starts]
        groups = [
            dict(params=[x], weight_decay=decay, lr=0.0) for x, decay in zip(variables, decays)
        ]
        optimiser = torch.optim.AdamW(groups, betas=betas, eps=epsilon)
        for step in range(STEPS):
            for group, rate in zip(optimiser.param_groups, rates):
                group["lr"] = 0.02 * factors[step] * rate
            for x, slope in zip(variables, slopes):
                x.grad = slope[step].to(kind)
            optimiser.step()
        state = [optimiser.state[x] for x in variables]
        cases.append(
            case(
                name,
                f"torch {torch.__version__} torch.optim.AdamW, {STEPS} steps, {precision}",
                config=dict(
                    precision=precision, beta1=betas[0], beta2=betas[1], epsilon=epsilon,
                    decay_a=decays[0], decay_b=decays[1], rate_a=rates[0], rate_b=rates[1],
                ),
                inputs=dict(
                    a=starts[0], b=starts[1], slopes_a=slopes[0], slopes_b=slopes[1],
                    rates=torch.tensor([0.02 * f for f in factors]),
                ),
                outputs={
                    "a": variables[0].double(), "b": variables[1].double(),
                    "a.exp_avg": state[0]["exp_avg"].double(), "b.exp_avg_sq": state[1]["exp_avg_sq"].double(),
                },
            )
        )
    write("adamw", cases)
