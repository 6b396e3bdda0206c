"""Prompts and prefixes by PEFT on a tiny Llama with grouped queries, attention with a prefix by
Transformers, and He et al.'s gated mixing and adapters written out, in float64."""

import math
from unittest import mock

import torch
import transformers
from peft import PrefixTuningConfig, PromptTuningConfig, get_peft_model
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from common import Draw, case, gradients, write

LAYERS, HEADS, KV_HEADS, HEAD_DIM, VOCABULARY = 2, 4, 2, 4, 7


def llama():
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=HEADS * HEAD_DIM, intermediate_size=5, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, max_position_embeddings=16,
    )
    return transformers.LlamaForCausalLM(config).double()


def fill(parameter, value):
    """Gives a parameter a value, and a leaf whose gradient can be asked for."""
    assert parameter.dtype == torch.float64 and parameter.shape == value.shape
    with torch.no_grad():
        parameter.copy_(value)
    return parameter


def prefix(name, length, inner):
    """PEFT's encoder, the cache that it hands to the model, and the tensor that it saves."""
    draw = Draw(f"prompts prefix {name}")
    config = PrefixTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=length, prefix_projection=inner is not None,
        encoder_hidden_size=inner,
    )
    model = get_peft_model(llama(), config)
    encoder = model.prompt_encoder["default"].double()
    parameters = {k: fill(p, draw.normal(*p.shape)) for k, p in encoder.named_parameters()}
    cache = model.get_prompt(1)
    outputs, loss, inputs = {}, 0, {k: p.clone() for k, p in parameters.items()}
    assert len(cache.layers) == LAYERS
    for index, layer in enumerate(cache.layers):
        for kind, x in [("key", layer.keys[0]), ("value", layer.values[0])]:
            upstream = draw.normal(*x.shape, decimals=2)
            inputs[f"upstream.{kind}.{index}"] = upstream
            outputs[f"{kind}.{index}"] = x
            loss = loss + (x * upstream).sum()
    outputs |= dict(loss=loss, prompt_embeddings=model.get_prompt_embedding_to_save("default"))
    return case(
        f"prefix, {name}",
        "peft 0.21.2 PrefixEncoder, get_prompt, get_prompt_embedding_to_save on a LlamaForCausalLM",
        config=dict(kind="prefix", length=length, inner=inner, layers=LAYERS, heads=KV_HEADS, head_dim=HEAD_DIM),
        inputs=inputs,
        outputs=outputs,
        grads=gradients(loss, **parameters),
    )


def embedded(model, ids, mask):
    """What the model under a prompt is given: embeddings, and what may be attended to."""
    seen = {}

    def look(_, __, given):
        seen.update(given)

    handle = model.get_base_model().model.register_forward_pre_hook(look, with_kwargs=True)
    model(input_ids=ids, attention_mask=mask)
    handle.remove()
    return seen["inputs_embeds"], seen["attention_mask"]


def prompt(name, length, text):
    draw = Draw(f"prompts prompt {name}")
    base = llama()
    # eighths: PEFT copies rows of the table in float32
    table = torch.round(draw.normal(VOCABULARY, HEADS * HEAD_DIM) * 8) / 8
    fill(base.model.embed_tokens.weight, table)
    settings = dict(task_type="CAUSAL_LM", num_virtual_tokens=length)
    if text is None:
        model = get_peft_model(base, PromptTuningConfig(**settings))
    else:
        settings |= dict(prompt_tuning_init="TEXT", prompt_tuning_init_text="-", tokenizer_name_or_path="-")
        tokenizer = lambda _: dict(input_ids=list(text))  # noqa: E731
        with mock.patch("transformers.AutoTokenizer.from_pretrained", return_value=tokenizer):
            model = get_peft_model(base, PromptTuningConfig(**settings))
    weight = model.prompt_encoder["default"].double().embedding.weight
    if text is None:
        fill(weight, draw.normal(*weight.shape))
    ids = draw.integers(2, 3, below=VOCABULARY)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    embeddings, attention = embedded(model, ids, mask)
    upstream = draw.normal(*embeddings.shape, decimals=2)
    loss = (embeddings * upstream).sum()
    inputs = dict(table=table, ids=ids, mask=mask, upstream=upstream)
    if text is None:
        inputs["values"] = weight.clone()
    saved = model.get_prompt_embedding_to_save("default")
    return case(
        f"prompt, {name}",
        "peft 0.21.2 PromptEmbedding: what LlamaModel gets from PeftModelForCausalLM.forward",
        config=dict(kind="prompt", length=length, text=text),
        inputs=inputs,
        outputs=dict(embeddings=embeddings, attention_mask=attention, prompt_embeddings=saved, loss=loss),
        grads=gradients(loss, prompt_embeddings=weight),
    )


def attention_inputs(draw, batch, time, keys, length):
    return dict(
        q=draw.normal(batch, HEADS, time, HEAD_DIM),
        k=draw.normal(batch, KV_HEADS, keys, HEAD_DIM),
        v=draw.normal(batch, KV_HEADS, keys, HEAD_DIM),
        prefix_key=draw.normal(KV_HEADS, length, HEAD_DIM),
        prefix_value=draw.normal(KV_HEADS, length, HEAD_DIM),
    )


