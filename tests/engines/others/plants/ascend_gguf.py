"""Makes SGLang choose its GGUF classes for the Ascend NPU, which dequantize after loading; a CPU runs them too."""

from gguf import dequantize
from sglang.srt.layers.quantization import gguf

gguf._is_npu = True
gguf.gguf_dequantize = dequantize
