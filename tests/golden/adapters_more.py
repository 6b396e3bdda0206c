"""AdaLoRA, DoRA, (IA)³, VeRA and the choice of modules by PEFT, in float64."""

import json
import types

import torch
from peft import AdaLoraConfig, IA3Config, LoraConfig, VeraConfig, get_peft_model
from peft.tuners.ia3.model import IA3Model
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.other import get_pattern_key

from adapters import Model, fill
from common import Draw, case, gradients, write

OUTPUTS = "the forward pass of a torch.nn.Linear, merge_and_unload"


def linear(draw, inside, outside, bias):
    layer = torch.nn.Linear(inside, outside, bias=bias)
    fill(layer.weight, draw.normal(outside, inside))
    if bias:
        fill(layer.bias, draw.normal(outside))
    return layer


def wrapped(model, config):
    return get_peft_model(model, config, autocast_adapter_dtype=False)


def one_layer(draw, layer, config, name, oracle, parameters, settings, start=None):
    """A case of one adapted layer: output, gradients, merged weight."""
    bias = layer.bias
    weight = layer.weight.detach().clone()
    model = wrapped(Model(layer), config)
    adapter = model.base_model.model.layer
    outputs = {} if start is None else start(adapter)
    parameters = parameters(adapter)
    x = draw.normal(2, 3, layer.in_features).requires_grad_()
    y = model(x)
    upstream = draw.normal(*y.shape, decimals=2)
    inputs = dict(weight=weight, x=x, upstream=upstream, **parameters)
    if bias is not None:
        inputs["bias"] = bias
    inputs = {k: v.detach().clone() for k, v in inputs.items()}
    grads = gradients(y * upstream, x=x, **parameters)
    outputs |= dict(y=y, loss=(y * upstream).sum())
    merged = model.merge_and_unload().layer
    outputs["merged"] = merged.weight
    if bias is not None:
        outputs["merged_bias"] = merged.bias
    outputs = {k: v.detach().clone() for k, v in outputs.items()}
    return case(name, oracle + OUTPUTS, config=settings, inputs=inputs, outputs=outputs, grads=grads)


def dora():
    cases = []
    for name, inside, outside, r, alpha, rslora, bias in [
        ("alpha 6, r 2", 5, 3, 2, 6, False, True),
        ("rank-stabilised, no bias", 3, 4, 4, 3, True, False),
        ("rank 1", 4, 4, 1, 3, False, True),
    ]:
        draw = Draw(f"dora {name}")

        def parameters(layer):
            return dict(
                a=fill(layer.lora_A["default"].weight, draw.normal(r, inside)),
                b=fill(layer.lora_B["default"].weight, draw.normal(outside, r)),
                magnitude=fill(layer.lora_magnitude_vector["default"].weight, draw.uniform(outside, low=0.5, high=3.0)),
            )

        config = LoraConfig(target_modules=["layer"], r=r, lora_alpha=alpha, use_rslora=rslora, use_dora=True)
        cases.append(
            one_layer(
                draw, linear(draw, inside, outside, bias), config, name, "peft 0.21.2 LoraConfig(use_dora=True): ",
                parameters, dict(r=r, alpha=alpha, rank_stabilised=rslora),
                lambda layer: dict(start=layer.lora_magnitude_vector["default"].weight.detach().clone()),
            )
        )
    write("dora", cases)


def ia3():
    cases = []
    for place, shape in [("output", lambda i, o: (o, 1)), ("input", lambda i, o: (1, i))]:
        for bias in [True, False]:
            draw = Draw(f"ia3 {place} {bias}")
            inside, outside = 5, 3
            config = IA3Config(target_modules=["layer"], feedforward_modules=["layer"] if place == "input" else [])
            cases.append(
                one_layer(
                    draw, linear(draw, inside, outside, bias), config, f"{place}, bias {bias}",
                    "peft 0.21.2 IA3Config: ",
                    lambda layer: dict(scale=fill(layer.ia3_l["default"], draw.normal(*shape(inside, outside)))),
                    dict(place=place),
                )
            )
    paths = ["h.0.mlp.fc2", "h.0.mlp.xfc2", "h.0.attn.k", "fc2", "h.0.fc2.k", "h.1.mlp.fc2"]
    for name, feedforward in [("names", ["fc2"]), ("longer names", ["mlp.fc2", "k"]), ("an expression", r"h\.0\..*fc2")]:
        config = IA3Config(target_modules=["k", "fc2", "xfc2", "mlp.fc2"], feedforward_modules=feedforward)
        inner = [float(IA3Model._check_target_module_feedforward(config, path)) for path in paths]
        cases.append(
            case(
                f"the place of {name}",
                "peft 0.21.2 IA3Model._check_target_module_feedforward",
                config=dict(place="by path", feedforward=feedforward, paths=paths),
                inputs={},
                outputs=dict(inner=torch.tensor(inner)),
            )
        )
    write("ia3", cases)


