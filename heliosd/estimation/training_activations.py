"""What the layers of a decoder save for the backward pass and take at most while it runs through them.

Each segment (one layer; the final norm, the output projection and the loss) is written onto a tape in the order of its
forward pass. A layer is: norm, attention, sum; norm, feed-forward part, sum. Its input belongs to the layer.
"""

from dataclasses import dataclass, replace

from heliosd.errors import BadRequest
from heliosd.estimation.fields import Fields
from heliosd.estimation.layout import Kind, Layout, Tensor
from heliosd.estimation.training_operators import Operators, Widths, last_name, widths
from heliosd.estimation.training_plan import Attention, Method, TrainingPlan
from heliosd.estimation.training_shapes import AttentionShape, FeedForwardShape, LayerShape, layer_shape
from heliosd.estimation.training_tape import Storage, Tape, Value

POSITIONED = ("gpt2", "gpt_bigcode", "openai-gpt", "gpt_neo", "opt", "biogpt", "xglm")
"""Families that add learned positions to the embedding, and take the softmax in the width of the scores."""
NEW_GELU = ("gpt2", "phi", "gptj", "codegen", "gpt_neo")
"""Families whose activation, where the configuration is silent, is the approximation written out in Python."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of the forward pass, as the backward pass finds it."""

    saved_bytes: int
    """Activations kept for the backward pass; without the casts of weights."""
    casts_bytes: int
    """Autocast's copies of weights among what is kept."""
    input_bytes: int
    """The tensor that enters: all that checkpointing keeps."""
    peak_bytes: int
    """Most that the backward pass takes here: saved, casts, gradients under way, scratch, parameters' gradients.
    With checkpointing also while the layer is computed again, the gradient of its result waiting."""
    gradient_bytes: int
    """Of the parameters' gradients that stay when it has passed."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is the same for all layers."""

    tokens: int
    length: int
    hidden: int
    heads: int
    """Of one rank."""
    activation: str
    parts: int
    """Ranks of tensor parallelism that divide projections; norms and the residual stream are whole on each."""
    experts_per_token: int
    eager_softmax_width: int
    attention_dropout: bool
    hidden_dropout: bool
    embedding_dropout: bool
    rotary: bool
    logits_capped: bool
    """By a hyperbolic tangent (Gemma 2)."""


def sizes_of(fields: Fields, plan: TrainingPlan, hidden: int, width: Widths) -> Sizes:
    """From the configuration's language part. Raises BadRequest when heads are missing or absurd."""
    heads = fields.whole("num_attention_heads", "n_head", "n_heads", "num_heads", default=1)
    if heads < 1 or heads % plan.tensor_parallel:
        raise BadRequest(
            f"cannot plan the training: {heads} heads do not divide over {plan.tensor_parallel} ranks",
            code="bad_training_plan",
            param="tensor_parallel",
        )
    old = fields.model_type in POSITIONED
    low = width.compute if not width.autocast else 4
    return Sizes(
        tokens=plan.batch_size * plan.sequence_length,
        length=plan.sequence_length,
        hidden=hidden,
        heads=heads // plan.tensor_parallel,
        activation=fields.text(
            "hidden_act",
            "activation_function",
            "hidden_activation",
            default="gelu_new" if fields.model_type in NEW_GELU else "silu",
        ),
        parts=plan.tensor_parallel,
        experts_per_token=fields.whole("num_experts_per_tok", "moe_topk", "top_k_experts", default=1),
        eager_softmax_width=low if old else 4,
        attention_dropout=_drops(fields, "attention_dropout", "attn_pdrop"),
        hidden_dropout=_drops(fields, "resid_pdrop", "hidden_dropout", "resid_dropout", "dropout"),
        embedding_dropout=_drops(fields, "embd_pdrop", "embed_dropout", "embedding_dropout"),
        rotary=not old,
        logits_capped=bool(fields.get("final_logit_softcapping")),
    )


@dataclass(frozen=True, slots=True)
class Run:
    """One forward and backward pass."""

    layers: tuple[Segment, ...]
    """In their order."""
    tail: Segment
    logits_forward_bytes: int
    """Of the logits, while the loss is computed, beyond what the tail saves."""
    tables_bytes: int
    """Token numbers, labels, tables of positions: there all the time."""
    mask_bytes: int
    """Of eager attention's additive mask, which checkpointing keeps for the layers' second forward pass."""
    embedding_gradient_bytes: int
    """Of the embedding when it learns."""
    shared_gradient_bytes: int
    """The same when it is also the output projection: that one's gradient waits for the embedding's."""
    embedding_sum_bytes: int
    """Of the sum of both; without a cast between them it is not made in place."""
    unknown_layers: int
    """How many have parts that are not understood."""
    experts: bool

    def saved_bytes(self, *, checkpointing: bool) -> int:
        """Of all segments, with casts of weights."""
        kept = sum(each.input_bytes if checkpointing else each.saved_bytes + each.casts_bytes for each in self.layers)
        return kept + self.tail.saved_bytes + self.tail.casts_bytes + self.tables_bytes


