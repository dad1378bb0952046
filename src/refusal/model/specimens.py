"""Small random models of the families that are known to fit, to verify and test on: one for each way to be built."""

from collections.abc import Mapping
from typing import Any

SIZES: Mapping[str, Any] = {
    "vocab_size": 264,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    # wide enough that the layers matter: with the default 0.02 the logits hardly depend on the prompt
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

_SPREAD = 0.3

_BIASED = {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}
_EXPERTS = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
_SLIDING = {"sliding_window": 8}
_SOME_SLIDING = {**_SLIDING, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
_GEMMA = {**_SOME_SLIDING, "query_pre_attn_scalar": 8}
_LATENT = {
    "n_routed_experts": 4,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "head_dim": 4,
    "num_key_value_heads": 4,
}

# Name -> (config class in transformers, what it needs beside the sizes; None leaves a size out).
FAMILIES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "Llama": ("Llama", {}),  # Llama 2 and 3, Yi, SmolLM2
    "Llama with biases, tied": ("Llama", _BIASED),
    "Mistral": ("Mistral", _SLIDING),
    "Qwen2": ("Qwen2", {}),  # Qwen 1.5, 2, 2.5
    "Qwen3": ("Qwen3", {}),
    "Gemma": ("Gemma", {}),
    "Gemma2": ("Gemma2", _GEMMA),
    "Gemma3": ("Gemma3Text", _GEMMA),
    "Phi3": ("Phi3", _SLIDING),
    "Olmo2": ("Olmo2", {}),
    "SmolLM3": ("SmolLM3", {}),
    "Mixtral": ("Mixtral", _EXPERTS),
    "Qwen2Moe": ("Qwen2Moe", {**_EXPERTS, "shared_expert_intermediate_size": 24}),
    "Qwen3Moe": ("Qwen3Moe", _EXPERTS),
    "GptOss": ("GptOss", {**_EXPERTS, **_SLIDING, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}),
    "DeepseekV3": ("DeepseekV3", {**_EXPERTS, **_LATENT}),
    "Llama4": ("Llama4Text", {**_EXPERTS, "intermediate_size_mlp": 48}),
    "Cohere": ("Cohere", {"logit_scale": 1.0}),
    "Cohere2": ("Cohere2", {**_SOME_SLIDING, "logit_scale": 1.0}),
    "Granite": ("Granite", {"residual_multiplier": 0.5, "embedding_multiplier": 3.0}),
    "Glm4": ("Glm4", {}),
    "Starcoder2": ("Starcoder2", {}),
    "StableLm": ("StableLm", {"use_parallel_residual": True}),
    "Phi": ("Phi", {}),
    "GPTNeoX": ("GPTNeoX", {"head_dim": None, "num_key_value_heads": None}),
    "GPTJ": ("GPTJ", {"rotary_dim": 4}),
    "GPT2": ("GPT2", {}),
    "OPT": ("OPT", {"word_embed_proj_dim": 32, "ffn_dim": 48}),
    "Falcon": ("Falcon", {"head_dim": None, "num_key_value_heads": None}),
}


def specimen(family: str, **changes: Any) -> Any:
    """A random model, evaluated and frozen; the same seed gives the same weights.

    family: of FAMILIES, or another config class's name. changes: over its config.
    """
    import torch
    import transformers

    name, needs = FAMILIES.get(family, (family, {}))
    settings = {key: value for key, value in {**SIZES, **needs, **changes}.items() if value is not None}
    config = getattr(transformers, f"{name}Config")(**settings)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    for weight in model.parameters():
        # biases begin as zeros and norms as ones, and would hide what is done to them
        if weight.numel() and (weight == weight.flatten()[0]).all():
            weight += torch.randn_like(weight) * _SPREAD
    return model
