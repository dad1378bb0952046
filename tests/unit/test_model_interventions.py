"""Ablation leaves nothing of the basis anywhere in the stream; additions and sequential ablation as by hand."""

from contextlib import ExitStack

import numpy as np
import pytest
import reference
import torch
from hypothesis import given
from hypothesis import strategies as st

from refusal.artifacts import write_tensors
from refusal.combinations import parse
from refusal.directions import intervention_tensors, random_directions, sequential_write, span_basis, unit
from refusal.model.batching import left_pad
from refusal.model.interventions import (
    Intervention,
    Rows,
    ablation,
    addition,
    intervene,
    none,
    read_intervention,
    sequential,
)
from refusal.model.scores import last_logits
from refusal.model.specimens import FAMILIES

D = 32
PROMPTS = [[3, 60, 70, 80, 205, 6], [40, 6], [90, 91, 92, 93, 94, 95, 96, 97, 98, 99, 100, 205, 6]]


def basis(k, seed=0):
    return span_basis(random_directions(k, D, seed))[0]


def streams(chat, rows, interventions):
    """resid_pre of each layer and what enters the last norm, [row, token, d] each."""
    kept = []

    def keep(_module, args, kwargs):
        kept.append(args[0] if args else kwargs["hidden_states"])

    with ExitStack() as hooks:
        for module in (*chat.stream.layers, reference.at(chat.model, reference.LAST_NORMS)):
            hooks.callback(module.register_forward_pre_hook(keep, with_kwargs=True).remove)
        with torch.no_grad(), intervene(chat.stream, Rows(interventions)):
            chat.model(**left_pad(rows, chat.pad, chat.device))
    return kept


def cosines(stream, Q):
    units = stream / stream.norm(dim=-1, keepdim=True)
    return (units @ torch.tensor(Q, dtype=torch.float32).T).abs().max()


def hook_count(model):
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("k", [1, 3])
def test_nothing_of_the_basis_is_left_in_the_stream(family, k, chat_model):
    chat, Q = chat_model(family), basis(k)
    found = streams(chat, PROMPTS[:1] * 2, [ablation(Q), none(D)])
    assert len(found) == chat.model.config.num_hidden_layers + 1
    for stream in found:
        assert cosines(stream[0], Q) < 1e-5
        assert cosines(stream[1], Q) > 1e-2  # the row beside it is left alone


@pytest.mark.parametrize("family", FAMILIES)
def test_agrees_with_ablation_at_every_reader(family, chat_model):
    chat, Q = chat_model(family), basis(2)
    found = last_logits(chat, [(ids, ablation(Q)) for ids in PROMPTS])
    for ids, logits in zip(PROMPTS, found, strict=True):
        with reference.ablated(chat.model, Q):
            expected = reference.last_logits(chat.model, ids)
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)
        assert (logits - reference.last_logits(chat.model, ids)).abs().max() > 1e-2  # it does something


def test_agrees_with_orthogonalized_weights(chat):
    Q = basis(2)
    model = reference.orthogonalized(chat.model, Q)
    found = last_logits(chat, [(ids, ablation(Q)) for ids in PROMPTS])
    for ids, logits in zip(PROMPTS, found, strict=True):
        torch.testing.assert_close(logits, reference.last_logits(model, ids), rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", ["Llama", "Gemma2", "GPTNeoX", "GPT2", "Qwen3Moe"])
def test_sequential_is_what_the_published_hooks_do(family, chat_model, tmp_path):
    """Gemma 2 tells where they act: on attention and mlp, before the norms after them."""
    chat = chat_model(family)
    first, second = random_directions(2, D, 1)
    directions = np.stack([first, first + 0.8 * second])  # far from orthogonal, so the order shows
    tensors, facts = intervention_tensors(parse("0-1"), directions, "sequential", 0)
    write_tensors(tmp_path / "basis.safetensors", tensors, facts)
    found = read_intervention(tmp_path / "basis.safetensors")
    others = [ablation(span_basis(directions)[0]), sequential(directions[::-1]), none(D)]
    for ids in PROMPTS:
        logits = last_logits(chat, [(ids, one) for one in (found, *others)])
        with reference.published_hooks(chat.model, directions):
            expected = reference.last_logits(chat.model, ids)
        torch.testing.assert_close(logits[0], expected, rtol=0, atol=1e-4)
        for other in logits[1:]:
            assert (logits[0] - other).abs().max() > 1e-3


@pytest.mark.parametrize("family", ["Llama", "GPTNeoX"])
def test_sequential_is_span_for_one_direction_where_no_norm_follows_a_block(family, chat_model):
    chat, direction = chat_model(family), random_directions(1, D, 2)
    for ids in PROMPTS:
        found = last_logits(chat, [(ids, sequential(direction)), (ids, ablation(span_basis(direction)[0]))])
        torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-4)


@given(st.integers(1, 4), st.integers(0, 10**6))
def test_the_sequential_write_is_the_product_of_projections(k, seed):
    units = unit(random_directions(k, D, seed))
    x = torch.tensor(random_directions(5, D, seed + 1))
    for one, places in ((Intervention(units, sequential_write(units)), "writes"), (sequential(units), "published")):
        found = Rows([one]).ablate(x[None].float(), places)[0]
        torch.testing.assert_close(found, reference.project(x, units), rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layer", [0, 2])
def test_an_addition_is_a_pre_hook_at_its_layer(family, layer, chat_model):
    chat, vector = chat_model(family), 3 * random_directions(1, D, 5)[0]
    found = last_logits(chat, [(ids, addition(vector, layer)) for ids in PROMPTS])
    for ids, logits in zip(PROMPTS, found, strict=True):
        with reference.added(chat.model, vector, layer):
            expected = reference.last_logits(chat.model, ids)
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)
        assert (logits - reference.last_logits(chat.model, ids)).abs().max() > 1e-2


