"""Sequences over written feedback as their authors' data code builds them, transcribed: rows of tokens and
what of them is learned. The tokenizer gives one token per byte, so that only the order of the pieces, the
special tokens and the masks are compared.
"""

from common import case, write

BOS, END = 256, 257


def encode(text):
    return list(text.encode())


class Row:
    """Tokens with the weight of each."""

    def __init__(self):
        self.tokens, self.weights = [], []

    def add(self, tokens, weight):
        self.tokens += tokens
        self.weights += [weight] * len(tokens)

    def outputs(self):
        return dict(tokens=self.tokens, mask=[int(w != 0) for w in self.weights])


OPENCHAT = "transcribed: imoneoi/openchat, ochat/config/conversation_template.py, "


def openchat(name, kind, prefix, condition, items, question=None):
    """`ConversationTemplate.tokenize_conversations`: for each message the words of its role, then the
    message and the end of the turn under the message's own weight; a last turn that is to be answered
    has no end. `items` are pairs of a role and a message with its weight."""
    row = Row()
    row.add([BOS], 0.0)
    inference = question is not None
    if inference:
        items = [*items, ("user", question, None), ("assistant", "", None)]
    for place, (role, content, weight) in enumerate(items):
        row.add(encode(prefix(role, condition)), 0.0)
        row.add(encode(content), 0.0 if inference else weight)
        if not (inference and place == len(items) - 1):
            row.add([END], 0.0 if inference else weight)
    turns = [] if inference else [[items[i][1], items[i + 1][1]] for i in range(0, len(items), 2)]
    answers = [weight for role, _, weight in items if role == "assistant"]
    learned = "last" if len(answers) > 1 and not answers[0] else "every"
    config = dict(builder="class", kind=kind, condition=condition, turns=turns, question=question, learned=learned)
    return case(name, OPENCHAT + "tokenize_conversations", inputs={}, outputs=row.outputs(), config=config)


def openchat_cases():
    words = dict(user="User:", assistant="Assistant:")
    later = lambda role, condition: f"{condition} {words[role]}".strip()  # noqa: E731
    # the survey's form of the same template: the class in the words of the assistant alone
    survey = dict(user=lambda _: "User:", assistant=lambda condition: f"Assistant {condition}:")
    earlier = lambda role, condition: survey[role](condition)  # noqa: E731
    one = [("user", "2+2?", 0.0), ("assistant", "4", 1.0)]
    more = [*one, ("user", "And é?", 0.0), ("assistant", "Why, yes.", 1.0)]
    last = [(role, content, weight if place == 3 else 0.0) for place, (role, content, weight) in enumerate(more)]
    weighed = [(role, content, 0.1 * weight) for role, content, weight in more]
    return [
        openchat("openchat, one turn", "later", later, "GPT4", one),
        openchat("openchat, two turns of a class of weight 0.1", "later", later, "GPT3", weighed),
        openchat("openchat, the last of two turns", "later", later, "GPT4", last),
        openchat("openchat, no class", "later", later, "", more),
        openchat("openchat, asked", "later", later, "GPT4", [], question="2+2?"),
        openchat("openchat, the survey's prefix", "survey", earlier, "GPT4", more),
        openchat("openchat, the survey's prefix, asked", "survey", earlier, "GPT3", [], question="2+2?"),
    ]


def hindsight(order, twice):
    """`pack_hf.py`, a summary in one of four forms, through `TextProcessor`: a field in brackets is not
    learned, + joins its parts with a blank, and the question is written before the first answer alone.
    The processor may close the row with one more end."""
    texts = dict(
        marker_user="User:", human="Sum up: a b c", marker_gpt="A helpful answer:",
        marker_gpt_bad="An unhelpful answer:", gpt="a", gpt_bad="b, c",
    )
    fields, opened = [], "marker_user+human+"
    for which in order:
        name = dict(p="gpt", n="gpt_bad")[which]
        fields += [f"[{opened}marker_{name}]", name, "<|eos|>"]
        opened = ""
    row = Row()
    for field in fields:
        hidden = field.startswith("[")
        parts = field.strip("[]").split("+")
        weight = 0.0 if hidden else 1.0
        row.add([END] if field == "<|eos|>" else encode(" ".join(texts[part] for part in parts)), weight)
    if twice:
        row.add([END], 1.0)
    return case(
        f"chain of hindsight, {order}{', one more end' if twice else ''}",
        "transcribed: forhaoliu/chain-of-hindsight, coh/data/pack_hf.py, process_summary, with "
        f"coh/data/dataset.py, TextProcessor, add_eos_token {twice}",
        inputs={},
        outputs=row.outputs(),
        config=dict(builder="hindsight", order=order, one_more_end=twice, **texts),
    )


def selfee(name, prompt, chain):
    """`make_full_target` behind the prompt, closed by the end; the labels of the prompt are ignored."""
    target = ""
    for number, (answer, feedback) in enumerate(chain):
        target += answer if number == 0 else f"\n\n### Revision {number}:\n{answer}"
        target += f"\n\n### Feedback {number + 1}:\n{feedback}"
    row = Row()
    row.add(encode(prompt), 0.0)
    row.add(encode(target), 1.0)
    row.add([END], 1.0)
    return case(
        f"selfee, {name}",
        "transcribed: kaistAI/SelFee, train/feedback_utils.py, make_full_target, with train/train.py, preprocess",
        inputs={},
        outputs=row.outputs(),
        config=dict(builder="revision", prompt=prompt, chain=chain),
    )


def builders():
    wrong, right = "5 is odd. Revision is needed.", "Revision is not needed."
    prompt = "### Instruction:\n2+2?\n\n### Answer:\n"
    write(
        "builders",
        [
            *openchat_cases(),
            *(hindsight(order, False) for order in ["p", "n", "pn", "np"]),
            hindsight("pn", True),
            selfee("right at once", prompt, [["4", right]]),
            selfee("two revisions", prompt, [["5", wrong], ["é", wrong], ["4", right]]),
            selfee("cut off", prompt, [["5", wrong], ["3", wrong]]),
        ],
    )
