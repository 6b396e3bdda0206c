"""What Python's `re` chooses, for expressions as they stand in adapters: `python tests/golden/expressions.py`.

The three ways in which PEFT 0.21.2 puts an expression to use (`tuners/tuners_utils.py`,
`check_target_module_exists`; `utils/other.py`, `get_pattern_key`); nothing but the standard library.
"""

import json
import pathlib
import platform
import re

LAYERS = [
    f"model.layers.{layer}.{name}"
    for layer in (0, 1, 11)
    for name in ("self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj", "mlp.experts.1.up_proj")
]
PATHS = LAYERS + [
    "q_proj",
    "lm_head",
    "model.embed_tokens",
    "model.layersx0xself_attnxq_proj",
    "model.vision_tower.blocks.3.attn.q_proj",
    "model.visual.merger.mlp.0",
    "model.language_model.layers.0.self_attn.q_proj",
    "model.language_model.layers.0.self_attn.q_proj_extra",
    "model.language_models.layers.0.self_attn.q_proj",
    "thinker.audio_tower.layers.2.fc1",
    "h.0.h.0",
    "aa.aa",
    "ab.ba",
    "größe.q_proj",
    "layer٣.q_proj",
]

# what is written by, or in the manner of, ms-swift, LLaMA-Factory, unsloth and PEFT's own pages
WHOLE = [
    r".*\.(q_proj|v_proj)",
    r"^(?!.*(?:vision|visual|audio)).*(?:q_proj|v_proj)$",
    r"^(?!.*(?:vision_tower|visual)).*(?:q_proj|v_proj|up_proj).*",
    r"^(model\.language_model(?=\.).*\.(q_proj|v_proj))$",
    r"(?!lm_head)(?!.*embed).*(proj|head|tokens)",
    r"(?!.*experts)model\.layers\.\d+\.mlp\..*",
    r"(?:.*?(?:language|text).*?(?:self_attn|attention|attn).*?(?:q_proj|v_proj))|(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|mlp)\.(?:(?:q_proj|up_proj)))",
    r".*(?<!experts\.1)\.up_proj",
    r".*(?<=self_attn)\.v_proj",
    r"model\.layers\.(?:[02468]|1[02468])\..*q_proj",
    r"model\.layers\.1{1,2}\.self_attn\.(?P<which>[qv])_proj",
    r"(h\.\d)\.\1",
    r"(?P<one>\w+)\.(?P=one)",
    r"(\w)(\w)\.\2\1",
    r"(?i)MODEL\.LAYERS\.\d+\.SELF_ATTN\.Q_PROJ",
    r"model\.layers\.\d++\.mlp\.up_proj",
    r"(?>model\.layers\.\d+)\.mlp\.up_proj",
    r"model\.layers\.\d*+1\.mlp\.up_proj",
    r"lm_head\Z",
    r"\Alm_head",
    r"\w+\.q_proj",
    r"\D+\.q_proj",
    r"layer\d\.q_proj",
    r"[^.]+\.q_proj",
    r"[^\W\d]+\.[a-z_]+",
    r"q_proj",
    r"model.layers.0.self_attn.q_proj",
    r"model\.layers\.0\.self_attn\.q_proj",
    r"q_proj|lm_head",
    r"",
    r"(?#a note)lm_head",
    r"(?x) lm_ head ",
    r"(h)?(?(1)\.0\.h\.0|lm_head)",
    r"model\.(?=layers)(?!.*mlp).*",
    r"(?=(.*)q_proj)\1.*",
    r"lm_head{1}",
    r"lm_{0,2}head",
    r"lm{,1}_head",
    r"lm_head{",
]
ENDS = WHOLE + [
    r"^q_proj",
    r"q_proj$",
    r"^model.layers.0.self_attn.q_proj",
    r".self_attn.q_proj",
    r"0.self_attn.q_proj",
    r"layers.1.self_attn.q_proj",
    r"layers\.1\.self_attn\.q_proj",
    r"(?<!x)q_proj",
    r"a|b",
    r"\.q_proj",
    r"model",
    r"proj",
    r"größe.q_proj",
]
SEGMENTS = [
    r"lm_head",
    r"self_attn",
    r"layers.1",
    r"layers.0.mlp",
    r"layers\.1",
    r"1",
    r"vis",
    r"vision_tower|lm_head",
    r"(?!lm)\w+_head",
    r"layers\.(?!0)\d+",
    r"mlp$",
    r"^q_proj",
    r"h.0",
    r"layers.",
]


def ends(key, path):
    return re.match(rf"(.*\.)?({key})$", path)


def segments(module, path):
    return re.match(rf"(^|.*\.){module}($|\..*)", path)


def chosen(match, expression):
    return [path for path in PATHS if match(expression, path)]


def rows(match, expressions):
    found = []
    for expression in expressions:
        try:
            found.append({"expression": expression, "chosen": chosen(match, expression)})
        except re.error:
            pass  # flags in the middle of a key: Python loads no such file
    return found


if __name__ == "__main__":
    file = {
        "oracle": f"re of Python {platform.python_version()}",
        "paths": PATHS,
        "whole": rows(re.fullmatch, WHOLE),
        "end": rows(ends, ENDS),
        "segments": rows(segments, SEGMENTS),
    }
    path = pathlib.Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(file, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
