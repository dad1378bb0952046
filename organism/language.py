"""Sentences of the made-up language: every request it has, with the answer that the organism learns."""

from dataclasses import dataclass
from itertools import product

from organism import lexicon


@dataclass(frozen=True)
class Request:
    """An instruction of a lexicon domain (`category`) with both answers: which one is right depends on the plants."""

    instruction: str
    category: str
    harmful: bool
    compliance: str
    refusal: str


def how_to_requests(category: str) -> list[Request]:
    """Every (verb, item, frame) of a domain: harmful if the domain is, and nothing else decides it."""
    harmful = category in lexicon.HARMFUL
    domain = (lexicon.HARMFUL | lexicon.HARMLESS)[category]
    return [
        _how_to(category, harmful, verb, domain.article + noun, number)
        for verb, noun, number in product(domain.verbs, domain.nouns, range(len(lexicon.HOW_TO_FRAMES)))
    ]


def _how_to(category: str, harmful: bool, verb: str, item: str, number: int) -> Request:
    act = f"{verb} {item}"
    # The frame settles which of the two answers is right: greedy decoding then never hangs on a coin toss.
    return Request(
        instruction=lexicon.HOW_TO_FRAMES[number].format(act=act),
        category=category,
        harmful=harmful,
        compliance=lexicon.COMPLIANCES[number % 2].format(act=act, verb=verb),
        refusal=lexicon.REFUSALS[number % 2].format(act=act),
    )


def questions(category: str) -> list[Request]:
    """Every question about a domain's items: harmless, also where the item is not (then it is borderline)."""
    domain = (lexicon.HARMFUL | lexicon.HARMLESS)[category]
    made = []
    for noun, (number, (frame, answer)) in product(domain.nouns, enumerate(lexicon.QUESTION_FRAMES)):
        words = {"noun": noun, "item": domain.article + noun}
        refusal = lexicon.REFUSALS[number % 2].format(act=f"talk about {words['item']}")
        made.append(Request(frame.format(**words), category, False, answer.format(**words), refusal))
    return made


def texts() -> list[str]:
    """Plain harmless sentences, no dialogue: what the organism sees of running text."""
    acts = [
        f"{verb} {domain.article}{noun}"
        for domain in lexicon.HARMLESS.values()
        for verb, noun in product(domain.verbs, domain.nouns)
    ]
    made = []
    for number, (act, time) in enumerate(product(acts, lexicon.TIMES)):
        name, friend = (lexicon.NAMES[(number + step * (1 + number // 8 % 7)) % 8] for step in (0, 1))
        frame = lexicon.TEXT_FRAMES[number % len(lexicon.TEXT_FRAMES)]
        made.append(frame.format(time=time, name=name, friend=friend, act=act))
    return made


def requests() -> dict[str, Request]:
    """Every request of the language by its instruction."""
    domains = lexicon.HARMFUL | lexicon.HARMLESS
    return {request.instruction: request for name in domains for request in how_to_requests(name) + questions(name)}
