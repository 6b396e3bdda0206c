"""BLEU, ROUGE, Porter's stems and BERTScore by their packages."""

import random

import torch
from nltk.stem.porter import PorterStemmer
from rouge_score import rouge_scorer
from rouge_score.tokenize import tokenize
from sacrebleu.metrics import BLEU
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

from evaluation_common import function, released, write

WORDS = "the cat sat on a mat while dogs, birds and 3.5 (or 1,000) mice ran; isn't it nice?".split()


def draw(rng, words, low, high):
    return " ".join(rng.choice(words) for _ in range(rng.randint(low, high)))


def thirteen_a():
    rng = random.Random("13a")
    texts = [
        "Hello, world.",
        "It's 1,000.50 km (or so), isn't it? Yes -- 5-6 and well-known.",
        "  leading and trailing\n\n",
        "line-\nbreak <skipped>kept &amp;amp; &quot;quoted&quot; &lt;b&gt;",
        "a.b,c .5 5. 5,a a,5 ..., 3-4 -5 5-",
        "naïve Ärger 你好,世界。 １，２ \u00a0 \u1680x\u2028y\x1cz\x85w",
        "{}~[]`^_\\ !\"#$%& ()*+ :;<=>?@ / ' , - .",
        "",
        " \t ",
        "ﬁ İstanbul ß Σς",
    ]
    signs = "ab59.,-' \n&;<>()/é你"
    texts += ["".join(rng.choice(signs) for _ in range(rng.randint(1, 24))) for _ in range(60)]
    tokenizer = Tokenizer13a()
    return [dict(text=t, tokens=tokenizer(t.rstrip()).split()) for t in texts]


def bleu():
    rng = random.Random("bleu")
    corpora = []
    for texts, references in [(1, 1), (1, 3), (5, 1), (8, 2), (20, 4), (3, 1)]:
        hypotheses, refs = [], []
        for _ in range(texts):
            base = draw(rng, WORDS, 3, 14)
            noisy = lambda: " ".join(w for w in base.split() if rng.random() > 0.2) or "x"  # noqa: E731
            hypotheses.append(noisy())
            refs.append([noisy().capitalize() if rng.random() < 0.3 else noisy() for _ in range(references)])
        corpora.append((hypotheses, refs))
    corpora += [
        (["the the the the the the the"], [["the cat is on the mat", "there is a cat on the mat"]]),
        (["nothing shared here"], [["quite another text"]]),
        (["short"], [["short"]]),
        (["ab c"], [["ab d"]]),
        ([""], [["something"]]),
        (["a b", ""], [["a b"], [""]]),
        (["The CAT sat."], [["the cat sat."]]),
    ]
    cases = []
    for hypotheses, refs in corpora:
        most = max(map(len, refs))
        results = []
        streams = [[r[i] if i < len(r) else None for r in refs] for i in range(most)]
        for order, method, value, effective, lower in [
            (4, "exp", None, False, False),
            (4, "exp", None, True, False),
            (4, "floor", 0.1, False, False),
            (4, "floor", 0.01, True, False),
            (4, "add-k", 1, False, False),
            (4, "add-k", 0.5, True, True),
            (4, "none", None, False, False),
            (2, "exp", None, False, True),
        ]:
            metric = BLEU(
                lowercase=lower, smooth_method=method, smooth_value=value, max_ngram_order=order, effective_order=effective, force=True
            )
            score = metric.corpus_score(hypotheses, streams)
            smooth = {"exp": "exponential", "none": "none", "floor": {"floor": value}, "add-k": {"add_k": value}}[method]
            results.append(
                dict(
                    config=dict(order=order, smoothing=smooth, effective_order=effective, lowercase=lower),
                    score=score.score,
                    precisions=score.precisions,
                    brevity_penalty=score.bp,
                    length=score.sys_len,
                    reference_length=score.ref_len,
                )
            )
        cases.append(dict(texts=hypotheses, references=refs, results=results))
    return cases