def run_of(layout: Layout, fields: Fields, plan: TrainingPlan) -> Run:
    """All segments. Raises BadRequest when there are no layers or the heads do not divide."""
    language = fields.language()
    hidden = _hidden(layout)
    if not layout.layers or not hidden:
        raise BadRequest(
            "cannot plan the training: the model has no layers or no width",
            code="bad_config",
            param="num_hidden_layers",
        )
    width = widths(plan, full=plan.method is Method.FULL)
    sizes = sizes_of(language, plan, hidden, width)
    found: dict[int, Segment] = {}
    unknown = experts = 0
    start = min(index for block in layout.blocks for index in block.layers)
    for block in layout.blocks:
        shape = layer_shape(block, hidden)
        unknown += len(block.layers) if shape.others or shape.attention is None else 0
        experts += shape.experts is not None
        usual = layer(shape, sizes, plan, width, first=False)
        found.update(dict.fromkeys(block.layers, usual))
        if start in block.layers:
            found[start] = layer(shape, sizes, plan, width, first=True)
    norms = [each for each in layout.last if each.kind is Kind.PLAIN and each.rows == hidden]
    embedding = next((each for each in layout.first if each.kind is Kind.EMBEDDING), None)
    head = next((each for each in layout.last if each.kind is Kind.HEAD), embedding if layout.tied else None)
    end, logits_bytes = tail(
        head,
        sum(1 for each in norms if each.name.endswith("weight")),
        any(each.name.endswith("bias") for each in norms),
        sizes,
        plan,
        width,
    )
    masked = plan.gradient_checkpointing and plan.attention is Attention.EAGER
    learns = plan.method is Method.FULL and embedding is not None
    rows = embedding.elements if embedding is not None and learns else 0
    gradient = -(-rows // plan.tensor_parallel) * width.trained
    return Run(
        layers=tuple(found[index] for index in sorted(found)),
        tail=end,
        logits_forward_bytes=logits_bytes,
        tables_bytes=_tables_bytes(sizes, plan, hidden, width),
        mask_bytes=sizes.tokens * sizes.length * stream_width(plan, width) if masked else 0,
        embedding_gradient_bytes=gradient,
        shared_gradient_bytes=gradient if layout.tied else 0,
        embedding_sum_bytes=gradient if layout.tied and not width.autocast else 0,
        unknown_layers=unknown,
        experts=bool(experts),
    )


def _hidden(layout: Layout) -> int:
    """Width of the residual stream: the rows of the last norm, else the embedding's columns."""
    norms = [each.rows for each in layout.last if each.kind is Kind.PLAIN and each.name.endswith("weight")]
    embeddings = [each.columns for each in layout.first if each.kind is Kind.EMBEDDING]
    return next(iter(norms + embeddings), 0)


def _tables_bytes(sizes: Sizes, plan: TrainingPlan, hidden: int, width: Widths) -> int:
    """Token numbers, labels and shifted labels of 8 bytes; cosines and sines; the mask of the embedding's dropout."""
    table = 2 * sizes.length * (hidden // (sizes.heads * sizes.parts)) * width.compute if sizes.rotary else 0
    dropped = sizes.tokens * hidden * (1 if plan.on_gpu else stream_width(plan, width))
    return 3 * 8 * sizes.tokens + table + (dropped if sizes.embedding_dropout else 0)


def stream_width(plan: TrainingPlan, width: Widths) -> int:
    """Bytes for one number of the residual stream: the embedding's."""
    return width.trained if plan.method is Method.FULL else width.frozen


def layer(shape: LayerShape, sizes: Sizes, plan: TrainingPlan, width: Widths, *, first: bool) -> Segment:
    """One decoder layer. `first`: its input comes from the embedding, frozen unless all parameters learn."""
    writer = _Writer(Operators(Tape(), width, sizes.tokens, plan.on_gpu), sizes, plan)
    elements, bytes_each = sizes.tokens * sizes.hidden, stream_width(plan, width)
    flows = plan.method is Method.FULL or not first
    entry = Value(elements, bytes_each, flows, Storage(elements * bytes_each))
    out = writer.layer(shape, entry)
    return _segment(writer.operators.tape, entry, out, plan, held=plan.gradient_checkpointing)


def tail(
    head: Tensor | None, norms: int, norm_bias: bool, sizes: Sizes, plan: TrainingPlan, width: Widths
) -> tuple[Segment, int]:
    """The final norm, the projection onto the vocabulary (None: no head, a loss on hidden states), cross-entropy.

    Also the bytes that logits take at once in the forward pass beyond what is saved.
    """
    operators = Operators(Tape(), width, sizes.tokens, plan.on_gpu)
    full = plan.method is Method.FULL
    elements, bytes_each = sizes.tokens * sizes.hidden, stream_width(plan, width)
    entry = Value(elements, bytes_each, True, Storage(elements * bytes_each))
    x = entry
    for _ in range(norms):
        norm = operators.layer_norm if norm_bias else operators.rms_norm
        x = norm(x, sizes.hidden, trained=full)
    if head is None:
        return _segment(operators.tape, entry, x, plan), 0
    rows = -(-head.rows // sizes.parts)
    logits = operators.product(x, sizes.hidden, rows, operators.parameter(rows * sizes.hidden, trained=full))
    if sizes.logits_capped:
        bent = operators.tape.value(logits.elements, logits.width, (operators.scaled(logits),), keeps_itself=True)
        logits = operators.scaled(bent)
    wide = operators.cast(logits, 4)
    chances = operators.tape.value(wide.elements, 4, (wide,), keeps_itself=True)
    loss = operators.tape.value(1, 4, (chances,))
    # The model's result holds logits and last hidden states until the loss is there.
    shown = {x.storage: x.n_bytes, logits.storage: logits.n_bytes, wide.storage: wide.n_bytes}
    forward_bytes = sum(n_bytes for storage, n_bytes in shown.items() if storage not in operators.tape.saved())
    return _segment(operators.tape, entry, loss, plan), forward_bytes


@dataclass(slots=True)
class _Writer:
    operators: Operators
    sizes: Sizes
    plan: TrainingPlan

    @property
    def full(self) -> bool:
        return self.plan.method is Method.FULL

    def norm(self, x: Value, shape: LayerShape) -> Value:
        norm = self.operators.layer_norm if shape.norm_bias else self.operators.rms_norm
        return norm(x, self.sizes.hidden, trained=self.full)

    def layer(self, shape: LayerShape, x: Value) -> Value:
        norms = shape.norms
        for number, part in enumerate((self.attention, self.feed_forward)):
            inner = self.norm(x, shape) if norms > number else x
            y = part(shape, inner)
            self.operators.tape.hold(inner)
            if self.sizes.hidden_dropout:
                y = self.operators.dropout(y)
            if norms > 2 + number:
                y = self.norm(y, shape)
            x = self.operators.add(x, y)
        return x

    def attention(self, shape: LayerShape, x: Value) -> Value:
        found = shape.attention
        if found is None:
            inside = [each for each in shape.others if "attn" in each.name or "attention" in each.name]
            return self.unknown(inside, x)
        sizes, ops, width = self.sizes, self.operators, self.operators.width
        query_rows, key_rows = found.query.rows // sizes.parts, -(-found.key.rows // sizes.parts)
        tables = x.width
        if found.fused:
            merged = replace(found.query, rows=query_rows + 2 * key_rows)
            whole = self.linear(x, merged, merged.columns, merged.rows)
            operands = [whole]
            if sizes.rotary or key_rows != query_rows:
                parts = [
                    ops.tape.value(sizes.tokens * rows, whole.width, (whole,), view_of=whole)
                    for rows in (query_rows, key_rows, key_rows)
                ]
                operands = [*(self.placed(each, found, tables) for each in parts[:2]), parts[2]]
        else:
            query = self.linear(x, found.query, found.query.columns, query_rows)
            key = self.linear(x, found.key, found.key.columns, key_rows)
            value = self.linear(x, found.value, found.value.columns, key_rows)
            operands = [self.placed(query, found, tables), self.placed(key, found, tables), value]
        heads = max(1, sizes.heads)
        eager = self.plan.attention is Attention.EAGER or (sizes.attention_dropout and not self.plan.on_gpu)
        if eager:
            softmax = sizes.eager_softmax_width if self.plan.attention is Attention.EAGER else width.compute
            y = ops.eager_attention(
                operands,
                sizes.tokens * sizes.length * heads,
                softmax,
                sizes.tokens * query_rows,
                dropout=sizes.attention_dropout,
            )
        else:
            y = ops.fused_attention(operands, sizes.tokens * heads, sizes.tokens * query_rows)
        return self.linear(y, found.output, query_rows, found.output.rows)

    def placed(self, x: Value, shape: AttentionShape, tables: int) -> Value:
        """Queries or keys, normalized if they are, with their positions."""
        if shape.head_norms:
            per_head = max(1, shape.query.rows // max(1, self.sizes.heads * self.sizes.parts))
            x = self.operators.rms_norm(x, per_head, trained=self.full)
        return self.operators.rotary(x, tables) if self.sizes.rotary else x

    def feed_forward(self, shape: LayerShape, x: Value) -> Value:
        y = None
        if shape.feed_forward is not None:
            y = self.projections(shape.feed_forward, x)
        if shape.experts is not None:
            chosen = min(self.sizes.experts_per_token, shape.experts.up.copies)
            spread = self.operators.tape.value(x.elements * chosen, x.width, (x,))
            routed = self.projections(shape.experts, spread)
            weighed = self.operators.tape.value(routed.elements, routed.width, (routed,), (routed,))
            routed = self.operators.tape.value(x.elements, weighed.width, (weighed,))
            y = routed if y is None else self.operators.add(y, routed)
        rest = [each for each in shape.others if not ("attn" in each.name or "attention" in each.name)]
        if rest or y is None:
            more = self.unknown(rest, x)
            y = more if y is None else self.operators.add(y, more)
        return y

    def projections(self, shape: FeedForwardShape, x: Value) -> Value:
        inner = -(-shape.up.rows // self.sizes.parts)
        if shape.fused:
            whole = self.linear(x, shape.up, shape.up.columns, 2 * inner)
            half = whole.elements // 2
            gate, up = (
                self.operators.tape.value(half, whole.width, (whole,), view_of=whole, passes=True) for _ in range(2)
            )
            y = self.operators.times(self.operators.activation(gate, self.sizes.activation), up)
            return self.linear(y, shape.down, inner, shape.down.rows)
        up = self.linear(x, shape.up, shape.up.columns, inner)
        if shape.gate is None:
            y = self.operators.activation(up, self.sizes.activation)
        else:
            gate = self.linear(x, shape.gate, shape.gate.columns, inner)
            y = self.operators.times(self.operators.activation(gate, self.sizes.activation), up)
        return self.linear(y, shape.down, inner, shape.down.rows)

    def unknown(self, tensors: list[Tensor], x: Value) -> Value:
        """Projections of a layer that is not understood: each saves its input and its result."""
        y = x
        for tensor in tensors:
            source = self.operators.tape.value(
                self.sizes.tokens * tensor.columns // self.sizes.parts, self.operators.width.compute, (x,)
            )
            made = self.linear(source, tensor, tensor.columns // self.sizes.parts, tensor.rows)
            y = self.operators.tape.value(x.elements, x.width, (made, x), (made,))
        return y

    def linear(self, x: Value, tensor: Tensor, columns: int, rows: int) -> Value:
        """A projection, with its LoRA when it has one."""
        plan, ops = self.plan, self.operators
        copies = tensor.copies if tensor.kind is Kind.EXPERT else 1
        weight = ops.parameter(columns * rows * copies, trained=self.full)
        unpacked = columns * rows * ops.width.compute if plan.method is Method.QLORA else 0
        y = ops.product(x, columns, rows, weight, temporary_bytes=unpacked)
        if not adapted(tensor, plan):
            ops.tape.hold(x)
            return y
        inner = ops.cast(x, ops.width.trained)
        if plan.adapter_dropout:
            inner = ops.dropout(inner)
        down = ops.parameter(columns * plan.rank, trained=True)
        up = ops.parameter(rows * plan.rank, trained=True)
        thin = ops.product(inner, columns, plan.rank, down)
        y = ops.add(y, ops.scaled(ops.product(thin, plan.rank, rows, up)))
        ops.tape.hold(x)
        return y


def adapted(tensor: Tensor, plan: TrainingPlan) -> bool:
    """Whether the plan puts LoRA beside this projection: a chosen one, or by default any of the layers'."""
    if plan.method is Method.FULL or tensor.kind is not Kind.LINEAR or not tensor.name.endswith("weight"):
        return False
    return not plan.targets or last_name(tensor) in plan.targets


def _segment(tape: Tape, entry: Value, out: Value, plan: TrainingPlan, *, held: bool = False) -> Segment:
    """`held`: the input stays to the end, as checkpointing keeps it."""
    saved = tape.saved()
    casts = sum(each.n_bytes for each in saved if each.of_weights)
    keeps = plan.sharding.stage < 2 and plan.gradient_accumulation == 1
    inputs = (entry.storage,) if held else ()
    backward = tape.backward(out, held=inputs, keeps_gradients=keeps)
    again = tape.forward_bytes(inputs) + out.n_bytes if held else 0
    return Segment(
        saved_bytes=sum(each.n_bytes for each in saved) - casts,
        casts_bytes=casts,
        input_bytes=entry.n_bytes,
        peak_bytes=max(backward.peak_bytes, again),
        gradient_bytes=backward.gradient_bytes,
    )


def _drops(fields: Fields, *names: str) -> bool:
    """Whether numbers are dropped there; GPT-2 does unless told otherwise."""
    value = fields.get(*names)
    return value > 0 if isinstance(value, int | float) else fields.model_type == "gpt2"
