"""Between a latent video (C, T, H, W) and the tokens that the model reads (T, P, C x patch x patch)."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor


def grid_of(height: int, width: int, patch: int) -> tuple[int, int]:
    """Rows and columns of patches; an odd edge gets a patch that is part padding."""
    return -(-height // patch), -(-width // patch)


def patchify(latent: Float[Tensor, "C T H W"], patch: int) -> Float[Tensor, "T P V"]:
    """Cut into patches, values ordered (row in patch, column in patch, channel), channel fastest.

    Odd edges are padded with zeros at the bottom and on the right; `valid_values` says which values are real.
    """
    rows, cols = grid_of(latent.shape[2], latent.shape[3], patch)
    padded = F.pad(latent, (0, cols * patch - latent.shape[3], 0, rows * patch - latent.shape[2]))
    return rearrange(padded, "c t (h p) (w q) -> t (h w) (p q c)", p=patch, q=patch)


def unpatchify(
    tokens: Float[Tensor, "T P V"], height: int, width: int, patch: int
) -> Float[Tensor, "C T {height} {width}"]:
    """Inverse of `patchify`: padding is cut off again."""
    rows, cols = grid_of(height, width, patch)
    latent = rearrange(tokens, "t (h w) (p q c) -> c t (h p) (w q)", h=rows, w=cols, p=patch, q=patch)
    return latent[:, :, :height, :width]


def valid_values(channels: int, height: int, width: int, patch: int) -> Bool[Tensor, "P V"]:
    """True where `patchify` puts a value of the latent, False on its padding."""
    ones = torch.ones(channels, 1, height, width)
    return patchify(ones, patch)[0].bool()
