"""Refusal score and KL against their definitions in fp64, a prompt at a time."""

import dataclasses
import math

import numpy as np
import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from refusal.directions import random_directions, span_basis
from refusal.errors import UserError
from refusal.model.batching import Room
from refusal.model.interventions import ablation, none
from refusal.model.scores import (
    Epsilon,
    baseline_logits,
    kl,
    last_logits,
    refusal_score,
    refusal_scores,
    score_groups,
)
from refusal.model.specimens import FAMILIES

D = 32
HARMFUL = [[3, 60, 70, 80, 205, 6], [40, 6], [90, 91, 92, 93, 94, 205, 6]]
HARMLESS = [[50, 51, 6], [77, 6], [60, 61, 62, 63, 6]]

BASIS = ablation(span_basis(random_directions(2, D, 0))[0])

finite = st.floats(-1e4, 1e4, width=32)
logits = arrays.arrays(np.float32, (1, 6), elements=finite)
chosen = st.sets(st.integers(0, 5), min_size=1, max_size=5)


class TestRefusalScore:
    @given(arrays.arrays(np.float32, (1, 6), elements=st.floats(-10, 10, width=32)), chosen)
    def test_is_log_p_minus_log_of_the_rest(self, logits, chosen):
        found = refusal_score(torch.from_numpy(logits), sorted(chosen))
        assert found.dtype == torch.float32
        assert float(found[0]) == pytest.approx(reference.refusal_score(torch.from_numpy(logits)[0], chosen), abs=1e-5)

    @given(logits, chosen)
    def test_finite_however_sure_the_model_is(self, logits, chosen):
        assert torch.isfinite(refusal_score(torch.from_numpy(logits), sorted(chosen))).all()

    def test_extreme(self):
        sure = torch.tensor([[1e4, -1e4, -1e4], [-1e4, 1e4, 0.0]])
        assert math.isinf(reference.refusal_score(sure[0], [0]))  # as it is written it overflows
        assert refusal_score(sure, [0]).tolist() == pytest.approx([2e4 - math.log(2), -2e4])

    @given(logits, chosen)
    def test_the_rest_has_the_opposite_score(self, logits, chosen):
        rest = sorted(set(range(6)) - chosen)
        value = torch.from_numpy(logits)
        torch.testing.assert_close(refusal_score(value, sorted(chosen)), -refusal_score(value, rest))

    @given(arrays.arrays(np.float32, (1, 6), elements=st.floats(-10, 10, width=32)), chosen, st.floats(-10, 10))
    def test_a_shift_of_all_logits_changes_nothing(self, logits, chosen, shift):
        value = torch.from_numpy(logits)
        torch.testing.assert_close(
            refusal_score(value + shift, sorted(chosen)), refusal_score(value, sorted(chosen)), atol=1e-4, rtol=0
        )

    def test_two_equal_halves_by_hand(self):
        assert refusal_score(torch.zeros(1, 4), [1, 2]).tolist() == [0.0]
        assert refusal_score(torch.zeros(1, 4), [1]).tolist() == pytest.approx([math.log(1 / 3)])

    def test_an_id_given_twice_counts_once(self):
        value = torch.tensor([[1.0, 2.0, 3.0]])
        assert refusal_score(value, [2, 2]).tolist() == refusal_score(value, [2]).tolist()

    def test_half_precision_logits_are_summed_in_fp32(self):
        value = torch.randn(3, 50, generator=torch.Generator().manual_seed(0)).bfloat16()
        torch.testing.assert_close(refusal_score(value, [3, 4]), refusal_score(value.float(), [3, 4]))

    @pytest.mark.parametrize(
        ("tokens", "said"), [([], "[]"), ([4], "[4]"), ([-1, 2], "[-1, 2]"), ([3, 2, 1, 0], "[0, 1, 2, 3]")]
    )
    def test_none_all_or_outside(self, tokens, said):
        with pytest.raises(UserError) as caught:
            refusal_score(torch.zeros(1, 4), tokens)
        assert str(caught.value) == f"refusal tokens {said}: need one id or more, not all, of the vocabulary of 4"


