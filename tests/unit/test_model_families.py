"""Which modules write into the stream: found by what they do, placed by hand where not, and never silently wrong."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn

from refusal.directions import random_directions, span_basis
from refusal.errors import UserError
from refusal.model.families import Stream, check_stream, find_stream
from refusal.model.interventions import Rows, intervene, sequential
from refusal.model.specimens import FAMILIES, SIZES, specimen
from refusal.model.weights import agreement

TOKENS = [3, 40, 50, 6]

NORMED = {
    "Gemma2": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "Gemma3": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "Olmo2": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "Glm4": ("post_self_attn_layernorm", "post_mlp_layernorm"),
}
NAMED = {
    "GPTNeoX": ("attention", "mlp"),
    "GPT2": ("attn", "mlp"),
    "GPTJ": ("attn", "mlp"),
    "OPT": ("self_attn", "fc2"),
    "Falcon": ("self_attention", "mlp"),
    "Llama4": ("self_attn", "feed_forward"),
}
"""Names of each layer's writers and blocks where they are not self_attn and mlp; nothing in the library knows them."""


def names(model, modules):
    """Last parts of the modules' paths."""
    path = {module: where for where, module in model.named_modules()}
    return {path[module].rsplit(".", 1)[-1] for module in modules}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_modules_of_every_family_are_found(family, chat_model):
    chat = chat_model(family)
    stream = chat.stream
    blocks = NAMED.get(family, ("self_attn", "mlp"))
    assert len(stream.layers) == SIZES["num_hidden_layers"]
    assert stream.embedding is chat.model.get_input_embeddings() is stream.entry[0]
    assert len(stream.entry) == (2 if family in ("GPT2", "OPT") else 1)  # positions that are learned join
    for layer, writers, inside in zip(stream.layers, stream.writers, stream.blocks, strict=True):
        assert names(layer, writers) == set(NORMED.get(family, blocks))
        assert names(layer, inside) == set(blocks)
    assert len(stream.all_writers) == len(stream.entry) + 2 * len(stream.layers)


def test_the_text_of_a_model_that_also_sees():
    """Gemma 3 with vision: its stream is the language model's, though its vision has as many layers."""
    import transformers

    name, needs = FAMILIES["Gemma3"]
    text = getattr(transformers, f"{name}Config")(**SIZES, **needs)
    sight = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    config = transformers.Gemma3Config(text_config=text, vision_config={**sight, "num_hidden_layers": 3})
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    assert type(model).__name__ == "Gemma3ForConditionalGeneration"
    stream = find_stream(model, TOKENS)
    assert stream.layers == tuple(model.model.language_model.layers)
    assert names(stream.layers[0], stream.writers[0]) == set(NORMED["Gemma3"])
    basis = span_basis(random_directions(2, 32, 0))[0]
    found = agreement(model, stream, basis, [TOKENS])
    assert found.difference < 1e-5 < 1 < found.effect


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", FAMILIES)
def test_they_are_found_in_every_dtype(family, dtype):
    model = specimen(family).to(dtype)
    assert len(find_stream(model, TOKENS).all_writers) in (7, 8)


def test_a_token_whose_embedding_is_zero_is_no_fault():
    """As that of padding is, in many models."""
    model = specimen("Llama")
    assert not model.model.embed_tokens.weight[0].any()
    assert len(find_stream(model, [0, 1, 2]).all_writers) == 7


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_token_with_massive_activations(dtype):
    """As the first of a text in many models: its rounding is larger than what other tokens hold."""
    model = specimen("Llama")
    model.model.embed_tokens.weight[TOKENS[0], [0, 5, 9]] = torch.tensor([2600.0, -1500.0, 800.0])
    model.to(dtype)
    stream = find_stream(model, TOKENS)
    assert len(stream.all_writers) == 7
    for left in (0, 1):
        writers = (*stream.writers[:2], stream.writers[2][left : left + 1])
        with pytest.raises(UserError, match=r"layer 2: its writers do not add up"):
            check_stream(model, replace(stream, writers=writers), TOKENS)


def test_names_and_shapes_do_not_matter():
    """A Llama whose modules are all called otherwise, with an mlp as wide as the stream."""
    model = specimen("Llama", intermediate_size=32)
    expected = find_stream(model, TOKENS)
    for layer in expected.layers:
        layer._modules["first"], layer._modules["second"] = layer._modules["self_attn"], layer._modules["mlp"]
        for name in ("self_attn", "mlp"):
            vars(layer)[name] = layer._modules.pop(name)  # the layer's code still finds them, named_modules does not
        assert "self_attn" not in dict(layer.named_children())
    model.model._modules["blocks"] = model.model._modules["layers"]
    vars(model.model)["layers"] = model.model._modules.pop("layers")
    found = find_stream(model, TOKENS)
    assert (found.layers, found.writers) == (expected.layers, expected.writers)


