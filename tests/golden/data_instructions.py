"""What Self-Instruct keeps of generated text, and how Lion tells hard instructions: the authors' rules
transcribed, with the package that the authors use for ROUGE-L. Runs alone:

    pip install rouge-score==0.1.2
    python tests/golden/data_instructions.py
"""

import json
import pathlib
import platform
import random
import re
import string
from importlib.metadata import version

from rouge_score import rouge_scorer

PINNED = {"rouge-score": "0.1.2"}
SELF_INSTRUCT = "transcribed: yizhongw/self-instruct, self_instruct/"


def write(name, cases, packages):
    installed = {package: version(package) for package in packages}
    assert installed == packages, f"installed {installed}, pinned {packages}"
    head = {
        "command": f"python tests/golden/{name}.py",
        "python": platform.python_version(),
        "packages": packages,
        "precision": "float64",
    }
    lines = ",\n".join(json.dumps(c, allow_nan=False, separators=(",", ":"), ensure_ascii=False) for c in cases)
    path = pathlib.Path(__file__).with_name(f"{name}.json")
    path.write_text(f'{{"provenance":{json.dumps(head)},\n"cases":[\n{lines}\n]}}\n', encoding="utf-8")
    print(f"{path.name}: {len(cases)} cases, {path.stat().st_size} bytes")


def case(name, oracle, **config):
    return dict(name=name, oracle=oracle, config=config, inputs={}, outputs={}, gradients={})


def texts(rng, count):
    """Instructions of which many are near copies of others."""
    words = "name list write explain sort the a of for two three words cities rivers verbs numbers poem letter old new".split()
    out = []
    while len(out) < count:
        if out and rng.random() < 0.5:
            copy = rng.choice(out).split()
            for _ in range(rng.randint(0, 4)):
                at = rng.randrange(len(copy))
                copy[at : at + rng.randint(0, 1)] = rng.choices(words, k=rng.randint(0, 2))
            out.append(" ".join(copy) or "x")
        else:
            out.append(" ".join(rng.choices(words, k=rng.randint(1, 14))))
    return out


def rouge():
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    rng = random.Random(1)
    some = texts(rng, 40) + ["Don't say CAFÉ-2!", "don t say cafe 2", "\u212ag \u0130s", "kg i s", "…", "", "日本語", "日本語 a"]
    long = " ".join(rng.choices("a b c d e f g".split(), k=150))
    longer = " ".join(rng.choices("a b c d e f g".split(), k=90))
    pairs = [[rng.choice(some), rng.choice(some)] for _ in range(120)] + [[long, longer], [long, long], ["…", ""]]
    scores = [scorer.score(a, b)["rougeL"].fmeasure for a, b in pairs]
    return case("rouge", "rouge_score.rouge_scorer, rougeL, no stemmer", pairs=pairs, scores=scores)


def pool(name, seeds, offered):
    """The loop over new instructions; none is left out for being the first."""
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    kept, taken, highest = list(seeds), [], []
    for inst in offered:
        scores = [scorer.score(inst, other)["rougeL"].fmeasure for other in kept]
        highest.append(max(scores, default=None))
        taken.append(not scores or not max(scores) > 0.7)
        if taken[-1]:
            kept.append(inst)
    oracle = SELF_INSTRUCT + "bootstrap_instructions.py, with rouge_score"
    return case(name, oracle, seeds=seeds, offered=offered, taken=taken, highest=highest)


def pools():
    rng = random.Random(2)
    ten = "a b c d e f g h i j".split()
    # 7 of 10 in common: F is 0.7 up to rounding; the same with 14 of 20
    edge = [" ".join(ten), " ".join(ten[:7] + ["x", "y", "z"]), " ".join(ten[:7])]
    twenty = [f"w{i}" for i in range(20)]
    edge += [" ".join(twenty), " ".join(twenty[:14] + [f"v{i}" for i in range(6)]), "…", "…", "日本語"]
    return [pool("pool", texts(rng, 20), texts(rng, 250)), pool("pool, at the threshold", [], edge)]


BANNED = "image,images,graph,graphs,picture,pictures,file,files,map,maps,draw,plot,go to".split(",")


def one(inst):
    """`post_process_gpt3_response` on one instruction: the text, or none."""
    inst = re.sub(r"\s+", " ", inst).strip()
    inst = inst.strip().capitalize()
    if inst == "":
        return None
    if len(inst.split()) <= 3 or len(inst.split()) > 150:
        return None
    if any(re.compile(r"\b({0})\b".format(word), flags=re.IGNORECASE).search(inst) for word in BANNED):
        return None
    if inst.startswith("Write a program") or inst[0] in string.punctuation or not inst[0].isascii():
        return None
    return inst


def filters():
    given = [
        "name a  city in\tFrance", "NAME A CITY IN FRANCE", "Name a city", "", " \n", "write a program that adds",
        "Rewrite a program that adds", "draw me a nice sheep", "Drawing sheep is not easy", "a roadmap to the sea",
        "read the MAP of this city", "go to the next house", "going to the next house", "the file, please, read it",
        "the profile of this man", "«quoted words of this man»", "\"quoted words of this man\"", "*a list of these things",
        "3 things that are true", "élan vital is a word", "ßtrange words begin like this", "ﬁne ligatures begin like this",
        "ıs this a dotless i", "日本語 で は なし", "_underscored words of this man", "a\u2003wide\u2003blank here",
        "a\u001cseparator\u001dis\u001ea\u001fblank", "x " * 149 + "y", "x " * 150 + "y", "plot-twists are very nice",
        "the graph's edges are many", "photograph this old house now", "image2 of this old house", "Ärger mit der Post hier",
    ]
    return case("filter", SELF_INSTRUCT + "bootstrap_instructions.py", given=given, accepted=[one(g) for g in given])


