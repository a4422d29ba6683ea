"""A model's methods for text: to tokens and back, named as in TransformerLens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, cast

from mi_ref._typing import Array, Int
from mi_ref.backend import Backend
from mi_ref.config.decoder import DecoderConfig
from mi_ref.errors import ArgumentError, TokenError
from mi_ref.text.chat import Messages
from mi_ref.text.padding import Batch, PaddingSide, pad
from mi_ref.text.tokenizer import Tokenizer

Prompt: TypeAlias = str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]] | Array
"""Text, several texts, or token ids ``[pos]`` or ``[batch, pos]``, rows of any lengths."""

_NO_PROMPT = (
    "{!r} is not a token id: expected text, integers [pos] or [batch, pos], or, with"
    " start_at_layer=, a residual stream."
)


class TextMethods:
    """Text to tokens and back; token ids are accepted wherever text is."""

    __slots__ = ()

    cfg: DecoderConfig
    backend: Backend
    tokenizer: Tokenizer

    def to_tokens(
        self, prompt: Prompt | Messages, *, prepend_bos: bool | None = None, chat: bool = False
    ) -> Int[Array, "batch pos"]:
        """Return token ids, checked, on the model's device.

        Parameters
        ----------
        prompt
            Text or ids; with `chat`, a conversation.
        prepend_bos : bool or None
            Whether text gets a beginning-of-sequence token; None: as the checkpoint's own
            tokenizer does. Token ids get none.
        chat : bool
            Whether `prompt` is a conversation for :meth:`chat`.

        Raises
        ------
        TokenError
            If the prompt is empty, ids are not integers or are out of range, or rows differ in
            length.
        ArgumentError
            If `prepend_bos` is given with `chat`.
        """
        if chat:
            if prepend_bos is not None:
                raise ArgumentError(
                    f"prepend_bos={prepend_bos} with chat=True: the chat template writes special"
                    " tokens itself. Leave prepend_bos out."
                )
            return self.chat(cast("Messages", prompt))
        rows = self._checked(self._rows(prompt, prepend_bos))
        lengths = sorted({len(row) for row in rows})
        if len(lengths) > 1:
            raise TokenError(
                f"the prompts have {', '.join(map(str, lengths))} tokens: one array needs rows of"
                " equal length. Pass the prompts to model.run, which pads them, or use"
                " model.to_batch."
            )
        return self._array(rows)

    def to_batch(
        self,
        prompts: Prompt,
        *,
        padding_side: PaddingSide = "right",
        prepend_bos: bool | None = None,
    ) -> Batch:
        """Return the padded token ids of prompts of any length, and where each row's tokens are.

        Parameters
        ----------
        prompts
            Text or ids, as for `to_tokens`.
        padding_side : {"right", "left"}
            Where the pads go. No token sees them, and positions count from each row's first token,
            so each row gives the result it would give alone.
        prepend_bos : bool or None
            As for `to_tokens`.
        """
        rows = self._checked(self._rows(prompts, prepend_bos))
        filled, padding = pad(rows, padding_side, pad_id=0)
        return Batch(self._array(filled), padding)

    def chat(
        self,
        messages: Messages,
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        template: str | None = None,
        **variables: Any,
    ) -> Int[Array, "1 pos"]:
        """Return the token ids of a conversation, ready for ``run``.

        The checkpoint's own chat template writes all of them, special tokens included.
        The parameters are those of :meth:`.Tokenizer.render_chat`, which returns the text.

        Raises
        ------
        TokenError
            If there is no template, messages are malformed, or the template refuses them.
        """
        text = self.tokenizer.render_chat(
            messages,
            add_generation_prompt=add_generation_prompt,
            tools=tools,
            template=template,
            **variables,
        )
        return self.to_tokens(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def to_string(self, tokens: Prompt) -> Any:
        """Return the text of ids ``[pos]``, or a list of texts for ``[batch, pos]``."""
        rows = _nested(tokens, self.backend)
        if rows and isinstance(rows[0], list):
            return [self.tokenizer.decode(row) for row in rows]
        return self.tokenizer.decode(rows)

    def to_str_tokens(self, prompt: Prompt, *, prepend_bos: bool | None = None) -> Any:
        """Return each token as text: a list, or a list of lists for several prompts."""
        rows = self._rows(prompt, prepend_bos)
        texts = [[self.token_string(token) for token in row] for row in rows]
        return texts[0] if len(texts) == 1 else texts

    def to_single_token(self, text: str) -> int:
        """Return the id of a text that is exactly one token.

        Raises
        ------
        TokenError
            If it is not. The message lists its pieces.
        """
        return self.tokenizer.single_id(text)

    def token_string(self, token: int) -> str:
        """Return one token as text; an id unknown to the tokenizer is shown as ``<id 9>``."""
        return self.tokenizer.shown(token)

    def get_token_position(
        self,
        single_token: str | int,
        prompt: Prompt,
        *,
        mode: Literal["first", "last"] = "first",
        prepend_bos: bool | None = None,
    ) -> int:
        """Return the position of a token in a prompt: its first or its last.

        Raises
        ------
        TokenError
            If the token does not occur, or the prompt is a batch.
        ArgumentError
            If `mode` is neither ``"first"`` nor ``"last"``.
        """
        if mode not in ("first", "last"):
            raise ArgumentError(f"mode={mode!r}: expected 'first' or 'last'.")
        wanted = (
            self.to_single_token(single_token) if isinstance(single_token, str) else single_token
        )
        rows = self._rows(prompt, prepend_bos)
        if len(rows) != 1:
            raise TokenError(
                f"expected one prompt, got {len(rows)}: call get_token_position for each."
            )
        places = [place for place, token in enumerate(rows[0]) if token == wanted]
        if not places:
            shown = [self.token_string(token) for token in rows[0]]
            raise TokenError(f"{single_token!r} (id {wanted}) does not occur in {shown}.")
        return places[0] if mode == "first" else places[-1]

    def _array(self, rows: list[list[int]]) -> Int[Array, "batch pos"]:
        xp = self.backend.xp
        return xp.asarray(rows, dtype=xp.int64, device=self.backend.device)

    def _checked(self, rows: list[list[int]]) -> list[list[int]]:
        """Return `rows` if all of them are prompts of this model."""
        if not rows or not all(rows):
            raise TokenError("the prompt is empty: a forward pass needs at least one token.")
        d_vocab = self.cfg.d_vocab
        outside = sorted({token for row in rows for token in row if not 0 <= token < d_vocab})
        if outside:
            raise TokenError(
                f"token ids {outside[:8]} are out of range: this model's d_vocab is {d_vocab}."
                " Were they made by another model's tokenizer?"
            )
        return rows

    def _rows(self, prompt: Prompt, prepend_bos: bool | None) -> list[list[int]]:
        if isinstance(prompt, str):
            return [list(self.tokenizer.encode(prompt, prepend_bos=prepend_bos).ids)]
        scalar = getattr(prompt, "shape", None) == ()
        if scalar or not (hasattr(prompt, "dtype") or isinstance(prompt, Sequence)):
            raise TokenError(_NO_PROMPT.format(prompt))
        if isinstance(prompt, bytes | bytearray):
            raise TokenError(
                f"expected text or token ids, got bytes {prompt!r}: decode them first."
            )
        values = _nested(prompt, self.backend)
        if values and all(isinstance(value, str) for value in values):
            return [list(self.tokenizer.encode(v, prepend_bos=prepend_bos).ids) for v in values]
        rows = values if values and isinstance(values[0], list) else [values]
        wrong = [t for row in rows for t in row if isinstance(t, bool) or not isinstance(t, int)]
        if wrong:
            raise TokenError(_NO_PROMPT.format(wrong[0]))
        return rows


def _nested(values: Any, backend: Backend) -> list[Any]:
    """Return arrays and sequences as plain nested lists."""
    if hasattr(values, "dtype"):
        listed = values.tolist() if hasattr(values, "tolist") else backend.to_host(values).tolist()
        return listed if isinstance(listed, list) else [listed]
    return [_nested(v, backend) if isinstance(v, list | tuple) else _plain(v) for v in values]


def _plain(value: Any) -> Any:
    """Convert a library's integer to a Python int; return anything else unchanged."""
    own = value.tolist() if hasattr(value, "tolist") else value
    return own if isinstance(own, str | bool) or not hasattr(own, "__index__") else int(own)
