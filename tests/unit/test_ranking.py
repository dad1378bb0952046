"""From scores to ranks: thresholds with their edges, three orders with their laws, and advice that holds."""

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refusal.directions import ZERO, cosines
from refusal.errors import UserError
from refusal.filters import SWEPT, Filters
from refusal.ranking import apply_filters, best_first, candidate_directions, rank

PUBLISHED = Filters(max_kl=0.1, min_induce=0.0, max_layer_share=0.8, layers=10)


def table(*rows):
    """Rows of (position, layer, bypass, induce, kl), with None as scores for a zero direction."""
    return pd.DataFrame(
        [
            {
                "source": "mean_difference",
                "position": position,
                "layer": layer,
                "bypass": scores[0] if scores else np.nan,
                "induce": scores[1] if scores else np.nan,
                "kl": scores[2] if scores else np.nan,
                "note": np.nan if scores else ZERO,  # as a CSV is read
            }
            for position, layer, *scores in rows
        ]
    )


def test_a_score_that_is_not_a_number():
    """Of an imported run: not kept, whatever the thresholds, and no advice rests on it."""
    scores = table((-1, 2, -3.0, 1.0, 0.0), (-1, 3, np.nan, 1.0, 0.5), (-1, 9, np.nan, 1.0, 0.0))
    scores["note"] = ["", "not a number: bypass", "not a number: bypass"]
    found = apply_filters(scores, PUBLISHED)
    assert list(found.reason) == ["", "high kl; not a number", "late layer; not a number"]
    with pytest.raises(UserError) as caught:
        apply_filters(scores[1:].reset_index(drop=True), PUBLISHED)
    assert str(caught.value) == (
        "ranking: no candidate of 2 is left; removed by filter: zero direction 0, late layer 1, low induce 0, high kl"
        " 1, not a number 2 (one may fall by several); no threshold would leave some: every candidate with a direction"
        " has a score that is not a number"
    )
    fallen = pd.concat([scores[1:], table((-1, 4, -3.0, -1.0, 0.0)).assign(note="")], ignore_index=True)
    with pytest.raises(UserError, match=r"would leave some: ranking\.min_induce: -1\.0$"):
        apply_filters(fallen, PUBLISHED)


cells = st.lists(st.tuples(st.integers(-3, -1), st.integers(0, 9)), min_size=1, max_size=8, unique=True).flatmap(
    lambda places: st.tuples(
        *(
            st.just((*place,))
            | st.tuples(
                st.just(place[0]),
                st.just(place[1]),
                st.sampled_from([-3.0, -1.0, 0.0, 2.0]),
                st.integers(-4000, 2000).map(lambda value: value / 1000),
                st.integers(0, 3000).map(lambda value: value / 1000),
            )
            for place in places
        )
    )
)
"""Any table, with ties in bypass, zero directions, and candidates that fall by any filter."""


NAN = np.nan


def screened(scores, filters):
    """What a screened sweep leaves of a full table."""
    left = scores.layer < filters.layer_limit
    seen = scores.assign(**dict.fromkeys(SWEPT, np.nan))
    for score in SWEPT:
        seen[score] = scores[score].where(left)
        left = left & np.array([filters.meets(score, value) for value in scores[score]])
    return seen