def attention(name, length, visible):
    """Transformers' attention over a cache that begins with the prefix."""
    draw = Draw(f"prompts attention {name}")
    batch, time, keys = 2 if name.startswith("padded") else 1, 3, 3
    given = {k: x.requires_grad_() for k, x in attention_inputs(draw, batch, time, keys, length).items()}
    wide = lambda x: x[None].expand(batch, -1, -1, -1)  # noqa: E731
    k = torch.cat([wide(given["prefix_key"]), given["k"]], 2)
    v = torch.cat([wide(given["prefix_value"]), given["v"]], 2)
    mask, inputs = None, {k: x.clone() for k, x in given.items()}
    if visible is not None:
        inputs["visible"] = torch.tensor(visible)
        hidden = torch.tensor(visible).view(-1, 1, time, keys) == 0
        mask = torch.cat([torch.zeros(hidden.shape[0], 1, time, length), hidden * -1e30], 3)
    layer = llama().model.layers[0].self_attn.eval()
    # the eager form takes its softmax in float32
    out, _ = sdpa_attention_forward(layer, given["q"], k, v, mask, scaling=layer.scaling, is_causal=False)
    out = out.transpose(1, 2)
    upstream = draw.normal(*out.shape, decimals=2)
    inputs["upstream"] = upstream
    loss = (out * upstream).sum()
    return case(
        f"attention, {name}",
        "transformers 5.23 sdpa_attention_forward for LlamaAttention over [P_k; K], [P_v; V]",
        config=dict(kind="attention"),
        inputs=inputs,
        outputs=dict(head=out, loss=loss),
        grads=gradients(loss, **given),
    )


def mixing():
    """Eq. 7 to 10 query by query, with 1/√head_dim."""
    draw = Draw("prompts mixing")
    batch, time, keys, length = 1, 2, 3, 2
    given = {k: x.requires_grad_() for k, x in attention_inputs(draw, batch, time, keys, length).items()}
    gate, content, change, output = [], [], [], []

    def attend(scores, values):
        total = sum(torch.exp(s) for s in scores)
        return sum(torch.exp(s) / total * v for s, v in zip(scores, values)), total

    for b in range(batch):
        for head in range(HEADS):
            own = head // (HEADS // KV_HEADS)
            for t in range(time):
                query = given["q"][b, head, t] / math.sqrt(HEAD_DIM)
                old, total = attend([query @ key for key in given["k"][b, own]], given["v"][b, own])
                new, extra = attend([query @ key for key in given["prefix_key"][own]], given["prefix_value"][own])
                share = extra / (extra + total)
                gate.append(share)
                content.append(old)
                change.append(new)
                output.append((1 - share) * old + share * new)
    shape = (batch, HEADS, time, -1)
    output = torch.stack(output).view(shape)
    upstream = draw.normal(*output.shape, decimals=2)
    loss = (output * upstream).sum()
    return case(
        "mixing",
        "He et al. 2022, eq. 7 to 10, written out",
        config=dict(kind="mixing"),
        inputs=dict(upstream=upstream, **{k: x.clone() for k, x in given.items()}),
        outputs=dict(
            gate=torch.stack(gate).view(shape), content=torch.stack(content).view(shape),
            prefix=torch.stack(change).view(shape), output=output, loss=loss,
        ),
        grads=gradients(loss, **given),
    )


ACTIVATIONS = dict(
    linear=lambda x: x,
    relu=lambda x: torch.where(x > 0, x, torch.zeros_like(x)),
    gelu=lambda x: x * torch.distributions.Normal(0.0, 1.0).cdf(x),
    swish=lambda x: x / (1 + torch.exp(-x)),
)


def adapter(insertion, activation, width, scale, bias):
    """Eq. 4 with Table 1's scale and form, row by row."""
    name = f"adapter, {insertion}, {activation}{', biases' if bias else ''}"
    draw = Draw(f"prompts {name}")
    outside = 4
    inside = outside if insertion == "sequential" else 3
    given = dict(x=draw.normal(3, inside), h=draw.normal(3, outside))
    given |= dict(down=draw.normal(width, inside), up=draw.normal(outside, width))
    if bias:
        given |= dict(down_bias=draw.normal(width), up_bias=draw.normal(outside))
    given = {k: x.requires_grad_() for k, x in given.items()}
    rows = []
    for x, h in zip(given["x"], given["h"]):
        read = h if insertion == "sequential" else x
        inner = [read @ w for w in given["down"]]
        if bias:
            inner = [a + b for a, b in zip(inner, given["down_bias"])]
        inner = ACTIVATIONS[activation](torch.stack(inner))
        change = torch.stack([inner @ w for w in given["up"]])
        if bias:
            change = change + given["up_bias"]
        rows.append(h + scale * change)
    out = torch.stack(rows)
    upstream = draw.normal(*out.shape, decimals=2)
    loss = (out * upstream).sum()
    grads = gradients(loss, **given)
    if insertion == "sequential":
        del grads["x"]  # not read
    return case(
        name,
        "He et al. 2022, eq. 4 and Table 1, written out",
        config=dict(kind="adapter", insertion=insertion, activation=activation, width=width, scale=scale, bias=bias),
        inputs=dict(upstream=upstream, **{k: x.clone() for k, x in given.items()}),
        outputs=dict(h=out, loss=loss),
        grads=grads,
    )


def prompts():
    causal = [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    padded = [causal, [[0, 0, 0], [0, 1, 0], [0, 1, 1]]]
    write(
        "prompts",
        [
            prefix("direct", 3, None),
            prefix("projected", 2, 3),
            prompt("drawn", 2, None),
            prompt("short text", 3, [3, 1]),
            prompt("long text", 2, [6, 0, 2, 5]),
            attention("all keys", 2, None),
            attention("causal", 1, causal),
            attention("padded on the left", 3, padded),
            mixing(),
            adapter("sequential", "relu", 2, 1.0, True),
            adapter("parallel", "relu", 3, 4.0, False),
            adapter("parallel", "gelu", 2, 0.5, True),
            adapter("sequential", "swish", 1, 2.0, False),
            adapter("parallel", "linear", 2, 1.5, True),
        ],
    )
