"""A causal language model in two steps, body and readout, that together give the model's own logits.

Every pass, the tuner and the engines read a model through this one object, so that none of them knows how an
architecture makes its logits, keeps its past or looks back.
"""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers.utils import ModelOutput
from transformers.utils import logging as library_logging

from winnow.backbone.grouped_attention import grouped
from winnow.errors import UserError, out_of_memory

log = logging.getLogger(__name__)
library_logging._tqdm_active = False  # no bar for each model that is loaded or saved; downloads keep theirs

# How architectures name the span that a token looks back over, and the number of positions that they know.
WINDOWS = ("sliding_window", "window_size", "attention_window_size", "attention_chunk_size")
POSITIONS = ("max_position_embeddings", "max_seq_len")
# Largest difference that is rounding, as a share of the largest value (ours).
ROUNDING = {torch.float32: 1e-4, torch.float64: 1e-4}
ROUNDING_HALF = 3e-2


@dataclass
class _Findings:
    """What the trials on one model found. readout: `head`, `tail` or `whole`; see `CausalModel`. late: the first state
    that the model lists is what block 1 puts out, not what it is given."""

    readout: str
    embeds: bool
    late: bool = False
    reuse: bool | None = None
    padding: bool | None = None
    packing: bool | None = None


_FINDINGS: WeakKeyDictionary[nn.Module, _Findings] = WeakKeyDictionary()