@pytest.fixture
def scaled():
    """A Llama whose mlp's output is weighted per channel before it is added, which no module does."""
    model = specimen("Llama")
    weights = torch.linspace(0.5, 1.5, 32)

    def weighted(layer):
        inner, middle = layer.forward, []
        layer.post_attention_layernorm.register_forward_pre_hook(lambda _, args: middle.append(args[0]))

        def forward(hidden_states, **inputs):
            out = inner(hidden_states, **inputs)
            return middle[-1] + (out - middle[-1]) * weights

        return forward

    layer = model.model.layers[1]
    layer.forward = weighted(layer)
    return model


class TestUnplaced:
    def test_what_no_module_gives(self, scaled):
        with pytest.raises(UserError) as caught:
            find_stream(scaled, TOKENS)
        assert str(caught.value) == (
            "LlamaForCausalLM: model.layers.1: part of what it adds to the residual stream is no module's output"
            " (MulBackward0): name the modules within a layer by `modules.writers` in the model file"
        )

    def test_named_by_hand_it_is_still_checked(self, scaled):
        with pytest.raises(UserError) as caught:
            find_stream(scaled, TOKENS, {"writers": ["self_attn", "mlp"]})
        said = str(caught.value)
        assert said.startswith(
            "LlamaForCausalLM: layer 1: its writers do not add up to what it writes (relative gap 0."
        )
        assert said.endswith("): correct `modules.writers` in the model file")

    def test_no_list_of_layers(self):
        model = specimen("Llama")
        model.config.num_hidden_layers = 5
        with pytest.raises(UserError) as caught:
            find_stream(model, TOKENS)
        assert str(caught.value) == (
            "LlamaForCausalLM: no list of 5 decoder layers was found that the residual stream passes through, one after"
            " another: name it by `modules.layers` in the model file"
        )

    def test_a_layer_that_changes_what_it_is_given(self):
        model = specimen("Llama")
        inner = model.model.layers[0].forward
        # within the layer it is the layer's: what it adds, it does not add to what it was given
        model.model.layers[0].forward = lambda hidden_states, **inputs: inner(hidden_states.tanh(), **inputs)
        with pytest.raises(UserError) as caught:
            find_stream(model, TOKENS)
        assert str(caught.value) == (
            "LlamaForCausalLM: model.layers.0: part of what it adds to the residual stream is no module's output (its"
            " input does not come through as it is): name the modules within a layer by `modules.writers` in the model"
            " file"
        )

    def test_an_embedding_that_is_changed_on_its_way(self):
        model = specimen("Llama")
        model.model.layers[0].register_forward_pre_hook(
            lambda _, args, inputs: ((args[0].tanh(), *args[1:]), inputs), with_kwargs=True
        )
        with pytest.raises(UserError) as caught:
            find_stream(model, TOKENS)
        assert str(caught.value) == (
            "LlamaForCausalLM: what enters the first layer is no sum of modules' outputs (TanhBackward0): name the"
            " modules by `modules.embedding` in the model file"
        )

    def test_an_operation_that_autograd_cannot_follow(self, monkeypatch):
        def broken(*_args, **_kwargs):
            raise RuntimeError("no rule for\n this operation")

        model = specimen("Llama")
        monkeypatch.setattr("refusal.model.families.trace", broken)
        with pytest.raises(UserError) as caught:
            find_stream(model, TOKENS)
        assert str(caught.value) == (
            "LlamaForCausalLM: its modules cannot be found by themselves (no rule for this operation): name them by"
            " `modules.layers`, `modules.writers` and `modules.embedding` in the model file"
        )
        assert len(find_stream(model, TOKENS, BY_HAND["Llama"]).all_writers) == 7
        # where attention and mlp end before a norm is not known then
        normed = specimen("Gemma2")
        stream = find_stream(normed, TOKENS, BY_HAND["Gemma2"])
        assert len(stream.all_writers) == 7
        with pytest.raises(UserError) as caught, intervene(stream, Rows([sequential(random_directions(1, 32, 0))])):
            pass
        assert str(caught.value) == (
            "`ablation: sequential` acts on attention and mlp before the norms that follow them, which were not found"
            " in this model: use `ablation: span`"
        )

    def test_memory_that_runs_out_is_no_fault_of_the_modules(self, monkeypatch):
        def full(*_args, **_kwargs):
            raise torch.OutOfMemoryError

        monkeypatch.setattr("refusal.model.families.trace", full)
        with pytest.raises(torch.OutOfMemoryError):
            find_stream(specimen("Llama"), TOKENS)

    def test_layers_that_are_not_run(self):
        model = specimen("Llama")
        model.model.spare = nn.ModuleList([nn.Linear(32, 32) for _ in range(3)])
        with pytest.raises(UserError) as caught:
            find_stream(model, TOKENS, {"layers": "model.spare"})
        assert str(caught.value) == (
            "LlamaForCausalLM: modules.layers: model.spare is not run on text: name the list of decoder layers"
        )
        spare = Stream(
            model.model.embed_tokens, (model.model.embed_tokens,), tuple(model.model.spare), ((), (), ()), ()
        )
        with pytest.raises(UserError, match=r"^LlamaForCausalLM: layer 0 is not run: correct `modules\.layers` in"):
            check_stream(model, spare, TOKENS)


