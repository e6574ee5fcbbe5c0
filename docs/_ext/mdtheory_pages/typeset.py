"""Formulas that docstrings and titles write in plain characters, as TeX for the pages.

A formula is a run of words that are symbols, joined by relations and operations, such as ``phi_k =
g(z_k)``, with at least one thing that no English sentence has. What is no such run stays as it is.
"""

from __future__ import annotations

import re

GREEK = [
    "alpha",
    "beta",
    "gamma",
    "delta",
    "epsilon",
    "eps",
    "zeta",
    "eta",
    "theta",
    "kappa",
    "lambda",
    "mu",
    "nu",
    "xi",
    "pi",
    "rho",
    "sigma",
    "tau",
    "phi",
    "psi",
    "chi",
    "omega",
    "Delta",
    "Gamma",
    "Lambda",
    "Phi",
    "Psi",
    "Sigma",
    "Theta",
    "Omega",
]
FUNCTIONS = [
    "exp",
    "log",
    "det",
    "max",
    "min",
    "sup",
    "inf",
    "arg",
    "sin",
    "cos",
    "sinh",
    "cosh",
    "tanh",
]  # known to TeX
OPERATIONS = [
    "sech",
    "argmin",
    "asinh",
    "sym",
    "tr",
    "diag",
    "sign",
    "sigmoid",
    "softplus",
    "dom",
    "prox",
    "meta",
    r"norm(?=[\^(])",  # a word elsewhere
    "rate",
]
OPERATORS = {
    "=": "=",
    "<": "<",
    ">": ">",
    "<=": r"\le",
    ">=": r"\ge",
    ">>": r"\gg",
    "<<": r"\ll",
    "!=": r"\ne",
    "~=": r"\approx",
    "->": r"\to",
    "<-": r"\leftarrow",
    ":=": ":=",
    "~": r"\sim",
    "+": "+",
    "-": "-",
    "*": r"\,",
    "/": "/",
    "o": r"\circ",
    "...": r"\dots",
}
LONELY = ("<=", ">=", ">>")  # are formulas between any two words
RELATIONS = ("<=", ">=", "<", ">", ">>", "<<", "->")
ALONE = r"(?<![A-Za-z]){}(?![A-Za-z])"
PRODUCTS = [r"[A-Z]{2}(?=[\^)|(])", r"[a-z][A-Z](?=[\W_]|$)", r"[A-Z][a-z](?=[=^)])"]
PRODUCTS += [r"[A-Z]{1,2}(?:l|mu|rho|tau)(?=[/+])", r"tz(?=\))"]
WORDS = ["grad", "sum", "int", "sqrt", "lin", *GREEK, *FUNCTIONS, *OPERATIONS]
LONG = r"[a-z]{3,10}(?=_(?:\{|\d\b))"  # a word with an index
NAMES = [*WORDS, *PRODUCTS, LONG, "d?[A-Za-z]", *(f"d{name}" for name in GREEK)]
NAME = ALONE.format(f"(?:{'|'.join(NAMES)})")
RAISED = r"(?:[_^](?:\{[^{}]*(?:\{[^{}]*\})?[^{}]*\}|\([^()]*\)|[-<]?[A-Za-z0-9]+|[*+]))"
IDENTIFIER = ALONE.format(r"(?:[a-z]{2,10}_[a-z]{2,10}|[a-z]_(?!hat|bar|new|min|max)[a-z]{3,7})")
NUMBER = r"(?:\d+\.\.\d+|\d*\.?\d+(?:e-?\d+)?)"
ATOM = rf"(?:{IDENTIFIER}|{NAME}(?:'(?!s\b))?{RAISED}*(?:'(?!s\b))?\*?|{NUMBER}{RAISED}*)"
CLOSED = rf"(?:\(\.\.\.\)|\|\.\||[)\]|]){RAISED}+"
INSIDE = r"\.\.|\.(?=\))|[-+/,*^](?=.)|[<>]?=(?=.)|<(?=[A-Za-z(|])|>"
WORD = re.compile(rf"-?(?:{ATOM}|{CLOSED}|\|?\|\.\|\|?|[()\[\]{{}}|]|{INSIDE})+")
STRONG = re.compile(
    r"[_^=<>|]|h\*|sqrt\(|[A-Z]\([^()]+\)|" + ALONE.format("(?:" + "|".join(["grad", *GREEK]) + ")")
)
BLANK = "\0"  # inside braces, where no word ends
PARTS = re.compile(r"(\$\$[^$]+\$\$|\$[^$]+\$|`+[^`]+`+)")