class CausalModel:
    """`model` as hidden states and a map from their rows to logits.

        logits(hidden(input_ids=ids)) = model(input_ids=ids).logits

    The equation is tried on random ids when a model is first met, and the quickest readout for which it holds is used:
    `head`, the language-model head alone; `tail`, all that the model does with the states of its body (scaling and
    capping included); `whole`, the model's whole forward, whose logits then travel beside the states. What a model can
    do besides (embeddings as inputs, going on from a repeated cache, padding between prompt and answer) is tried
    likewise, when it is first asked for. Trials are kept as long as the model lives.

    model: a transformers model, also inside a peft wrapper. name: of the backbone, for messages.
    Raises UserError if the model has no head, looks ahead, or gives logits that are not finite.
    """

    def __init__(self, model: nn.Module, name: str | None = None) -> None:
        # A peft wrapper's own forward hides the arguments that it passes on.
        given: Any = model
        self.model = given.get_base_model() if hasattr(given, "get_base_model") else given
        self.name = name or self.model.config.name_or_path or type(self.model).__name__
        self.head = self.model.get_output_embeddings()
        if self.head is None:
            raise UserError(f"backbone.name={self.name} has no language-model head, so answers cannot be scored.")
        self.body = body_of(self.model)
        self.embed = self.model.get_input_embeddings()
        # A cache that nobody asked for costs memory, and some hold what the text before left there.
        self._plain = {"use_cache": False} if "use_cache" in inspect.signature(self.body.forward).parameters else {}
        if self.model not in _FINDINGS:
            _FINDINGS[self.model] = self._tried()
        self._found = _FINDINGS[self.model]

    @property
    def config(self) -> Any:
        return self.body.config

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def run(
        self, past: DynamicCache | None = None, layers: Sequence[int] = (), **inputs
    ) -> tuple[Tensor, list[Tensor]]:
        """(hidden states, those of `layers`), each (batch, length, width).

        past: keys and values to go on from and to add to. layers: 0 for the input embeddings, k for what block k puts
        out, -1 for the final states. inputs: those of the model's forward. A row of the first result is what `logits`
        takes; `vectors` makes the state of it.
        """
        if "inputs_embeds" in inputs and not self._found.embeds:
            raise UserError(
                f"backbone.name={self.name} gives other logits when its own embeddings are its input, so nothing can "
                f"be added to them: this method or adversary needs another backbone."
            )
        whole = self._found.readout == "whole"
        if past is not None:
            inputs |= {"past_key_values": past, "use_cache": True}
        else:
            if self._knows_causal and not inputs.keys() & {"attention_mask", "position_ids"}:
                given = next(iter(inputs.values()))
                inputs["attention_mask"] = given.new_ones(given.shape[:2], dtype=torch.long)
            inputs |= self._plain
        if layers or whole:
            inputs["output_hidden_states"] = True
        try:
            out = (self.model if whole else self.body)(**inputs)
        except BaseException:
            _let_go(self.model)
            raise
        hidden = torch.cat([out.hidden_states[-1], out.logits], dim=-1) if whole else out[0]
        if not layers:
            return hidden, []
        # Some bodies list their last state before its norm.
        states = [*out.hidden_states[:-1], self.vectors(hidden)]
        if self._found.late:
            given = inputs["inputs_embeds"] if "inputs_embeds" in inputs else self.embed(inputs["input_ids"])
            states = [given, *states[:-2], states[-1]]
        return hidden, [states[layer] for layer in layers]

    def hidden(self, past: DynamicCache | None = None, **inputs) -> Tensor:
        """(batch, length, width): what `logits` reads; see `run`."""
        return self.run(past, **inputs)[0]

    def packed(self, places: Tensor, **inputs: Tensor) -> Tensor:
        """(tokens, width): what `hidden` gives at these places of a padded batch, run without padding as one row.

        places: (tokens,) in the flattened (batch * length), of every token and of no padding, in order. inputs:
        `input_ids` (batch, length) or `inputs_embeds` (batch, length, width), padded on the right. By its position ids,
        which begin at 0 for each text, attention tells the texts apart. For models with `packing`.
        """
        row: dict[str, Any] = {
            name: table.flatten(0, 1).index_select(0, places)[None] for name, table in inputs.items()
        }
        length = next(iter(inputs.values())).shape[1]
        return self.hidden(**row, position_ids=(places % length)[None])[0]

    def vectors(self, hidden: Tensor) -> Tensor:
        """The final hidden states, after the last norm, in what `hidden` gave."""
        return hidden[..., : self._width] if self._found.readout == "whole" else hidden

    def logits(self, rows: Tensor) -> Tensor:
        """(rows, vocabulary) of rows (rows, width) of `hidden`."""
        if self._found.readout == "head":
            return self.head(rows)
        return self._tail(rows) if self._found.readout == "tail" else rows[..., self._width :]

    def check_layers(self, layers: Collection[int], setting: str) -> None:
        """Raises UserError if the model has no hidden states of one of the layers, which `setting` names, or if their
        widths differ."""
        count = self.config.num_hidden_layers
        for layer in layers:
            if not -count - 1 <= layer <= count:
                raise UserError(
                    f"{setting}: layer {layer} does not exist; backbone.name={self.name} has {count} blocks, so give 0 "
                    f"(input embeddings) to {count}, or -1 (final state) to {-count - 1}."
                )
        final = {layer in (-1, count) for layer in layers}
        if len(final) == 2 and getattr(self.config, "word_embed_proj_dim", None) not in (None, self.config.hidden_size):
            raise UserError(
                f"{setting}: the final state of backbone.name={self.name} has {self.config.word_embed_proj_dim} "
                f"numbers, the other layers {self.config.hidden_size}: leave -1 out, or take it alone."
            )

    @property
    def blocks(self) -> nn.ModuleList:
        """The model's blocks, in order; block k puts out hidden state k + 1. Raises UserError if they are no list."""
        if (found := self._blocks()) is None:
            count = self.config.num_hidden_layers
            raise UserError(f"backbone.name={self.name} keeps its {count} blocks in no list, so none can be reached.")
        return found

    def _blocks(self) -> nn.ModuleList | None:
        count = self.config.num_hidden_layers
        lists = (one for one in self.body.modules() if isinstance(one, nn.ModuleList) and len(one) == count)
        return next(lists, None)

    def block(self, layer: int) -> nn.Module:
        """The block that puts out hidden state `layer`, 1 for the first. Raises UserError if there is none."""
        count = len(self.blocks)
        if not 1 <= layer <= count:
            raise UserError(f"layer={layer} does not exist: backbone.name={self.name} has the blocks 1 to {count}.")
        return self.blocks[layer - 1]

    @property
    def window(self) -> int | None:
        """Tokens that the narrowest layer looks back over; None: all."""
        spans = [getattr(self.config, name, None) for name in WINDOWS]
        return min((span for span in spans if span), default=None)

    @property
    def reuse(self) -> bool:
        """Whether the cache of a beginning can be repeated and gone on from (no recurrent state)."""
        if self._found.reuse is None:
            self._found.reuse = self._found.readout != "whole" and self._try(self._goes_on)
        return self._found.reuse

    @property
    def padding(self) -> bool:
        """Whether a gap of padding between a prompt and what follows, hidden by a mask, changes nothing.

        True inside `window` alone: the mask does not slide. False where distance is counted in places (ALiBi).
        """
        if self._found.padding is None:
            self._found.padding = self.reuse and self._try(self._bridges)
        return self._found.padding

    @property
    def packing(self) -> bool:
        """Whether texts that stand in one row, each with position ids from 0, have the states that they have alone."""
        if self._found.packing is None:
            # A chunk of attention begins at a place of the row, too far from its start for a trial.
            chunks = getattr(self.config, "attention_chunk_size", None)
            self._found.packing = chunks is None and self._try(self._packs)
        return self._found.packing

    # -- the model's own way from states to logits -----------------------------------------------------------

    @property
    def _knows_causal(self) -> bool:
        """Whether a mask that hides nothing makes SDPA attend by a kernel that knows causal attention.

        Without a mask transformers 4 takes its own position ids for those of texts in one row, and tells these apart by
        a table of (length, length), which no flash kernel reads. On a GPU flash kernels have no fp32, on old ones none.
        """
        knows = self.config._attn_implementation == "sdpa" and getattr(self.body, "_supports_attention_backend", False)
        if not knows or self.device.type != "cuda":
            return knows
        dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else self.model.dtype
        return dtype.itemsize == 2 and torch.cuda.get_device_capability(self.device) >= (8, 0)

    @cached_property
    def _width(self) -> int:
        return self.embed(torch.zeros(1, 1, dtype=torch.long, device=self.device)).shape[-1]

    def _tail(self, rows: Tensor) -> Tensor:
        """The model's own forward over states that are there already."""
        states = rows.reshape(1, -1, rows.shape[-1])
        ids = torch.zeros(states.shape[:2], dtype=torch.long, device=rows.device)
        with _instead(self.body, states):
            return self.model(input_ids=ids, **self._plain).logits.reshape(*rows.shape[:-1], -1)

    # -- trials ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def _tried(self) -> _Findings:
        with self._quiet():
            ids = self._ids(2, 8)
            logits = self.model(input_ids=ids, **self._plain).logits
            if not bool(torch.isfinite(logits).all()):
                check_finite(self.model, self.name)
                raise UserError(f"backbone.name={self.name} gives logits that are not finite, even on eight tokens.")
            part = self.model(input_ids=ids[:, :4], **self._plain).logits
            if not self._equal(part, logits[:, :4], most=True):
                raise UserError(
                    f"backbone.name={self.name} looks ahead: what follows a token changes its prediction, so it has no "
                    f"likelihoods of texts; name a causal language model."
                )
            self._found = _Findings("head", embeds=True)
            states = self.hidden(input_ids=ids)
            if not self._try(lambda: self._equal(self.hidden(input_ids=ids[:1]), states[:1], most=True)):
                raise UserError(
                    f"backbone.name={self.name} carries a state from one text to the next, so its numbers would hang "
                    f"on what it read before; name another backbone."
                )
            if not (self._head_is_last(ids) and self._equal(self.head(states), logits)):
                apart = self._try(lambda: self._equal(self._tail(states), logits))
                self._found.readout = "tail" if apart else "whole"
                states = self.hidden(input_ids=ids)
            self._found.embeds = self._try(lambda: self._equal(self.hidden(inputs_embeds=self.embed(ids)), states))
            self._found.late = self._try(lambda: self._lists_late(ids))
            return self._found

    def _head_is_last(self, ids: Tensor) -> bool:
        """Whether the model's logits are what its head gives: numbers put in the head's place come out unchanged.

        Small logits would pass a comparison with a model that caps large ones.
        """
        ramp: list[Tensor] = []

        def numbers(module: nn.Module, given: Any, out: Tensor) -> Tensor:
            ramp[:] = [torch.linspace(-100, 100, out.numel(), dtype=out.dtype, device=out.device).view_as(out)]
            return ramp[0]

        hook = self.head.register_forward_hook(numbers)
        try:
            logits = self.model(input_ids=ids, **self._plain).logits
        finally:
            hook.remove()
        return bool(ramp) and logits.shape == ramp[0].shape and self._equal(logits, ramp[0])

    def _lists_late(self, ids: Tensor) -> bool:
        """Whether the first state that the model lists is what block 1 puts out (Mamba, RWKV, xLSTM)."""
        if (blocks := self._blocks()) is None:
            return False
        puts_out: list[Any] = []
        hook = blocks[0].register_forward_hook(lambda _, given, out: puts_out.append(out))
        try:
            model = self.model if self._found.readout == "whole" else self.body
            listed = model(input_ids=ids, output_hidden_states=True, **self._plain).hidden_states
        finally:
            hook.remove()
            _let_go(self.model)
        return torch.equal(listed[0], puts_out[0][0] if isinstance(puts_out[0], tuple | list) else puts_out[0])

    def _goes_on(self) -> bool:
        ids = self._ids(2, 24)
        ids[1, :16] = ids[0, :16]
        past = DynamicCache()
        self.hidden(past, input_ids=ids[:1, :16])
        past = copy.deepcopy(past)
        past.batch_repeat_interleave(2)
        return self._equal(self.hidden(past, input_ids=ids[:, 16:]), self.hidden(input_ids=ids)[:, 16:])

    def _bridges(self) -> bool:
        """A prompt of 3 tokens padded to 20, and two tokens behind it."""
        ids = self._ids(1, 22)
        past = DynamicCache()
        self.hidden(past, input_ids=ids[:, :20])
        mask = gap_mask(torch.tensor([3], device=self.device), 20, 2, self.model.dtype)
        places = torch.tensor([[3, 4]], device=self.device)
        with grouped(self.body):
            got = self.hidden(past, input_ids=ids[:, 20:], attention_mask=mask, position_ids=places)
        return self._equal(got, self.hidden(input_ids=torch.cat([ids[:, :3], ids[:, 20:]], dim=1))[:, 3:])

    def _packs(self) -> bool:
        """Texts of 5, 24 and 11 tokens."""
        ids = self._ids(3, 24)
        places = torch.cat([torch.arange(5), torch.arange(24, 48), torch.arange(48, 59)]).to(self.device)
        alone = self.hidden(input_ids=ids).flatten(0, 1).index_select(0, places)
        return self._equal(self.packed(places, input_ids=ids), alone)

    def _try(self, trial) -> bool:
        with torch.no_grad(), self._quiet():
            try:
                return trial()
            except Exception as error:  # an architecture that cannot do a thing fails in a way of its own
                if isinstance(error, UserError) or out_of_memory(error):
                    raise
                log.info("backbone.name=%s: a trial failed with %r; the slower way is taken.", self.name, error)
                return False

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """Without dropout and autocast, whatever the model is in the midst of."""
        training = [module for module in self.model.modules() if module.training]
        self.model.eval()
        try:
            with torch.autocast(self.device.type, enabled=False):
                yield
        finally:
            for module in training:
                module.training = True

    def _ids(self, rows: int, length: int) -> Tensor:
        source = torch.Generator().manual_seed(0)
        return torch.randint(0, self.config.vocab_size, (rows, length), generator=source).to(self.device)

    def _equal(self, one: Tensor, other: Tensor, most: bool = False) -> bool:
        """Whether two tables differ by rounding only. most: in most rows, for experts that rounding may exchange."""
        if one.shape != other.shape:
            return False
        off = (one - other).float().abs().amax(-1) / other.float().abs().amax().clamp(min=1e-6)
        limit = ROUNDING.get(self.model.dtype, ROUNDING_HALF)
        return bool((off.median() if most else off.max()) <= limit)