class TestFilters:
    @pytest.mark.parametrize(
        ("row", "reason"),
        [
            ((-1, 2, 0.0, 1.0, 0.0), ""),
            ((-1, 2, 0.0, 0.0, 0.1), ""),  # both exactly at the threshold
            ((-1, 2, 0.0, 1.0, 0.1000001), "high kl"),
            ((-1, 2, 0.0, -1e-9, 0.0), "low induce"),
            ((-1, 7, 0.0, 1.0, 0.0), ""),
            ((-1, 8, 0.0, 1.0, 0.0), "late layer"),
            ((-1, 9, 0.0, -1.0, 1.0), "late layer; low induce; high kl"),
            ((-1, 2, 0.0, -1.0, 1.0), "low induce; high kl"),
            ((-1, 9), ZERO),
            ((-1, 2, 0.0, np.nan, 0.0), "not scored"),  # what was not scored is not kept
            ((-1, 2, 0.0, 1.0, np.nan), "not scored"),
            ((-1, 2, np.nan, 1.0, 0.0), "not scored"),
            ((-1, 9, np.nan, np.nan, np.nan), "late layer"),  # as a screened sweep leaves them
            ((-1, 2, np.nan, -1.0, np.nan), "low induce"),
            ((-1, 2, np.nan, 1.0, 0.2), "high kl"),
        ],
    )
    def test_reasons(self, row, reason):
        found = apply_filters(table((-5, 0, 0.0, 1.0, 0.0), row), PUBLISHED).iloc[1]
        assert (found.reason, found.kept) == (reason, reason == "")

    @pytest.mark.parametrize(
        ("share", "layers", "limit"), [(0.8, 10, 8), (0.8, 9, 7), (0.8, 3, 2), (1.0, 5, 5), (0.8, 32, 25)]
    )
    def test_the_layer_limit_is_rounded_down(self, share, layers, limit):
        assert Filters(0.1, 0.0, share, layers).layer_limit == limit

    def test_scores_stay_as_they_are(self):
        scores = table((-1, 2, 0.5, 1.0, 0.01), (-1, 9, 0.5, 1.0, 0.01))
        before = scores.copy()
        pd.testing.assert_frame_equal(apply_filters(scores, PUBLISHED)[list(before)], before)
        pd.testing.assert_frame_equal(scores, before)


class TestNoneLeft:
    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            (
                [(-1, 1, 0, -0.505, 0.05), (-1, 2, 0, 1.0, 0.234), (-1, 9, 0, 1.0, 0.0), (-1, 0)],
                "ranking: no candidate of 4 is left; removed by filter: zero direction 1, late layer 1, low induce 1,"
                " high kl 1 (one may fall by several); would leave some: ranking.max_kl: 0.24"
                " or ranking.min_induce: -0.51 or ranking.max_layer_share: 1.0",
            ),
            (
                [(-1, 1, 0, -0.505, 0.5), (-1, 2, 0, -3.0, 0.2)],
                "ranking: no candidate of 2 is left; removed by filter: zero direction 0, late layer 0, low induce 2,"
                " high kl 2 (one may fall by several); would leave some:"
                " ranking.min_induce: -3.0 with ranking.max_kl: 0.2",
            ),
            (
                [(-1, 9, 0, -0.5, 0.05)],
                "ranking: no candidate of 1 is left; removed by filter: zero direction 0, late layer 1, low induce 1,"
                " high kl 0 (one may fall by several); would leave some:"
                " ranking.max_layer_share: 1.0 with ranking.min_induce: -0.5",
            ),
            (
                [(-1, 1, NAN, -0.505, NAN), (-1, 9, NAN, NAN, NAN)],
                "ranking: no candidate of 2 is left; removed by filter: zero direction 0, late layer 1, low induce 1,"
                " high kl 0 (one may fall by several); would leave some: ranking.min_induce: -0.51"
                " (if their kl, not scored yet, is met; `ranking.sweep: full` scores it)",
            ),
            (
                [(-1, 8, NAN, NAN, NAN), (-1, 0)],
                "ranking: no candidate of 2 is left; removed by filter: zero direction 1, late layer 1, low induce 0,"
                " high kl 0 (one may fall by several); would leave some: ranking.max_layer_share: 1.0"
                " (none of their scores is known yet)",
            ),
            (
                [(-1, 0), (-2, 0)],
                "ranking: no candidate of 2 is left; removed by filter: zero direction 2, late layer 0, low induce 0,"
                " high kl 0 (one may fall by several); no threshold would leave some:"
                " harmful and harmless train prompts have equal activations",
            ),
        ],
    )
    def test_message(self, rows, message):
        with pytest.raises(UserError) as caught:
            apply_filters(table(*rows), PUBLISHED)
        assert str(caught.value) == message

    @given(cells, st.floats(0.001, 2), st.floats(-4, 1), st.floats(0.1, 1))
    def test_a_screened_sweep_keeps_the_same_candidates(self, rows, max_kl, min_induce, share):
        scores, filters = table(*rows), Filters(max_kl, min_induce, share, 10)
        try:
            full = apply_filters(scores, filters)
        except UserError:
            with pytest.raises(UserError):
                apply_filters(screened(scores, filters), filters)
            return
        found = apply_filters(screened(scores, filters), filters)
        assert found.kept.tolist() == full.kept.tolist()
        # the first filter that it fell by
        assert found.reason.tolist() == [reason.split("; ")[0] for reason in full.reason]

    @given(cells)
    def test_each_advice_on_a_screened_table_that_is_sure_leaves_some(self, rows):
        scores = table(*rows)
        try:
            apply_filters(screened(scores, PUBLISHED), PUBLISHED)
        except UserError as error:
            for one in str(error).partition("would leave some: ")[2].split(" or "):
                changes = {key: float(value) for key, value in re.findall(r"ranking\.(\w+): ([-\d.]+)", one)}
                loosened = Filters(**{**vars(PUBLISHED), **changes})
                if "not scored yet" not in one and "known yet" not in one and changes:
                    assert apply_filters(screened(scores, loosened), loosened).kept.any()

    @given(cells)
    def test_each_advice_leaves_some(self, rows):
        scores = table(*rows)
        try:
            assert apply_filters(scores, PUBLISHED).kept.any()
        except UserError as error:
            advice = str(error).partition("would leave some: ")[2].split(" or ")
            if "no threshold" in str(error):
                assert (scores.note == ZERO).all()
                return
            assert advice
            for one in advice:
                changes = {key: float(value) for key, value in re.findall(r"ranking\.(\w+): ([-\d.]+)", one)}
                assert changes
                assert apply_filters(scores, Filters(**{**vars(PUBLISHED), **changes})).kept.any()