def splits():
    given = [
        " Name a city.\n10. Translate:\nhello\n11. Sum up.", "one alone", "", "\n9. first\n10 . second\n11.third\n12. fourth",
        " a\n\n10. b\n\n\n11. c\n", "2 cups of flour\n3 eggs\n10. bake", "x\n 10. y", "x\n10\n. y", "x\n10. \n11. z",
    ]

    def split(text):
        parts = [p.strip() for p in re.split(r"\n\d+\s?\. ", text)]
        return [p for p in parts if p != ""]

    return case("split", SELF_INSTRUCT + "bootstrap_instructions.py", given=given, parts=[split(g) for g in given])


def parse_input_output(text):
    if re.findall(r"Output\s*\d*\s*:", text):
        given = re.split(r"Output\s*\d*\s*:", text)[0].strip()
        output = re.split(r"Output\s*\d*\s*:", text)[1].strip()
    else:
        given, output = "", text.strip()
    if re.findall(r"Input\s*\d*\s*:", output):
        output = re.split(r"Input\s*\d*\s*:", output)[0].strip()
    given = re.sub(r"^Input\s*\d*\s*:", "", given).strip()
    return given.strip(), output.strip()


def clean(instances):
    kept = [
        (x, y) for x, y in instances
        if x != y and y != "" and not x.strip().endswith(":") and not y.strip().endswith(":")
    ]
    for i in range(1, len(kept)):
        for j in range(i):
            if kept[i][0] != "" and kept[i][0] == kept[j][0] and kept[i][1] != kept[j][1]:
                return []
    return sorted(set(kept))


def generation(raw, cut):
    raw = raw.strip()
    if re.findall(r"Example\s?\d*\.?", raw):
        parts = [p.strip() for p in re.split(r"Example\s?\d*\.?", raw)]
        instances = [parse_input_output(p) for p in parts if p != ""]
    elif re.findall(r"Output\s*\d*\s*:", raw):
        instances = [parse_input_output(raw)]
    else:
        return []
    return clean(instances[:-1] if cut else instances)


def classification(raw, cut):
    if "Class label:" not in raw:
        return []
    instances = []
    for text in raw.split("Class label:")[1:]:
        fields = text.strip().split("\n", 1)
        instances.append((fields[1].strip() if len(fields) == 2 else "", fields[0].strip()))
    return clean(instances[:-1] if cut else instances)


def instances():
    first = [
        "Example 1\nInput: 2+2\nOutput: 4\nExample 2\nInput: 3+3\nOutput: 6", "Output: just this", "nothing of the kind",
        "Input: a\nOutput: b\nInput: c\nOutput: d", "Example 1.\nx y\nExample 2\nz", "Example\nOutput 1 : b\nExample 3\nOutput:",
        "Example 1\nInput: a\nOutput: a\nExample 2\nInput: a:\nOutput: b\nExample 3\nInput: c\nOutput: d: ",
        "Example 1\nInput: a\nOutput: 1\nExample 2\nInput: a\nOutput: 2", "Example 1\nInput: a\nOutput: 1\nExample 2\nInput: a\nOutput: 1",
        "Example 1\nOutput: 1\nExample 2\nOutput: 2", "Input 1: a Output 1: b", "Example 12.5\nInput: q\nOutput: r",
        "text before Input: a\nOutput: b", "", "Output: a\nOutput: b", "Example 1\nInput: a\nInput: b\nOutput: c",
    ]
    second = [
        "Class label: glad\nWhat a day!\nClass label: sad\nRain again.", "Class label: yes", "no label", "Class label:\nClass label: a\nb",
        "Class label: a\nx\nClass label: b\nx", "Class label: a\nx\ny\n\nClass label: b\nz:", "before Class label: a \n x \n",
    ]
    return [
        case(
            name, SELF_INSTRUCT + "prepare_for_finetuning.py",
            given=given, cut=cut, found=[parse(g, cut) for g in given],
        )
        for name, parse, given, cut in [
            ("generation", generation, first, False), ("generation, cut off", generation, first, True),
            ("classification", classification, second, False), ("classification, cut off", classification, second, True),
        ]
    ]


def lion():
    rng = random.Random(3)
    reviews = [[[rng.randint(1, 10), rng.randint(1, 10)], [rng.randint(1, 10), rng.randint(1, 10)]] for _ in range(60)]
    rows = []
    for i, ((t1, s1), (t2, s2)) in enumerate(reviews):
        rows.append(((t1 + t2) / 2 - (s1 + s2) / 2, (t1 + t2) / 2, i))
    rows.sort(key=lambda row: (-row[0], -row[1]))
    return case(
        "lion", "transcribed: YJiangcm/Lion, src/discrimination.py", reviews=reviews,
        hard=[i for gap, _, i in rows if gap >= 1], easy=[i for gap, _, i in rows if gap < 1],
    )


if __name__ == "__main__":
    write("data_instructions", [rouge(), *pools(), filters(), splits(), *instances(), lion()], PINNED)
