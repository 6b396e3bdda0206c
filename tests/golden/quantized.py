"""NF4 with double quantization, by bitsandbytes on the CPU, in float32; QLoRA by PEFT over it, and written
out over its numbers in float64."""

import bitsandbytes as bnb
import bitsandbytes.functional as bf
import numpy
import torch
from peft import LoraConfig, get_peft_model

from adapters import Model, fill
from common import Draw, case, gradients, write

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
    """Numbers that lie, once divided, on the middles between values, and their neighbors."""
    code = bf.get_4bit_type("nf4", "cpu")
    middles = (code[:-1] + code[1:]) / 2
    up, down = (torch.nextafter(middles, torch.tensor(x)) for x in (2.0, -2.0))
    x = torch.cat([torch.tensor([1.0]), middles, up, down, torch.tensor([0.0, -0.0, -1.0])])
    return torch.cat([x, torch.zeros(64 - len(x))]) * scale


def counted(n):
    """Numbers by a formula in integers, in blocks of different magnitudes."""
    i = torch.arange(n)
    return ((7919 * i + 31 * i * i) % 2003 - 1001).float() / 256 * (1 + (37 * (i // 64)) % 101).float() / 64


def quantized():
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
        layer = layer.to("cpu")  # quantizes
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
    write("quantized", cases)


def qlora():
    write("qlora", qlora_by_peft() + qlora_written_out())


def qlora_by_peft():
    """PEFT's layer over bitsandbytes' own, in float32."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    cases = []
    for name, inside, outside, double, trained, rslora in [
        ("double", 9, 7, True, "none", False),
        ("single, rank-stabilised, the base's bias trained", 6, 5, False, "base", True),
        ("single, a bias on B", 5, 6, False, "update", False),
    ]:
        draw, r, alpha = Draw(f"qlora {name}"), 2, 3
        normal = lambda *shape, **how: draw.normal(*shape, **how).float()  # noqa: E731
        base = bnb.nn.Linear4bit(inside, outside, bias=True, quant_type="nf4", compress_statistics=double)
        base.load_state_dict(dict(weight=normal(outside, inside), bias=normal(outside)))
        base = base.to("cpu")  # quantizes
        saved = {f"state {k}": plain(v) for k, v in base.state_dict().items()}
        model = Model(base)
        model.is_loaded_in_4bit = True
        config = LoraConfig(
            target_modules=["layer"], r=r, lora_alpha=alpha, use_rslora=rslora, lora_bias=trained == "update",
            bias="lora_only" if trained == "base" else "none",
        )
        model = get_peft_model(model, config)
        layer = model.base_model.model.layer
        assert type(layer).__module__ == "peft.tuners.lora.bnb"
        parameters = dict(a=layer.lora_A["default"].weight, b=layer.lora_B["default"].weight)
        if trained == "update":
            parameters["trained_bias"] = layer.lora_B["default"].bias
        if trained == "base":
            parameters["trained_bias"] = layer.base_layer.bias
        assert all(p.requires_grad for p in parameters.values())
        with torch.no_grad():
            for parameter in parameters.values():
                parameter.copy_(normal(*parameter.shape))
        x = normal(2, 3, inside).requires_grad_()
        upstream = normal(2, 3, outside, decimals=2)
        y = model(x)
        grads = gradients(y * upstream, x=x, **parameters)
        inputs = dict(x=plain(x), upstream=plain(upstream), **{k: plain(v) for k, v in parameters.items()}, **saved)
        outputs = dict(y=plain(y), loss=(plain(y) * plain(upstream)).sum(), delta=plain(layer.get_delta_weight("default")))
        cases.append(
            case(
                f"PEFT, {name}",
                "peft 0.21.2 tuners.lora.bnb.Linear4bit over bitsandbytes 0.50.2 nn.Linear4bit in float32",
                config=dict(kind="peft", r=r, alpha=alpha, rank_stabilised=rslora, trained_bias=trained, double=double),
                inputs=inputs,
                outputs=outputs,
                grads={k: plain(v) for k, v in grads.items()},
            )
        )
    torch.set_default_dtype(before)
    return cases


def qlora_written_out():
    """Eq. 5 and 6 in float64, number by number, over scales and code of bitsandbytes."""
    cases = []
    code = [float(v) for v in bf.get_4bit_type("nf4", "cpu")]
    for double in (False, True):
        draw, inside, outside, r, alpha = Draw(f"qlora written out {double}"), 14, 5, 2, 3
        # 256ths, which float32 holds too
        weight = torch.round(draw.normal(outside, inside) * 256) / 256
        packed, state = bf.quantize_4bit(weight.float(), quant_type="nf4")
        scales = state.absmax
        if double:
            offset = scales.mean()
            indices, nested = portable("quantize_blockwise", scales - offset, DYNAMIC, 256)
            scales = portable("dequantize_blockwise", indices, nested, DYNAMIC, 256, torch.float32) + offset
        halves = [half for byte in packed.flatten().tolist() for half in (byte >> 4, byte & 15)]
        numbers = [numpy.float32(code[half]) * numpy.float32(scales[i // 64].item()) for i, half in enumerate(halves)]
        numbers = [float(number) for number in numbers[: weight.numel()]]
        rows = [torch.tensor(numbers[o * inside : (o + 1) * inside]) for o in range(outside)]
        bias = torch.round(draw.normal(outside) * 256) / 256
        given = dict(x=draw.normal(3, inside), a=draw.normal(r, inside), b=draw.normal(outside, r))
        given = {k: v.requires_grad_() for k, v in given.items()}
        y = []
        for x in given["x"]:
            inner = [(row * x).sum() for row in given["a"]]
            for o, row in enumerate(rows):
                change = sum(given["b"][o, i] * inner[i] for i in range(r))
                y.append((row * x).sum() + bias[o] + alpha / r * change)
        y = torch.stack(y).view(3, outside)
        upstream = draw.normal(*y.shape, decimals=2)
        cases.append(
            case(
                f"written out, double {double}",
                "QLoRA, eq. 5 and 6, written out over quantize_4bit of bitsandbytes 0.50.2",
                config=dict(kind="written out", r=r, alpha=alpha, rank_stabilised=False, trained_bias="none", double=double),
                inputs=dict(weight=weight, bias=bias, upstream=upstream, **{k: v.clone() for k, v in given.items()}),
                outputs=dict(y=y, loss=(y * upstream).sum(), dequantised=torch.stack(rows)),
                grads=gradients(y * upstream, **given),
            )
        )
    return cases
