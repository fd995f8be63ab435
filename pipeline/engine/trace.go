package engine

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/millrace/millrace/pipeline"
	"github.com/millrace/millrace/pipeline/blob"
	"github.com/millrace/millrace/pipeline/shard"
)

// The spans of a shard, and how they hang together:
//
//	notification            one message of a source; continues the trace of its sender
//	  ^ link
//	fetch                   one read of a blob, caused by any number of notifications
//	  decode                one byte range of it
//	  ^ link
//	commit                  one batch, made of the byte ranges of any number of reads
//	  operate               operators and the division among the sinks
//	    window close        what closed, by table
//	  intent                until the manifest is durable
//	  land                  one insert, as often as it is tried
//	  probe                 after a landing in doubt
//	  done                  from the last insert until the ledger says so
//
// Attributes are from bounded sets, but for the blob of a fetch and the batch of a
// commit. Texts of errors stand in the log, which has the ids of the spans.

// maxCauses bounds the notifications that one read remembers; more of one blob tell
// nothing new.
const maxCauses = 64

// maxLinks bounds the reads that one commit links to.
const maxLinks = 1024

// cause is a notification on its way to the commit of the bytes that it told of.
type cause struct {
	span   trace.SpanContext // invalid when nobody traces
	at     time.Time         // when the store says it happened, else of its receipt
	length int64             // of the blob, as announced; -1 unknown
}

// caused is a notification with what it is followed by. It reaches the core as the
// event inside.
type caused struct {
	shard.Announced
	cause cause
}

func newCause(span trace.Span, a pipeline.Announcement, now time.Time) cause {
	return cause{span: span.SpanContext(), at: happened(a, now), length: a.ContentLength}
}

// happened gives the time of a notification's event, or that of its receipt when
// the store does not say.
func happened(a pipeline.Announcement, now time.Time) time.Time {
	if a.EventTime.IsZero() {
		return now
	}
	return a.EventTime
}

// tracing follows what moves through one shard: it sees the core's events and
// actions pass, so that the code that carries them out knows little of it. The
// shard's goroutine alone calls it; the contexts that it gives may go to others.
type tracing struct {
	tracer  trace.Tracer
	metrics *metrics
	now     func() time.Time
	batch   func(seq uint64) pipeline.BatchID

	waiting map[pipeline.BlobID][]cause // since the last read of the blob began
	added   bool                        // the present event added one
	reads   map[shard.JobID]*read
	open    *intake
	intents map[uint64]uint64 // manifest under way -> done mark that it carries
	commits map[uint64]*commit
	// ended is the span of the read whose end is the present event.
	ended trace.SpanContext
	// operating is the span of the operators at work, nil in a replay.
	operating trace.Span
}

// read is one fetch that has not ended.
type read struct {
	blob   pipeline.BlobID
	span   trace.SpanContext
	causes []cause
	end    int64   // behind its last byte range
	in     *intake // where that went
}

// intake is what the open batch is made of.
type intake struct {
	links  []trace.Link
	causes []cause
}

// commit is one batch from its seal until it is done.
type commit struct {
	span, intent, done trace.Span // nil until they begin
	causes             []cause
}

func newTracing(e *Engine, id int) *tracing {
	ledger := e.parts.Ledger.Info().ID
	return &tracing{
		tracer: e.parts.Tracer, metrics: e.metrics, now: e.parts.Now,
		batch:   func(seq uint64) pipeline.BatchID { return pipeline.NewBatchID(ledger, id, seq) },
		waiting: map[pipeline.BlobID][]cause{}, reads: map[shard.JobID]*read{}, open: &intake{},
		intents: map[uint64]uint64{}, commits: map[uint64]*commit{},
	}
}

// notification begins the span of a delivery. ctx may carry the sender's.
func (e *Engine) notification(ctx context.Context, d pipeline.Delivery) (context.Context, trace.Span) {
	ctx, span := e.parts.Tracer.Start(ctx, "notification", trace.WithSpanKind(trace.SpanKindConsumer))
	if span.IsRecording() {
		span.SetAttributes(attribute.Int("blobs", len(d.Announcements)))
	}
	return ctx, span
}

// event sees an event before the core does, and gives what the core is to see.
func (t *tracing) event(ev shard.Event) shard.Event {
	t.added, t.ended = false, trace.SpanContext{}
	switch e := ev.(type) {
	case caused:
		t.announced(e)
		return e.Announced
	case shard.Decoded:
		t.decoded(e)
	case shard.FetchDone:
		t.fetched(e)
	case shard.ManifestWritten:
		if c := t.commits[e.Seq]; c != nil && c.intent != nil {
			c.intent.End()
		}
		t.durable(t.intents[e.Seq])
		delete(t.intents, e.Seq)
	case shard.HeadWritten:
		t.durable(e.DoneSeq)
	case shard.BaseWritten:
		t.durable(e.Seq)
	}
	return ev
}