class Two(torch.nn.Module):
    """Two layers of different sizes."""

    def __init__(self, wide, tall):
        super().__init__()
        self.wide, self.tall = wide, tall


def vera():
    cases = []
    for name, r, d, bias in [("r 3", 3, 0.1, True), ("r 1, no bias", 1, 0.5, False)]:
        draw = Draw(f"vera {name}")
        model = Two(linear(draw, 6, 3, bias), linear(draw, 4, 5, bias))
        bases = dict(wide=model.wide, tall=model.tall)
        config = VeraConfig(r=r, target_modules=["wide", "tall"], d_initial=d, save_projection=True)
        model = wrapped(model, config).base_model
        a, b = model.vera_A["default"], model.vera_B["default"]
        assert a.shape == (r, 6) and b.shape == (5, r) and a.dtype == torch.float64
        limits = dict(a=(6 / 6) ** 0.5, b=(6 / r) ** 0.5)
        assert a.abs().max() <= limits["a"] and b.abs().max() <= limits["b"]
        a.copy_(draw.normal(r, 6)), b.copy_(draw.normal(5, r))
        for which, base in bases.items():
            layer = getattr(model.model, which)
            start = dict(start_b=layer.vera_lambda_b["default"], start_d=layer.vera_lambda_d["default"])
            start = {k: v.detach().clone() for k, v in start.items()}
            lambda_b = fill(layer.vera_lambda_b["default"], draw.normal(base.out_features))
            lambda_d = fill(layer.vera_lambda_d["default"], draw.normal(r))
            x = draw.normal(2, 3, base.in_features).requires_grad_()
            y = layer(x)
            upstream = draw.normal(*y.shape, decimals=2)
            inputs = dict(weight=base.weight, x=x, upstream=upstream, a=a, b=b, lambda_b=lambda_b, lambda_d=lambda_d)
            if bias:
                inputs["bias"] = base.bias
            inputs = {k: v.detach().clone() for k, v in inputs.items()}
            grads = gradients(y * upstream, x=x, lambda_b=lambda_b, lambda_d=lambda_d)
            outputs = dict(y=y, loss=(y * upstream).sum(), delta=layer.get_delta_weight("default"), **start)
            outputs = {k: v.detach().clone() for k, v in outputs.items()}
            layer.merge()
            outputs["merged"] = base.weight.detach().clone()
            cases.append(
                case(
                    f"{name}, {which}",
                    "peft 0.21.2 VeraConfig: the forward pass of a torch.nn.Linear, get_delta_weight, merge",
                    config=dict(r=r, d_initial=d),
                    inputs=inputs,
                    outputs=outputs,
                    grads=grads,
                )
            )
    write("vera", cases)


class Regression(torch.nn.Module):
    """Two layers, each with a target of its own. Returns its loss, so that PEFT adds its penalty."""

    def __init__(self, q, v, targets):
        super().__init__()
        self.q, self.v, self.targets = q, v, targets

    def forward(self, x):
        q, v = (layer(x) - target for layer, target in zip((self.q, self.v), self.targets))
        return types.SimpleNamespace(loss=0.5 * ((q * q).sum() + (v * v).sum()))