BY_HAND = {
    "Llama": {"layers": "model.layers", "writers": ["self_attn", "mlp"], "embedding": ["model.embed_tokens"]},
    "Gemma2": {
        "layers": "model.layers",
        "writers": ["post_attention_layernorm", "post_feedforward_layernorm"],
        "embedding": ["model.embed_tokens"],
    },
    "GPT2": {
        "layers": "transformer.h",
        "writers": ["attn", "mlp"],
        "embedding": ["transformer.wte", "transformer.wpe"],
    },
}


class TestPlacedByHand:
    @pytest.mark.parametrize("family", BY_HAND)
    def test_gives_the_same_stream(self, family):
        model, placed = specimen(family), BY_HAND[family]
        expected = find_stream(model, TOKENS)
        for count in (1, 2, 3):
            for keys in itertools.combinations(placed, count):
                found = find_stream(model, TOKENS, {key: placed[key] for key in keys})
                assert found == expected

    @pytest.mark.parametrize(
        ("placed", "message"),
        [
            (
                {"layers": "model.blocks"},
                "LlamaForCausalLM: modules.layers: model.blocks: no such module; it has model, ",
            ),
            ({"layers": "model.norm"}, "LlamaForCausalLM: modules.layers: model.norm is no list of modules: "),
            (
                {"writers": ["attn", "mlp"]},
                "model.layers.0: modules.writers: attn: no such module; it has self_attn, mlp, input_layernorm, ",
            ),
            ({"embedding": ["wte"]}, "LlamaForCausalLM: modules.embedding: wte: no such module; it has model, lm_head"),
            ({"writers": ["self_attn"]}, "LlamaForCausalLM: layer 0: its writers do not add up to what it writes "),
            ({"writers": ["self_attn", "input_layernorm"]}, "LlamaForCausalLM: layer 0: its writers do not add up "),
            (
                {"writers": ["self_attn", "mlp", "input_layernorm"]},
                "LlamaForCausalLM: model.layers.0.input_layernorm is not added to the residual stream: leave it out of",
            ),
            (
                {"embedding": ["model.embed_tokens", "model.norm"]},
                "LlamaForCausalLM: model.norm is not added to the residual stream: leave it out of `modules.embedding`",
            ),
            (
                {"writers": ["self_attn.k_proj", "mlp"]},
                "LlamaForCausalLM: model.layers.0.self_attn.k_proj gives no vectors of the stream's width 32: correct",
            ),
            (
                {"embedding": ["model.norm"]},
                "LlamaForCausalLM: layer 0: something besides the embedding writes into its input (relative gap ",
            ),
        ],
    )
    def test_wrongly_is_said(self, placed, message):
        with pytest.raises(UserError) as caught:
            find_stream(specimen("Llama"), TOKENS, placed)
        assert str(caught.value).startswith(message)
        assert "\n" not in str(caught.value)

    def test_a_list_that_skips_the_stream(self):
        model = specimen("Llama")
        model.model.others = nn.ModuleList([model.model.layers[0], model.model.layers[2]])
        with pytest.raises(UserError) as caught:
            find_stream(model, TOKENS, {"layers": "model.others", "writers": ["self_attn", "mlp"]})
        said = str(caught.value)
        assert said.startswith("LlamaForCausalLM: layer 1: something besides the layers before writes into its input (")
        assert said.endswith("name the modules by `modules.layers` in the model file")


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        (
            "Mamba",
            {},
            "MambaForCausalLM: its layers keep a recurrent state, which cannot be padded at the left nor shared by"
            " prompts: unsupported family",
        ),
        (
            "Qwen3Next",
            {"num_experts": 4, "num_experts_per_tok": 2},
            "Qwen3NextForCausalLM: its layers keep a recurrent state, which cannot be padded at the left nor shared by"
            " prompts: unsupported family",
        ),
        (
            "Bloom",
            {"n_layer": 3, "n_head": 4},
            "BloomForCausalLM: its forward takes no position_ids: unsupported family",
        ),
    ],
)
def test_an_unsupported_family_is_refused(family, changes, message):
    with pytest.raises(UserError) as caught:
        find_stream(specimen(family, **changes), TOKENS)
    assert str(caught.value) == message


def test_the_search_leaves_no_hooks_and_no_gradients(chat):
    hooks = lambda: sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in chat.model.modules())  # noqa: E731
    before = hooks()
    find_stream(chat.model, TOKENS)
    check_stream(chat.model, chat.stream, TOKENS)
    assert hooks() == before
    assert not any(weight.requires_grad for weight in chat.model.parameters())
    with torch.no_grad():
        assert chat.model(torch.tensor([TOKENS])).logits.grad_fn is None