def test_an_addition_changes_its_layer_and_none_before(chat):
    vector = random_directions(1, D, 5)[0]
    plain = streams(chat, PROMPTS[:1], [none(D)])
    found = streams(chat, PROMPTS[:1], [addition(vector, 1)])
    # the recorder of the layer was registered first and sees what comes in, the next layer sees the change
    torch.testing.assert_close(found[0], plain[0])
    torch.testing.assert_close(found[1], plain[1])
    assert (found[2] - plain[2]).abs().max() > 1e-2


def test_rows_of_one_batch_keep_apart(chat):
    """Any mix of baseline, bases of different size and additions at different layers, against each alone."""
    mix = [
        none(D),
        ablation(basis(1)),
        addition(random_directions(1, D, 3)[0], 0),
        ablation(basis(3)),
        addition(random_directions(1, D, 4)[0], 2),
        sequential(random_directions(2, D, 6)),
    ]
    rows = [(ids, one) for one in mix for ids in PROMPTS]
    together = last_logits(chat, rows)
    for number, row in enumerate(rows):
        torch.testing.assert_close(together[number], last_logits(chat, [row])[0], rtol=0, atol=1e-4)


def test_the_baseline_registers_no_hook_and_changes_nothing(chat):
    before = hook_count(chat.model)
    with intervene(chat.stream, Rows([none(D)])):
        assert hook_count(chat.model) == before
    torch.testing.assert_close(
        last_logits(chat, [(PROMPTS[0], none(D))])[0], reference.last_logits(chat.model, PROMPTS[0])
    )


def test_hooks_go_with_the_block_also_after_an_error(chat):
    before, rows = hook_count(chat.model), Rows([ablation(basis(1)), addition(np.ones(D), 1)])
    with intervene(chat.stream, rows):
        assert hook_count(chat.model) == before + len(chat.stream.all_writers) + 1
    assert hook_count(chat.model) == before
    with pytest.raises(ZeroDivisionError), intervene(chat.stream, rows):
        1 / 0  # noqa: B018
    assert hook_count(chat.model) == before


def test_a_half_done_registration_is_undone(chat):
    before = hook_count(chat.model)
    with pytest.raises(IndexError), intervene(chat.stream, Rows([ablation(basis(1)), addition(np.ones(D), 99)])):
        pass
    assert hook_count(chat.model) == before


def test_rows_of_one_object_share_its_tensors():
    """A basis stands once however many rows have it, until it is spread over them."""
    one, other = ablation(basis(1)), ablation(basis(2))
    rows, x = Rows([one, other, one, none(D)]), torch.randn(4, 3, D, generator=torch.Generator().manual_seed(0))
    for number, units in enumerate([one.read, other.read, one.read, []]):
        expected = reference.project(x[number], units)
        torch.testing.assert_close(rows.ablate(x)[number], expected, rtol=0, atol=1e-5)


def test_what_is_one_row_for_all_or_flat_is_told_apart():
    """Position embeddings may come as one row for all, outputs of experts as one list of all rows' tokens."""
    interventions = [ablation(basis(1)), none(D), ablation(basis(2))]
    x = torch.randn(3, 4, D, generator=torch.Generator().manual_seed(0))
    rows = Rows(interventions)
    torch.testing.assert_close(rows.ablate(x.flatten(0, 1)), rows.ablate(x).flatten(0, 1), rtol=0, atol=0)
    torch.testing.assert_close(rows.ablate(x[:1]), rows.ablate(x[:1].expand(3, -1, -1)), rtol=0, atol=0)


def test_an_fp64_stream_is_projected_in_fp64():
    Q, x = basis(2), torch.randn(1, 5, D, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert (Rows([ablation(Q)]).ablate(x)[0] @ torch.tensor(Q).T).abs().max() < 1e-14


def test_a_bf16_stream_is_projected_in_fp32():
    Q = basis(2)
    x = torch.randn(1, 50, D, generator=torch.Generator().manual_seed(0)).bfloat16()
    found = Rows([ablation(Q)]).ablate(x)
    assert found.dtype == torch.bfloat16
    exact = reference.project(x[0].float(), Q)
    # no further from the exact projection than rounding that to bf16
    assert (found[0].float() - exact).abs().max() <= (exact.bfloat16().float() - exact).abs().max() + 1e-6


@pytest.mark.parametrize("name", ["none", "0", "0-1", "random-k2-s0", "add-1"])
def test_read_intervention_does_what_the_file_says(name, tmp_path):
    directions = random_directions(2, D, 1)
    tensors, facts = intervention_tensors(parse(name), directions, "span", 0)
    if name == "add-1":
        facts["layer"] = 2
    write_tensors(tmp_path / "basis.safetensors", tensors, facts)
    found = read_intervention(tmp_path / "basis.safetensors")
    if name == "add-1":
        assert (found.layer, len(found.read)) == (2, 0)
        np.testing.assert_array_equal(found.vector, directions[1])
    else:
        assert found.vector is None
        np.testing.assert_array_equal(found.read, tensors["basis"])
        np.testing.assert_array_equal(found.write, tensors["basis"])
        assert len(found.read) == {"none": 0, "0": 1, "0-1": 2, "random-k2-s0": 2}[name]
