"""Changes published tensors as a converter to GGUF does: names, order of heads, and what ggml computes beforehand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from backends.native.checkpoint.gguf_layout import GgmlLayout
from backends.native.checkpoint.gguf_names import IN_LAYER, OUTER, WITHOUT_SUFFIX

Named = tuple[str, Tensor]
NORM_BEFORE_FEED_FORWARD = "post_attention_layernorm"


def converted(published: Iterable[Named], fields: Mapping[str, Any], layout: GgmlLayout) -> Iterator[Named]:
    """(name as published, tensor) -> (name in the file, float32 tensor), experts stacked; `fields` of config.json."""
    conversion, experts = _Conversion(fields, layout), dict[str, list[Tensor]]()
    for name, tensor in published:
        plain = name.replace("model.language_model.", "model.")
        for inner, part in conversion.parts(plain, tensor.float()):
            outer, _, rest = inner.partition(".experts.")
            number, _, proj = rest.partition(".")
            if not number.isdecimal():
                yield conversion.file_name(inner), part.contiguous()
                continue
            stack = experts.setdefault(f"{outer}.experts.{proj}", [])
            stack.append(part)
            if len(stack) == fields["num_experts"]:
                yield conversion.file_name(f"{outer}.experts.{proj}"), torch.stack(stack)


@dataclass(frozen=True)
class _Conversion:
    fields: Mapping[str, Any]
    layout: GgmlLayout

    @property
    def has_delta_net(self) -> bool:
        return "linear_num_value_heads" in self.fields

    @property
    def key_heads(self) -> int:
        return int(self.fields["linear_num_key_heads"])

    @property
    def values_per_key(self) -> int:
        return int(self.fields["linear_num_value_heads"]) // self.key_heads

    def parts(self, name: str, tensor: Tensor) -> Iterator[Named]:
        module = name.removesuffix(".weight")
        if module.endswith("experts.gate_up_proj"):
            gate, up = tensor.chunk(2, dim=1)
            yield f"{module.removesuffix('gate_up_proj')}gate_proj.weight", gate
            yield f"{module.removesuffix('gate_up_proj')}up_proj.weight", up
        elif module.endswith("experts.down_proj"):
            yield f"{module}.weight", tensor
        elif module.endswith("in_proj_qkvz"):
            yield from self._unpacked(module.removesuffix("qkvz"), tensor)
        elif module.endswith("shared_expert_gate"):
            yield name, tensor.squeeze(0)
        else:
            yield name, self._changed(name, tensor)

    def _changed(self, name: str, tensor: Tensor) -> Tensor:
        proj = name.removesuffix(".weight").rpartition(".")[2]
        if self.layout.are_heads_interleaved and (".q_proj." in name or ".k_proj." in name):
            return self._interleaved(tensor)
        if proj.endswith("norm") and self.layout.are_norms_shifted and "linear_attn.norm" not in name:
            return tensor + 1
        if proj == "conv1d":
            tensor = tensor.squeeze(1)
        if proj == "A_log":
            tensor = -tensor.exp()
        if self.layout.are_value_heads_tiled and ".linear_attn." in name:
            return self._with_value_heads_tiled(proj, tensor)
        return tensor

    def _interleaved(self, tensor: Tensor) -> Tensor:
        """Each head's first half of rows between its second half."""
        head_dim = self.fields["head_dim"]
        heads = torch.split(tensor, head_dim)
        return torch.cat([torch.stack(head.chunk(2), dim=1).reshape(head.shape) for head in heads])

    def _with_value_heads_tiled(self, proj: str, tensor: Tensor) -> Tensor:
        size = self.fields["linear_value_head_dim"]
        if proj in ("in_proj_a", "in_proj_b", "A_log", "dt_bias"):
            return self._tiled(tensor, 1)
        if proj == "in_proj_z":
            return self._tiled(tensor, size)
        if proj in ("in_proj_qkv", "conv1d"):
            keys = 2 * self.key_heads * self.fields["linear_key_head_dim"]
            return torch.cat((tensor[:keys], self._tiled(tensor[keys:], size)))
        return self._tiled(tensor.t(), size).t() if proj == "out_proj" else tensor

    def _tiled(self, tensor: Tensor, size: int) -> Tensor:
        """The first value head of each key head, then the second of each, and so on."""
        heads = torch.split(tensor, size)
        order = [key * self.values_per_key + n for n in range(self.values_per_key) for key in range(self.key_heads)]
        return torch.cat([heads[head] for head in order])

    def _unpacked(self, stem: str, tensor: Tensor) -> Iterator[Named]:
        """One group per key head, with its query, key, values and gates, as all queries, all keys, all values."""
        keys = self.fields["linear_key_head_dim"]
        values = self.values_per_key * self.fields["linear_value_head_dim"]
        groups = [torch.split(group, [keys, keys, values, values]) for group in tensor.chunk(self.key_heads)]
        yield f"{stem}qkv.weight", torch.cat([group[part] for part in range(3) for group in groups])
        yield f"{stem}z.weight", torch.cat([group[3] for group in groups])

    def file_name(self, name: str) -> str:
        """The name in the file of the model's tensor `name`."""
        outer = {value: key for key, value in OUTER.items()}
        if name in outer:
            return outer[name]
        _, _, layer, rest = name.split(".", 3)
        without_suffix = {value: key for key, value in WITHOUT_SUFFIX.items()}
        if rest in without_suffix:
            return f"blk.{layer}.{without_suffix[rest]}"
        module, _, suffix = rest.rpartition(".")
        known = {value: key for key, value in IN_LAYER.items()}
        # Both stand for the norm before the feed-forward block: with a delta net it is called after what it follows.
        known[NORM_BEFORE_FEED_FORWARD] = "post_attention_norm" if self.has_delta_net else "ffn_norm"
        return f"blk.{layer}.{known[module]}.{suffix}"