def body_of(model: Any) -> Any:
    """The part of a causal language model that makes its hidden states of text; what else it has (a head, towers for
    images) lies outside."""
    body, base = model.get_decoder(), model.base_model
    if body is None or body is model:
        return base
    # ModernBERT's decoder calls its last linear layer `decoder`.
    return body if isinstance(body, PreTrainedModel) or base is model else base


def check_finite(model: nn.Module, name: str) -> None:
    """Raises UserError if a weight is NaN or infinite. name: of the backbone."""
    # The smallest and the largest tell it without a table of booleans as large as the weight.
    broken = [key for key, weight in model.named_parameters() if not all(bool(m.isfinite()) for m in weight.aminmax())]
    if broken:
        raise UserError(
            f"backbone.name={name} holds weights that are not finite (first: {broken[0]}; {len(broken)} tensors in "
            f"all): get the model again, or name another."
        )


def gap_mask(lengths: Tensor, start: int, new: int, dtype: torch.dtype) -> Tensor:
    """(rows, 1, new, start + new), added to attention scores: each of `new` tokens sees the first `lengths` of `start`
    places and the new tokens up to itself."""
    device = lengths.device
    gap = torch.zeros(len(lengths), 1, new, start, dtype=dtype, device=device)
    gap.masked_fill_(torch.arange(start, device=device) >= lengths[:, None, None, None], -torch.inf)
    ahead = torch.full((new, new), -torch.inf, dtype=dtype, device=device).triu(1)
    return torch.cat([gap, ahead.expand(len(lengths), 1, new, new)], dim=-1)


