"""Reads LaTeX and BibTeX as far as the report writes them, and refuses what LaTeX would refuse."""

import re

PRINTED = {
    r"\textbackslash{}": "\\",
    r"\textbraceleft{}": "{",
    r"\textbraceright{}": "}",
    r"\textasciitilde{}": "~",
    r"\textasciicircum{}": "^",
    r"\textless{}": "<",
    r"\textgreater{}": ">",
    r"\textbar{}": "|",
    r"\textasciigrave{}": "`",
    r"\textdagger{}": "†",
    r"\textdaggerdbl{}": "‡",
    r"\S{}": "§",
    r"\textperiodcentered{}": "·",
    r"\ldots{}": "…",
    r"$\pm$": "±",
    r"$-$": "−",
    r"\raggedright ": "",
    r"\allowbreak ": "",
    "{[}": "[",
    "{*}": "*",
    "{}": "",
    "---": "—",
    "--": "–",
    **{rf"\{sign}": sign for sign in "&%$#_"},
}


def printed(text: str) -> str:
    """What LaTeX prints for a text without rules and fonts; raises for anything that it would interpret."""
    text = text.strip()
    while font := re.fullmatch(r"(.*)\\(?:textbf|underline|textsuperscript)\{((?:[^{}]|\{\})*)\}(.*)", text):
        text = font[1] + font[2] + font[3]
    text = re.sub(r"\\texttt\{(U\+[0-9A-F]+)\}", r"\1", text)
    text = re.sub(r"\{\\scriptsize ([^{}]*)\}", r"\1", text)
    if stack := re.fullmatch(r"\\shortstack\[r\]\{(.*)\}", text):
        text = stack[1].replace(r"\\", "")
    signs = "|".join(re.escape(each) for each in sorted(PRINTED, key=len, reverse=True))
    assert not re.search(r"[\\{}$&#^_~%]", re.sub(signs, "", text)), f"LaTeX would interpret {text}"
    return re.sub(signs, lambda found: PRINTED[found[0]], text)


def assert_balanced(text: str) -> None:
    """Assert that braces and environments are closed in the order in which they were opened."""
    open_ones: list[str] = []
    depth = 0
    for token in re.finditer(r"\\(begin|end)\{(\w+)\}|\\[\\{}]|[{}]", re.sub(r"(?<!\\)%.*", "", text)):
        if token[1] == "begin":
            open_ones.append(token[2])
        elif token[1] == "end":
            assert open_ones.pop() == token[2]
        else:
            depth += {"{": 1, "}": -1}.get(token[0], 0)
        assert depth >= 0
    assert depth == 0
    assert not open_ones


def tabulars(text: str) -> list[list[list[str]]]:
    """The rows of each tabular, each a list of raw cells. Asserts that rows have as many cells as there are columns."""
    assert_balanced(text)
    tables = []
    for columns, body in re.findall(
        r"\\begin\{tabular\}\{@\{\}(?:l|p\{[\d.]+cm\})(r+)@\{\}\}\n(.*?)\\end\{tabular\}", text, re.DOTALL
    ):
        rows = []
        for line in body.splitlines():
            if line in ("\\toprule", "\\midrule", "\\bottomrule"):
                continue
            assert line.endswith(" \\\\"), line
            cells = re.split(r"(?<!\\)&", line[:-3])
            assert len(cells) == 1 + len(columns), line
            assert not cells[0].strip().startswith(("[", "*")), line
            rows.append([cell.strip() for cell in cells])
        assert body.startswith("\\toprule\n")
        assert body.endswith("\\bottomrule\n")
        tables.append(rows)
    return tables


def entries(text: str) -> dict[str, dict[str, str]]:
    """The fields of each entry of a .bib file by key, as BibTeX reads them: by counting braces, escaped or not."""
    start = text.find("@")
    result: dict[str, dict[str, str]] = {}
    while start >= 0:
        end, depth = start, 0
        while depth or text[end] != "}":
            depth += (text[end] == "{") - (text[end + 1] == "}" if end + 1 < len(text) else 0)
            end += 1
        body = text[start : end + 1]
        head = re.match(r"@misc\{([^\s\"#%'(),={}~\\]+),\n", body)
        assert head, body
        fields = dict(re.findall(r"^  (\w+) = \{(.*)\},$", body[head.end() :], re.MULTILINE))
        assert len(fields) == body.count("\n") - 1
        assert head[1] not in result
        result[head[1]] = fields
        start = text.find("@", end)
        outside = text[end + 1 : start if start >= 0 else len(text)]
        assert outside.strip() == "", outside
    return result
