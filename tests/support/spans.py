"""Spans kept in memory, and what tests ask of them."""

from __future__ import annotations

import json
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler


class _Counter(SpanProcessor):
    def __init__(self) -> None:
        self.open = 0

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        self.open += 1

    def on_end(self, span: ReadableSpan) -> None:
        self.open -= 1


class Tracing:
    """A tracer provider of its own, so nothing global."""

    def __init__(self, sampler: Sampler = ALWAYS_ON) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._counter = _Counter()
        self.provider.add_span_processor(self._counter)
        self.tracer = self.provider.get_tracer("tests")

    @property
    def open(self) -> int:
        """How many spans have begun and not ended."""
        return self._counter.open

    @property
    def spans(self) -> list[ReadableSpan]:
        """Those that have ended, in the order in which they began."""
        return sorted(self._exporter.get_finished_spans(), key=lambda span: span.start_time)

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span

    def tree(self) -> list[str]:
        """A line a span, indented below its parent."""
        return self._below(None, "")

    def _below(self, parent_id: int | None, indent: str) -> list[str]:
        lines: list[str] = []
        for span in self.spans:
            if (span.parent.span_id if span.parent else None) == parent_id:
                lines += [indent + span.name, *self._below(span.context.span_id, indent + "  ")]
        return lines

    def dump(self) -> str:
        """Everything that an exporter could send, as text."""
        return "\n".join(json.dumps(json.loads(span.to_json()), ensure_ascii=False) for span in self.spans)


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def events(span: ReadableSpan) -> list[tuple[str, dict[str, Any]]]:
    return [(event.name, dict(event.attributes or {})) for event in span.events]


def status(span: ReadableSpan) -> str:
    return span.status.status_code.name