def positions(config: Any) -> int | None:
    """Tokens of the longest text that a model with this configuration is made for; None: it sets no limit.

    Rotary scalings that change with the length of the longest text of a batch count up to where they begin to.
    """
    config = config.get_text_config()
    known = [getattr(config, name, None) for name in POSITIONS]
    scaling = getattr(config, "rope_scaling", None) or {}
    if scaling.get("rope_type", scaling.get("type")) in ("longrope", "dynamic"):
        known += [getattr(config, "original_max_position_embeddings", None)]
        known += [scaling.get("original_max_position_embeddings")]
    return min((limit for limit in known if limit), default=None)


def _let_go(model: nn.Module) -> None:
    """Gives layers back the `forward` that transformers 4 wraps to keep its outputs, and leaves so where it fails."""
    for module in model.modules():
        own: Any = module.forward
        while getattr(getattr(own, "__code__", None), "co_name", "") == "wrapped_forward":
            own = module.forward = own.__wrapped__


@contextmanager
def _instead(body: nn.Module, states: Tensor) -> Iterator[None]:
    """Inside the block the body answers every call with these states."""
    own = body.__dict__.get("forward")
    body.forward = lambda *given, **options: StatesAgain(last_hidden_state=states)
    try:
        yield
    finally:
        del body.forward
        if own is not None:
            body.forward = own


@dataclass
class StatesAgain(ModelOutput):
    """What causal models read from their body; all but the states is empty."""

    last_hidden_state: Tensor | None = None
    past_key_values: Any = None
    cache_params: Any = None
    state: Any = None
    hidden_states: Any = None
    attentions: Any = None
    router_logits: Any = None
    cross_attentions: Any = None