def ranked(rows, mode="score", directions=None, **options):
    made = table(*rows)
    if directions is None:
        directions = np.random.default_rng(0).standard_normal((len(made), 6))
    return rank(apply_filters(made, PUBLISHED), directions, mode, **options)


class TestScore:
    def test_bypass_ascending_ties_by_layer_then_position(self):
        rows = [(-1, 3, 1.0, 1, 0), (-1, 2, -2.0, 1, 0), (-2, 2, -2.0, 1, 0), (-3, 1, -2.0, 1, 0), (-1, 1, 5.0, 9, 0)]
        found = ranked(rows)
        assert list(zip(found.position, found.layer, strict=True)) == [(-3, 1), (-2, 2), (-1, 2), (-1, 3), (-1, 1)]
        assert list(found["rank"]) == [0, 1, 2, 3, 4]
        assert set(found["mode"]) == {"score"}

    def test_dropped_ones_keep_their_row_without_a_rank(self):
        found = ranked([(-1, 9, -9.0, 1, 0), (-1, 1, 0.0, 1, 0), (-1, 0)])
        assert found["rank"].tolist() == [0, pd.NA, pd.NA]
        assert list(found.reason) == ["", ZERO, "late layer"]

    def test_cosine_to_rank_0(self):
        directions = np.array([[0.0, 3], [-2, 0], [1, 1], [0, 0]])
        rows = [(-1, 1, 1.0, 1, 0), (-1, 2, 0.0, 1, 0), (-1, 9, 0.0, 1, 0), (-1, 0)]
        found = ranked(rows, directions=directions)
        assert list(found.layer) == [2, 1, 0, 9]
        assert found.cosine_to_rank_0.tolist() == pytest.approx([1.0, 0.0, np.nan, -np.sqrt(0.5)], nan_ok=True)

    def test_a_tie_goes_by_layer_before_position(self):
        found = ranked([(-3, 2, 0.0, 1, 0), (-1, 1, 0.0, 1, 0), (-2, 1, 0.0, 1, 0)])
        assert list(zip(found.position, found.layer, strict=True)) == [(-2, 1), (-1, 1), (-3, 2)]


class TestDiverse:
    def test_the_next_best_unlike_those_taken(self):
        directions = np.array([[1.0, 0], [-1, 0.1], [0, 1], [1, 1]])
        rows = [(-1, layer, float(layer), 1, 0) for layer in range(4)]
        found = ranked(rows, "diverse", directions, max_cosine=0.5)
        assert found["rank"].tolist() == [0, 1, pd.NA, pd.NA]
        assert list(found.layer) == [0, 2, 1, 3]
        assert list(found.reason) == ["", "", "|cosine| 1.00 to rank 0", "|cosine| 0.71 to rank 0"]
        assert list(found.kept) == [True, True, False, False]

    def test_the_bound_itself_is_too_close(self):
        directions = np.array([[1.0, 0], [3, 4]])  # a cosine of 0.6
        rows = [(-1, layer, float(layer), 1, 0) for layer in range(2)]
        assert ranked(rows, "diverse", directions, max_cosine=0.6)["rank"].isna().sum() == 1
        assert ranked(rows, "diverse", directions, max_cosine=0.6 + 1e-9)["rank"].isna().sum() == 0


