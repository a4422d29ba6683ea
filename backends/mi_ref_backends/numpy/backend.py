"""NumPy: the default backend, and the template for others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mi_ref.backend import Backend
from mi_ref.errors import BackendError
from mi_ref.ops.ops import standard_ops
from mi_ref_backends.numpy import (
    attention as numpy_attention,
    kernels as numpy_kernels,
    recurrence as numpy_recurrence,
)
from mi_ref_backends.numpy.erf import erf


def backend(device: str | int | None = None) -> Backend:
    """Return the NumPy backend; its only device is the CPU."""
    if device not in (None, "cpu"):
        raise BackendError(
            f"NumPy runs on the CPU, not on device {device!r}; backend='cupy' runs on a GPU."
        )
    return Backend(
        name="numpy",
        device=None,
        xp=np,
        from_host=np.asarray,
        to_host=np.asarray,
        ops=replace(
            standard_ops(np, erf),
            lay_out=numpy_kernels.lay_out,
            embed=numpy_kernels.embed,
            linear=numpy_kernels.linear,
            unembed=numpy_kernels.unembed,
            center=numpy_kernels.center,
            rms_scale=numpy_kernels.rms_scale,
            rms_norm=numpy_kernels.rms_norm,
            activation=numpy_kernels.activation,
            gate=numpy_kernels.gate,
            rotate=numpy_kernels.rotate,
            soft_cap=numpy_attention.soft_cap,
            attention_scores=numpy_attention.attention_scores,
            softmax=numpy_attention.softmax,
            attention_pattern=numpy_attention.attention_pattern,
            mix_values=numpy_attention.mix_values,
            attention=numpy_attention.attention,
            recurrence=numpy_recurrence.recurrence,
        ),
        version=np.__version__,
    )
