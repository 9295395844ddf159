"""Demonstrations that are found for each query, inside a predictor.

Found by the encoder's similarity of the input fields; no call of the language model. A library saves its
demonstrations and their vectors as plain values, so that loading it encodes nothing again.
Invariant: a query never finds a demonstration with its own inputs.
Leaves out: how many demonstrations are worth their tokens; that is searched.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from promptsearch.data.text import normalised
from promptsearch.dspy.fields import given
from promptsearch.embed.base import Encoder, encoder_name
from promptsearch.embed.cache import CachedEncoder
from promptsearch.embed.transformer import encoder_source, resolve_encoder, saved_encoder
from promptsearch.errors import ArtifactError
from promptsearch.pool import Pool
from promptsearch.prompting import retrieved_order
from promptsearch.template import title

__all__ = ["Library", "query_text"]

_ORDERS = ("nearest-last", "nearest-first")


def query_text(names: Sequence[str], values: Mapping[str, Any]) -> str:
    """What a predictor's inputs are compared by: their texts, with titles where there are several."""
    known = [(name, given(values[name])) for name in names if values.get(name) is not None]
    if len(known) == 1:
        return known[0][1]
    return "\n".join(f"{title(name)}: {text}" for name, text in known)


class Library:
    """Demonstrations with an index over their inputs. Never changes; copies share it.

    Args:
        names: input fields, in order.
        demos: the demonstrations, as plain values by field.
        pool: their vectors, under the ids 0, 1, ….
        encoder: what made the vectors.
        count: how many a query gets.
        order: where the most similar one stands, ``"nearest-last"`` or ``"nearest-first"``.
        source: name that opens the encoder again, empty for the default one; None for an object that no file names.
    """

    def __init__(
        self,
        names: Sequence[str],
        demos: Sequence[Mapping[str, Any]],
        pool: Pool,
        *,
        encoder: Encoder,
        count: int = 0,
        order: str = _ORDERS[0],
        source: str | None = "",
    ) -> None:
        self.source = source
        self.names = tuple(names)
        self.demos = tuple(dict(demo) for demo in demos)
        self.pool = pool
        self.count = count
        self.order = order
        self.encoder = encoder
        self._texts = [normalised(query_text(self.names, demo)) for demo in self.demos]

    def showing(self, count: int, order: str) -> Library:
        """The same library, of which a query gets another number in another order."""
        other = object.__new__(type(self))  # not copy.copy, which would go by the pickled state
        other.__dict__.update(self.__dict__, count=count, order=order)
        return other

    def __deepcopy__(self, memo: dict[int, object]) -> Library:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled, as where a whole program is saved, it is its plain state."""
        return type(self).load_state, (self.dump_state(),)

    def find(self, inputs: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The demonstrations for one query, in the order shown."""
        text = query_text(self.names, inputs)
        vector = self.encoder.encode([text])
        same = normalised(text)
        wanted = min(len(self.demos), self.count + sum(known == same for known in self._texts))
        places = [int(place) for place in self.pool.nearest(vector, wanted).ids[0]]
        others = [place for place in places if self._texts[place] != same][: self.count]
        return [self.demos[place] for place in retrieved_order(others, self.order)]

    def without_last(self, found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Found demonstrations without the least similar one."""
        return list(found[:-1] if self.order == "nearest-first" else found[1:])

    def dump_state(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "names": list(self.names),
            "demos": [dict(demo) for demo in self.demos],
            "count": self.count,
            "order": self.order,
            "encoder": self.pool.encoder,
            "source": self.source,
            "vectors": base64.b64encode(np.asarray(self.pool.vectors, dtype="<f4").tobytes()).decode("ascii"),
        }

    @classmethod
    def load_state(cls, state: Mapping[str, Any], encoder: str | Encoder | None = None) -> Library:
        """The reverse of :meth:`dump_state`.

        Args:
            state: what was dumped.
            encoder: what encodes queries, or its name; None for the one that the state names.

        Raises:
            ArtifactError: the state is damaged, or its vectors are another encoder's.
            ModelError: the encoder cannot be opened.
        """
        source = state.get("source") if encoder is None else encoder_source(encoder) or state.get("source")
        if isinstance(encoder, str):
            opened: Encoder = CachedEncoder(resolve_encoder(encoder))
        else:
            opened = _opened(source) if encoder is None else encoder
        name = encoder_name(opened)
        if state.get("encoder") != name:
            raise ArtifactError(
                f"the saved demonstrations were indexed with the encoder {state.get('encoder')!r}, and this one is "
                f"{name!r}; give that encoder, or compile the program again"
            )
        try:
            demos = [dict(demo) for demo in state["demos"]]
            flat = np.frombuffer(base64.b64decode(state["vectors"], validate=True), dtype="<f4")
            vectors = flat.reshape(len(demos), -1).astype(np.float32)
            pool = Pool(range(len(demos)), vectors, encoder=name)
            count, order = int(state["count"]), str(state["order"])
            names = [str(each) for each in state["names"]]
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"the saved demonstrations are damaged ({error}); save the program anew") from error
        if order not in _ORDERS or count < 0:
            raise ArtifactError(f"the saved demonstrations have the unknown order {order!r}; save the program anew")
        return cls(names, demos, pool, count=count, order=order, encoder=opened, source=source)


def _opened(source: object) -> Encoder:
    """The encoder that a saved library names."""
    if not isinstance(source, str):
        raise ArtifactError(
            "the program finds demonstrations with an encoder that was given as an object; give it again: "
            "promptsearch.dspy.load(path, program, encoder=...)"
        )
    return CachedEncoder(saved_encoder(source))