// action sees an action before it is carried out, and gives the context for it.
func (t *tracing) action(ctx context.Context, a shard.Action) context.Context {
	switch a := a.(type) {
	case shard.Fetch:
		return t.fetch(ctx, a)
	case shard.Seal:
		return t.seal(ctx, a)
	case shard.Replay:
		if !a.Muted {
			t.begin(ctx, a.Manifest.Seq, nil).span.SetAttributes(attribute.Bool("replayed", true))
		}
	case shard.WriteManifest:
		t.intents[a.Manifest.Seq] = a.Manifest.DoneSeq
		if c := t.commits[a.Manifest.Seq]; c != nil {
			_, c.intent = t.tracer.Start(trace.ContextWithSpan(ctx, c.span), "intent")
		}
	case shard.Land:
		return t.in(ctx, a.Seq)
	case shard.Probe:
		return t.in(ctx, a.Seq)
	case shard.Release:
		t.landed(ctx, a.Seq)
	case shard.Ignore:
		t.ignored(a)
	case shard.Report:
		return trace.ContextWithSpanContext(ctx, t.ended)
	}
	return ctx
}

func (t *tracing) announced(e caused) {
	id := e.Announcement.Blob
	if held := t.waiting[id]; len(held) < maxCauses {
		t.waiting[id], t.added = append(held, e.cause), true
	}
}

// ignored forgets the notification of the present event.
func (t *tracing) ignored(a shard.Ignore) {
	if held := t.waiting[a.Blob]; t.added {
		t.keep(a.Blob, held[:len(held)-1])
		t.added = false
	}
}

func (t *tracing) keep(id pipeline.BlobID, held []cause) {
	if len(held) == 0 {
		delete(t.waiting, id)
		return
	}
	t.waiting[id] = held
}

// fetch begins the span of a read. It has no parent, as its causes are many; the
// sampler keeps it together with them.
func (t *tracing) fetch(ctx context.Context, a shard.Fetch) context.Context {
	r := &read{blob: a.Position.Blob, causes: t.waiting[a.Position.Blob], end: a.Position.End}
	delete(t.waiting, r.blob)
	ctx, span := t.tracer.Start(ctx, "fetch", trace.WithNewRoot(), trace.WithSpanKind(trace.SpanKindClient), trace.WithLinks(links(r.causes)...))
	if span.IsRecording() {
		span.SetAttributes(attribute.String("blob", r.blob.String()), attribute.Int64("offset", r.end), attribute.Int64("announced_length", a.ContentLength))
	}
	r.span = span.SpanContext()
	t.reads[a.Job] = r
	return ctx
}

func links(causes []cause) []trace.Link {
	var out []trace.Link
	for _, c := range causes {
		if c.span.IsValid() {
			out = append(out, trace.Link{SpanContext: c.span})
		}
	}
	return out
}

// endFetch ends the span that ctx carries.
func endFetch(ctx context.Context, outcome blob.Outcome, err error) {
	span := trace.SpanFromContext(ctx)
	if err == nil && span.IsRecording() {
		span.SetAttributes(attribute.String("outcome", outcomeNames[outcome]))
	}
	end(span, err)
}

var outcomeNames = map[blob.Outcome]string{
	blob.NothingNew: "nothing_new", blob.Read: "read", blob.Gone: "gone", blob.Rewritten: "rewritten",
}

// end ends a span with the class of the error, whose text may be long and is in the
// log.
func end(span trace.Span, err error) {
	if err != nil && span.IsRecording() {
		span.SetStatus(codes.Error, class(err))
	}
	span.End()
}

// decode begins the span of one byte range.
func (t *tracing) decode(ctx context.Context, c chunk) (context.Context, trace.Span) {
	ctx = trace.ContextWithSpanContext(ctx, t.reads[c.job].span)
	ctx, span := t.tracer.Start(ctx, "decode")
	if span.IsRecording() {
		span.SetAttributes(attribute.Int64("offset", c.data.Offset), attribute.Int("bytes", len(c.data.Data)))
	}
	return ctx, span
}

// decoded notes that a byte range is in the open batch, and with it the read.
func (t *tracing) decoded(e shard.Decoded) {
	r := t.reads[e.Job]
	r.end = e.Unit.End()
	if r.in == t.open {
		return
	}
	r.in = t.open
	if r.span.IsValid() && len(t.open.links) < maxLinks {
		t.open.links = append(t.open.links, trace.Link{SpanContext: r.span})
	}
	t.open.causes = append(t.open.causes, r.causes...)
}