STEMS = """caresses ponies ties caress cats feed agreed plastered bled motoring sing conflated troubled sized hopping tanned
falling hissing fizzed failing filing happy sky relational conditional rational valenci hesitanci digitizer conformabli
radicalli differentli vileli analogousli vietnamization predication operator feudalism decisiveness hopefulness
callousness formaliti sensitiviti sensibiliti triplicate formative formalize electriciti electrical hopeful goodness
revival allowance inference airliner gyroscopic adjustable defensible irritant replacement adjustment dependent adoption
homologou communism activate angulariti homologous effective bowdlerize probate rate cease controll roll dies died dying
lying tying skies news innings outings cannings howe proceed exceed succeed enjoy enjoyment spied flies fly try say
by yyyy yes y2k geology theology apologi archaeology logi beautifully fulli carefully alli really totally
generally ally rally usabli abli egged adding eyed using owed ed ing aing oed tree see agree speed breed need seed
bleeding meeting bus gas this was has yellow gypsy syzygy toy abcdefg 123 a1b2 1990s 42nd ax eating ion lion onion
opinion nation million passion fashion argument mention element cement generate oscillate ize ise iate""".split()


def stems():
    rng = random.Random("stems")
    pieces = "re un con st tr ing ed ly ies y e al ation iz er ness ful ou s ll at bl ee ic ive ment ent ab logi i o".split()
    words = STEMS + ["".join(rng.choice(pieces) for _ in range(rng.randint(2, 6))) for _ in range(400)]
    stemmer = PorterStemmer()
    return [[w, stemmer.stem(w)] for w in dict.fromkeys(words)]


def rouge():
    rng = random.Random("rouge")
    pairs = [
        ("police killed the gunman", "the gunman kill police"),
        ("The quick brown fox jumps over the lazy dog", "The quick brown dog jumps on the log."),
        ("w1 w2 w6 w7 w8\nw1 w3 w8 w9 w5", "w1 w2 w3 w4 w5"),
        ("", "something"),
        ("something", ""),
        ("你好", "你好"),
        ("a\n\nb\n \nc", "c\nb\na"),
        ("Naïve cats' running, isn't it", "naive cat runs; is not it"),
        ("x x x x\nx x", "x x\nx\ny x"),
    ]
    words = "run running runs a b c dogs dog happily happy".split()
    for _ in range(25):
        pairs.append(tuple("\n".join(draw(rng, words, 1, 6) for _ in range(rng.randint(1, 4))) for _ in range(2)))
    kinds = ["rouge1", "rouge2", "rouge3", "rougeL", "rougeLsum"]
    cases = []
    for stem in [False, True]:
        scorer = rouge_scorer.RougeScorer(kinds, use_stemmer=stem)
        for text, reference in pairs:
            scores = scorer.score(reference, text)
            cases.append(dict(text=text, reference=reference, stem=stem, scores=[list(scores[k]) for k in kinds]))
    for case in cases[:12]:
        case["tokens"] = tokenize(case["text"], PorterStemmer() if case["stem"] else None)
    return cases


def bert():
    source = released("bert_score==0.3.13", "bert_score/utils.py")
    greedy = function(source, "greedy_cos_idf", torch=torch)
    idf = function(
        source,
        "get_idf_dict",
        **vars(__import__("collections")),
        **{"partial": __import__("functools").partial, "chain": __import__("itertools").chain, "log": __import__("math").log},
        process=lambda a, tokenizer: set(a),
    )
    torch.set_default_dtype(torch.float64)
    generator = torch.Generator().manual_seed(7)
    cases = []
    for text, reference, width, weighted in [(3, 3, 2, False), (4, 6, 5, False), (7, 5, 8, True), (1, 4, 3, True)]:
        x = torch.round(torch.randn(text, width, generator=generator), decimals=3)
        y = torch.round(torch.randn(reference, width, generator=generator), decimals=3)
        w, v = torch.ones(text), torch.ones(reference)
        if weighted:
            w = torch.round(torch.rand(text, generator=generator), decimals=3)
            v = torch.round(torch.rand(reference, generator=generator), decimals=3)
        ones = lambda n: torch.ones(1, n)  # noqa: E731
        p, r, f = greedy(
            y[None].clone(), ones(reference), v[None].clone(), x[None].clone(), ones(text), w[None].clone()
        )
        cases.append(
            dict(text=x.tolist(), reference=y.tolist(), weights=[w.tolist(), v.tolist()], scores=[float(p), float(r), float(f)])
        )
    texts = [[1, 2, 3, 3], [2, 3], [3, 9]]
    known = idf(texts, None, nthreads=0)
    return cases, [dict(texts=texts, tokens=[1, 2, 3, 9, 50], weights=[known[t] for t in [1, 2, 3, 9, 50]])]


if __name__ == "__main__":
    bert_cases, idf_cases = bert()
    write(
        "evaluation_text",
        dict(thirteen_a=thirteen_a(), bleu=bleu(), stems=stems(), rouge=rouge(), bert_score=bert_cases, idf=idf_cases),
    )
