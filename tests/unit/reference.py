"""The naive oracle: one row at a time, plain hooks or plain weights, nothing shared with the library.

It ablates where the stream is read, not where it is written: the library's way and this one agree only if every
write is caught.
"""

import copy
from contextlib import ExitStack, contextmanager

import numpy as np
import torch


def project(x, units):
    """x without its part along each unit direction, one after another."""
    for direction in units:
        direction = torch.as_tensor(np.asarray(direction), dtype=torch.float64)
        x = x - (x.double() @ direction)[..., None] * direction
    return x.float()


_DEFAULT = ("input_layernorm", "post_attention_layernorm")
READERS = {
    "Gemma2ForCausalLM": ("input_layernorm", "pre_feedforward_layernorm"),
    "Gemma3ForCausalLM": ("input_layernorm", "pre_feedforward_layernorm"),
    "Olmo2ForCausalLM": ("self_attn", "mlp"),  # it norms after its blocks, not before
    "CohereForCausalLM": ("input_layernorm",),
    "Cohere2ForCausalLM": ("input_layernorm",),
    "PhiForCausalLM": ("input_layernorm",),
    "StableLmForCausalLM": ("input_layernorm",),
    "FalconForCausalLM": ("input_layernorm",),
    "GPTJForCausalLM": ("ln_1",),
    "GPT2LMHeadModel": ("ln_1", "ln_2"),
    "OPTForCausalLM": ("self_attn_layer_norm", "final_layer_norm"),
}
LAYERS = ("model.layers", "transformer.h", "gpt_neox.layers", "model.decoder.layers")
LAST_NORMS = (
    "model.norm",
    "transformer.ln_f",
    "gpt_neox.final_layer_norm",
    "model.final_layernorm",
    "model.decoder.final_layer_norm",
)


def at(model, paths):
    """The first of these modules that the model has: by name, as a reader of its code would."""
    for path in paths:
        try:
            return model.get_submodule(path)
        except AttributeError:
            continue
    raise LookupError(paths)


def readers(model):
    """All that reads the stream: by their names in each family, and the last norm."""
    names = READERS.get(type(model).__name__, _DEFAULT)
    return [at(model, LAST_NORMS), *(getattr(layer, name) for layer in at(model, LAYERS) for name in names)]


@contextmanager
def ablated(model, units):
    """Within the block, every reader sees the stream without the orthonormal directions `units`."""

    def hook(_module, args, kwargs):
        if args:
            return (project(args[0], units), *args[1:]), kwargs
        return args, kwargs | {"hidden_states": project(kwargs["hidden_states"], units)}

    with ExitStack() as hooks:
        for module in readers(model):
            hooks.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)
        yield


@contextmanager
def published_hooks(model, directions):
    """Within the block, the published scripts' hooks for each direction in turn: on what enters each layer, on the
    outputs of attention and mlp, one direction's set of hooks after another's.
    """

    def without(x, direction):
        direction = torch.as_tensor(direction / np.linalg.norm(direction)).to(x)
        return x - (x @ direction).unsqueeze(-1) * direction

    def entering(direction):
        def hook(_module, args, kwargs):
            if args:
                return (without(args[0], direction), *args[1:]), kwargs
            return args, kwargs | {"hidden_states": without(kwargs["hidden_states"], direction)}

        return hook

    def leaving(direction):
        def hook(_module, _args, output):
            if isinstance(output, tuple):
                return (without(output[0], direction), *output[1:])
            return without(output, direction)

        return hook

    with ExitStack() as hooks:
        for direction in directions:
            for layer in at(model, LAYERS):
                hooks.callback(layer.register_forward_pre_hook(entering(direction), with_kwargs=True).remove)
                for name in ("self_attn", "attn", "attention", "mlp"):
                    if hasattr(layer, name):
                        hooks.callback(getattr(layer, name).register_forward_hook(leaving(direction)).remove)
        yield


@contextmanager
def added(model, vector, layer):
    """Within the block, `vector` is added to what enters the layer."""
    vector = torch.as_tensor(vector, dtype=torch.float32)

    def hook(_module, args, kwargs):
        if args:
            return (args[0] + vector, *args[1:]), kwargs
        return args, kwargs | {"hidden_states": kwargs["hidden_states"] + vector}

    handle = at(model, LAYERS)[layer].register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def orthogonalized(model, units):
    """A copy of a Llama whose weights cannot write along `units`, one after another; no hooks at all."""
    copied = copy.deepcopy(model)

    def cleaned(weight):  # the last dimension of each row is the stream's
        return torch.nn.Parameter(project(weight.detach(), units))

    copied.model.embed_tokens.weight = cleaned(copied.model.embed_tokens.weight)
    for layer in copied.model.layers:
        for linear in (layer.self_attn.o_proj, layer.mlp.down_proj):
            linear.weight = torch.nn.Parameter(cleaned(linear.weight.T).T.contiguous())
    return copied


def last_logits(model, ids):
    """Logits [vocab] after one prompt, unpadded."""
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0, -1]


def refusal_score(logits, refusal_tokens):
    """log p - log(1 - p) as it is written, in fp64: right where both are finite."""
    probabilities = logits.double().softmax(-1)
    p = probabilities[list(refusal_tokens)].sum()
    return float(p.log() - (1 - p).log())


def kl(baseline, ablated):
    """Sum of p log(p / q) in fp64."""
    p, q = baseline.double().softmax(-1), ablated.double().softmax(-1)
    return float((p * (p / q).log()).sum())


def generate(model, ids, stops, max_new_tokens):
    """transformers' own greedy decoding of one prompt: tokens before the stop token, and the stop token."""
    out = model.generate(
        torch.tensor([ids]),
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=list(stops),
        pad_token_id=0,
    )[0, len(ids) :].tolist()
    return (out[:-1], out[-1]) if out[-1] in stops else (out, None)


def mean_activations(model, rows, n):
    """Mean over prompts of the layers' inputs at the last n tokens, a prompt at a time: [n, layer, d] fp64."""
    total = 0.0
    for ids in rows:
        with torch.no_grad():
            states = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[:-1]
        total = total + torch.stack([state[0, -n:].double() for state in states], dim=1)
    return (total / len(rows)).numpy()


def loss(model, tokens, start):
    """transformers' own loss over the tokens from `start` on: the sum in nats."""
    labels = torch.tensor([[-100] * start + list(tokens[start:])])
    with torch.no_grad():
        mean = model(torch.tensor([tokens]), labels=labels).loss
    return float(mean) * (len(tokens) - start)
