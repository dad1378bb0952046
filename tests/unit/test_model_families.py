"""Which modules write into the stream: right for the families promised, and never silently wrong for others."""

import pytest
import torch
from conftest import FAMILIES, build_model
from torch import nn

from refusal.errors import UserError
from refusal.model.families import Stream, check_stream, find_stream

TOKENS = [3, 40, 50, 6]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_stream_is_embedding_and_two_writers_a_layer(family, chat_model):
    chat = chat_model(family)
    stream = chat.stream
    assert stream.embedding is chat.model.get_input_embeddings()
    assert stream.layers == tuple(chat.model.model.layers)
    after_norm = family in ("Gemma2", "Gemma3Text", "Olmo2")
    for layer, writers in zip(stream.layers, stream.writers, strict=True):
        normed = [getattr(layer, f"post_{block}_layernorm", None) for block in ("attention", "feedforward")]
        assert list(writers) == (normed if after_norm else [layer.self_attn, layer.mlp])
    assert len(stream.all_writers) == 1 + 2 * len(stream.layers)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_sum_holds_in_every_dtype(family, dtype):
    model = build_model(family).to(dtype)
    check_stream(model, find_stream(model), TOKENS)


SIZES = {"n_embd": 32, "n_layer": 3, "n_head": 4}


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        (
            "GPT2",
            SIZES,
            r"GPT2LMHeadModel: layer 0: something besides the embedding and the layers before writes into its input"
            r" \(relative gap [\d.]+\): unsupported family",
        ),
        (
            "OPT",
            {"word_embed_proj_dim": 32, "ffn_dim": 48},
            r"OPTForCausalLM: model\.decoder\.layers\.0 has no mlp named mlp, feed_forward, block_sparse_moe, ffn:"
            r" unsupported family",
        ),
        (
            "Granite",
            {"residual_multiplier": 0.5},
            r"GraniteForCausalLM: layer 0: its attention and mlp do not add up to what it writes"
            r" \(relative gap [\d.]+\): unsupported family",
        ),
        (
            "Glm4",
            {},
            r"Glm4ForCausalLM: layer 0: its attention and mlp do not add up to what it writes"
            r" \(relative gap [\d.]+\): unsupported family",
        ),
        (
            "Mamba",
            {},
            r"MambaForCausalLM: no list of 3 decoder layers with an attention was found: unsupported family",
        ),
    ],
)
def test_an_unsupported_family_is_refused(family, changes, message):
    model = build_model(family, **changes)
    with pytest.raises(UserError, match=f"^{message}$"):
        check_stream(model, find_stream(model), TOKENS)


def test_a_wrong_writer_is_noticed():
    model = build_model("Llama")
    stream = find_stream(model)
    wrong = Stream(stream.embedding, stream.layers, (*stream.writers[:-1], (stream.writers[-1][0], nn.Identity())))
    with pytest.raises(UserError, match=r"^LlamaForCausalLM: layer 2: its attention and mlp do not add up"):
        check_stream(model, wrong, TOKENS)


def test_the_check_leaves_no_hooks(chat):
    hooks = lambda: sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in chat.model.modules())  # noqa: E731
    before = hooks()
    check_stream(chat.model, chat.stream, TOKENS)
    assert hooks() == before
