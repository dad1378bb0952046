"""The study's questions, answered in words and figures from the evidence of the summary.

All that is chosen is chosen on val; test prompts are only counted. Sameness ("enough", "as good as", "linear") is
claimed where a whole interval lies within a margin, difference ("better") where a test says so, and neither from an
estimate alone. Each answer stands for itself, at the 5% level: there is no adjustment over questions.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import isnan
from typing import Any

import numpy as np

from refusal.claims.costs import cost_matched, linear_cost
from refusal.claims.refusals import beats_control, one_direction, pair_better, refuses, top_two, winners_curse
from refusal.combinations import parse
from refusal.evidence import Evidence
from refusal.measured import ADDED, Found, Measured, UnmeasurableError
from refusal.statistics import DRAWS


def claims(
    evidence: Mapping[str, Evidence], judge: str, prompts: str = "harmful", draws: int = DRAWS, seed: int = 0
) -> list[dict[str, Any]]:
    """Every question of the study with its answer, as plain data.

    Args:
        evidence: as for `summarize`; of a loss also `by_row` ({"nats", "n_tokens"}, a value per text in one order for
            all combinations), and of scores `by_prompt`, where they are there.
        judge, prompts: whose verdicts, on which test set.
        draws, seed: of every bootstrap.
    Returns: a claim each: `claim` (its name), `question`, `answer`, `words`, `figures` (null: not measured), `rests_on`
        (judge, set, combinations, corpus), and for some `descriptive`. Where the model does not refuse, all others are
        "not measurable".
    Raises: UserError, rows or prompts that do not fit together.
    """
    measured = Measured(evidence, judge, prompts, draws, seed)
    first, *others = _questions(evidence)
    made = [_claim(measured, first)]
    if made[0]["answer"] == "no":
        reason = "The model hardly refuses by itself: there is little refusal for an ablation to remove."
        return made + [_claim(measured, one, reason) for one in others]
    return made + [_claim(measured, one) for one in others]


@dataclass(frozen=True)
class _Question:
    name: str
    text: str
    ask: Callable[[Measured], Found]
    corpus: str | None = None
    judged: bool = True


def _questions(evidence: Mapping[str, Evidence]) -> list[_Question]:
    corpora = list(dict.fromkeys(corpus for one in evidence.values() for corpus in one.loss))
    # random controls are asked for; others where the study has them
    kinds = dict.fromkeys(["random", *(parse(name).kind for name in evidence)])
    kinds = [kind for kind in kinds if kind not in ("none", "ablation", *ADDED)]
    return [
        _Question("refuses", "Does the model refuse?", refuses),
        _Question("one_direction", "Is one direction enough?", one_direction),
        _Question("pair_better", "Is a pair better than the best single?", pair_better),
        _Question("top_two", "Is the pair of the two best ranks as good as any?", top_two),
        *(
            _Question(
                f"{what}_beats_{kind}",
                f"Is the best {what} better than every {kind} control of its size?",
                partial(beats_control, size=size, kind=kind),
            )
            for kind in kinds
            for size, what in ((1, "single"), (2, "pair"))
        ),
        _Question("winners_curse", "Does val flatter the combination that is best there?", winners_curse),
        *(
            _Question(
                "cost_matched",
                f"Does the best pair remove more refusals per nat of CE on {corpus} than the best single?",
                partial(cost_matched, corpus=corpus),
                corpus,
            )
            for corpus in corpora
        ),
        *(
            _Question(
                "linear_cost",
                f"Does CE on {corpus} grow linearly with the number of directions?",
                partial(linear_cost, corpus=corpus),
                corpus,
                judged=False,
            )
            for corpus in corpora
        ),
    ]


def _claim(measured: Measured, question: _Question, reason: str | None = None) -> dict[str, Any]:
    try:
        if reason:
            raise UnmeasurableError(reason)
        found = question.ask(measured)
    except UnmeasurableError as error:
        found = Found("not measurable", str(error), error.figures, [], error.descriptive)
    made = {
        "claim": question.name,
        "question": question.text,
        "answer": found.answer,
        "words": found.words,
        "figures": found.figures,
        "rests_on": {
            "judge": measured.judge if question.judged else None,
            "set": measured.prompts if question.judged else None,
            "corpus": question.corpus,
            "combinations": list(found.combinations),
        },
    }
    return _plain(made if found.descriptive is None else made | {"descriptive": found.descriptive})


def _plain(value: Any) -> Any:
    """As JSON knows it; what is not a number was not measured."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and isnan(value) else value
