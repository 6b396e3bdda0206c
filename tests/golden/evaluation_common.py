"""What the oracles of `src/evaluation/` share. Each of the scripts evaluation_*.py writes the file of its name:

    pip install -r tests/golden/evaluation_requirements.txt && python tests/golden/evaluation_text.py
"""

import json
import platform
import sys
from importlib.metadata import version

sys.dont_write_bytecode = True

import common  # noqa: E402
from common import HERE, function, released  # noqa: E402, F401

common.RELEASES |= {
    "alpaca_eval==0.6.6": "8f4f218b8a1d7ef379491222e90f38446ca327930b51416d55306663cf85f28c",
    "bert_score==0.3.13": "bbbb4c7fcdaa46d7681aff49f37f96faa09ed74e1b150e659bdc6b58a66989b9",
    "fschat==0.2.36": "a66ecf1e90f6db1d015096f6aa8a305d20d0a13e067951285aecdb56a33e9cb1",
}


def write(name, parts):
    """`parts` by name, each a list of cases; one case a line."""
    pinned = dict(line.split("==") for line in (HERE / "evaluation_requirements.txt").read_text().split())
    installed = {package: version(package) for package in pinned}
    assert installed == pinned, f"installed {installed}, pinned {pinned}"
    provenance = {
        "command": f"python tests/golden/{name}.py",
        "python": platform.python_version(),
        "packages": installed,
        "wheels": common.RELEASES,
    }
    line = lambda case: json.dumps(case, ensure_ascii=False, separators=(",", ":"), allow_nan=False)  # noqa: E731
    body = ",\n".join(
        f'"{part}":[\n' + ",\n".join(line(case) for case in cases) + "\n]" for part, cases in parts.items()
    )
    path = HERE / f"{name}.json"
    path.write_text(f'{{"provenance":{line(provenance)},\n{body}}}\n', encoding="utf-8")
    print(f"{path.name}: {path.stat().st_size} bytes")