class TestEpsilon:
    """As the published scripts compute both: in fp64, with what is added to the probabilities."""

    values = arrays.arrays(np.float32, (2, 6), elements=st.floats(-40, 40, width=32))

    @given(values, chosen, st.sampled_from([1e-8, 1e-3]))
    def test_of_a_refusal_score(self, logits, chosen, epsilon):
        found = refusal_score(torch.from_numpy(logits), sorted(chosen), epsilon)
        probabilities = np.exp(logits.astype(float) - logits.max(-1, keepdims=True))
        p = (probabilities / probabilities.sum(-1, keepdims=True))[:, sorted(chosen)].sum(-1)
        np.testing.assert_allclose(found, np.log(p + epsilon) - np.log(1 - p + epsilon), rtol=1e-5, atol=1e-5)
        assert (found.abs() <= -math.log(epsilon) + 1).all()  # which it bounds
        exact = refusal_score(torch.from_numpy(logits), sorted(chosen))
        assert ((found > 1e-3) <= (exact > 0)).all()  # the sign, by which prompts are kept, is the same
        assert ((found < -1e-3) <= (exact < 0)).all()

    @given(values, values, st.sampled_from([1e-6, 1e-3]))
    def test_of_kl(self, first, second, epsilon):
        found = kl(torch.from_numpy(first), torch.from_numpy(second), epsilon)
        p, q = (np.exp(one.astype(float) - one.max(-1, keepdims=True)) for one in (first, second))
        p, q = p / p.sum(-1, keepdims=True), q / q.sum(-1, keepdims=True)
        np.testing.assert_allclose(found, (p * (np.log(p + epsilon) - np.log(q + epsilon))).sum(-1), atol=1e-5)

    def test_none_is_exact_and_a_little_is_near(self):
        logits, other = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(refusal_score(logits, [1], 1e-12), refusal_score(logits, [1]), atol=1e-5, rtol=0)
        torch.testing.assert_close(kl(logits, other, 1e-12), kl(logits, other), atol=1e-5, rtol=0)

    def test_of_groups(self, chat):
        rows = {"a": [(ids, none(D)) for ids in HARMLESS], "b": [(ids, BASIS) for ids in HARMLESS]}
        baseline = baseline_logits(chat, HARMLESS, Room(4))
        found = score_groups(chat, rows, Room(4), baseline, epsilon=Epsilon(0.1, 0.01))
        after = last_logits(chat, rows["b"])
        np.testing.assert_allclose(
            found["b"]["refusal_score"], refusal_score(after, chat.refusal_tokens, 0.1), atol=1e-4
        )
        np.testing.assert_allclose(found["b"]["kl"], kl(baseline, after, 0.01), atol=1e-4)
        exact = score_groups(chat, rows, Room(4), baseline)
        assert np.abs(found["b"]["refusal_score"] - exact["b"]["refusal_score"]).max() > 1e-2


class TestKL:
    @given(logits, logits)
    def test_not_negative(self, first, second):
        found = kl(torch.from_numpy(first), torch.from_numpy(second))
        assert (found >= -1e-3).all()

    @given(logits)
    def test_zero_for_equal(self, first):
        assert kl(torch.from_numpy(first), torch.from_numpy(first)).tolist() == [0.0]

    @given(*[arrays.arrays(np.float32, (1, 6), elements=st.floats(-10, 10, width=32))] * 2)
    def test_agrees_with_the_sum_in_fp64(self, first, second):
        first, second = torch.from_numpy(first), torch.from_numpy(second)
        assert float(kl(first, second)[0]) == pytest.approx(reference.kl(first[0], second[0]), abs=1e-5)

    def test_the_baseline_comes_first(self):
        sure, unsure = torch.tensor([[5.0, 0.0]]), torch.zeros(1, 2)
        p = math.exp(5) / (1 + math.exp(5))
        by_hand = p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p))
        assert float(kl(sure, unsure)) == pytest.approx(by_hand, abs=1e-6)
        assert float(kl(unsure, sure)) != pytest.approx(by_hand, abs=0.1)


