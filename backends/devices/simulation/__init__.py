"""A simulated Ascend NPU: its tensors, its operators and what they refuse, over the memory of the CPU."""
