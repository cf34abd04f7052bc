"""Takes Qwen3.5's own mapping of fused names away, as it was where SGLang defined it for some hardware only."""

from sglang.srt.models import qwen3_5

for model in (qwen3_5.Qwen3_5ForCausalLM, qwen3_5.Qwen3_5ForConditionalGeneration):
    model.packed_modules_mapping = {}
