"""NF4 with double quantisation, by bitsandbytes on the CPU, in float32."""

import bitsandbytes as bnb
import bitsandbytes.functional as bf
import numpy
import torch

from common import Draw, case, write

DYNAMIC = bf.create_dynamic_map()


def portable(name, *arguments):
    """An operation of bitsandbytes by its portable code, whose rule is that of the GPU: its CPU kernel
    looks the index of a scale up in a table that is too coarse for some."""
    key = torch._C.DispatchKey.CompositeExplicitAutograd
    operation = getattr(torch.ops.bitsandbytes, name).default
    return operation.redispatch(torch._C.DispatchKeySet(key), *arguments)


def plain(x):
    return x.double()


def tie(scale):
    """Numbers that lie, once divided, on the middles between values, and their neighbours."""
    code = bf.get_4bit_type("nf4", "cpu")
    middles = (code[:-1] + code[1:]) / 2
    up, down = (torch.nextafter(middles, torch.tensor(x)) for x in (2.0, -2.0))
    x = torch.cat([torch.tensor([1.0]), middles, up, down, torch.tensor([0.0, -0.0, -1.0])])
    return torch.cat([x, torch.zeros(64 - len(x))]) * scale


def quantised():
    cases = []
    text = "bitsandbytes 0.50.2 "
    draw = Draw("nf4")
    normal = lambda *shape, **how: draw.normal(*shape, **how).float()  # noqa: E731
    tensors = {
        "two blocks": normal(8, 16),
        "ragged": normal(7, 15),
        "odd, less than a block": normal(3, 3),
        "one number": torch.tensor([-0.3]),
        "ties": tie(1.0),
        "ties times four": tie(4.0),
        "ties in a ragged block": tie(1.0)[:49],
        "a block of zeros": torch.cat([normal(64), torch.zeros(64), normal(32)]),
        "a ragged block of zeros": torch.cat([normal(64), torch.zeros(5)]),
        "zeros": torch.zeros(70),
        "far apart": torch.cat([normal(64, scale=1e-3, decimals=6), normal(64, scale=100.0), normal(64)]),
        "tiny": torch.cat([normal(64), normal(20)]) * 1e-39,
        "of constant magnitude": torch.full((130,), -2.5),
        "more than 256 blocks": numpy.sin(1.7 * numpy.arange(64 * 258 + 1) ** 1.5 + 0.3).astype(numpy.float32),
    }
    for name, x in tensors.items():
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            if dtype != torch.float32 and name not in ("ragged", "two blocks", "far apart"):
                continue
            x = torch.as_tensor(x)
            large = x.numel() > 1000
            typed = x.to(dtype)
            packed, single = bf.quantize_4bit(typed, quant_type="nf4")
            assert packed.equal(portable("quantize_4bit", typed, 64, "nf4", torch.uint8)[0])
            offset = single.absmax.mean()
            indices, nested = portable("quantize_blockwise", single.absmax - offset, DYNAMIC, 256)
            # the same state with the portable code's indices
            _, double = bf.quantize_4bit(typed, quant_type="nf4", compress_statistics=True)
            assert double.offset == offset and double.state2.absmax.equal(nested)
            double.absmax = indices
            outputs = dict(
                packed=packed.flatten()[:: 97 if large else 1],
                sum_of_packed=packed.double().sum(),
                absmax=single.absmax[:: 7 if large else 1],
                offset=offset,
                indices=indices,
                nested_absmax=nested,
                single=plain(bf.dequantize_4bit(packed, single)).flatten()[:: 97 if large else 1],
                double=plain(bf.dequantize_4bit(packed, double)).flatten()[:: 97 if large else 1],
            )
            outputs = {k: plain(v) for k, v in outputs.items()}
            kind = str(dtype).removeprefix("torch.")
            # a case whose numbers a formula gives is not stored
            inputs = dict(x=torch.zeros(0)) if large else dict(x=plain(typed))
            config = dict(kind="tensor", dtype=kind, count=x.numel(), every=97 if large else 1)
            how = "quantize_4bit, dequantize_4bit; the scales' indices by its portable quantize_blockwise"
            cases.append(case(f"{name}, {kind}", text + how, config=config, inputs=inputs, outputs=outputs))
    cases.append(
        case(
            "the dynamic map", text + "create_dynamic_map",
            config=dict(kind="map"), inputs={}, outputs=dict(map=plain(DYNAMIC)),
        )
    )
    for name, inside, outside, double, bias in [("double", 20, 7, True, True), ("single", 9, 5, False, False)]:
        draw = Draw(f"linear4bit {name}")
        layer = bnb.nn.Linear4bit(inside, outside, bias=bias, quant_type="nf4", compress_statistics=double)
        weight = draw.normal(outside, inside).float()
        state = dict(weight=weight)
        if bias:
            state["bias"] = draw.normal(outside).float()
        layer.load_state_dict(state)
        layer = layer.to("cpu")
        layer.weight = layer.weight._quantize("cpu")
        layer.train()
        x = draw.normal(2, 3, inside).float().requires_grad_()
        upstream = draw.normal(2, 3, outside, decimals=2).float()
        y = layer(x)
        assert y.dtype == torch.float32
        (gradient,) = torch.autograd.grad((y * upstream).sum(), x)
        saved = {f"state {k}": plain(v) for k, v in layer.state_dict().items()}
        kinds = {k: str(v.dtype).removeprefix("torch.") for k, v in layer.state_dict().items()}
        inputs = dict(x=plain(x), upstream=plain(upstream), original=plain(weight), **saved)
        outputs = dict(y=plain(y), loss=(plain(y) * plain(upstream)).sum(), weight=plain(bf.dequantize_4bit(layer.weight.data, layer.weight.quant_state)))
        config = dict(kind="linear", double=double, bias=bias, types=kinds)
        how = "nn.Linear4bit in float32: its state dict, forward pass and gradient"
        cases.append(case(f"a layer, {name}", text + how, config=config, inputs=inputs, outputs=outputs, grads=dict(x=plain(gradient))))
    write("quantised", cases)
