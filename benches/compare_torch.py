"""One variant of a bench in PyTorch: prints forward seconds, total seconds, extra MiB.

pip install torch==2.15.0;  run by `cargo bench --bench kernels -- --python PYTHON`, by `--bench ops`, `--bench attention` and
`--bench distillation`
"""

import os
import sys
import time

import torch

REPEATS = int(os.environ.get("BENCH_REPEATS", 7))
torch.set_num_threads(2)


def status(key):
    for line in open("/proc/self/status"):
        if line.startswith(key):
            return int(line.split()[1]) / 1024


def measure(forward, rest):
    before = status("VmRSS")
    open("/proc/self/clear_refs", "w").write("5")
    times = []
    for i in range(REPEATS + 1):
        start = time.perf_counter()
        between = forward()
        half = time.perf_counter() - start
        rest(between)
        times.append((half, time.perf_counter() - start))
        if i == 0:
            extra = status("VmHWM") - before
    middle = [sorted(column)[REPEATS // 2] for column in zip(*times[1:])]
    print(*middle, extra)


def numbers(*shape, scale=1.0):
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(shape, generator=generator) - 0.5) * scale


def targets(rows, vocabulary):
    return torch.arange(rows) * 7919 % vocabulary


def forget(*tensors):
    for tensor in tensors:
        tensor.grad = None


def log_probs(name):
    size, kind = name.split(" ", 1)
    rows, vocabulary = map(int, size.split("x"))
    logits = numbers(rows, vocabulary, scale=16.0).requires_grad_()
    chosen = targets(rows, vocabulary)

    def forward():
        if kind == "cross_entropy":
            return torch.nn.functional.cross_entropy(logits, chosen, reduction="sum")
        return (logits.gather(1, chosen[:, None])[:, 0] - logits.logsumexp(1)).sum()

    def rest(loss):
        loss.backward()
        forget(logits)

    measure(forward, rest)


def hidden(name):
    rows, dim, vocabulary = 2048, 576, 49152
    states = numbers(rows, dim, scale=2.0).requires_grad_()
    weight = numbers(vocabulary, dim, scale=0.1).requires_grad_(name.startswith("trained"))
    chosen = targets(rows, vocabulary)[:, None]

    def forward():
        return torch.log_softmax(states @ weight.T, 1).gather(1, chosen).sum()

    def rest(loss):
        loss.backward()
        forget(states, weight)

    measure(forward, rest)


def adamw(name):
    shapes = [(49152, 576), (49152, 576), (256, 576)]
    for _ in range(6):
        shapes += [(1728, 576), (576, 576), (2304, 576), (576, 2304), (576,), (576,)]
    variables = [numbers(*shape).requires_grad_() for shape in shapes]
    for variable in variables:
        variable.grad = numbers(*variable.shape, scale=0.01)
    optimizer = torch.optim.AdamW(variables, weight_decay=0.01, fused=True)
    measure(lambda: None, lambda _: optimizer.step())


def attention(batch, time_):
    def variant(name):
        heads, kv_heads = map(int, name.split(" ")[0].split("/"))
        q = numbers(batch, heads, time_, 64, scale=4.0).requires_grad_()
        k = numbers(batch, kv_heads, time_, 64, scale=4.0).requires_grad_()
        v = numbers(batch, kv_heads, time_, 64, scale=2.0).requires_grad_()
        weights = numbers(batch, heads, time_, 64, scale=2.0)
        sdpa = torch.nn.functional.scaled_dot_product_attention

        def forward():
            return sdpa(q, k, v, is_causal=True, enable_gqa=True)

        def rest(out):
            out.backward(weights)
            forget(q, k, v)

        measure(forward, rest)

    return variant


def ops(group):
    def of(name):
        rows, width = map(int, name.split("x"))
        x = numbers(rows, width, scale=2.0).requires_grad_()
        alpha, beta = (numbers(width, scale=2.0).requires_grad_() for _ in range(2))
        up = numbers(rows, width, scale=2.0).requires_grad_()
        if group == "rope":  # batch, heads, time, dim
            x = numbers(4, 9, rows // 36, width, scale=2.0).requires_grad_()
        angles = numbers(rows // 36, width // 2, scale=6.0)
        cos, sin = (torch.cat([a, a], 1) for a in (angles.cos(), angles.sin()))
        grad = torch.ones(x.shape)
        functional = torch.nn.functional

        def turned(x):
            return torch.cat([-x[..., width // 2 :], x[..., : width // 2]], -1)

        operation = {
            "rms_norm": lambda: functional.rms_norm(x, (width,), alpha, 1e-5),
            "layer_norm": lambda: functional.layer_norm(x, (width,), alpha, beta, 1e-5),
            "softmax": lambda: functional.softmax(x, 1),
            "silu_mul": lambda: functional.silu(x) * up,
            "rope": lambda: x * cos + turned(x) * sin,
        }[group]
        repeats = max((1 << 25) // (rows * width), 1)

        def forward():
            for _ in range(repeats):
                operation()

        def rest(_):
            for _ in range(repeats):
                operation().backward(grad)
                forget(x, alpha, beta, up)

        measure(forward, rest)

    return of


def divergence(student, teacher, name):
    """The sum over positions, as in TRL's generalized_jsd_loss without labels."""
    functional = torch.nn.functional
    log_q, log_p = functional.log_softmax(student, -1), functional.log_softmax(teacher, -1)

    def kl(to, of):
        return functional.kl_div(to, of, reduction="none", log_target=True)

    if "forward" in name:
        return kl(log_q, log_p).sum()
    if "reverse" in name:
        return kl(log_p, log_q).sum()
    half = torch.tensor(0.5)
    log_m = torch.logsumexp(torch.stack([log_q + torch.log1p(-half), log_p + torch.log(half)]), dim=0)
    return (half * kl(log_m, log_p) + (1 - half) * kl(log_m, log_q)).sum()


def of_logits(name):
    student = numbers(2048, 32000, scale=16.0).requires_grad_()
    teacher = numbers(2048, 32000, scale=16.0) * -0.5

    def rest(loss):
        loss.backward()
        forget(student)

    measure(lambda: divergence(student, teacher, name), rest)


def of_hidden(name):
    rows, dim, vocabulary = 2048, 576, 49152
    states = numbers(rows, dim, scale=2.0).requires_grad_()
    weight = numbers(vocabulary, dim, scale=0.1).requires_grad_(name.startswith("trained"))
    other, matrix = numbers(rows, dim, scale=2.0) * -0.5, numbers(vocabulary, dim, scale=0.1)

    def forward():
        with torch.no_grad():
            teacher = other @ matrix.T
        return divergence(states @ weight.T, teacher, name)

    def rest(loss):
        loss.backward()
        forget(states, weight)

    measure(forward, rest)


if __name__ == "__main__":
    groups = {
        "log_probs": log_probs,
        "hidden": hidden,
        "adamw": adamw,
        "equal": attention(4, 256),
        "long": attention(1, 1024),
        "shared": attention(8, 256),
        "divergence": of_logits,
        "distilled": of_hidden,
    }
    (groups.get(sys.argv[1]) or ops(sys.argv[1]))(sys.argv[2])
