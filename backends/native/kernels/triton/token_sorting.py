"""Which choices of experts, one per token and place, a tile of a grouped product computes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SortedChoices:
    """Choices in order of their expert, each expert's filled up to whole tiles.

    `slots` [tiles * tile_m] are numbers of choices (token * top_k + place), or their count where a tile is not full;
    `experts` [tiles] is the expert of each tile, or the number of experts for tiles that are not needed.
    """

    slots: Tensor
    experts: Tensor
    tile_m: int

    @property
    def tiles(self) -> int:
        """How many rows of tiles to launch: enough for any distribution, known without asking the device."""
        return self.experts.shape[0]


def sort_by_expert(topk_ids: Tensor, experts: int, tile_m: int) -> SortedChoices:
    """Sort `topk_ids` [tokens, top_k], all from 0 to `experts` - 1; the device is never waited for."""
    chosen = topk_ids.flatten().long()
    count, device = chosen.shape[0], chosen.device
    order = chosen.argsort(stable=True)
    counts = torch.zeros(experts, dtype=torch.long, device=device).scatter_add_(0, chosen, torch.ones_like(chosen))
    padded = (counts + tile_m - 1) // tile_m * tile_m
    ends = padded.cumsum(0)
    before = (ends - padded) - (counts.cumsum(0) - counts)
    place = torch.arange(count, device=device) + before[chosen[order]]
    tiles = count // tile_m + min(experts, count)
    slots = torch.full((tiles * tile_m,), count, dtype=torch.long, device=device)
    slots[place] = order
    starts = torch.arange(tiles, device=device) * tile_m
    return SortedChoices(slots, torch.searchsorted(ends, starts, right=True), tile_m)
