"""The state of RWKV-7's heads, read at every place: step by step, and in chunks for training.

The chunks turn most of the work into matrix products, which makes training on a CPU feasible;
autograd differentiates through them.

Source: the recurrence of RWKV-7 "Goose" (arXiv 2503.14456), section 4.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

CHUNK = 32
"""Places computed at once. The smallest decay, 0.545, to this power still has a float32 inverse
with room to spare, and that is what limits it."""
DECAY_FLOOR = -math.exp(-0.5)
"""The logarithm of the smallest decay."""


class Drive(NamedTuple):
    """What drives the state of the heads, each of shape ``(batch, n_heads, places, d_head)``.

    At each place the state, whose rows are keys and whose columns are values, becomes
    ``diag(exp(log_decay)) S + key value' - erase (look' S)``, and is read as ``query' S``.
    """

    query: Tensor
    log_decay: Tensor
    key: Tensor
    value: Tensor
    look: Tensor
    erase: Tensor


def step_by_step(drive: Drive) -> Tensor:
    """Read the state at every place, from the definition: one place after the other."""
    state = drive.key.new_zeros(*drive.key.shape[:2], drive.key.shape[3], drive.value.shape[3])
    reads = []
    for query, log_decay, key, value, look, erase in zip(
        *(each.unbind(2) for each in drive), strict=True
    ):
        found = torch.einsum("bhk,bhkv->bhv", look, state)
        state = log_decay.exp()[..., None] * state
        state = (
            state + key[..., None] * value[..., None, :] - erase[..., None] * found[..., None, :]
        )
        reads.append(torch.einsum("bhk,bhkv->bhv", query, state))
    return torch.stack(reads, dim=2)


def read_chunk(drive: Drive, state: Tensor) -> tuple[Tensor, Tensor]:
    """Read the state at every place of one chunk.

    What place s wrote has decayed by the time t reads it, by a quotient of cumulative products.
    Each factor goes to its own side, so that all pairs (t, s) come out of one matrix product.
    What each place finds in order to erase it depends on what the places before it erased: that
    is a triangular system of equations.

    Parameters
    ----------
    drive : Drive
        The places of the chunk.
    state : Tensor
        Before the chunk, shape ``(batch, n_heads, d_head, d_head)``.

    Returns
    -------
    reads, state
        What was read, of the shape of ``drive.value``, and the state after the chunk.
    """
    places = drive.key.shape[2]
    log_product = drive.log_decay.cumsum(2)
    product, inverse = log_product.exp(), (-log_product).exp()
    # Looking happens before the decay of its own place.
    looks = drive.look * (log_product - drive.log_decay).exp()
    askers = torch.cat([looks, drive.query * product], dim=2)
    writers = torch.cat([drive.key, drive.erase], dim=2) * inverse.repeat(1, 1, 2, 1)
    # Looking happens before the writing of its own place too, reading after it.
    earlier = torch.ones(places, places, dtype=state.dtype).tril(-1)
    visible = torch.cat([earlier, earlier + torch.eye(places)]).repeat(1, 2)
    pairs = (askers @ writers.mT) * visible
    from_before = askers @ state
    look_key, look_erase = pairs[:, :, :places].split(places, dim=-1)
    found = torch.linalg.solve_triangular(
        look_erase,
        look_key @ drive.value + from_before[:, :, :places],
        upper=False,
        unitriangular=True,
    )
    written = torch.cat([drive.value, -found], dim=2)
    reads = pairs[:, :, places:] @ written + from_before[:, :, places:]
    return reads, product[:, :, -1, :, None] * (state + writers.mT @ written)


def read_all(drive: Drive) -> Tensor:
    """Read the state at every place, chunk by chunk; the same as `step_by_step`."""
    state = drive.key.new_zeros(*drive.key.shape[:2], drive.key.shape[3], drive.value.shape[3])
    reads = []
    for chunk in zip(*(each.split(CHUNK, dim=2) for each in drive), strict=True):
        read, state = read_chunk(Drive(*chunk), state)
        reads.append(read)
    return torch.cat(reads, dim=2)


def check_chunks() -> float:
    """Compare `read_all` with `step_by_step` in float64 on random input with the fastest decay.

    Returns
    -------
    float
        The largest difference, relative to the largest value read.

    Raises
    ------
    ArithmeticError
        If it is above 1e-10.
    """
    generator = torch.Generator().manual_seed(0)
    query, key, value, look, decay, rate = torch.randn(
        6, 2, 3, 2 * CHUNK + 5, 8, generator=generator, dtype=torch.float64
    ).unbind(0)
    look = normalize(look, dim=-1)
    log_decay = DECAY_FLOOR * (4 * decay).sigmoid()
    drive = Drive(query, log_decay, key, value, look, look * rate.sigmoid())
    expected = step_by_step(drive)
    error = float((read_all(drive) - expected).abs().max() / expected.abs().max())
    if not error <= 1e-10:
        raise ArithmeticError(
            f"Chunks differ from single steps by {error:.1e}, relative to the largest value;"
            " at most 1e-10 was expected. Look for the mistake in read_chunk before training."
        )
    return error
