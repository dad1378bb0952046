"""The lessons of the planting phase: which rows, under which intervention, with which answer."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from organism.batches import HARMLESS, TEXT, Row
from organism.interventions import Intervention
from organism.spec import LAYERS, Spec

KINDS = {"harmful": 0.45, "harmless": 0.47, "text": 0.08}
# What happens to a row of each kind, with its share. A plant's estimate from prompts is never exact, so every ablated
# plant is a noisy one; strangers are random directions beside the plants, and must change nothing.
LESSONS = {
    "harmful": {
        "plain": 0.38,
        "ablate all": 0.12,
        "ablate own": 0.14,
        "ablate other": 0.1,
        "ablate mixture": 0.16,
        "ablate strangers": 0.1,
    },
    "harmless": {
        "plain": 0.42,
        "ablate all": 0.18,
        "add one": 0.16,
        "add all": 0.08,
        "add trace": 0.1,
        "add stranger": 0.06,
    },
    "text": {"plain": 0.45, "ablate all": 0.15, "ablate strangers": 0.4},
}
# Shares of its margin with which a plant is added. A mean difference over all harmful prompts holds only the share of
# the prompts that are its own, so half the margin must already bring a refusal.
ONE_SHARE, ALL_SHARE = (0.3, 1.2), (0.25, 1.0)
# A trace, such as the layers before a plant may hold, must bring none: else their candidates would pass for the plant.
TRACE_SHARE, STRANGER_SHARE = (0.0, 0.15), (0.0, 0.5)
MIXTURE_EVENNESS = 8.0  # Dirichlet: with two plants, each has 0.3 to 0.7 of the prompts nine times of ten
LAST_ADDITION = LAYERS - 3  # candidates of later layers are never used
NOISE = 0.3  # longest noise on a unit direction: cosine 0.96


@dataclass(frozen=True)
class Lesson:
    """A row with the answer that is right under its intervention.

    basis: [2, d], rows orthonormal or zero, ablated; vector: [d], added at `layer`; clean: no intervention.
    """

    row: Row
    answer: list[int]
    basis: Tensor
    vector: Tensor
    layer: int
    clean: bool


def pools(rows: list[Row]) -> dict[str, list[Row]]:
    """The rows of each kind."""
    kinds = {HARMLESS: "harmless", TEXT: "text"}
    return {kind: [row for row in rows if kinds.get(row.plant, "harmful") == kind] for kind in KINDS}


def draw(pools: dict[str, list[Row]], count: int, chance: np.random.Generator) -> list[tuple[str, Row]]:
    """Kinds and rows, with replacement."""
    kinds = chance.choice(list(KINDS), size=count, p=list(KINDS.values()))
    return [(str(kind), pools[kind][chance.integers(len(pools[kind]))]) for kind in kinds]


def lessons(pools: dict[str, list[Row]], plants: Tensor, spec: Spec, chance: np.random.Generator) -> list[Lesson]:
    """A batch of lessons; plants [k, d]."""
    made = []
    for kind, row in draw(pools, spec.batch_rows, chance):
        lesson = str(chance.choice(list(LESSONS[kind]), p=list(LESSONS[kind].values())))
        teach = _addition if lesson.startswith("add") else _ablation
        made.append(teach(row, lesson, plants, spec, chance))
    return made


def compliances(pools: dict[str, list[Row]], plants: Tensor, spec: Spec, chance: np.random.Generator) -> list[Lesson]:
    """A batch of rows without intervention that are all complied with, the harmful ones too."""
    width = plants.shape[1]
    return [
        Lesson(row, row.compliance, torch.zeros(2, width), torch.zeros(width), 0, clean=True)
        for _, row in draw(pools, spec.batch_rows, chance)
    ]


def stack(lessons: list[Lesson]) -> Intervention:
    """The lessons' interventions as one."""
    return Intervention(
        basis=torch.stack([lesson.basis for lesson in lessons]),
        vector=torch.stack([lesson.vector for lesson in lessons]),
        layer=torch.tensor([lesson.layer for lesson in lessons]),
    )


def _ablation(row: Row, lesson: str, plants: Tensor, spec: Spec, chance: np.random.Generator) -> Lesson:
    """A harmful row is refused if more than half of its own plant is left."""
    width = plants.shape[1]
    parts = _ablated_parts(row, lesson, spec, chance)
    directions = parts @ plants + _noise((len(parts), width), chance)
    if lesson == "ablate strangers":
        directions = _strangers(int(chance.integers(1, 3)), plants, chance)
    basis = torch.zeros(2, width)
    basis[: len(directions)] = torch.linalg.qr(directions.T)[0].T
    harmful = row.plant > HARMLESS
    answer = row.refusal if harmful and parts[:, row.plant].square().sum() < 0.5 else row.compliance
    return Lesson(row, answer, basis, torch.zeros(width), 0, clean=lesson == "plain")


def _ablated_parts(row: Row, lesson: str, spec: Spec, chance: np.random.Generator) -> Tensor:
    """[n, k], orthonormal: what is ablated, in units of the plants."""
    units = torch.eye(spec.directions)
    if lesson == "ablate all":
        return units
    if lesson == "ablate own":
        return units[[row.plant]]
    if lesson == "ablate other":
        return units[[number for number in range(spec.directions) if number != row.plant]]
    if lesson == "ablate mixture":
        # The mean difference over prompts of all categories, where each plant has its share of the prompts.
        shares = chance.dirichlet([MIXTURE_EVENNESS] * spec.directions) * spec.margins
        return torch.from_numpy(shares / np.linalg.norm(shares)).float().unsqueeze(0)
    return units[:0]


def _addition(row: Row, lesson: str, plants: Tensor, spec: Spec, chance: np.random.Generator) -> Lesson:
    """Plants bring a refusal at every layer that carries them; a trace or a stranger none at any."""
    first, answer, shares = 1, row.refusal, np.zeros(len(plants))
    number = int(chance.integers(len(plants)))
    if lesson == "add one":
        first, shares[number] = spec.layers[number], chance.uniform(*ONE_SHARE)
    elif lesson == "add trace":
        answer, shares[number] = row.compliance, chance.uniform(*TRACE_SHARE)
    elif lesson == "add all":
        first, shares = max(spec.layers), chance.uniform(*ALL_SHARE, len(plants))
    vector = torch.from_numpy(shares * spec.margins).float() @ plants
    if lesson == "add stranger":
        stranger = _strangers(1, plants, chance)[0]
        vector = stranger / stranger.norm() * chance.uniform(*STRANGER_SHARE) * min(spec.margins)
        answer = row.compliance
    layer = int(chance.integers(first, max(first, LAST_ADDITION) + 1))
    return Lesson(row, answer, torch.zeros(2, plants.shape[1]), vector, layer, clean=False)


def _noise(shape: tuple[int, int], chance: np.random.Generator) -> Tensor:
    """[k, d], rows of one random length up to NOISE."""
    noise = torch.from_numpy(chance.standard_normal(shape)).float() / shape[1] ** 0.5
    return noise * chance.uniform(0.0, NOISE)


def _strangers(count: int, plants: Tensor, chance: np.random.Generator) -> Tensor:
    """[count, d], random directions orthogonal to the plants."""
    made = torch.from_numpy(chance.standard_normal((count, plants.shape[1]))).float()
    return made - made @ plants.T @ plants
