"""NF4 with double quantisation, by bitsandbytes on the CPU, in float32."""

import bitsandbytes as bnb
import bitsandbytes.functional as bf
import numpy
import torch

from common import Draw, case, write

DYNAMIC = bf.create_dynamic_map()


def portable(name, *arguments):
    """An operation of bitsandbytes by its portable code. Its CPU kernels look the index of a scale up
    in a table that is too coarse for some, and with AVX-512 take the scale of another block where a
    row's length is a multiple of 16 but not of 64."""
    key = torch._C.DispatchKey.CompositeExplicitAutograd
    operation = getattr(torch.ops.bitsandbytes, name).default
    return operation.redispatch(torch._C.DispatchKeySet(key), *arguments)


def plain(x):
    """As float64, whose shortest text is that of the float32: the test rounds it back to that."""
    numbers = [float(str(numpy.float32(v))) for v in x.flatten().tolist()]
    return torch.tensor(numbers, dtype=torch.float64).reshape(x.shape)


def tie(scale):
    """Numbers that lie, once divided, on the middles between values, and their neighbours."""
    code = bf.get_4bit_type("nf4", "cpu")
    middles = (code[:-1] + code[1:]) / 2
    up, down = (torch.nextafter(middles, torch.tensor(x)) for x in (2.0, -2.0))
    x = torch.cat([torch.tensor([1.0]), middles, up, down, torch.tensor([0.0, -0.0, -1.0])])
    return torch.cat([x, torch.zeros(64 - len(x))]) * scale


def counted(n):
    """Numbers by a formula in integers, in blocks of different magnitudes."""
    i = torch.arange(n)
    return ((7919 * i + 31 * i * i) % 2003 - 1001).float() / 256 * (1 + (37 * (i // 64)) % 101).float() / 64


def quantised():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
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
        "far apart": torch.cat([normal(64, scale=1e-3, decimals=6), normal(64, scale=100.0), normal(30)]),
        "tiny": torch.cat([normal(64), normal(20)]) * 1e-39,
        "of constant magnitude": torch.full((130,), -2.5),
        "more than 256 blocks": counted(64 * 258 + 1),
    }
    for name, x in tensors.items():
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            if dtype != torch.float32 and name != "far apart":
                continue
            x = torch.as_tensor(x)
            large = x.numel() > 1000
            step, every = (97, 97) if large else (1, 3 if x.numel() > 100 else 1)
            typed = x.to(dtype)
            packed, state = bf.quantize_4bit(typed, quant_type="nf4")
            assert packed.equal(portable("quantize_4bit", typed, 64, "nf4", torch.uint8)[0])
            offset = state.absmax.mean()
            indices, nested = portable("quantize_blockwise", state.absmax - offset, DYNAMIC, 256)
            native = bf.quantize_4bit(typed, quant_type="nf4", compress_statistics=True)[1]
            assert native.offset == offset and torch.allclose(native.state2.absmax, nested, rtol=0, atol=1e-38)
            scales = portable("dequantize_blockwise", indices, nested, DYNAMIC, 256, torch.float32) + offset
            single, double = (
                portable("dequantize_4bit", packed, scales, 64, "nf4", typed.shape, dtype).flatten()
                for scales in (state.absmax, scales)
            )
            outputs = dict(
                packed=packed.flatten()[::step],
                sum_of_packed=packed.double().sum(),
                absmax=state.absmax,
                offset=offset,
                indices=indices,
                nested_absmax=nested,
                single=single[::every],
                double=double[::every],
            )
            outputs = {k: plain(v) for k, v in outputs.items()}
            kind = str(dtype).removeprefix("torch.")
            # a formula gives the numbers of the large case; of results only a part is stored
            inputs = {} if large else dict(x=plain(typed))
            config = dict(kind="counted" if large else "tensor", dtype=kind, every=every)
            how = "quantize_4bit; quantize_blockwise, dequantize_blockwise, dequantize_4bit by its portable code"
            cases.append(case(f"{name}, {kind}", text + how, config=config, inputs=inputs, outputs=outputs))
    for name, inside, outside, double, bias in [("double", 20, 7, True, True), ("single", 9, 5, False, False)]:
        draw = Draw(f"linear4bit {name}")
        layer = bnb.nn.Linear4bit(inside, outside, bias=bias, quant_type="nf4", compress_statistics=double)
        weight = draw.normal(outside, inside).float()
        state = dict(weight=weight)
        if bias:
            state["bias"] = draw.normal(outside).float()
        layer.load_state_dict(state)
        layer = layer.to("cpu")  # quantises
        layer.train()
        x = draw.normal(2, 3, inside).float().requires_grad_()
        upstream = draw.normal(2, 3, outside, decimals=2).float()
        y = layer(x)
        assert y.dtype == torch.float32
        (gradient,) = torch.autograd.grad((y * upstream).sum(), x)
        saved = {f"state {k}": plain(v) for k, v in layer.state_dict().items()}
        inputs = dict(x=plain(x), upstream=plain(upstream), original=plain(state["weight"]), **saved)
        weight = bf.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        outputs = dict(y=plain(y), loss=(plain(y) * plain(upstream)).sum(), weight=plain(weight))
        config = dict(kind="linear", double=double, bias=bias)
        how = "nn.Linear4bit in float32: its state dict, forward pass and gradient"
        name = f"a layer, {name}"
        grads = dict(x=plain(gradient))
        cases.append(case(name, text + how, config=config, inputs=inputs, outputs=outputs, grads=grads))
    torch.set_default_dtype(before)
    write("quantised", cases)
