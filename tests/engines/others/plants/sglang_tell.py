"""Prints what became of a load as one line of JSON: what was seen meanwhile, and parameters as processed."""

import hashlib
import json
import sys

import torch

told = sys.loadscope_test_told
held = {n: p for n, p in model.named_parameters() if not isinstance(p, torch.nn.UninitializedParameter)}  # noqa: F821
held |= {n: b for n, b in model.named_buffers() if n.endswith("_dequant")}  # noqa: F821
made = {f"{n}.dequantized_weight": getattr(m, "dequantized_weight", None) for n, m in model.named_modules()}  # noqa: F821
held |= {name: one for name, one in made.items() if isinstance(one, torch.Tensor)}
of_bytes = {name: one.detach().contiguous().reshape(-1).view(torch.uint8) for name, one in held.items()}
told["processed"] = {name: hashlib.sha256(raw.numpy().tobytes()).hexdigest() for name, raw in of_bytes.items()}
print("TOLD " + json.dumps(told), flush=True)