def typeset(text: str) -> str:
    """The text with its formulas between dollar signs; what stands in backticks or dollar signs
    already is left alone.

    >>> typeset("An upper bound for 0 < alpha <= 1/L, as in the paper.")
    'An upper bound for $0 < \\\\alpha \\\\le 1/L$, as in the paper.'
    >>> typeset("a step of its own, with n_way classes")
    'a step of its own, with n_way classes'
    """
    pieces = PARTS.split(text)
    return "".join(piece if i % 2 else _prose(piece) for i, piece in enumerate(pieces))


def _prose(text: str) -> str:
    out: list[str] = []
    run: list[str] = []
    text = re.sub(r"\{[^{}]*\}", lambda braced: braced[0].replace(" ", BLANK), text)
    for word in re.split(r"(\s+|(?:(?<=\s)|^)['\"](?=\w))", text):
        run.append(word)
        bare, tail = _bare(word)
        if word.isspace() or (_symbols(bare) and (not tail or _open("".join(run)))):
            continue
        if _symbols(bare):
            out += _formula(run)
        else:
            out += [*_formula(run[:-1]), _compound(word)]
        run = []
    return "".join([*out, *_formula(run)]).replace(BLANK, " ")


def _bare(word: str) -> tuple[str, str]:
    """A word, and the stop that ends a formula with it."""
    bare = "..." if word.startswith("...") else word.rstrip(',.;:?"')
    if not _symbols(bare) and _symbols(bare.removesuffix("'")):
        bare = bare.removesuffix("'")
    return bare, word[len(bare) :]


def _symbols(word: str) -> bool:
    return word in OPERATORS or (word.strip("|") != "" and WORD.fullmatch(word) is not None)


def _formula(run: list[str]) -> list[str]:
    """The run with what is a formula in it between dollar signs."""
    words = [place for place, word in enumerate(run) if not word.isspace() and word]
    relation = None
    while words and (run[words[0]] in OPERATORS or _article(run, words[:2])):
        relation = words.pop(0)
    after = None
    while words and (_bare(run[words[-1]])[0] in OPERATORS or _article(run, words[:-3:-1])):
        after = words.pop()
    if not words:
        return [f"${OPERATORS[word]}$" if word in LONELY else word for word in run]
    first, last = words[0], words[-1]
    whole, tail = _bare("".join(run[first : last + 1]))
    opened = ""
    while whole.startswith("(") and not _balanced(whole) and _balanced(whole[1:]):
        opened, whole = opened + "(", whole[1:]
    while whole.endswith(")") and not _balanced(whole) and _balanced(whole[:-1]):
        whole, tail = whole[:-1], ")" + tail
    if relation is not None and words[0] - relation == 2 and run[relation] in RELATIONS:
        first, whole = relation, run[relation] + " " + whole
    if after is not None and after - last == 2 and run[after] in RELATIONS:
        last, whole, tail = after, f"{whole} {run[after]}", ""
    late = next((n for n in words[:0:-1] if run[n].startswith("(")), None)
    if not _balanced(whole) and _open(whole) and late is not None:
        return [*_formula(run[:late]), *run[late:]]
    if not _balanced(whole) or not STRONG.search(re.sub(IDENTIFIER, _unless_code, whole)):
        return run
    return [*run[:first], opened, f"${tex(whole)}$", tail, *run[last + 1 :]]


def _article(run: list[str], ends: list[int]) -> bool:
    """Whether an "a" at the end of a run is the word and no symbol."""
    return bool(ends) and run[ends[0]] == "a" and run[ends[-1]] not in OPERATORS


def _compound(word: str) -> str:
    """``P^{-1}-weighted``: a formula with a word behind a hyphen."""
    found = re.fullmatch(r"(.*[_^].*?)(-[a-z]{3,}.*)", word, re.DOTALL)
    if found and _symbols(found[1]) and _balanced(found[1]):
        return f"${tex(found[1])}${found[2]}"
    return word


