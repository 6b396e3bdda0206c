"""LoRA by PEFT, in float64."""

import torch
from peft import LoraConfig, get_peft_model

from common import Draw, case, gradients, write


class Model(torch.nn.Module):
    """One layer under one name, so that PEFT can replace it."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)


def adapted(layer, **settings):
    # the input's dimensions stay as they are, in float64: no autocast of the adapter
    model = get_peft_model(
        Model(layer), LoraConfig(target_modules=["layer"], **settings), autocast_adapter_dtype=False
    )
    return model, model.base_model.model.layer


def fill(parameter, value):
    """Gives a parameter a value, and a leaf whose gradient can be asked for."""
    assert parameter.dtype == torch.float64 and parameter.shape == value.shape
    with torch.no_grad():
        parameter.copy_(value)
    return parameter


def lora():
    cases = []
    text = "peft 0.21.2 LoraConfig, get_peft_model: "
    for name, inside, outside, r, alpha, rslora, bias, trained in [
        ("alpha 16, r 4", 5, 3, 4, 16, False, True, "none"),
        ("alpha 1, r 2, no bias", 3, 4, 2, 1, False, False, "none"),
        ("rank-stabilised", 6, 4, 4, 8, True, False, "none"),
        ("rank 1", 4, 4, 1, 3, False, True, "none"),
        ("bias on B", 3, 5, 2, 5, False, True, "update"),
        ("bias of the base", 3, 4, 2, 6, True, True, "base"),
    ]:
        draw = Draw(f"lora linear {name}")
        linear = torch.nn.Linear(inside, outside, bias=bias)
        fill(linear.weight, draw.normal(outside, inside))
        if bias:
            fill(linear.bias, draw.normal(outside))
        model, layer = adapted(
            linear, r=r, lora_alpha=alpha, use_rslora=rslora, lora_bias=trained == "update",
            bias="lora_only" if trained == "base" else "none",
        )
        a = fill(layer.lora_A["default"].weight, draw.normal(r, inside))
        b = fill(layer.lora_B["default"].weight, draw.normal(outside, r))
        parameters = dict(a=a, b=b)
        if trained == "update":
            parameters["trained_bias"] = fill(layer.lora_B["default"].bias, draw.normal(outside))
        if trained == "base":
            parameters["trained_bias"] = layer.base_layer.bias
            assert layer.base_layer.bias.requires_grad
        x = draw.normal(2, 3, inside).requires_grad_()
        y = model(x)
        weight = draw.normal(*y.shape, decimals=2)  # so that the gradient is not that of a plain sum
        inputs = dict(weight=linear.weight, x=x, upstream=weight, **parameters)
        if bias:
            inputs["bias"] = linear.bias
        inputs = {k: v.clone() for k, v in inputs.items()}
        grads = gradients(y * weight, x=x, **parameters)
        outputs = dict(y=y, loss=(y * weight).sum(), delta=layer.get_delta_weight("default"))
        merged = model.merge_and_unload().layer
        outputs["merged"] = merged.weight
        if bias:
            outputs["merged_bias"] = merged.bias
        cases.append(
            case(
                f"linear, {name}",
                text + "the forward pass of a torch.nn.Linear, get_delta_weight, merge_and_unload",
                config=dict(kind="linear", r=r, alpha=alpha, rank_stabilised=rslora, trained_bias=trained),
                inputs=inputs,
                outputs=outputs,
                grads=grads,
            )
        )
    for name, vocabulary, width, r, alpha, rslora in [
        ("alpha 6, r 2", 7, 3, 2, 6, False),
        ("rank-stabilised", 5, 4, 4, 6, True),
    ]:
        draw = Draw(f"lora embedding {name}")
        embedding = torch.nn.Embedding(vocabulary, width)
        fill(embedding.weight, draw.normal(vocabulary, width))
        model, layer = adapted(embedding, r=r, lora_alpha=alpha, use_rslora=rslora)
        a = fill(layer.lora_embedding_A["default"], draw.normal(r, vocabulary))
        b = fill(layer.lora_embedding_B["default"], draw.normal(width, r))
        ids = draw.integers(2, 4, below=vocabulary)
        y = model(ids)
        weight = draw.normal(*y.shape, decimals=2)
        inputs = dict(weight=embedding.weight.clone(), a=a.clone(), b=b.clone(), ids=ids, upstream=weight)
        grads = gradients(y * weight, a=a, b=b)
        delta = layer.get_delta_weight("default")
        merged = model.merge_and_unload().layer.weight
        cases.append(
            case(
                f"embedding, {name}",
                text + "the forward pass of a torch.nn.Embedding, get_delta_weight, merge_and_unload",
                config=dict(kind="embedding", r=r, alpha=alpha, rank_stabilised=rslora, trained_bias="none"),
                inputs=inputs,
                outputs=dict(y=y, loss=(y * weight).sum(), delta=delta, merged=merged),
                grads=grads,
            )
        )
    write("lora", cases)