def step(number, *rows):
    return pd.DataFrame(
        [
            {"step": number, "source": "mean_difference", "position": -1, "layer": layer, "bypass": bypass}
            for layer, bypass in rows
        ]
    )


class TestConditional:
    rows = tuple((-1, layer, float(layer), 1, 0) for layer in range(4))

    def test_the_lowest_while_those_taken_are_ablated(self):
        steps = pd.concat([step(0, (0, 0.0), (1, 1.0), (2, 2.0), (3, 3.0)), step(1, (1, 9.0), (2, -5.0), (3, 0.0))])
        found = ranked(self.rows, "conditional", conditional=steps)
        assert list(found.layer) == [0, 2, 1, 3]  # as far as scored, then by score
        assert list(found["rank"]) == [0, 1, 2, 3]

    def test_steps_in_any_order_of_rows(self):
        steps = pd.concat([step(1, (2, -5.0), (1, 9.0)), step(0, (1, 1.0), (0, 0.0))])
        assert list(ranked(self.rows, "conditional", conditional=steps).layer) == [0, 2, 1, 3]

    def test_ties_by_layer(self):
        steps = pd.concat([step(0, (0, 0.0)), step(1, (3, -1.0), (2, -1.0), (1, 0.0))])
        assert list(ranked(self.rows, "conditional", conditional=steps).layer) == [0, 2, 1, 3]

    def test_a_candidate_that_the_filters_dropped_is_not_taken(self):
        rows = [*self.rows[:2], (-1, 2, -9.0, -1, 0)]
        steps = pd.concat([step(0, (2, -9.0), (0, 0.0), (1, 1.0)), step(1, (2, -9.0), (1, 1.0))])
        found = ranked(rows, "conditional", conditional=steps)
        assert list(found.layer) == [0, 1, 2]
        assert found["rank"].tolist() == [0, 1, pd.NA]


@given(cells, st.sampled_from(["score", "diverse", "conditional"]), st.floats(0.05, 1.0), st.integers(0, 10**6))
def test_laws_of_every_mode(rows, mode, max_cosine, seed):
    rows = [(-9, 0, 1.0, 1.0, 0.0), *rows]  # one is always left
    scores = table(*rows)
    directions = np.random.default_rng(seed).standard_normal((len(rows), 3))
    directions[(scores.note == ZERO).to_numpy()] = 0
    filtered = apply_filters(scores, PUBLISHED)
    steps = filtered[filtered.kept].assign(step=0)
    found = rank(filtered, directions, mode, max_cosine, steps)
    assert sorted(found.index) == list(range(len(rows)))  # no row is lost
    pd.testing.assert_frame_equal(found.sort_index()[list(scores)], scores)
    taken = found[found["rank"].notna()]
    assert list(taken["rank"]) == list(range(len(taken)))  # 0..n-1, in this order, first
    assert taken.index.equals(found.index[: len(taken)])
    assert (found.kept == found["rank"].notna()).all()
    assert (found.reason[found.kept] == "").all()
    assert (found.reason[~found.kept] != "").all()
    assert not (taken.note == ZERO).any()
    order = taken.set_index("rank").bypass
    assert taken.index[0] == best_first(filtered[filtered.kept])[0]
    if mode == "diverse":
        close = np.abs(cosines(directions[taken.index])) - np.eye(len(taken))
        assert (close < max_cosine).all()
    else:
        assert len(taken) == filtered.kept.sum()
        assert list(order) == sorted(order)


def test_candidate_directions_by_position_not_by_row():
    tensor = np.arange(2 * 3 * 2, dtype=float).reshape(2, 3, 2)
    metadata = {"positions": [{"position": -2}, {"position": -1}]}
    rows = table((-1, 2, 0, 0, 0), (-2, 0, 0, 0, 0))
    found = candidate_directions(rows, {"directions": tensor}, metadata)
    np.testing.assert_array_equal(found, [tensor[1, 2], tensor[0, 0]])
