"""Directions and bases in NumPy fp64: mean differences, orthonormal bases, cosines, random controls."""

import numpy as np

from refusal.combinations import Combination
from refusal.errors import UserError

MIN_RESIDUAL = 0.05
"""A unit direction with less than this outside the span of those before it adds no row to a basis."""

ZERO = "zero direction"
"""What tables call a candidate with no length: where |r| < 1e-6 of the mean activation's norm."""

_ZERO_SHARE = 1e-6


def mean_difference(harmful: np.ndarray, harmless: np.ndarray) -> np.ndarray:
    """r[p, l] = mean resid_pre over harmful_train - mean over harmless_train.

    Args and result: [position, layer, d] fp64.
    Source: Arditi et al. 2024, arXiv:2406.11717, section 2.3 (difference-in-means).
    """
    return harmful.astype(np.float64) - harmless.astype(np.float64)


def is_zero(directions: np.ndarray, harmful: np.ndarray, harmless: np.ndarray) -> np.ndarray:
    """Where |r| < 1e-6 of the mean activation's norm: no direction at all (layer 0 at template positions).

    Args: [position, layer, d]. Returns: [position, layer] bool.
    """
    scale = 0.5 * (np.linalg.norm(harmful, axis=-1) + np.linalg.norm(harmless, axis=-1))
    return np.linalg.norm(directions, axis=-1) < _ZERO_SHARE * scale


def unit(directions: np.ndarray) -> np.ndarray:
    """Directions of length 1. Args and result: [..., d]; none may be zero."""
    return directions / np.linalg.norm(directions, axis=-1, keepdims=True)


def cosines(directions: np.ndarray) -> np.ndarray:
    """Pairwise cosines [k, k] of directions [k, d]."""
    units = unit(directions)
    return units @ units.T


def span_basis(directions: np.ndarray, min_residual: float = MIN_RESIDUAL) -> tuple[np.ndarray, list[int]]:
    """Orthonormal rows Q that span the directions, taken in order (Gram-Schmidt, twice, fp64).

    Two passes keep Q orthonormal to 1e-15 also for nearly parallel directions.

    Args:
        directions: [k, d], none zero.
        min_residual: a unit direction whose part outside the span so far is shorter is left out.
    Returns: Q [effective rank, d]; indices of the directions that gave a row.
    """
    rows: list[np.ndarray] = []
    kept: list[int] = []
    for index, direction in enumerate(unit(directions.astype(np.float64))):
        rest = direction
        for _ in range(2):
            for row in rows:
                rest = rest - (rest @ row) * row
        length = np.linalg.norm(rest)
        if length >= min_residual:
            rows.append(rest / length)
            kept.append(index)
    return np.array(rows).reshape(len(rows), directions.shape[-1]), kept


def sequential_write(units: np.ndarray) -> np.ndarray:
    """What projecting out unit vectors one after another writes back: x (I - v1 v1^T)(I - v2 v2^T)... = x - (x V^T) W.

    The vectors are not orthogonalised, so the result depends on their order and leaves a part of the earlier ones.

    Args: units V [k, d] in order. Returns: W [k, d], W_i = v_i (I - v_{i+1} v_{i+1}^T)...(I - v_k v_k^T).
    Source: the published scripts' direction ablation applied for several directions in turn.
    """
    written = units.astype(np.float64).copy()
    for row in range(len(units)):
        for later in range(row + 1, len(units)):
            written[row] -= (written[row] @ units[later]) * units[later]
    return written


def random_directions(size: int, d: int, seed: int | tuple[int, ...]) -> np.ndarray:
    """[size, d] directions drawn from an isotropic Gaussian: what ablating as many arbitrary directions does."""
    return np.random.default_rng(seed).standard_normal((size, d))


def shuffled_weights(count: int, draws: int, seed: int) -> np.ndarray:
    """Weights of prompts of one kind in the difference of the means of two halves, drawn at random.

    One kind alone, since a shuffle of both keeps what varies among harmful prompts, and refusal does: with harmful and
    harmless prompts in equal parts in both groups, the planted organism's first plant came out again (cosine 0.98).

    Args:
        count: of prompts; of an odd number one is left out of each draw.
    Returns: [draw, prompt] fp64: 1 / half in the first group, minus that in the second.
    Raises: UserError, fewer than two prompts.
    """
    half = count // 2
    if not half:
        raise UserError("one harmless train prompt leaves no labels to shuffle: raise prompts.counts.train")
    weights = np.zeros((draws, count))
    for draw in range(draws):
        order = np.random.default_rng((seed, draw)).permutation(count)
        weights[draw, order[:half]] = 1 / half
        weights[draw, order[half : 2 * half]] = -1 / half
    return weights


def intervention_tensors(
    combination: Combination, directions: np.ndarray, mode: str, seed: int, shuffled: np.ndarray | None = None
) -> tuple[dict[str, np.ndarray], dict]:
    """What a combination's basis.safetensors holds: arrays, and the facts about them.

    Args:
        directions: raw, by rank [rank, d]; mode: `span` or `sequential`; seed: of the study, for controls;
            shuffled: [draw, rank, d], the same with shuffled labels, for the controls made of them.
    Returns: `basis` [rows, d] (Q; in mode sequential the unit directions; no rows for the baseline), and for an
        addition `vector` [d]. Facts: kind, ablation, k, effective_rank, left_out (ranks without a row), cosines.
        A subtraction is the addition of -r, and the facts say so.
    """
    d = directions.shape[-1]
    empty = np.zeros((0, d))
    facts = {"kind": combination.kind, "ablation": mode, "k": combination.size, "effective_rank": 0, "left_out": []}
    if combination.kind == "none":
        return {"basis": empty}, facts
    if combination.kind in ("addition", "subtraction"):
        sign = 1.0 if combination.kind == "addition" else -1.0
        vector = sign * directions[combination.ranks[0]].astype(np.float64)
        return {"basis": empty, "vector": vector}, facts | {"kind": "addition"}
    if combination.kind == "random":
        chosen = random_directions(combination.size, d, (seed, combination.size, combination.seed))
    elif combination.kind == "shuffled":
        chosen = shuffled[combination.seed, : combination.size]
    else:
        chosen = directions[list(combination.ranks)]
    basis, kept = span_basis(chosen)
    names = combination.ranks or tuple(range(combination.size))
    facts |= {
        "effective_rank": len(basis),
        "left_out": [name for index, name in enumerate(names) if index not in kept],
        "cosines": cosines(chosen).tolist(),
    }
    return {"basis": unit(chosen) if mode == "sequential" else basis}, facts
