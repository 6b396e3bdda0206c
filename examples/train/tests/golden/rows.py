"""Rows to ids by TRL's own trainers, orders of rows, and chat templates rendered by Transformers.

    python rows.py            (writes ./rows.json and the folders words/, begun/, bytes/ beside it)

| name | what |
|---|---|
| `words/` | a tokenizer of whole words, which adds no token |
| `begun/` | the same, which adds `<s>` at the beginning |
| `bytes/` | a tokenizer of bytes with special tokens; its chat template is in `rows.json` |
| `rows.json`: `renders` | template, conversation, text, and the assistant's spans in bytes |
| `rows.json`: `prepared` | trainer, settings and rows; ids and masks of the rows that are left |
| `rows.json`: `orders` | the rows that the trainer's data loader gives in each epoch |

The templates were written for this file.
"""

import json
import os
import pathlib
import shutil
import sys
import tempfile

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
sys.dont_write_bytecode = True

import datasets
import jinja2
import tokenizers
import torch
import transformers
import trl
from datasets import Dataset
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, LlamaConfig
from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer, SFTConfig, SFTTrainer

HERE = pathlib.Path(__file__).parent
datasets.disable_progress_bars()

MARKED = """\
{%- if messages[0].role != 'system' %}
    {{- bos_token + 'system\\nYou are a test.' + eos_token + '\\n' }}
{%- endif %}
{% for message in messages %}
  {% if message.role == 'assistant' %}
{{ bos_token + 'assistant\\n' }}{% generation %}{{ message.content + eos_token }}
{% endgeneration %}
  {% else %}
{{ bos_token + message.role + '\\n' + message.content + eos_token }}

  {% endif %}
{% endfor %}
{% if add_generation_prompt %}
{{ bos_token }}assistant
{% endif %}"""

