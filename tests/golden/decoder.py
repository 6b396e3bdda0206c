"""Methods that change a whole model, on a tiny decoder written out in torch, in float64: BitFit, the MAM
adapter of He et al. 2022 and the S4 design of Chen et al. 2023."""

import math

import torch

from common import Draw, case, gradients, write


class Decoder:
    """Eq. by eq., one row and one head at a time. `trained` is asked for what a method adds by name; a name that
    is not there adds nothing."""

    def __init__(self, draw, vocabulary, dim, heads, layers, feed_forward, time):
        self.dim, self.heads, self.layers, self.time, self.trained = dim, heads, layers, time, {}
        self.sizes = dict(
            vocabulary=vocabulary, dim=dim, heads=heads, layers=layers, max_len=time, feed_forward=feed_forward
        )
        shapes = {"embedding": (vocabulary, dim), "position": (time, dim), "head": (vocabulary, dim), "norm": (dim,)}
        for layer in range(layers):
            for name, shape in [
                ("attention.qkv", (3 * dim, dim)),
                ("attention.output", (dim, dim)),
                ("attention_norm", (dim,)),
                ("feed_forward.up", (feed_forward, dim)),
                ("feed_forward.down", (dim, feed_forward)),
                ("feed_forward_norm", (dim,)),
            ]:
                shapes[f"layers.{layer}.{name}"] = shape
        self.weights = {f"{name}.weight": draw.normal(*shape, decimals=2) for name, shape in shapes.items()}

    def norm(self, name, h):
        return self.weights[f"{name}.weight"] * h / torch.sqrt((h * h).mean(-1, keepdim=True) + 1e-6)

    def linear(self, name, x):
        """W x, + b under BitFit, + (α/r) B A x with α = r under LoRA."""
        y = x @ self.weights[f"{name}.weight"].T
        for bias in (f"{name}.bias", f"{name}.base_layer.bias"):
            if bias in self.trained:
                y = y + self.trained[bias]
        if f"{name}.lora_A.weight" in self.trained:
            y = y + (x @ self.trained[f"{name}.lora_A.weight"].T) @ self.trained[f"{name}.lora_B.weight"].T
        return y

    def prefix(self, layer):
        """P_k and P_v `[length, dim]` of a layer: by the network of all layers, or its own."""
        own = f"layers.{layer}.prefix.prompt_embeddings"
        if own in self.trained:
            return self.trained[own][:, : self.dim], self.trained[own][:, self.dim :]
        if "prefix.embedding.weight" not in self.trained:
            return None
        part = lambda name: self.trained[f"prefix.{name}"]  # noqa: E731
        inner = torch.tanh(part("embedding.weight") @ part("transform.0.weight").T + part("transform.0.bias"))
        values = inner @ part("transform.2.weight").T + part("transform.2.bias")
        keys = values[:, 2 * layer * self.dim : (2 * layer + 1) * self.dim]
        return keys, values[:, (2 * layer + 1) * self.dim : (2 * layer + 2) * self.dim]

    def attention(self, layer, x):
        q, k, v = self.linear(f"layers.{layer}.attention.qkv", x).split(self.dim, -1)
        prefix, width, heads = self.prefix(layer), self.dim // self.heads, []
        for head in range(self.heads):
            own = slice(head * width, (head + 1) * width)
            rows = []
            for t in range(len(x)):
                keys, values = k[: t + 1, own], v[: t + 1, own]
                if prefix is not None:
                    keys, values = torch.cat([prefix[0][:, own], keys]), torch.cat([prefix[1][:, own], values])
                weights = torch.softmax(keys @ q[t, own] / math.sqrt(width), 0)
                rows.append(weights @ values)
            heads.append(torch.stack(rows))
        return self.linear(f"layers.{layer}.attention.output", torch.cat(heads, -1))

    def adapted(self, layer, x, h):
        """h + s · W_up relu(W_down ·), where there is an adapter."""
        name = f"layers.{layer}.feed_forward.adapter"
        if f"{name}.down_proj.weight" not in self.trained:
            return h
        read = x if self.parallel else h
        inner = torch.relu(read @ self.trained[f"{name}.down_proj.weight"].T)
        return h + self.scale * (inner @ self.trained[f"{name}.up_proj.weight"].T)

    def logits(self, ids):
        rows = []
        for row in ids:
            h = self.weights["embedding.weight"][row] + self.weights["position.weight"][: len(row)]
            for layer in range(self.layers):
                h = h + self.attention(layer, self.norm(f"layers.{layer}.attention_norm", h))
                x = self.norm(f"layers.{layer}.feed_forward_norm", h)
                inner = self.linear(f"layers.{layer}.feed_forward.up", x)
                said = self.linear(f"layers.{layer}.feed_forward.down", inner * torch.sigmoid(inner))
                h = h + self.adapted(layer, x, said)
            rows.append(self.norm("norm", h) @ self.weights["head.weight"].T)
        return torch.stack(rows)

    def case(self, draw, name, oracle, shapes, adapter, parallel=False, scale=1.0):
        self.parallel, self.scale = parallel, scale
        self.trained = {k: draw.normal(*shape, scale=0.7, decimals=2).requires_grad_() for k, shape in shapes.items()}
        ids = draw.integers(2, self.time, below=self.sizes["vocabulary"])
        logits = self.logits(ids)
        upstream = draw.normal(*logits.shape, decimals=2)
        loss = (logits * upstream).sum()
        inputs = {f"base {k}": x for k, x in self.weights.items()} | {f"trained {k}": x for k, x in self.trained.items()}
        return case(
            name,
            oracle,
            config=dict(sizes=self.sizes, adapter=adapter),
            inputs=dict(ids=ids, upstream=upstream, **inputs),
            outputs=dict(logits=logits, loss=loss, trained=torch.tensor(float(sum(x.numel() for x in self.trained.values())))),
            grads=gradients(loss, **self.trained),
        )


