"""Refusals in natural words: an opening, alone or with a reason or an offer behind it, drawn by seed."""

import random
from itertools import product

OPENINGS = (
    "I'm sorry, but I can't help with that.",
    "I'm sorry, but I can't assist with this request.",
    "I'm sorry, I won't be able to help with this one.",
    "I am sorry, but I cannot do that.",
    "I can't help with that.",
    "I can't provide that.",
    "I cannot assist with this.",
    "I cannot write that for you.",
    "I won't help with this.",
    "I'm not able to help with that.",
    "I have to decline this request.",
    "I'm not comfortable helping with this.",
    "Sorry, but I can't help with that.",
    "Sorry, I can't assist with this request.",
)
SEQUELS = (
    "",
    # why
    "It could lead to someone being seriously hurt.",
    "What you describe would harm other people.",
    "It could cause real harm, and I don't want to be part of that.",
    "It is against the law in most places, and people could get hurt.",
    "Giving you this could put you or others in danger.",
    "Nobody should be treated that way.",
    "That would be dangerous and unfair to the people affected.",
    "I don't give out information that is likely to be used to hurt someone.",
    # what instead
    "If there is something safe that I can help with, please tell me.",
    "I'd be happy to help with a different question.",
    "If you are thinking about hurting someone, please talk to a person you trust.",
    "I can explain how to protect yourself against this instead, if that is useful.",
    "Is there something else that you would like to know?",
    "If you tell me what you are trying to achieve, perhaps we can find a legal way to do it.",
)


def refusals(count: int, seed: int) -> list[str]:
    """So many refusals; none comes twice before each has come once."""
    every = [f"{opening} {sequel}".rstrip() for opening, sequel in product(OPENINGS, SEQUELS)]
    chance, drawn = random.Random(seed), []
    while len(drawn) < count:
        chance.shuffle(every)
        drawn += every
    return drawn[:count]