def adalora():
    cases = []
    text = "peft 0.21.2 AdaLoraConfig, get_peft_model: "
    for name, inside, outside, r, alpha, bias in [
        ("alpha 6, r 4", 5, 3, 4, 6, True),
        ("rank 1, no bias", 4, 4, 1, 3, False),
    ]:
        draw = Draw(f"adalora {name}")

        def parameters(layer):
            return dict(
                q=fill(layer.lora_A["default"], draw.normal(r, inside)),
                lam=fill(layer.lora_E["default"], draw.normal(r, 1)),
                p=fill(layer.lora_B["default"], draw.normal(outside, r)),
            )

        config = AdaLoraConfig(target_modules=["layer"], init_r=r, target_r=1, lora_alpha=alpha, total_step=10)
        cases.append(
            one_layer(draw, linear(draw, inside, outside, bias), config, name, text, parameters,
                      dict(kind="layer", r=r, alpha=alpha))
        )
    for name, settings, rate in [
        ("every second step", dict(init_r=4, target_r=2, tinit=3, tfinal=5, deltaT=2, total_step=20), 0.01),
        ("every step, other memories",
         dict(init_r=3, target_r=1, tinit=0, tfinal=4, deltaT=1, total_step=24, beta1=0.6, beta2=0.9), 0.004),
        ("short memories",
         dict(init_r=3, target_r=1, tinit=2, tfinal=4, deltaT=1, total_step=24, beta1=0.5, beta2=0.5), 0.01),
    ]:
        draw = Draw(f"adalora run {name}")
        r, gamma, alpha = settings["init_r"], 0.3, 5
        x = draw.normal(6, 4)
        layers = [linear(draw, 4, 3, True), linear(draw, 4, 5, False)]
        targets = [draw.normal(6, layer.out_features) for layer in layers]
        inputs = dict(x=x, target_q=targets[0], target_v=targets[1], bias_q=layers[0].bias.detach().clone())
        inputs |= dict(weight_q=layers[0].weight.detach().clone(), weight_v=layers[1].weight.detach().clone())
        config = AdaLoraConfig(target_modules=["q", "v"], lora_alpha=alpha, orth_reg_weight=gamma, **settings)
        model = wrapped(Regression(*layers, targets), config)
        adapters = dict(q=model.base_model.model.q, v=model.base_model.model.v)
        for which, layer in adapters.items():
            for part in ["lora_A", "lora_B", "lora_E"]:
                parameter = getattr(layer, part)["default"]
                inputs[f"{part}_{which}"] = fill(parameter, draw.normal(*parameter.shape, scale=0.4)).detach().clone()
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(trained, lr=rate)
        allocator = model.base_model.rankallocator
        losses, budgets, lambdas, kept = [], [], [], []
        for step in range(settings["total_step"] + 1):
            loss = model.base_model(x).loss  # past the outer model, whose forward leaves the penalty out
            loss.backward()
            optimizer.step()
            model.base_model.update_and_allocate(step)
            optimizer.zero_grad()
            losses.append(loss.item())
            budgets.append(allocator.budget_schedule(step)[0])
            values = torch.cat([layer.lora_E["default"].detach().flatten() for layer in adapters.values()])
            lambdas.append(values.clone())
            pattern = model.peft_config["default"].rank_pattern
            pattern = sum(pattern.values(), []) if pattern else [True] * len(values)
            kept.append(torch.tensor(pattern, dtype=torch.float64))
        returned = sum(((1 - old) * new).sum() for old, new in zip(kept, kept[1:]))
        assert (returned > 0) == (name == "short memories"), returned  # one run in which a triplet returns
        outputs = dict(loss=torch.tensor(losses), budget=torch.tensor(budgets), lam=torch.stack(lambdas), kept=torch.stack(kept))
        cases.append(
            case(
                f"a run, {name}",
                text + "update_and_allocate after every step of torch.optim.SGD, with PEFT's penalty in the loss",
                config=dict(kind="run", alpha=alpha, gamma=gamma, rate=rate, beta1=config.beta1, beta2=config.beta2,
                            **{k: v for k, v in settings.items() if "beta" not in k}),
                inputs=inputs,
                outputs=outputs,
            )
        )
    write("adalora", cases)


