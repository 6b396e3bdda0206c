"""AdamW by torch, over fifty steps of given gradients; LoRA+ by PEFT, over steps of its own; the learning
rates of Transformers."""

import torch
from peft import LoraConfig, get_peft_model
from peft.optimizers import create_loraplus_optimizer
from transformers import (
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_cosine_with_min_lr_schedule_with_warmup,
    get_linear_schedule_with_warmup,
)

from adapters import fill
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
        optimizer = torch.optim.AdamW(groups, betas=betas, eps=epsilon)
        for step in range(STEPS):
            for group, rate in zip(optimizer.param_groups, rates):
                group["lr"] = 0.02 * factors[step] * rate
            for x, slope in zip(variables, slopes):
                x.grad = slope[step].to(kind)
            optimizer.step()
        state = [optimizer.state[x] for x in variables]
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


class Regression(torch.nn.Module):
    """Two layers in a row."""

    def __init__(self, q, v):
        super().__init__()
        self.q, self.v = q, v

    def forward(self, x):
        return self.v(torch.tanh(self.q(x)))


def lora_plus():
    """Steps of AdamW on ½ Σ (y − target)², with the groups that PEFT makes."""
    cases = []
    for name, ratio, decay, bias in [("ratio 16", 16.0, 0.0, False), ("ratio 3, decay, biases on B", 3.0, 0.2, True)]:
        draw, rate, steps = Draw(f"lora plus {name}"), 0.02, 12
        layers = [torch.nn.Linear(3, 4, bias=False), torch.nn.Linear(4, 2, bias=False)]
        model = Regression(*layers)
        inputs = dict(x=draw.normal(5, 3), target=draw.normal(5, 2))
        for which, layer in zip("qv", layers):
            inputs[f"weight {which}"] = fill(layer.weight, draw.normal(*layer.weight.shape)).detach().clone()
        config = LoraConfig(r=2, lora_alpha=3, target_modules=["q", "v"], lora_bias=bias)
        model = get_peft_model(model, config, autocast_adapter_dtype=False)
        trained = {
            k.removeprefix("base_model.model.").replace(".default", ""): p
            for k, p in model.named_parameters() if p.requires_grad
        }
        for key, parameter in trained.items():
            inputs[f"start {key}"] = fill(parameter, draw.normal(*parameter.shape, scale=0.5)).detach().clone()
        optimizer = create_loraplus_optimizer(
            model, torch.optim.AdamW, lr=rate, loraplus_lr_ratio=ratio, loraplus_weight_decay=decay
        )
        losses = []
        for _ in range(steps):
            loss = 0.5 * ((model(inputs["x"]) - inputs["target"]) ** 2).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        cases.append(
            case(
                name,
                f"peft 0.21.2 create_loraplus_optimizer over torch {torch.__version__} torch.optim.AdamW, {steps} steps",
                config=dict(r=2, alpha=3, ratio=ratio, decay=decay, rate=rate, bias=bias, steps=steps),
                inputs=inputs,
                outputs=dict(loss=torch.tensor(losses), **{f"end {k}": p for k, p in trained.items()}),
            )
        )
    write("lora_plus", cases)


def schedule():
    """The factor at each step from the first to one after the last."""
    cases = []
    for steps, warmup in [(12, 4), (12, 0), (1, 0), (3, 2), (3, 3), (100, 7)]:
        shape = dict(num_warmup_steps=warmup, num_training_steps=steps)
        for decay, floor, make in [
            ("constant", 0.0, lambda o: get_constant_schedule_with_warmup(o, num_warmup_steps=warmup)),
            ("linear", 0.0, lambda o: get_linear_schedule_with_warmup(o, **shape)),
            ("cosine", 0.0, lambda o: get_cosine_schedule_with_warmup(o, **shape)),
            ("cosine", 0.1, lambda o: get_cosine_with_min_lr_schedule_with_warmup(o, **shape, min_lr_rate=0.1)),
        ]:
            optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
            scheduler = make(optimizer)
            factors = []
            for _ in range(steps + 1):
                factors.append(scheduler.get_last_lr()[0])
                optimizer.step()
                scheduler.step()
            cases.append(
                case(
                    f"{decay} to {floor}, {warmup} of {steps} steps",
                    "transformers 5.23.0 get_*_schedule_with_warmup",
                    config=dict(steps=steps, warmup=warmup, decay=decay, floor=floor),
                    inputs={},
                    outputs=dict(factors=torch.tensor(factors)),
                )
            )
    write("schedule", cases)
