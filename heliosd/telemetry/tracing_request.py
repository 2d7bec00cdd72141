"""The trace of one request: one stage follows another without a gap, from its arrival to the end of its answer."""

from opentelemetry.trace import Span, SpanContext, SpanKind

from heliosd.telemetry.tracing import Attributes, Tracing, clean, fail, now_ns, trace_id_of, traceparent


class RequestTrace:
    """A root span, below it the stages, and below a stage its steps. Where the trace is not kept all of it is idle.

    When one stage begins the one before it ends, at the same nanosecond, so that no time is unexplained. The trace ends
    with `end`.
    """

    def __init__(self, tracing: Tracing, name: str, attributes: Attributes, *, caller: str = "") -> None:
        self.tracing = tracing
        self.began_ns = now_ns()
        self.root = tracing.begin(name, attributes, caller=caller, kind=SpanKind.SERVER, at_ns=self.began_ns)
        self.kept = self.root.is_recording()
        self.id = trace_id_of(self.root)
        self.traceparent = traceparent(self.root)
        """Of the whole, for the client."""
        self._stage: Span | None = None
        self._stage_ns = 0
        self._step: Span | None = None
        self._name = ""
        self._reason: object = None

    def stage(
        self,
        name: str,
        attributes: Attributes | None = None,
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        link: SpanContext | None = None,
        from_start: bool = False,
    ) -> None:
        """The next stage begins. `from_start`: it is the first and began with the request."""
        if not self.kept:
            return
        at_ns = self.began_ns if from_start else now_ns()
        self._end_stage(at_ns)
        self._stage_ns = at_ns
        self._name, self._reason = name, (attributes or {}).get("helios.reason")
        links = () if link is None else (link,)
        self._stage = self.tracing.begin(name, attributes, under=self.root, kind=kind, links=links, at_ns=at_ns)

    def wait(self, attributes: Attributes) -> None:
        """It waits, for the reason given; if for the same as before, that is only noted."""
        if self._stage is not None and self._name == "wait" and attributes.get("helios.reason") == self._reason:
            self._stage.add_event("still waiting", clean(attributes))
        else:
            self.stage("wait", attributes)

    def step(self, name: str) -> None:
        """The next step of this stage begins, the first one with the stage."""
        if self._stage is None:
            return
        at_ns = now_ns()
        if self._step is None:
            at_ns = self._stage_ns
        else:
            self._step.end(at_ns)
        self._step = self.tracing.begin(name, under=self._stage, at_ns=at_ns)

    def first_byte(self) -> None:
        """The first byte of the answer is there."""
        if self._name == "answer" and self._step is not None:
            self.step("stream")

    def answering(self, by: Attributes) -> str:
        """An engine or a peer answers from now on; returns the `traceparent` to pass on to it."""
        self.stage("answer", by, kind=SpanKind.CLIENT)
        self.step("first byte")
        return traceparent(self._stage or self.root)

    def note(self, attributes: Attributes) -> None:
        """Something worth knowing of the request as a whole."""
        if self.kept:
            self.root.set_attributes(clean(attributes))

    def end(self, status: int, code: str) -> None:
        """The answer is over. `code` is the error's, or empty; 499: the client left."""
        at_ns = now_ns()
        self._end_stage(at_ns)
        self.note({"http.response.status_code": status, "helios.code": code or None})
        if code or status >= 500:
            fail(self.root, code or f"status {status}")
        self.root.end(at_ns)

    def _end_stage(self, at_ns: int) -> None:
        for span in (self._step, self._stage):
            if span is not None:
                span.end(at_ns)
        self._step = self._stage = None
