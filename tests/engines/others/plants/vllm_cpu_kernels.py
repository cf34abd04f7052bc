"""Gives vLLM reference kernels for FP8 on a CPU, and its own emulation of NVFP4, by the lists it chooses from."""

import torch
import vllm._custom_ops as operators
from vllm.model_executor.kernels import linear
from vllm.model_executor.kernels.linear.scaled_mm.BlockScaledMMLinearKernel import Fp8BlockScaledMMLinearKernel
from vllm.model_executor.kernels.linear.scaled_mm.ScaledMMLinearKernel import FP8ScaledMMLinearKernel
from vllm.platforms import PlatformEnum

LARGEST = 448.0


def quantized(x, scale=None, use_per_token_if_dynamic=False, output=None, **_):
    values = x.float()
    if scale is None:
        largest = values.abs().amax(-1, keepdim=True) if use_per_token_if_dynamic else values.abs().max().reshape(1)
        scale = largest.clamp(min=1e-12) / LARGEST
    made = (values / scale.float()).clamp(-LARGEST, LARGEST).to(torch.float8_e4m3fn)
    return (made if output is None else output.copy_(made)), scale


class ReferenceBlocks(Fp8BlockScaledMMLinearKernel):
    apply_input_quant = False

    @classmethod
    def is_supported(cls, compute_capability=None):
        return True, None

    def process_weights_after_loading(self, layer):
        pass

    def apply_block_scaled_mm(self, A, B, As, Bs):  # noqa: N803 - vLLM's names
        rows, columns = self.weight_group_shape
        scales = Bs.repeat_interleave(rows, 0).repeat_interleave(columns, 1)[: B.shape[0], : B.shape[1]]
        return A.float() @ (B.float() * scales).t()


class ReferenceFloat8(FP8ScaledMMLinearKernel):
    @classmethod
    def is_supported(cls, compute_capability=None):
        return True, None

    @classmethod
    def can_implement(cls, c):
        return True, None

    def apply_scaled_mm(self, *, A, B, out_dtype, As, Bs, bias, output_shape):  # noqa: N803 - vLLM's names
        out = (A.float() * As.float()) @ (B.float() * (Bs.float().reshape(1, -1) if Bs.numel() > 1 else Bs.float()))
        return (out if bias is None else out + bias).to(out_dtype).view(*output_shape)


operators.scaled_fp8_quant = quantized
linear.register_linear_kernel(ReferenceFloat8, PlatformEnum.CPU, "fp8")
linear._POSSIBLE_FP8_BLOCK_KERNELS[PlatformEnum.CPU].append(ReferenceBlocks)
linear.register_linear_kernel(linear.EmulationNvFp4LinearKernel, PlatformEnum.CPU, "nvfp4")
