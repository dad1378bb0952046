"""Bases and directions: projections, spans, near-parallel and zero directions, random controls."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refusal.combinations import parse
from refusal.directions import (
    MIN_RESIDUAL,
    cosines,
    intervention_tensors,
    is_zero,
    mean_difference,
    random_directions,
    sequential_write,
    shuffled_weights,
    span_basis,
    unit,
)
from refusal.errors import UserError

D = 12
seeds = st.integers(0, 10**6)
sizes = st.integers(1, 6)


def at_angle(sine):
    """Two unit directions, the second with a part of length `sine` outside the first."""
    first, second = np.eye(D)[:2]
    return np.stack([first, np.sqrt(1 - sine**2) * first + sine * second])


class TestMeanDifference:
    def test_by_hand(self):
        harmful, harmless = np.full((2, 3, D), 2.0, np.float32), np.full((2, 3, D), 0.5, np.float32)
        found = mean_difference(harmful, harmless)
        assert found.dtype == np.float64
        assert (found == 1.5).all()

    @pytest.mark.parametrize(("length", "zero"), [(0.0, True), (0.99e-6, True), (1.01e-6, False), (1.0, False)])
    def test_zero_is_short_beside_the_activations(self, length, zero):
        harmless = np.zeros((1, 1, D))
        harmless[..., 0] = 7.0
        harmful = harmless.copy()
        harmful[..., 1] = 7.0 * length
        assert is_zero(mean_difference(harmful, harmless), harmful, harmless).tolist() == [[zero]]

    @given(seeds, st.floats(1e-3, 1e3))
    def test_zero_does_not_depend_on_the_models_scale(self, seed, scale):
        harmful, harmless = random_directions(2 * 3, D, seed).reshape(2, 1, 3, D)
        harmful[0, 0] = harmless[0, 0]
        found = is_zero(scale * (harmful - harmless), scale * harmful, scale * harmless)
        assert found.tolist() == [[True, False, False]]


class TestSpanBasis:
    @given(sizes, seeds)
    def test_orthonormal_and_spans_the_directions(self, k, seed):
        directions = random_directions(k, D, seed) * np.geomspace(1e-3, 1e3, k)[:, None]
        Q, kept = span_basis(directions)
        assert kept == list(range(k))
        np.testing.assert_allclose(Q @ Q.T, np.eye(k), atol=1e-14)
        np.testing.assert_allclose(directions @ Q.T @ Q, directions, atol=1e-9)
        assert np.linalg.matrix_rank(np.concatenate([Q, directions])) == k  # and nothing beside them

    @given(sizes, seeds)
    def test_the_projection_is_idempotent_and_leaves_nothing(self, k, seed):
        Q, _ = span_basis(random_directions(k, D, seed))
        x = random_directions(4, D, seed + 1)
        ablated = x - x @ Q.T @ Q
        np.testing.assert_allclose(ablated - ablated @ Q.T @ Q, ablated, atol=1e-13)
        np.testing.assert_allclose(ablated @ Q.T, 0, atol=1e-13)

    @given(sizes, seeds, st.randoms(use_true_random=False))
    def test_the_span_depends_on_neither_order_nor_length_nor_sign(self, k, seed, random):
        directions = random_directions(k, D, seed)
        Q, _ = span_basis(directions)
        order = random.sample(range(k), k)
        scales = np.array([random.choice([-1, 1]) * random.uniform(0.01, 100) for _ in range(k)])
        other, _ = span_basis((scales[:, None] * directions)[order])
        np.testing.assert_allclose(other.T @ other, Q.T @ Q, atol=1e-9)

    @pytest.mark.parametrize(
        ("sine", "kept"), [(0.0, [0]), (0.049, [0]), (0.051, [0, 1]), (1.0, [0, 1]), (MIN_RESIDUAL + 1e-9, [0, 1])]
    )
    def test_nearly_parallel_directions_give_one_row(self, sine, kept):
        directions = at_angle(sine)
        Q, found = span_basis(directions)
        assert found == kept
        assert Q.shape == (len(kept), D)
        np.testing.assert_allclose(Q[0], directions[0])

    def test_one_in_the_plane_of_two_others_is_left_out(self):
        first, second = np.eye(D)[:2]
        Q, kept = span_basis(np.stack([first, second, first + second, -3 * first]))
        assert kept == [0, 1]
        np.testing.assert_allclose(np.abs(Q), np.eye(D)[:2])

    def test_orthonormal_to_rounding_also_just_above_the_tolerance(self):
        rng = np.random.default_rng(0)
        base = unit(rng.standard_normal(D))
        near = [base + 0.06 * unit(rng.standard_normal(D)) for _ in range(4)]
        Q, _ = span_basis(np.array([base, *near]), min_residual=1e-9)
        np.testing.assert_allclose(Q @ Q.T, np.eye(len(Q)), atol=1e-14)

    def test_no_directions(self):
        Q, kept = span_basis(np.zeros((0, D)))
        assert (Q.shape, kept) == ((0, D), [])


class TestCosines:
    @given(sizes, seeds)
    def test_laws(self, k, seed):
        directions = random_directions(k, D, seed)
        found = cosines(directions)
        np.testing.assert_allclose(np.diag(found), 1)
        np.testing.assert_allclose(found, found.T)
        assert (np.abs(found) <= 1 + 1e-12).all()
        np.testing.assert_allclose(cosines(-5 * directions), found)

    def test_by_hand(self):
        assert cosines(np.array([[1.0, 0], [1, 1], [-2, 0]])).round(6).tolist() == [
            [1, 0.707107, -1],
            [0.707107, 1, -0.707107],
            [-1, -0.707107, 1],
        ]


class TestSequentialWrite:
    @given(st.integers(1, 5), seeds)
    def test_is_one_projection_after_another(self, k, seed):
        units, x = unit(random_directions(k, D, seed)), random_directions(3, D, seed + 1)
        expected = x
        for v in units:
            expected = expected - (expected @ v)[:, None] * v
        np.testing.assert_allclose(x - x @ units.T @ sequential_write(units), expected, atol=1e-12)

    @given(st.integers(1, 5), seeds)
    def test_is_the_span_projection_for_orthonormal_vectors(self, k, seed):
        Q, _ = span_basis(random_directions(k, D, seed))
        np.testing.assert_allclose(sequential_write(Q), Q, atol=1e-14)

    def test_leaves_a_part_of_the_earlier_ones(self):
        units = at_angle(0.6)
        x = units[:1]
        left = x - x @ units.T @ sequential_write(units)
        np.testing.assert_allclose(left @ units[1], 0, atol=1e-15)
        # v1 is gone after the first step; nothing of x was left that the second could bring back
        np.testing.assert_allclose(left, 0, atol=1e-15)
        x = np.eye(D)[1:2]
        left = x - x @ units.T @ sequential_write(units)
        assert abs(float((left @ units[0]).item())) == pytest.approx(0.6 * 0.8)


class TestRandomDirections:
    def test_the_same_seed_the_same_directions(self):
        np.testing.assert_array_equal(random_directions(2, D, (42, 2, 0)), random_directions(2, D, (42, 2, 0)))

    def test_each_draw_its_own(self):
        draws = [random_directions(1, D, (42, 1, seed))[0] for seed in range(5)]
        assert np.abs(cosines(np.array(draws)) - np.eye(5)).max() < 0.99

    def test_no_direction_is_preferred(self):
        drawn = unit(random_directions(4000, D, 0))
        assert np.abs(drawn.mean(0)).max() < 0.02
        np.testing.assert_allclose(np.linalg.eigvalsh(drawn.T @ drawn / len(drawn)), 1 / D, rtol=0.15)


class TestShuffledWeights:
    @given(st.integers(2, 40), seeds)
    def test_two_halves_of_the_same_size(self, count, seed):
        found = shuffled_weights(count, 3, seed)
        assert found.shape == (3, count)
        for sign in (1, -1):
            assert ((np.sign(found) == sign).sum(1) == count // 2).all()
            assert found.clip(0) @ np.ones(count) == pytest.approx([1] * 3)

    def test_what_all_prompts_share_is_not_in_it_and_draws_differ(self):
        found = shuffled_weights(9, 4, 0)
        np.testing.assert_allclose(found @ np.full(9, 5.0), 0, atol=1e-12)
        assert len({weights.tobytes() for weights in found}) == 4
        np.testing.assert_array_equal(found[:2], shuffled_weights(9, 2, 0))

    def test_a_single_prompt(self):
        with pytest.raises(UserError) as caught:
            shuffled_weights(1, 3, 0)
        assert str(caught.value) == (
            "one harmless train prompt leaves no labels to shuffle: raise prompts.counts.train"
        )


class TestInterventionTensors:
    directions = np.concatenate([at_angle(0.02), 5 * np.eye(D)[2:4]])

    def made(self, name, mode="span"):
        return intervention_tensors(parse(name), self.directions, mode, 42)

    def test_baseline(self):
        tensors, facts = self.made("none")
        assert (list(tensors), tensors["basis"].shape) == (["basis"], (0, D))
        assert facts == {"kind": "none", "ablation": "span", "k": 0, "effective_rank": 0, "left_out": []}

    def test_ablation(self):
        tensors, facts = self.made("2-3")
        np.testing.assert_allclose(tensors["basis"], np.eye(D)[2:4])
        assert facts == {
            "kind": "ablation",
            "ablation": "span",
            "k": 2,
            "effective_rank": 2,
            "left_out": [],
            "cosines": [[1.0, 0.0], [0.0, 1.0]],
        }

    def test_near_parallel_ranks_are_named_by_rank(self):
        tensors, facts = self.made("0-1-3")
        assert tensors["basis"].shape == (2, D)
        assert (facts["k"], facts["effective_rank"], facts["left_out"]) == (3, 2, [1])
        assert facts["cosines"][0][1] == pytest.approx(np.sqrt(1 - 0.02**2))

    def test_sequential_keeps_the_unit_directions_in_rank_order(self):
        tensors, facts = self.made("1-2", "sequential")
        np.testing.assert_allclose(tensors["basis"], unit(self.directions[1:3]))
        assert (facts["ablation"], facts["k"]) == ("sequential", 2)

    def test_control(self):
        tensors, facts = self.made("random-k2-s1")
        assert (facts["kind"], facts["k"], facts["effective_rank"]) == ("random", 2, 2)
        np.testing.assert_allclose(tensors["basis"] @ tensors["basis"].T, np.eye(2), atol=1e-14)
        np.testing.assert_array_equal(tensors["basis"], self.made("random-k2-s1")[0]["basis"])
        for other in (
            self.made("random-k2-s2"),
            intervention_tensors(parse("random-k2-s1"), self.directions, "span", 43),
        ):
            assert np.abs(other[0]["basis"] - tensors["basis"]).max() > 0.1

    def test_control_of_shuffled_labels(self):
        shuffled = np.random.default_rng(5).standard_normal((3, 4, D))
        tensors, facts = intervention_tensors(parse("shuffled-k2-s1"), self.directions, "span", 42, shuffled)
        assert (facts["kind"], facts["k"], facts["effective_rank"]) == ("shuffled", 2, 2)
        np.testing.assert_allclose(tensors["basis"], span_basis(shuffled[1, :2])[0])

    def test_addition_keeps_the_raw_length_and_ablates_nothing(self):
        tensors, facts = self.made("add-2")
        assert tensors["basis"].shape == (0, D)
        np.testing.assert_array_equal(tensors["vector"], 5 * np.eye(D)[2])
        assert (facts["kind"], facts["k"], facts["effective_rank"]) == ("addition", 1, 0)

    def test_subtraction_is_the_addition_of_the_opposite(self):
        tensors, facts = self.made("sub-2")
        np.testing.assert_array_equal(tensors["vector"], -self.made("add-2")[0]["vector"])
        assert tensors["basis"].shape == (0, D)
        assert facts == self.made("add-2")[1]