class TestGroups:
    def test_scores_of_each_prompt_in_order(self, chat):
        off = ablation(span_basis(random_directions(1, D, 7))[0])
        groups = {"none": [(ids, none(D)) for ids in HARMLESS], "0": [(ids, off) for ids in HARMLESS]}
        baseline = baseline_logits(chat, HARMLESS, Room(2))
        found = score_groups(chat, groups, Room(4), baseline)
        for name, units in {"none": [], "0": off.read}.items():
            for number, ids in enumerate(HARMLESS):
                clean = reference.last_logits(chat.model, ids)
                with reference.ablated(chat.model, units):
                    logits = reference.last_logits(chat.model, ids)
                expected = reference.refusal_score(logits, chat.refusal_tokens)
                assert found[name]["refusal_score"][number] == pytest.approx(expected, abs=1e-4)
                assert found[name]["kl"][number] == pytest.approx(reference.kl(clean, logits), abs=1e-4)
        assert found["none"]["kl"] == pytest.approx(0, abs=1e-6)
        assert found["0"]["kl"].min() > 1e-4

    def test_no_baseline_no_kl(self, chat):
        found = score_groups(chat, {"none": [(HARMFUL[0], none(D))]}, Room(4))
        assert list(found["none"]) == ["refusal_score"]

    def test_done_comes_with_each_group_that_is_finished(self, chat):
        seen = []
        groups = {name: [(ids, none(D)) for ids in HARMFUL] for name in "ab"}
        score_groups(
            chat, groups, Room(2), None, lambda name, scores: seen.append((name, len(scores["refusal_score"])))
        )
        assert seen == [("a", 3), ("b", 3)]

    def test_refusal_scores_of_prompts_unablated(self, chat):
        expected = [
            reference.refusal_score(reference.last_logits(chat.model, ids), chat.refusal_tokens) for ids in HARMFUL
        ]
        assert refusal_scores(chat, HARMFUL, Room(2)) == pytest.approx(expected, abs=1e-4)

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_a_score_that_is_not_finite_is_an_error(self, chat, monkeypatch, value):
        forward = chat.model.forward

        def broken(*args, **inputs):
            out = forward(*args, **inputs)
            out.logits[-1] = value
            return out

        monkeypatch.setattr(chat.model, "forward", broken)
        message = (
            "unablated: refusal_score of prompt 2 is nan: the model's logits overflow; use dtype float32 or bfloat16"
        )
        with pytest.raises(UserError) as caught:
            refusal_scores(chat, HARMFUL, Room(8))
        assert str(caught.value) == message
        with pytest.raises(UserError) as caught:
            score_groups(chat, {"0-1": [(ids, none(D)) for ids in HARMFUL]}, Room(8))
        assert str(caught.value) == message.replace("unablated", "0-1")

    def test_refusal_tokens_outside_the_vocabulary(self, chat):
        wrong = dataclasses.replace(chat, refusal_tokens=(999,))
        with pytest.raises(
            UserError, match=r"^refusal tokens \[999\]: need one id or more, not all, of the vocabulary"
        ):
            refusal_scores(wrong, HARMFUL, Room(8))


@pytest.mark.parametrize("family", FAMILIES)
def test_left_padding_changes_nothing(family, chat_model):
    """A prompt of two tokens beside one of forty, wider than the window of the families that have one."""
    chat, long = chat_model(family), [*range(30, 70), 6]
    found = last_logits(chat, [(HARMFUL[1], none(D)), (long, none(D))])
    for logits, ids in zip(found, (HARMFUL[1], long), strict=True):
        torch.testing.assert_close(logits, reference.last_logits(chat.model, ids), rtol=0, atol=1e-4)
