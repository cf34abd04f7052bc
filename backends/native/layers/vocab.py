"""The embedding and the output head, split by vocabulary among the ranks and padded where it does not divide."""

from __future__ import annotations

import math

from torch import Tensor, nn

from backends.native.layers.build import Build
from backends.native.layers.parameter import ModelParameter, copy_checked, require_size
from backends.native.parallel.groups import all_gather, all_reduce, tp_rank, tp_size
from backends.native.quantization.config import LinearMethod

PADDING = 64


class VocabParallelEmbedding(nn.Module):
    """Rank r holds rows [r * size, (r + 1) * size) of the padded vocabulary."""

    quant_method: LinearMethod[VocabParallelEmbedding]
    weight: ModelParameter

    def __init__(self, vocab_size: int, hidden_size: int, *, build: Build, prefix: str) -> None:
        super().__init__()
        self.prefix = prefix
        self.vocab_size = vocab_size
        unit = math.lcm(PADDING, tp_size())
        self.padded_vocab_size = -(-vocab_size // unit) * unit
        self.vocab_size_per_partition = self.padded_vocab_size // tp_size()
        self.first_id = tp_rank() * self.vocab_size_per_partition
        self.quant_method = build.quant_config.get_quant_method(self, prefix)
        self.quant_method.create_weights(
            self,
            hidden_size,
            [self.vocab_size_per_partition],
            hidden_size,
            self.padded_vocab_size,
            build.params_dtype,
            weight_loader=self.weight_loader,
            kernels=build.kernels,
            keeps_quantized_blocks=build.keeps_quantized_blocks,
        )

    def weight_loader(self, param: ModelParameter, loaded_weight: Tensor) -> None:
        """Copy this rank's rows; rows past the vocabulary become zero. Raises ShapeError."""
        require_size(loaded_weight, 0, self.vocab_size, param.full_name)
        start = min(self.first_id, self.vocab_size)
        rows = min(self.vocab_size_per_partition, self.vocab_size - start)
        copy_checked(param.data.narrow(0, 0, rows), loaded_weight.narrow(0, start, rows), param.full_name)
        param.data[rows:].zero_()

    def forward(self, input_ids: Tensor) -> Tensor:
        """int64 [tokens] -> [tokens, hidden_size]."""
        local_ids = input_ids - self.first_id
        is_here = (local_ids >= 0) & (local_ids < self.vocab_size_per_partition)
        rows = self.quant_method.embedding(self, local_ids.where(is_here, 0))
        return all_reduce(rows * is_here.unsqueeze(-1))


class ParallelLMHead(VocabParallelEmbedding):
    """The embedding's layout, used as a projection to logits."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[tokens, hidden_size] -> logits [tokens, vocab_size], whole on every rank."""
        return all_gather(self.quant_method.apply(self, hidden_states))[..., : self.vocab_size]

    def tie_weights(self, embedding: VocabParallelEmbedding) -> None:
        """Use the embedding's parameters, and its method with them."""
        self.quant_method = embedding.quant_method
        for name, _ in list(self.named_parameters(recurse=False)):
            delattr(self, name)
        for name, parameter in embedding.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
