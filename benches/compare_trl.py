"""What `cargo bench --bench decoder -- --python PYTHON` compares with: steps of TRL, answers of Transformers.

pip install torch==2.15.0 transformers==5.23.0 trl==1.16.0 peft==0.21.2
python compare_trl.py dpo | sft | lists | sample | grpo --model DIR --data FILE --batches FILE [--steps N] [--threads N] [--checkpointing]

dpo     LoRA of rank 8 on all linear maps, two pairs of up to 256 tokens a step, reference by the adapter switched off
sft     full fine-tuning, four rows of up to 256 tokens a step, the loss covers the answer
lists   nothing is run: four ranked answers of Open Assistant's trees a step, rows of up to 512 tokens
sample  16 prompts, 64 new tokens each, greedy, with a cache
grpo    LoRA as above; eight answers of 64 drawn tokens to each of eight prompts a step, micro-batches of eight answers
        (TRL's default); the reward is the share of even tokens

It writes its batches as JSON. The last line it prints is JSON: seconds and processor seconds of each step, the
losses, and the peak resident set of the process. Rows of HH whose dialogues differ before the last turn are left out.
"""

import argparse
import gzip
import json
import resource
import tempfile
import time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

parser = argparse.ArgumentParser()
parser.add_argument("kind", choices=["dpo", "sft", "lists", "sample", "grpo"])
parser.add_argument("--model", required=True)
parser.add_argument("--data", required=True)
parser.add_argument("--batches", required=True)
parser.add_argument("--steps", type=int, default=8)
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--checkpointing", action="store_true")
asked = parser.parse_args()
torch.set_num_threads(asked.threads)
tokenizer = AutoTokenizer.from_pretrained(asked.model)
seconds, processor, losses, batches = [], [], [], []


def turns(text):
    messages = []
    for part in text.split("\n\nHuman: ")[1:]:
        question, *answers = part.split("\n\nAssistant: ")
        messages.append({"role": "user", "content": question.strip()})
        messages += [{"role": "assistant", "content": answer.strip()} for answer in answers]
    return messages


def pairs():
    for line in gzip.open(asked.data, "rt"):
        row = json.loads(line)
        chosen, rejected = turns(row["chosen"]), turns(row["rejected"])
        answers = [dialogue[-1]["role"] for dialogue in (chosen, rejected) if dialogue]
        if answers == ["assistant", "assistant"] and chosen[:-1] == rejected[:-1]:
            yield {"prompt": chosen[:-1], "chosen": chosen[-1:], "rejected": rejected[-1:]}


def lists():
    def replies(node, before):
        before = before + [{"role": "user" if node["role"] == "prompter" else "assistant", "content": node["text"]}]
        ranked = [reply for reply in node["replies"] if reply.get("rank") is not None]
        if len(ranked) >= 4:
            yield before, [reply["text"] for reply in sorted(ranked, key=lambda reply: reply["rank"])[:4]]
        for reply in node["replies"]:
            yield from replies(reply, before)

    for line in gzip.open(asked.data, "rt"):
        yield from replies(json.loads(line)["prompt"], [])


def templated(messages, **settings):
    return tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False, **settings)


class Clock(TrainerCallback):
    def on_step_begin(self, *args, **kwargs):
        self.start = time.perf_counter(), time.process_time()

    def on_step_end(self, *args, **kwargs):
        seconds.append(time.perf_counter() - self.start[0])
        processor.append(time.process_time() - self.start[1])

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in logs:
            losses.append(float(logs["loss"]))


def recorded(trainer, learned):
    """The trainer, its batches written down as it takes them."""

    class Recorded(trainer):
        def training_step(self, model, inputs, *args, **kwargs):
            columns = zip(inputs["input_ids"], inputs["attention_mask"], learned(inputs))
            batches.append([
                {"ids": ids[real.bool()].tolist(), "learned": counts[real.bool()].int().tolist()}
                for ids, real, counts in columns
            ])  # fmt: skip
            return super().training_step(model, inputs, *args, **kwargs)

    return Recorded