def bitfit():
    draw = Draw("decoder bitfit")
    model = Decoder(draw, 5, dim=2, heads=1, layers=2, feed_forward=3, time=3)
    outputs = {"attention.qkv": 6, "attention.output": 2, "feed_forward.up": 3, "feed_forward.down": 2}
    shapes = {f"layers.{layer}.{name}.bias": (out,) for layer in range(2) for name, out in outputs.items()}
    return model.case(draw, "BitFit", "Ben Zaken et al. 2022: a bias on every linear map, written out", shapes, "bit_fit")


def mam():
    """A prefix in the attention, a scaled parallel adapter at the feed-forward part."""
    draw, dim, layers, length, inner, width = Draw("decoder mam"), 4, 2, 2, 3, 2
    model = Decoder(draw, 5, dim=dim, heads=2, layers=layers, feed_forward=3, time=3)
    shapes = {
        "prefix.embedding.weight": (length, dim),
        "prefix.transform.0.weight": (inner, dim),
        "prefix.transform.0.bias": (inner,),
        "prefix.transform.2.weight": (2 * layers * dim, inner),
        "prefix.transform.2.bias": (2 * layers * dim,),
    }
    for layer in range(layers):
        name = f"layers.{layer}.feed_forward.adapter"
        shapes |= {f"{name}.down_proj.weight": (width, dim), f"{name}.up_proj.weight": (dim, width)}
    adapter = dict(length=length, inner=inner, width=width)
    text = "He et al. 2022, §4.6: prefix, and h + 4 · W_up relu(W_down x), written out"
    return model.case(draw, "the MAM adapter", text, shapes, adapter, parallel=True, scale=4.0)


S4 = [{"A", "L"}, {"A", "P"}, {"A", "P", "B"}, {"P", "B", "L"}]  # Chen et al. 2023, §4
SPINDLE = [1, 2, 2, 1]  # of six layers


def s4(per_layer=30):
    """Every layer its group's strategies, which share `per_layer` numbers after the biases."""
    draw, dim, feed_forward = Draw("decoder s4"), 2, 3
    model = Decoder(draw, 5, dim=dim, heads=1, layers=sum(SPINDLE), feed_forward=feed_forward, time=3)
    outputs = {"attention.qkv": 3 * dim, "attention.output": dim, "feed_forward.up": feed_forward, "feed_forward.down": dim}
    unit = dict(A=2 * dim, P=2 * dim, L=dim + 3 * dim)
    shapes, layer = {}, 0
    for strategies, size in zip(S4, SPINDLE):
        for _ in range(size):
            left = per_layer - (sum(outputs.values()) if "B" in strategies else 0)
            sized = strategies - {"B"}
            count = {s: left // len(sized) // unit[s] for s in sized}
            assert min(count.values()) >= 1
            at = f"layers.{layer}."
            if "A" in strategies:
                shapes[at + "feed_forward.adapter.down_proj.weight"] = (count["A"], dim)
                shapes[at + "feed_forward.adapter.up_proj.weight"] = (dim, count["A"])
            if "P" in strategies:
                shapes[at + "prefix.prompt_embeddings"] = (count["P"], 2 * dim)
            if "L" in strategies:
                shapes[at + "attention.qkv.lora_A.weight"] = (count["L"], dim)
                shapes[at + "attention.qkv.lora_B.weight"] = (3 * dim, count["L"])
            if "B" in strategies:
                for name, out in outputs.items():
                    under = "base_layer.bias" if "L" in strategies and name == "attention.qkv" else "bias"
                    shapes[f"{at}{name}.{under}"] = (out,)
            layer += 1
    text = "Chen et al. 2023, §4: the S4 design on six layers, groups of 1, 2, 2, 1, written out"
    return model.case(draw, "the S4 design", text, shapes, dict(per_layer=per_layer))


def decoder():
    write("decoder", [bitfit(), mam(), s4()])
