"""What the oracles share: seeded inputs, gradients, files, and functions cut out of older releases."""

import ast
import hashlib
import json
import pathlib
import platform
import subprocess
import sys
import tempfile
import types
import zipfile
from collections import defaultdict
from importlib.metadata import version

import torch

SEED = 20230712
HERE = pathlib.Path(__file__).parent
RELEASES = {
    "trl==0.24.0": "a9145b7d4a4a33778de117bda48530f0cf5b2ac25acc07db80ad04836f490dfc",
    "trl==1.12.0": "9c8f117b21a941edbc85744f5a341c9453d38e81f24ae81d3c6e9b9ca3b96409",
    "trl==1.13.0": "7c7ae0c72e969450221cf4c7cfe69c532c5a83c727204f1c8ced38a9b79134ec",
    "trl==1.14.2": "bd97adb0284f2520ae8c5ebf243e2e4b3cbe50f09cb5964547e38dfc1d37694e",
}

torch.set_default_dtype(torch.float64)


class Draw:
    """Random inputs of few decimals, so that the files stay short."""

    def __init__(self, name):
        digest = hashlib.sha256(f"{SEED} {name}".encode()).digest()
        self.generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))

    def normal(self, *shape, scale=1.0, shift=0.0, decimals=3):
        x = torch.randn(shape, generator=self.generator) * scale + shift
        return torch.round(x, decimals=decimals)

    def uniform(self, *shape, low=0.0, high=1.0, decimals=3):
        x = torch.rand(shape, generator=self.generator) * (high - low) + low
        return torch.round(x, decimals=decimals)

    def integers(self, *shape, below):
        return torch.randint(below, shape, generator=self.generator)

    def distinct(self, rows, k, step=0.35):
        """`rows` lists of `k` different numbers in random order, at least step/2 apart."""
        orders = [torch.randperm(k, generator=self.generator) for _ in range(rows)]
        jitter = self.uniform(rows, k, high=0.5)
        return torch.round((torch.stack(orders) + jitter) * step - step * k / 2, decimals=4)


def ragged(lengths, width):
    """A mask whose row i counts its first `lengths[i]` positions."""
    return (torch.arange(width)[None, :] < torch.tensor(lengths)[:, None]).long()


def counted(values, mask):
    """The counted entries of one row, as a list of scalars."""
    return [v for v, m in zip(values, mask) if m]


def gradients(loss, **inputs):
    """The gradient of Σ loss with respect to every named input."""
    found = torch.autograd.grad(loss.sum(), list(inputs.values()), retain_graph=True, allow_unused=True)
    return {
        name: torch.zeros_like(x) if g is None else g for (name, x), g in zip(inputs.items(), found)
    }


def plain(numbers):
    """Tensors and numbers as shapes and lists."""
    arrays = {name: torch.as_tensor(x).detach() for name, x in numbers.items()}
    return {name: {"shape": list(x.shape), "data": x.flatten().tolist()} for name, x in arrays.items()}


def case(name, oracle, *, inputs, outputs, config=None, grads=None):
    return {
        "name": name,
        "oracle": oracle,
        "config": config or {},
        "inputs": plain(inputs),
        "outputs": plain(outputs),
        "gradients": plain(grads or {}),
    }


def write(method, cases):
    names = [c["name"] for c in cases]
    assert len(set(names)) == len(names), f"{method}: two cases of one name"
    pinned = dict(line.split("==") for line in (HERE / "requirements.txt").read_text().split())
    packages = {name: version(name) for name in pinned}
    assert packages == pinned, f"installed {packages}, pinned {pinned}"
    provenance = {
        "command": "python tests/golden/make.py",
        "python": platform.python_version(),
        "packages": packages,
        "seed": SEED,
        "precision": "float64 unless a case says otherwise",
        "gradients": "of the sum of outputs.loss with respect to the input of the same name",
    }
    lines = ",\n".join(json.dumps(c, allow_nan=False, separators=(",", ":"), ensure_ascii=False) for c in cases)
    head = json.dumps(provenance, ensure_ascii=False)
    path = HERE / f"{method}.json"
    path.write_text(f'{{"provenance":{head},\n"cases":[\n{lines}\n]}}\n', encoding="utf-8")
    print(f"{path.name}: {len(cases)} cases, {path.stat().st_size} bytes")


def released(requirement, member):
    """The source of one file of a release that is not the installed one."""
    folder = pathlib.Path(tempfile.gettempdir()) / "golden-releases"
    folder.mkdir(exist_ok=True)
    name, number = requirement.split("==")
    wheel = folder / f"{name}-{number}-py3-none-any.whl"
    if not wheel.exists():
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), requirement]
        subprocess.run(command, check=True)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert digest == RELEASES[requirement], f"{requirement}: sha256 {digest}"
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(member).decode()


def function(source, name, **environment):
    """One function (or method) of a source file, compiled alone."""
    node = next(n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef) and n.name == name)
    node.decorator_list = []
    for argument in node.args.args + node.args.kwonlyargs:
        argument.annotation = None
    node.returns = None
    exec(compile(ast.Module([node], []), name, "exec"), environment)
    return environment[name]


def statements(source, first, last):
    """A run of consecutive statements: from the one that starts with `first` to the next one that
    starts with `last`. Returns a function that runs them on a dictionary of variables."""
    for node in ast.walk(ast.parse(source)):
        for block in (getattr(node, "body", None), getattr(node, "orelse", None)):
            if not isinstance(block, list):
                continue
            text = [ast.unparse(s) for s in block]
            start = next((i for i, t in enumerate(text) if t.startswith(first)), None)
            if start is None:
                continue
            end = next((i for i, t in enumerate(text) if i >= start and t.startswith(last)), None)
            if end is None:
                continue
            code = compile(ast.Module(block[start : end + 1], []), first, "exec")

            def run(**variables):
                exec(code, variables)
                return types.SimpleNamespace(**{k: v for k, v in variables.items() if k != "__builtins__"})

            return run
    raise LookupError(f"no statements from {first!r} to {last!r}")


def one_process():
    """The part of an accelerator that a loss touches, for one process."""
    same = lambda x: x  # noqa: E731
    return types.SimpleNamespace(
        gather=same, gather_for_metrics=same, device=torch.device("cpu"), num_processes=1, parallelism_config=None
    )


def trainer(**fields):
    """A stub `self` for one method of a trainer, in evaluation mode."""
    return types.SimpleNamespace(
        accelerator=one_process(),
        model=types.SimpleNamespace(training=False),
        aux_loss_enabled=False,
        _metrics={"eval": defaultdict(list)},
        _total_train_tokens=0,
        **fields,
    )
