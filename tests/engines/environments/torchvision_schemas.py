"""Lets torchvision's build for GPUs be imported beside a torch for CPUs: put into an environment, run at every start.

When it is imported it describes its operators to torch, which asks for schemas that only its compiled part brings.
"""

import sys

_kept = []  # torch forgets an operator when its library object goes


class _Watch:
    """Finds nothing: declares the operators just before torchvision is first imported."""

    def find_spec(self, name, path=None, target=None):
        if name != "torchvision" or _kept:
            return
        import torch

        _kept.append(torch.library.Library("torchvision", "FRAGMENT"))
        for operator in ("nms", "qnms"):
            if not hasattr(torch.ops.torchvision, operator):
                _kept[0].define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


sys.meta_path.insert(0, _Watch())
