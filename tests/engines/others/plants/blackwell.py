"""Lets SGLang 0.5.23 take a machine without a GPU for one that has FP4 products; what it would copy there stays here.

Loading and post-processing are SGLang's own; of the runner of experts only the making is left out.
"""

import torch
from sglang.srt.runtime_context import override_platform

override_platform(is_blackwell=True, is_sm100=True).install()
torch.Tensor.cuda = lambda tensor, *_, **__: tensor