def _open(text: str) -> bool:
    angles = len(re.findall(r"(?<!\S)<(?=\w)", text)) - len(re.findall(r"(?<=\S)>(?!\S\w)", text))
    return angles > 0 or any(text.count(a) > text.count(b) for a, b in ("()", "[]"))


def _apart(text: str) -> str:
    return re.sub(r"(?<=[A-Za-z0-9'])\|\|(?=[A-Za-z0-9])", "| |", text)  # |a||b| is no norm


def _balanced(text: str) -> bool:
    depth, text = 0, _apart(text)
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if depth < 0:
            return False
    return depth == 0 and text.count("||") % 2 == 0


def tex(formula: str) -> str:
    """A formula in plain characters as TeX.

    >>> tex("||z||^2 >= mu_2 * h*(z_k)")
    '\\\\lVert z\\\\rVert^2 \\\\ge \\\\mu_2 \\\\, h^*(z_k)'
    """
    text = re.sub(r"(?<![\s_])(<=|>=)(?=\S)", r" \1 ", _apart(formula))
    text = re.sub(r"<(?=\S)([^<>=]*?[^<>=\s])>", r"\\langle \1\\rangle ", text)
    text = re.sub(r"\|\|(.+?)\|\|", r"\\lVert \1\\rVert", text)
    text = text.replace("|.|", r"\lvert\cdot\rvert ")
    text = text.replace(r"\lVert .", r"\lVert\cdot").replace("|", r"\vert ")
    text = re.sub(IDENTIFIER, _identifier, text)
    text = re.sub(r"(?<![A-Za-z\d.])(\d[\d.]*)e(-?\d+)", _power, text)
    text = re.sub(r"_([A-Za-z]+)_([A-Za-z0-9]+)", r"_{\1_\2}", text)
    text = re.sub(r"(?<!\\)_([A-Za-z0-9]{2,})", lambda m: "_{" + _long(m[1]) + "}", text)
    text = re.sub(r"_(<\w)", r"_{\1}", text)
    text = re.sub(r"\^(-?[A-Za-z0-9]{2,}|-[A-Za-z0-9]|\([^()]*\))", r"^{\1}", text)
    text = re.sub(r"\^T\b", r"^\\top", text)
    text = re.sub(r"([A-Za-z}])\*(?=[\s(),_^]|$)", r"\1^*", text)
    text = re.sub(r"sqrt\(([^()]*)\)", r"\\sqrt{\1}", text)
    text = re.sub(r"\bgrad\s*", r"\\nabla ", text)
    text = re.sub(rf"(?<![\\A-Za-z{{])(?!{'|'.join(WORDS)}){LONG}", r"\\mathrm{\g<0>}", text)
    text = re.sub(rf"\bd({'|'.join(GREEK)})(?![A-Za-z])", r"d \1", text)
    text = re.sub(_any(["sum", "int", *FUNCTIONS]), r"\\\1", text)
    text = re.sub(_any(OPERATIONS), r"\\operatorname{\1}", text)
    text = re.sub(_any(GREEK), _greek, text)
    words = text.replace(BLANK, " ").split()
    return " ".join(OPERATORS.get(word, word) for word in words)


def _power(found: re.Match[str]) -> str:
    times = "" if found[1] == "1" else rf"{found[1]} \cdot "
    return f"{times}10^{{{found[2]}}}"


def _any(names: list[str]) -> str:
    return rf"(?<![\\A-Za-z{{])({'|'.join(names)})(?![A-Za-z])"


def _unless_code(found: re.Match[str]) -> str:
    return found[0] if _identifier(found) == found[0] else ""


def _identifier(found: re.Match[str]) -> str:
    first, _, second = found[0].partition("_")
    short = len(second) < 3 or second in GREEK
    if first in GREEK or (short and first in (*FUNCTIONS, "sum", "grad")):
        return found[0]
    return r"\mathtt{" + found[0].replace("_", r"\_") + "}"


def _long(subscript: str) -> str:
    return subscript if subscript.isdigit() or subscript in GREEK else rf"\mathrm{{{subscript}}}"


def _greek(found: re.Match[str]) -> str:
    name = {"eps": "varepsilon", "epsilon": "varepsilon"}.get(found[1], found[1])
    return rf"\{name}"
