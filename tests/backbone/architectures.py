"""Tiny random models of many architectures, and what each is found to do."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

LLAMA = {
    "vocab_size": 259,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GPT = {"vocab_size": 259, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128, "eos_token_id": 2}
PLAIN = {"vocab_size": 259, "hidden_size": 32, "num_hidden_layers": 2, "eos_token_id": 2}
SLIDING = {"sliding_window": 16}
EXPERTS = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16}
LOCAL = {"vocab_size": 259, "hidden_size": 32, "num_layers": 2, "num_heads": 4, "eos_token_id": 2} | {
    "attention_types": [[["global", "local"], 1]],
    "window_size": 16,
    "max_position_embeddings": 128,
}

# What the trials find: (readout, whether a cached beginning is used again, whether prompts are padded to decode).
USUAL, SCALED = ("head", True, True), ("tail", True, True)
IN_PLACES, WHOLE_TEXTS = ("head", True, False), ("head", False, False)

ARCHITECTURES: dict[str, tuple[dict[str, Any], tuple[str, bool, bool]]] = {
    "llama": (LLAMA, USUAL),
    "mistral": (LLAMA | SLIDING, USUAL),
    "mixtral": (LLAMA | {"num_local_experts": 2}, USUAL),
    "qwen2": (LLAMA, USUAL),
    "qwen3": (LLAMA, USUAL),
    "qwen2_moe": (LLAMA | EXPERTS | {"shared_expert_intermediate_size": 16}, USUAL),
    "gemma": (LLAMA, USUAL),
    "gemma2": (LLAMA | SLIDING | {"final_logit_softcapping": 2.0}, SCALED),
    "gemma3_text": (LLAMA | SLIDING, USUAL),
    "cohere": (LLAMA | {"logit_scale": 0.25}, SCALED),
    "cohere2": (LLAMA | SLIDING | {"logit_scale": 0.25}, SCALED),
    "granite": (LLAMA | {"logits_scaling": 4.0, "embedding_multiplier": 3.0}, SCALED),
    "phi": (LLAMA, USUAL),
    "phi3": (LLAMA | SLIDING, USUAL),
    "stablelm": (LLAMA, USUAL),
    "olmo": (LLAMA, USUAL),
    "olmo2": (LLAMA, USUAL),
    "smollm3": (LLAMA, USUAL),
    "exaone4": (LLAMA | SLIDING | {"sliding_window_pattern": 2}, USUAL),
    "glm": (LLAMA, USUAL),
    "glm4": (LLAMA, USUAL),
    "nemotron": (LLAMA, USUAL),
    "starcoder2": (LLAMA, USUAL),
    "helium": (LLAMA, USUAL),
    "modernbert-decoder": (
        LLAMA | {"local_attention": 16, "global_attn_every_n_layers": 2, "cls_token_id": 1, "sep_token_id": 2},
        SCALED,
    ),
    "gpt2": (GPT, USUAL),
    "gptj": (GPT | {"rotary_dim": 4}, USUAL),
    "codegen": (GPT | {"rotary_dim": 4, "n_ctx": 128}, USUAL),
    "gpt_bigcode": (GPT, USUAL),
    "gpt_neox": (LLAMA, USUAL),
    "gpt_neo": (LOCAL, IN_PLACES),
    "opt": (LLAMA | {"ffn_dim": 48, "word_embed_proj_dim": 16}, USUAL),
    "bloom": ({"vocab_size": 259, "hidden_size": 32, "n_layer": 2, "n_head": 4}, IN_PLACES),
    "mpt": ({"vocab_size": 259, "d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 128}, IN_PLACES),
    "falcon": (PLAIN | {"num_attention_heads": 4}, USUAL),
    "falcon with alibi": (PLAIN | {"num_attention_heads": 4, "alibi": True}, IN_PLACES),
    "gpt_oss": (LLAMA | SLIDING | {"num_local_experts": 2, "num_experts_per_tok": 1}, IN_PLACES),
    "mamba": (PLAIN | {"state_size": 4}, WHOLE_TEXTS),
    "mamba2": (PLAIN | {"state_size": 4, "head_dim": 8, "num_heads": 8, "n_groups": 1, "chunk_size": 8}, WHOLE_TEXTS),
    "rwkv": (PLAIN | {"attention_hidden_size": 32, "intermediate_size": 48, "context_length": 128}, WHOLE_TEXTS),
    "xlstm": (PLAIN | {"hidden_size": 64, "num_heads": 4, "qk_dim_factor": 1.0}, ("tail", False, False)),
    "lfm2": (LLAMA | {"layer_types": ["conv", "full_attention"]}, WHOLE_TEXTS),
    "jamba": (
        LLAMA
        | {"num_experts": 2, "attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2}
        | {"mamba_d_state": 4, "mamba_dt_rank": 2, "use_mamba_kernels": False},
        WHOLE_TEXTS,
    ),
}

# Texts in one row need not be kept apart: a state goes on from one to the next, or, in transformers 4, the mask is not
# made from position ids.
NOT_PACKED = {"stablelm", "nemotron", "qwen2_moe", "gptj", "codegen", "gpt_neo", "opt", "bloom", "mpt", "falcon"} | {
    *("gpt_oss", "mamba", "mamba2", "rwkv", "xlstm", "lfm2", "jamba")
}


def tiny_architecture(name: str, settings: dict[str, Any], attention: str = "eager"):
    """A model with weights large enough that its predictions differ from place to place."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(name.split()[0], **settings)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape), alpha=0.1)
    return model.requires_grad_(False)