def targets():
    paths = [
        "q", "v", "xq", "mod.q", "mod.xq", "mod.aq", "layers.1.q", "layers.0.v", "model.layers.0.q", "model.layers.1.q",
        "model.layers.1.v", "model.layers.11.q", "model.layers.1.experts.0.q", "model.layers.2.experts.1.q",
        "model.layers.1.attn.q", "model.layers.2.attn.v", "model.h.1.q", "model.h.3.q", "model.layers.q", "a..1.q",
        "model.decoder.layers.1.q", "enc.4.h.1.v", "lm_head", "model.score", "model.score.q", "model.layers.1x.q", "model.layers.1",
    ]
    cases = []
    for name, settings in [
        ("names", dict(target_modules=["q", "v"])),
        ("a name with a dot", dict(target_modules=["attn.q", "layers.1.v", "h.1.q"])),
        ("a whole path", dict(target_modules=["model.layers.1.q"])),
        ("an expression", dict(target_modules=r"model\..*\.(q|v)")),
        ("an expression that must fit the whole", dict(target_modules="q|model.layers.1")),
        ("alternatives, the shorter first", dict(target_modules="mod|mod.q")),
        ("left out by name", dict(target_modules=["q"], exclude_modules=["layers.1.q", "mod.q"])),
        ("left out by expression", dict(target_modules=["q"], exclude_modules=r".*layers\.1.*")),
        ("left out to be saved", dict(target_modules=["q", "v", "score"], modules_to_save=["score", "attn"])),
        ("layers", dict(target_modules=["q", "v"], layers_to_transform=[1])),
        ("one layer, as a number", dict(target_modules=["q", "v"], layers_to_transform=1)),
        ("layers, a whole path", dict(target_modules=["q", "model.layers.0.q"], layers_to_transform=[1])),
        ("a number at the end", dict(target_modules=["q", "1"], layers_to_transform=[1])),
        ("no layers in the list", dict(target_modules=["q"], layers_to_transform=[])),
        ("layers under a name", dict(target_modules=["q", "v"], layers_to_transform=[1], layers_pattern="layers")),
        ("layers under names", dict(target_modules=["q", "v"], layers_to_transform=[1, 3], layers_pattern=["h", "layers"])),
        ("layers under an expression", dict(target_modules=["q", "v"], layers_to_transform=[1, 4], layers_pattern=["enc|h"])),
        ("experts", dict(target_modules=["q"], layers_to_transform=[0, 1], layers_pattern=["experts"])),
    ]:
        config = LoraConfig(**settings)
        chosen = [float(bool(check_target_module_exists(config, path))) for path in paths]
        for field in ["layers_to_transform", "layers_pattern"]:
            if field in settings and not isinstance(settings[field], list):
                settings[field] = [settings[field]]
        cases.append(
            case(
                name,
                "peft 0.21.2 check_target_module_exists",
                config=dict(kind="targets", targets=settings, paths=paths),
                inputs={},
                outputs=dict(chosen=torch.tensor(chosen)),
            )
        )
    for name, rank_pattern, alpha_pattern in [
        ("a name", {"q": 2}, {}),
        ("the first of two", {"q": 2, "layers.1.q": 5}, {"layers.1.q": 32, "q": 4}),
        ("the longer first", {"layers.1.q": 5, "q": 2}, {"layers.0.v": 1.5}),
        ("anchored", {"^q": 2, "^model.layers.1.q": 3}, {"v$": 7}),
        ("expressions", {r"layers\.[01]\..*": 3, "q|v": 6}, {r".*\.attn\.(q|v)": 9}),
        ("alternatives without brackets", {"attn.q|v": 6}, {"xq|mod.q": 2}),
        ("a part of a name", {"ayers.1.q": 2}, {"x": 3}),
    ]:
        ranks = [rank_pattern.get(get_pattern_key(rank_pattern.keys(), path), 8) for path in paths]
        alphas = [alpha_pattern.get(get_pattern_key(alpha_pattern.keys(), path), 16) for path in paths]
        cases.append(
            case(
                f"patterns, {name}",
                "peft 0.21.2 get_pattern_key",
                config=dict(
                    kind="patterns", paths=paths, rank_pattern=json.dumps(rank_pattern), alpha_pattern=json.dumps(alpha_pattern)
                ),
                inputs={},
                outputs=dict(rank=torch.tensor(ranks), alpha=torch.tensor(alphas)),
            )
        )
    write("targets", cases)