THINKING = """\
{%- if tools is iterable and tools | length > 0 %}
    {{- bos_token + 'system\\n' }}
    {%- for tool in tools %}
        {{- tool | tojson + '\\n' }}
    {%- endfor %}
    {{- eos_token + '\\n' }}
{%- endif %}
{%- set ns = namespace(last=messages|length - 1, found=false) %}
{%- for message in messages[::-1] %}
    {%- if not ns.found and message.role == 'user' %}
        {%- set ns.found = true %}
        {%- set ns.last = messages|length - 1 - loop.index0 %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {%- set content = message.content if message.content is string else '' %}
        {%- set thought = '' %}
        {%- if message.reasoning_content is string %}
            {%- set thought = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set thought = content.split('</think>')[0].split('<think>')[-1].strip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {{- bos_token + 'assistant\\n' }}
        {%- if loop.index0 > ns.last and enable_thinking is not false %}
            {{- '<think>\\n' + thought + '\\n</think>\\n\\n' }}
        {%- endif %}
        {{- content }}
        {%- for call in message.tool_calls or [] %}
            {{- '<call>' + call.function.name + ' ' + call.function.arguments | tojson + '</call>' }}
        {%- endfor %}
        {{- eos_token + '\\n' }}
    {%- else %}
        {{- bos_token + message.role + '\\n' + message.content + eos_token + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- bos_token + 'assistant\\n' }}
    {%- if enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""

STRICT = """\
{{ bos_token }}{% if date_string is defined %}Today is {{ date_string }}.
{% endif %}
{% for message in messages %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('user and assistant must alternate') }}
{% endif %}
[{{ 'model' if message['role'] == 'assistant' else message['role'] }}]
{{ message['content'] | trim }}{{ eos_token }}
{% endfor %}
{% if add_generation_prompt %}
[model]
{% else %}{{ eos_token }}{% endif %}"""

USER = {"role": "user", "content": "Höw?"}
HELLO = {"role": "assistant", "content": "Hello!"}
THOUGHT = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nFine."}
TOOLS = [
    {
        "type": "function",
        "function": {"name": "zeta", "parameters": {"b": [1, 2.5, None], "a": {"x<y & 'z'": "é\u2028\"\\\n"}}},
    }
]
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"type": "function", "function": {"name": "zeta", "arguments": {"z": 1, "a": True}}}],
}
CHATS = [
    [USER, HELLO],
    [{"role": "system", "content": "Be brief."}, USER, HELLO, USER, THOUGHT],
    [USER, THOUGHT, USER, HELLO],
    [USER],
    [USER, {"role": "assistant", "content": "Ja.", "reasoning": "so"}],
    [USER, CALL],
    [HELLO, USER],
    [{"role": "user", "content": "  a \n"}, {"role": "assistant", "content": " b\n\n"}],
]

# each exercises one feature: values and filters as Python has them, blanks around blocks, errors
SMALL = [
    "{{ true }} {{ none }} {{ 1 }} {{ 1.0 }} {{ [1, 'a', true, none, 0.5] }} {{ {'a': 'b\\'c', 'd': [1]} }}",
    "{{ 1e16 }} {{ 123456.75 }} {{ 0.0001 }} {{ 0.00001 }} {{ 1e300 }} {{ 3 / 2 }} {{ 7 // 2 }} {{ 7 % 4 }}",
    "{{ data | tojson }}",
    "{{ data | tojson(indent=2) }}",
    "{{ data | tojson(ensure_ascii=true) }}",
    "{{ data | tojson(separators=(',', ':'), sort_keys=true) }}",
    "{{ [] | tojson(indent=4) }}{{ {} | tojson(indent=4) }}{{ 'é' | tojson(true) }}",
    "{{ none is iterable }} {{ 'a' is iterable }} {{ [] is iterable }} {{ 1 is iterable }} {{ nothing is iterable }}",
    "{{ 'a' is sequence }} {{ {} is sequence }} {{ none is sequence }} {{ [1] is sequence }} {{ 1 is sequence }}",
    "{{ data is mapping }} {{ 'a' is mapping }} {{ true is number }} {{ 1 is integer }} {{ true is boolean }}",
    "{{ nothing is defined }} {{ nothing }} {{ nothing is none }} {{ tools is none }} {{ documents is none }}",
    "{% for i in [1, 2, 3, 4] %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 4 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "  {% if true %}\n  a\n  {% endif %}\n  b {# note #}\nc\n",
    "a\n  {%- if true -%}\n  b\n  {%- endif %}\n\nc\n",
    "{% generation %}\n x {% endgeneration %}\ny",
    "  {%- generation -%}\n x \n{%- endgeneration -%}\ny",
    "{{ '{% generation %}' }}{% raw %}{% generation %}{% endraw %}{# {% generation %} #}",
    "{% for m in [1, 2] %}{% generation %}{{ loop.index }}é{{ m }}{% endgeneration %}-{% endfor %}",
    "{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}",
    "{% macro say(x) %}<{{ x }}>{% endmacro %}{% generation %}{{ say('a') }}{% endgeneration %}",
    "{{ ' a b '.strip() }}|{{ 'a,b'.split(',')[-1] }}|{{ 'abc'.startswith('ab') }}|{{ 'Ab'.upper() }}|{{ 'x'.replace('x', 'yy') }}",
    "{% for key, value in data.items() %}{{ key }}={{ value | string }};{% endfor %}",
    "{{ data.get('list', 'no') }} {{ data.get('none') }} {{ data.get('other', 'no') }} {{ data.list | length }}",
    "{{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ messages | map(attribute='role') | join(', ') }}",
    "{% set ns = namespace(a=1) %}{% for i in range(3) %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }} {{ dict(a=1) }}",
    "{{ messages[-1].content[:2] }} {{ messages[-1]['content'][-2:] }} {{ 'a' in 'abc' }} {{ 'role' in messages[0] }}",
    "{{ 'x' if false }}|{{ '%s' if nothing else 'no' }}|{{ nothing | default('d') }}|{{ '' | default('e', true) }}",
    "{{ 'a' ~ 1 ~ 'b' }} {{ 'a' + 'b' }} {{ 'ab' * 2 }} {{ ['a'] + ['b'] }} {{ 'a b' | capitalize }} {{ 'a b' | title }}",
    "{% for m in messages %}{{ loop.first }}{{ loop.last }}{{ loop.index }}{{ loop.length }}{{ loop.previtem is defined }} {% endfor %}",
    "{{ message.content }}",
    "{{ messages[0].missing + 'a' }}",
    "{{ raise_exception('no') }}",
    "{{ 'a' | nofilter }}",
    "{{ nothing | tojson }}",
    "{{ none | length }}",
    "{{ 'a' + 1 }}",
]
DATA = {"list": [1, "zwei", {"b": None, "a": -0.5}], "Ä": "'<&>'\t\u007f\x01😀", "none": None, "big": 123456789012, "e": 1e-7}


def render(template, messages, tools=None, prompt=False, **variables):
    case = dict(template=template, messages=messages, tools=tools, prompt=prompt, variables=variables)
    special = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|im_end|>"}
    chat = [{k: v for k, v in message.items() if v is not None} for message in messages]
    try:
        texts, spans = render_jinja_template(
            [chat], tools=tools, chat_template=template, return_assistant_tokens_mask=True,
            add_generation_prompt=prompt, **(special | variables),
        )
    except Exception as error:
        return case | {"error": type(error).__name__}
    at = lambda i: len(texts[0][:i].encode())
    return case | {"text": texts[0], "spans": [[at(a), at(b)] for a, b in spans[0]]}


def renders():
    for template in (MARKED, THINKING, STRICT):
        for chat in CHATS:
            for prompt in (False, True):
                yield render(template, chat, prompt=prompt)
        yield render(template, CHATS[0], tools=TOOLS)
        yield render(template, CHATS[0], prompt=True, enable_thinking=False, date_string="1 May 2024")
        yield render(template, CHATS[0], enable_thinking=False, bos_token="<b>")
    for template in SMALL:
        yield render(template, CHATS[1], data=DATA)


def words(begun):
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2} | {f"t{i}": i for i in range(3, 32)}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if begun:
        inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<pad>"
    )


def byte_level():
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([AddedToken("<|im_start|>", special=True), AddedToken("<|im_end|>", special=True)])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|im_end|>"
    )


def twelve():
    def text(a, r, n):
        return " ".join(f"t{3 + (7 * a + 5 * j + 3 * j * j + 11 * r) % 29}" for j in range(n))

    for r in range(12):
        chosen, rejected = text(2, r, 2 + 3 * r % 5), text(3, r, 2 + 5 * r % 4)
        yield {"prompt": text(1, r, 3 + r % 4), "chosen": " " + chosen, "rejected": " " + rejected}


TWELVE = list(twelve())
COMPLETIONS = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in TWELVE]
IMPLICIT = [
    {"chosen": "t10 t11 t12", "rejected": "t10 t11 t15"},
    {"chosen": "t4 t5", "rejected": "t4 t5 t6"},
    {"chosen": "t4 t5 t7</s>", "rejected": "t4 t5 x"},
    {"chosen": "t4", "rejected": "t5"},
    {"chosen": "t4 t9", "rejected": "t4  t9"},
]
BOUNDARY = [
    {"prompt": "t3 t1", "completion": "2 t4"},
    {"prompt": "t3 ", "completion": "t4</s>"},
    {"prompt": "", "completion": "t4"},
]
TEXTS = [{"text": "t3 t4 t5"}, {"text": "t3 </s>"}, {"text": "t3 t4 t5 t6 t7"}]
TALK = [{"prompt": [USER], "completion": [HELLO]}, {"prompt": CHATS[1][:4], "completion": [THOUGHT]}]
MESSAGES = [{"messages": CHATS[0]}, {"messages": CHATS[1]}, {"messages": CHATS[2]}]
PAIRS = [
    {"prompt": [USER], "chosen": [HELLO], "rejected": [THOUGHT]},
    {"prompt": CHATS[1][:4], "chosen": [{"role": "assistant", "content": "Go."}], "rejected": [HELLO]},
]
IMPLICIT_PAIRS = [{"chosen": row["prompt"] + row["chosen"], "rejected": row["prompt"] + row["rejected"]} for row in PAIRS]
NO_THINKING = [row | {"chat_template_kwargs": {"enable_thinking": False}} for row in TALK]
WITH_TOOLS = [{"prompt": [USER], "completion": [HELLO], "tools": json.dumps(TOOLS)}]

# trainer, tokenizer, template, settings, rows
CASES = [
    ("sft", "words", None, {}, COMPLETIONS),
    ("sft", "words", None, {"max_length": 6}, COMPLETIONS),
    ("sft", "words", None, {"max_length": 4, "truncation_mode": "keep_end"}, COMPLETIONS),
    ("sft", "words", None, {"completion_only_loss": False}, COMPLETIONS),
    ("sft", "words", None, {"max_length": None}, COMPLETIONS[:3]),
    ("sft", "begun", None, {"max_length": 6}, COMPLETIONS),
    ("sft", "words", None, {}, BOUNDARY),
    ("sft", "begun", None, {}, BOUNDARY),
    ("sft", "words", None, {"max_length": 4}, TEXTS),
    ("sft", "words", None, {}, [{"input_ids": [3, 4, 5], "labels": [-100, 4, 5]}]),
    ("sft", "words", None, {"completion_only_loss": True}, [{"input_ids": [3, 4, 5], "completion_mask": [0, 1, 0]}]),
    ("sft", "bytes", MARKED, {}, TALK),
    ("sft", "bytes", MARKED, {"assistant_only_loss": True}, TALK),
    ("sft", "bytes", MARKED, {"assistant_only_loss": True}, MESSAGES),
    ("sft", "bytes", MARKED, {"assistant_only_loss": True, "max_length": 60}, MESSAGES),
    ("sft", "bytes", MARKED, {}, MESSAGES),
    ("sft", "bytes", THINKING, {}, TALK),
    ("sft", "bytes", THINKING, {}, NO_THINKING),
    ("sft", "bytes", THINKING, {}, WITH_TOOLS),
    ("sft", "bytes", THINKING, {}, [{"messages": CHATS[4]}, {"messages": CHATS[2]}]),
    ("sft", "bytes", STRICT, {}, [{"prompt": [USER], "completion": [HELLO]}]),
    ("sft", "bytes", MARKED, {}, [{"conversations": [{"from": "user", "value": "a"}, {"from": "assistant", "value": "b"}]}]),
    ("dpo", "words", None, {}, TWELVE),
    ("dpo", "words", None, {"max_length": 6}, TWELVE),
    ("dpo", "words", None, {"max_length": 5, "truncation_mode": "keep_end"}, TWELVE),
    ("dpo", "begun", None, {"max_length": 6}, TWELVE),
    ("dpo", "words", None, {}, IMPLICIT),
    ("dpo", "bytes", MARKED, {}, PAIRS),
    ("dpo", "bytes", MARKED, {}, IMPLICIT_PAIRS),
    ("dpo", "bytes", THINKING, {}, PAIRS),
    ("reward", "words", None, {"max_length": 8}, TWELVE),
    ("reward", "begun", None, {}, TWELVE),
    ("reward", "words", None, {}, [row | {"margin": 0.5 * r} for r, row in enumerate(TWELVE)]),
    ("reward", "words", None, {}, [{"chosen": "t3 t4", "rejected": "t5</s>"}]),
    ("reward", "words", None, {"max_length": 2}, [{"chosen_ids": [3, 4], "rejected_ids": [5]}, {"chosen_ids": [3, 4, 5], "rejected_ids": [5]}]),
    ("reward", "bytes", MARKED, {}, PAIRS),
    ("reward", "bytes", MARKED, {}, IMPLICIT_PAIRS),
]
TRAINERS = {"sft": (SFTTrainer, SFTConfig), "reward": (RewardTrainer, RewardConfig), "dpo": (DPOTrainer, DPOConfig)}
OUT = tempfile.mkdtemp()


def trainer(name, tokenizer, rows, **settings):
    config = LlamaConfig(
        vocab_size=300, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, pad_token_id=0
    )
    config.num_labels = 1
    kind = AutoModelForSequenceClassification if name == "reward" else AutoModelForCausalLM
    make, arguments = TRAINERS[name]
    # DPO reads its reference from the folder
    folder = f"{OUT}/{name}"
    kind.from_config(config).save_pretrained(folder)
    common = dict(output_dir=OUT, use_cpu=True, bf16=False, report_to="none", disable_tqdm=True)
    return make(
        model=kind.from_pretrained(folder),
        args=arguments(**(common | settings)),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )


def prepared(name, tokenizer, template, settings, rows):
    made = tokenizer_of(tokenizer)
    made.chat_template = template
    fitted = trainer(name, made, rows, **settings)
    out = []
    for row in fitted.train_dataset:
        if name == "sft":
            out.append({"ids": row["input_ids"], "labels": row["labels"]})
        elif name == "reward":
            out.append({key: row[key] for key in ("chosen_ids", "rejected_ids", "margin") if key in row})
        else:
            batch = fitted.data_collator([row])
            sides = []
            for ids, real, mask in zip(batch["input_ids"], batch["attention_mask"], batch["completion_mask"]):
                n = int(real.sum())
                sides.append({"ids": ids[:n].tolist(), "prompt": n - int(mask.sum())})
            out.append({"chosen": sides[0], "rejected": sides[1]})
    case = dict(trainer=name, tokenizer=tokenizer, template=template, settings=settings, rows=rows)
    return case | {"prepared": out}


def tokenizer_of(name):
    return {"words": lambda: words(False), "begun": lambda: words(True), "bytes": byte_level}[name]()


def orders():
    rows = [{"prompt": f"t{3 + r}", "completion": f" t{20 + r}"} for r in range(12)]
    for settings in ({"seed": 42}, {"seed": 42, "data_seed": 7}, {"train_sampling_strategy": "sequential"}):
        fitted = trainer("sft", words(False), rows, per_device_train_batch_size=5, **settings)
        loader = fitted.get_train_dataloader()
        epochs = []
        for epoch in range(3):
            loader.set_epoch(epoch)
            epochs.append([[ids[0] - 3 for ids in batch["input_ids"].tolist()] for batch in loader])
        yield {"settings": settings, "batch": 5, "epochs": epochs}
    for n, seed in [(1, 0), (2, 1), (5, 0), (1000, 43), (700, 2**32 + 5)]:
        order = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).tolist()
        yield {"rows": n, "seed": seed, "order": order}


if __name__ == "__main__":
    for name in ("words", "begun", "bytes"):
        shutil.rmtree(HERE / name, ignore_errors=True)
        tokenizer_of(name).save_pretrained(HERE / name)
    modules = (trl, transformers, tokenizers, torch, datasets, jinja2)
    provenance = {module.__name__: module.__version__ for module in modules}
    parts = {
        "renders": list(renders()),
        "prepared": [prepared(*case) for case in CASES],
        "orders": list(orders()),
    }
    lines = ['{"provenance": %s' % json.dumps({"command": "python rows.py", "packages": provenance})]
    for name, cases in parts.items():
        lines.append(',"%s": [' % name)
        lines.append(",\n".join(json.dumps(case) for case in cases))
        lines.append("]")
    (HERE / "rows.json").write_text("\n".join(lines) + "}\n")