// footer is what a blob has behind its last record.
const footer = 2

// fetched ends a read. One that failed is done again for the same reasons; one that
// did not has read what some later notifications tell of, too.
func (t *tracing) fetched(e shard.FetchDone) {
	r := t.reads[e.Job]
	delete(t.reads, e.Job)
	t.ended = r.span
	waiting := t.waiting[r.blob]
	if e.Err != nil || e.Outcome == shard.Rewritten {
		waiting = append(r.causes, waiting...)
		t.keep(r.blob, waiting[:min(len(waiting), maxCauses)])
		return
	}
	var left []cause
	for _, c := range waiting {
		if c.length < 0 || c.length > r.end+footer {
			left = append(left, c)
		}
	}
	t.keep(r.blob, left)
}

// seal begins the span of a commit, and that of the operators in it.
func (t *tracing) seal(ctx context.Context, a shard.Seal) context.Context {
	c := t.begin(ctx, a.Seq, t.open.links)
	c.causes, t.open = t.open.causes, &intake{}
	ctx, t.operating = t.tracer.Start(trace.ContextWithSpan(ctx, c.span), "operate")
	return ctx
}

func (t *tracing) begin(ctx context.Context, seq uint64, links []trace.Link) *commit {
	c := &commit{}
	_, c.span = t.tracer.Start(ctx, "commit", trace.WithNewRoot(), trace.WithLinks(links...))
	if c.span.IsRecording() {
		c.span.SetAttributes(attribute.String("batch", t.batch(seq).String()))
	}
	t.commits[seq] = c
	return c
}

// applied makes the spans of what an operator closed, by table.
func (t *tracing) applied(began time.Time, pieces []pipeline.Piece) {
	if t.operating == nil || !t.operating.IsRecording() {
		return
	}
	type closed struct{ rows, from, to int64 }
	tables := map[string]closed{}
	for _, p := range pieces {
		c, ok := tables[p.Table]
		if !ok {
			c.from, c.to = p.MinTime, p.MaxTime
		}
		tables[p.Table] = closed{c.rows + p.Rows, min(c.from, p.MinTime), max(c.to, p.MaxTime)}
	}
	ctx := trace.ContextWithSpan(context.Background(), t.operating)
	for table, c := range tables {
		_, span := t.tracer.Start(ctx, "window close", trace.WithTimestamp(began))
		span.SetAttributes(attribute.String("table", table), attribute.Int64("rows", c.rows),
			attribute.Int64("first_window_ms", c.from), attribute.Int64("last_window_ms", c.to))
		span.End()
	}
}

// operated ends the span of the operators.
func (t *tracing) operated(err error) {
	if t.operating != nil {
		end(t.operating, err)
		t.operating = nil
	}
}

// land begins the span of one insert, as a child of what ctx carries.
func (t *tracing) land(ctx context.Context, sink string, p pipeline.PieceRef) (context.Context, trace.Span) {
	ctx, span := t.tracer.Start(ctx, "land", trace.WithSpanKind(trace.SpanKindClient))
	if span.IsRecording() {
		span.SetAttributes(attribute.String("sink", sink), attribute.String("table", p.Table), attribute.Int64("rows", p.Rows))
	}
	return ctx, span
}

// in gives the context of a commit.
func (t *tracing) in(ctx context.Context, seq uint64) context.Context {
	if c := t.commits[seq]; c != nil {
		return trace.ContextWithSpan(ctx, c.span)
	}
	return ctx
}

// landed: the rows of a commit can be queried.
func (t *tracing) landed(ctx context.Context, seq uint64) {
	c := t.commits[seq]
	if c == nil {
		return
	}
	now := t.now()
	for _, cause := range c.causes {
		t.metrics.queryable(ctx, now.Sub(cause.at))
	}
	c.causes = nil
	_, c.done = t.tracer.Start(trace.ContextWithSpan(ctx, c.span), "done")
}

// durable: the ledger says that every commit up to seq is done, as far as it has
// landed.
func (t *tracing) durable(seq uint64) {
	for at, c := range t.commits {
		if at <= seq && c.done != nil {
			c.done.End()
			c.span.End()
			delete(t.commits, at)
		}
	}
}

// close ends the spans of what a stop leaves to the next start.
func (t *tracing) close() {
	t.operated(context.Canceled)
	for _, c := range t.commits {
		if c.done != nil {
			c.done.End()
		}
		c.span.SetAttributes(attribute.Bool("unfinished", true))
		c.span.End()
	}
}
