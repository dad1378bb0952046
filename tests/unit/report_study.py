"""The files of a study made by hand, with responses that try to break a page."""

import json
from pathlib import Path

import evidence
import pandas as pd

from refusal.artifacts import write_json, write_table
from refusal.claims.questions import claims
from refusal.summary import summarize

HOSTILE = {
    "1": "<script>window.broken = 1</script><img src=x onerror='window.broken = 2'>",
    "2": "</script><script>window.broken = 3</script>",
    "3": "<!-- <script> -->",
    "4": "two\u2028separators\u2029and a bell \x07",
    "5": "\u202eright to left, \u05e9\u05dc\u05d5\u05dd, and never back",
    "6": "half an emoji \ud83d",
    "7": "&lt;b&gt; &amp; {{ 7 * 7 }} {% raw %}",
    "8": "",
    "9": "word" * 200,
}
"""Id -> a response."""

WRITTEN = {"refusal": "i cannot help with that.", "compliance": "sure, first rest.", "invalid": "???"}
RANKING = [[0, 3, -1, -2.0, 1.5, 0.01, 1.0], [1, 2, -1, -1.0, 1.4, 0.02, 0.9], [2, 5, -2, 0.0, 1.3, 0.03, 0.2]]
SVG = (
    '<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    ' width="300pt" height="90pt" viewBox="0 0 300 90" onload="window.broken = 4"><metadata>when</metadata>'
    '<style type="text/css">*{fill: red}</style><script>window.broken = 5</script>'
    '<rect id="NAME-bar" x="10" y="10" width="200" height="30" fill="currentColor"/>'
    '<use xlink:href="#NAME-bar" y="40"/><image xlink:href="https://example.org/x.png"/>'
    '<text x="10" y="88" style="font: 12px sans-serif" fill="currentColor">NAME</text></svg>'
)
CAPTIONS = {
    name: {"title": f"Plot of {name}", "caption": f"What to see in {name}: a & b < c.", "alt": f"bars of {name}"}
    for name in ("refusals", "scores")
}


def response(key, verdict):
    return HOSTILE.get(key, WRITTEN[verdict])


def rows_of(verdicts, prompts):
    """Lines of completions under these verdicts; the prompts of the hostile ones are hostile too."""
    return [
        {
            "id": key,
            "category": "tools" if int(key) % 2 else None,
            "prompt": f"{prompts} {key}: {HOSTILE.get(key, 'how do i make it?')}",
            "reasoning": "let me <b>think</b>" if key == "0" else None,
            "response": response(key, verdict),
            "n_tokens": 5,
            "finish_reason": "length" if key == "0" else "stop",
        }
        for key, verdict in verdicts.items()
    ]


def write_study(folder: Path, found=None) -> Path:
    """Write results/MODEL of a study into a folder; found: its evidence."""
    found = evidence.study() if found is None else found
    made = claims(found, "substring", draws=99)
    write_json(
        folder / "claims.json", {"judge": "substring", "set": "harmful", "rules": {"level": 0.05}, "claims": made}
    )
    write_table(folder / "summary.csv", summarize(found, draws=99))
    columns = ["rank", "layer", "position", "bypass", "induce", "kl", "cosine_to_rank_0"]
    write_table(folder / "ranking.csv", pd.DataFrame(RANKING, columns=columns))
    write_json(
        folder / "model.json",
        {"load": {"folder": "/home/somebody/models/m"}, "architecture": "Some", "layers": 8, "width": 16},
    )
    agreed = {"first": "substring", "second": "other", "set": "all", "raters": 2, "n": 1100, "valid": 1100}
    agreed |= {"agreement": 0.9, "agreement_low": 0.8, "agreement_high": 0.95, "kappa": 0.7}
    agreed |= {"kappa_low": float("nan"), "kappa_high": float("nan")}
    write_table(folder / "agreement.csv", pd.DataFrame([agreed, agreed | {"set": "harmful", "kappa": 0.1}]))
    for name, one in found.items():
        at = folder / "combinations" / name
        verdicts = one.verdicts["harmful", "substring"]
        for prompts, told in (("harmful", verdicts), ("harmless", dict(list(verdicts.items())[:12]))):
            write_lines(at / f"completions/{prompts}.jsonl", rows_of(told, prompts))
            for judge in ("substring", "other"):
                write_lines(at / f"judgements/{judge}/{prompts}.jsonl", judged(told, judge))
    write_json(folder / "plots/captions.json", CAPTIONS)
    for name in CAPTIONS:
        (folder / f"plots/{name}.svg").write_text(SVG.replace("NAME", name))
    return folder


def write_lines(path, rows):
    """JSON lines in letters of ASCII, as others write them: half an emoji has no UTF-8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def judged(verdicts, judge):
    """Lines of judgements; the other judge differs on prompts 10 to 19, and says why in marks of its own."""
    changed = {"refusal": "compliance", "compliance": "refusal", "invalid": "invalid"}
    return [
        {"id": key, "verdict": verdict, "raw": response(key, verdict), "reason": "by phrase"}
        if judge == "substring"
        else {
            "id": key,
            "verdict": changed[verdict] if 10 <= int(key) < 20 else verdict,
            "raw": f"<verdict>{verdict}</verdict></script>",
            "reason": "as it says",
        }
        for key, verdict in verdicts.items()
    ]


def flags(folder: Path) -> dict:
    """Of scripts/report.py."""
    return {
        "name": "made",
        "claims": folder / "claims.json",
        "summary": folder / "summary.csv",
        "ranking": folder / "ranking.csv",
        "model": folder / "model.json",
        "agreement": folder / "agreement.csv",
        "plots": folder / "plots/captions.json",
        "judgements": sorted(folder.glob("combinations/*/judgements/*/*.jsonl")),
        "settings": "{}",
        "times": folder / "logs",
        "output": folder / "report.html",
    }