def settings(folder, rows):
    return dict(
        output_dir=folder, per_device_train_batch_size=rows, max_steps=asked.steps, max_length=256, logging_steps=1,
        lr_scheduler_type="constant", report_to=[], save_strategy="no", bf16=False, use_cpu=True, seed=0,
        gradient_checkpointing=asked.checkpointing, disable_tqdm=True,
    )  # fmt: skip


def even(completion_ids, **_):
    return [sum(1 for token in ids if token % 2 == 0) / len(ids) for ids in completion_ids]


def answer(folder):
    from datasets import Dataset
    from peft import LoraConfig
    from trl import GRPOConfig, GRPOTrainer

    rows = [row for row in pairs() if len(templated(row["prompt"], add_generation_prompt=True)) <= 192][:8]
    prompts = [templated(row["prompt"], add_generation_prompt=True) for row in rows]
    batches.extend([[{"ids": ids, "learned": [0] * len(ids)} for ids in prompts]] * asked.steps)
    common = {name: value for name, value in settings(folder, 8).items() if name != "max_length"}
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(asked.model, dtype=torch.float32),
        args=GRPOConfig(
            learning_rate=1e-4, gradient_accumulation_steps=8, num_generations=8, max_completion_length=64,
            shuffle_dataset=False, generation_kwargs={"min_new_tokens": 64}, **common,
        ),
        reward_funcs=even, train_dataset=Dataset.from_list([{"prompt": row["prompt"]} for row in rows]),
        processing_class=tokenizer, callbacks=[Clock()],
        peft_config=LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules="all-linear"),
    )  # fmt: skip
    trainer.train()


def train(folder):
    from datasets import Dataset

    model = AutoModelForCausalLM.from_pretrained(asked.model, dtype=torch.float32)
    common = dict(model=model, processing_class=tokenizer, callbacks=[Clock()])
    if asked.kind == "dpo":
        from peft import LoraConfig
        from trl import DPOConfig, DPOTrainer

        lora = LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules="all-linear")
        trainer = recorded(DPOTrainer, lambda inputs: inputs["completion_mask"])(
            args=DPOConfig(beta=0.1, learning_rate=1e-4, **settings(folder, 2)),
            train_dataset=Dataset.from_list(list(pairs())), peft_config=lora, **common,
        )  # fmt: skip
    else:
        from trl import SFTConfig, SFTTrainer

        rows = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in pairs()]
        trainer = recorded(SFTTrainer, lambda inputs: inputs["labels"] != -100)(
            args=SFTConfig(completion_only_loss=True, learning_rate=1e-5, **settings(folder, 4)),
            train_dataset=Dataset.from_list(rows), **common,
        )  # fmt: skip
    trainer.train()


if asked.kind in ("dpo", "sft", "grpo"):
    with tempfile.TemporaryDirectory() as folder:
        (answer if asked.kind == "grpo" else train)(folder)
elif asked.kind == "lists":
    for before, answers in lists():
        prompt = len(templated(before, add_generation_prompt=True))
        rows = [templated(before + [{"role": "assistant", "content": answer}])[:512] for answer in answers]
        if prompt < 448 and len(batches) < asked.steps:
            batches.append([{"ids": ids, "learned": [int(i >= prompt) for i in range(len(ids))]} for ids in rows])
else:
    model = AutoModelForCausalLM.from_pretrained(asked.model, dtype=torch.float32).eval()
    prompts = [templated(row["prompt"], add_generation_prompt=True) for row in pairs()]
    prompts = [prompt for prompt in prompts if len(prompt) <= 192][:16]
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    real = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    model.generation_config.eos_token_id = None
    for _ in range(asked.steps):
        start = time.perf_counter(), time.process_time()
        with torch.no_grad():
            out = model.generate(ids, attention_mask=real, do_sample=False, max_new_tokens=64, pad_token_id=0)
        seconds.append(time.perf_counter() - start[0])
        processor.append(time.process_time() - start[1])
    answers = out[:, longest:].tolist()
    batches = [
        [{"ids": prompt + answer, "learned": [0] * len(prompt) + [1] * len(answer)} for prompt, answer in zip(prompts, answers)]
    ]  # fmt: skip

with open(asked.batches, "w") as file:
    json.dump(batches, file)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"seconds": seconds, "processor": processor, "losses": losses, "peak": peak}))
