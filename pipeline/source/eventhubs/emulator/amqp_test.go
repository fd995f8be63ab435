package emulator_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azeventhubs/v2"
	"github.com/Azure/go-amqp"
	"github.com/google/go-cmp/cmp"

	"github.com/millrace/millrace/pipeline/source/eventhubs/emulator"
)

// These tests use the Go AMQP client below the SDK, for what the SDK does not offer.

func dial(t testing.TB, s *emulator.Server, opts *amqp.ConnOptions) *amqp.Session {
	t.Helper()
	conn, err := amqp.Dial(within(t), "amqp://"+s.Addr(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	session, err := conn.NewSession(within(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	return session
}

func publish(t testing.TB, s *emulator.Server, partition int, bodies ...string) {
	t.Helper()
	for _, b := range bodies {
		if _, err := s.Publish("logs", emulator.ToPartition(partition), []byte(b), nil); err != nil {
			t.Fatal(err)
		}
	}
}

const partition0 = "logs/ConsumerGroups/$Default/Partitions/0"

func TestSASLPlain(t *testing.T) {
	s := start(t, func(c *emulator.Config) { c.Key = "c2VjcmV0" })
	good := &amqp.ConnOptions{SASLType: amqp.SASLTypePlain("RootManageSharedAccessKey", "c2VjcmV0")}
	if _, err := dial(t, s, good).NewReceiver(within(t), partition0, nil); err != nil {
		t.Error(err)
	}
	bad := &amqp.ConnOptions{SASLType: amqp.SASLTypePlain("RootManageSharedAccessKey", "wrong")}
	if conn, err := amqp.Dial(within(t), "amqp://"+s.Addr(), bad); err == nil {
		t.Errorf("a wrong key was let in: %v", conn.Close())
	}
	_, err := dial(t, s, &amqp.ConnOptions{SASLType: amqp.SASLTypeAnonymous()}).NewReceiver(within(t), partition0, nil)
	wantCondition(t, err, "amqp:unauthorized-access")
}

// TestTokenEnds: a link ends with the token that opened it, unless a new one was
// put meanwhile.
func TestTokenEnds(t *testing.T) {
	s := start(t, func(c *emulator.Config) { c.Key = "c2VjcmV0" })
	receiver := func(session *amqp.Session) *amqp.Receiver {
		t.Helper()
		r, err := session.NewReceiver(within(t), partition0, nil)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	short, long := dial(t, s, anonymously()), dial(t, s, anonymously())
	putToken(t, s, short, time.Now().Add(3*time.Second))
	putToken(t, s, long, time.Now().Add(3*time.Second))
	lost, kept := receiver(short), receiver(long)
	putToken(t, s, long, time.Now().Add(time.Hour))
	_, err := lost.Receive(within(t), nil)
	var detached *amqp.LinkError
	if !errors.As(err, &detached) || detached.RemoteErr == nil || detached.RemoteErr.Condition != amqp.ErrCondUnauthorizedAccess {
		t.Errorf("receive after the end of the token: %v, want unauthorized", err)
	}
	publish(t, s, 0, "a")
	if m, err := kept.Receive(within(t), nil); err != nil || string(m.GetData()) != "a" {
		t.Errorf("receive with a new token: %v, %v", m, err)
	}
}

// putToken claims everything with a token of the key c2VjcmV0, as the SDKs do.
func putToken(t *testing.T, s *emulator.Server, session *amqp.Session, ends time.Time) {
	t.Helper()
	audience := url.QueryEscape("sb://" + s.Addr() + "/")
	mac := hmac.New(sha256.New, []byte("c2VjcmV0"))
	fmt.Fprintf(mac, "%s\n%d", audience, ends.Unix())
	token := fmt.Sprintf("SharedAccessSignature sr=%s&sig=%s&se=%d&skn=RootManageSharedAccessKey",
		audience, url.QueryEscape(base64.StdEncoding.EncodeToString(mac.Sum(nil))), ends.Unix())
	r, err := session.NewReceiver(within(t), "$cbs", nil)
	if err != nil {
		t.Fatal(err)
	}
	w, err := session.NewSender(within(t), "$cbs", nil)
	if err != nil {
		t.Fatal(err)
	}
	request := &amqp.Message{Value: token, ApplicationProperties: map[string]any{
		"operation": "put-token", "type": "servicebus.windows.net:sastoken", "name": "sb://" + s.Addr() + "/",
	}}
	if err := w.Send(within(t), request, nil); err != nil {
		t.Fatal(err)
	}
	answer, err := r.Receive(within(t), nil)
	if err != nil || answer.ApplicationProperties["status-code"] != int32(202) {
		t.Fatalf("put-token: %+v, %v", answer, err)
	}
	if err := errors.Join(r.Close(within(t)), w.Close(within(t))); err != nil {
		t.Fatal(err)
	}
}

func anonymously() *amqp.ConnOptions {
	return &amqp.ConnOptions{SASLType: amqp.SASLTypeAnonymous()}
}

// TestCredit: no event without credit, exactly as many as there is credit for, and
// a drain gives the rest back.
func TestCredit(t *testing.T) {
	s := start(t, nil)
	publish(t, s, 0, "a", "b", "c", "d")
	r, err := dial(t, s, anonymously()).NewReceiver(within(t), partition0, &amqp.ReceiverOptions{Credit: -1})
	if err != nil {
		t.Fatal(err)
	}
	take := func(want ...string) {
		t.Helper()
		var got []string
		for range want {
			m, err := r.Receive(within(t), nil)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, string(m.GetData()))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		if m, err := r.Receive(ctx, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a message too many: %v, %v", m, err)
		}
	}
	issue := func(n uint32) {
		t.Helper()
		if err := r.IssueCredit(n); err != nil {
			t.Fatal(err)
		}
	}
	take()
	issue(2)
	take("a", "b")
	issue(5)
	take("c", "d")
	if err := r.DrainCredit(within(t), nil); err != nil {
		t.Fatalf("drain: %v", err)
	}
	publish(t, s, 0, "e", "f")
	take() // the drain took the three credits back
	issue(1)
	take("e")
}

// TestSettlement: a peer that asks for unsettled messages gets them so, and the
// log keeps them whatever it decides.
func TestSettlement(t *testing.T) {
	s := start(t, nil)
	publish(t, s, 0, "a", "b", "c")
	mode, second := amqp.SenderSettleModeUnsettled, amqp.ReceiverSettleModeSecond
	r, err := dial(t, s, anonymously()).NewReceiver(within(t), partition0, &amqp.ReceiverOptions{
		RequestedSenderSettleMode: &mode, SettlementMode: &second,
	})
	if err != nil {
		t.Fatal(err)
	}
	decide := []func(*amqp.Message) error{
		func(m *amqp.Message) error { return r.AcceptMessage(within(t), m) },
		func(m *amqp.Message) error { return r.ReleaseMessage(within(t), m) },
		func(m *amqp.Message) error { return r.RejectMessage(within(t), m, nil) },
	}
	for i, f := range decide {
		m, err := r.Receive(within(t), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := f(m); err != nil { // waits for our settlement
			t.Errorf("message %d: %v", i, err)
		}
	}
	if n := s.Stats().EventsKept; n != 3 {
		t.Errorf("%d events kept, want 3", n)
	}
}

// TestMessagesAreKeptAsSent: whatever the sender put into a message comes out.
func TestMessagesAreKeptAsSent(t *testing.T) {
	s := start(t, nil)
	session := dial(t, s, anonymously())
	sender, err := session.NewSender(within(t), "logs/Partitions/0", nil)
	if err != nil {
		t.Fatal(err)
	}
	if sender.MaxMessageSize() != 1<<20 {
		t.Errorf("message size limit %d, want 1 MiB", sender.MaxMessageSize())
	}
	sent := &amqp.Message{
		Header:      &amqp.MessageHeader{Durable: true, Priority: 7},
		Annotations: amqp.Annotations{"x-opt-mine": "mine", "x-opt-partition-key": "key", "x-opt-offset": "forged"},
		Properties: &amqp.MessageProperties{
			MessageID: amqp.UUID{1, 2, 3}, CorrelationID: uint64(9), ContentType: to.Ptr("text/plain"),
			UserID: []byte("user"), CreationTime: to.Ptr(time.UnixMilli(5).UTC()),
		},
		ApplicationProperties: map[string]any{"i": int32(-5), "t": time.UnixMilli(7).UTC(), "b": true, "f": 1.5, "u": amqp.UUID{9}},
		Data:                  [][]byte{[]byte("one"), []byte("two")},
		Footer:                amqp.Annotations{"x-opt-end": int64(1)},
	}
	if err := sender.Send(within(t), sent, nil); err != nil {
		t.Fatal(err)
	}
	r, err := session.NewReceiver(within(t), partition0, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := r.Receive(within(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	notes := got.Annotations
	if notes["x-opt-sequence-number"] != int64(0) || notes["x-opt-offset"] != "0" || notes["x-opt-partition-key"] != "key" || notes["x-opt-mine"] != "mine" || notes["x-opt-sequence-number-epoch"] != int32(-1) {
		t.Errorf("annotations %v", notes)
	}
	if at, ok := notes["x-opt-enqueued-time"].(time.Time); !ok || time.Since(at) > time.Minute {
		t.Errorf("enqueued time %v", notes["x-opt-enqueued-time"])
	}
	for name, pair := range map[string][2]any{
		"header": {sent.Header, got.Header}, "properties": {sent.Properties, got.Properties},
		"application properties": {sent.ApplicationProperties, got.ApplicationProperties},
		"data":                   {sent.Data, got.Data}, "footer": {sent.Footer, got.Footer},
	} {
		if diff := cmp.Diff(pair[0], pair[1]); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestRuntimeMetric(t *testing.T) {
	s := start(t, nil)
	publish(t, s, 0, "a", "b")
	r, err := dial(t, s, anonymously()).NewReceiver(within(t), partition0, &amqp.ReceiverOptions{
		DesiredCapabilities: []string{"com.microsoft:enable-receiver-runtime-metric"},
	})
	if err != nil {
		t.Fatal(err)
	}
	m, err := r.Receive(within(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	if m.DeliveryAnnotations["last_enqueued_sequence_number"] != int64(1) || m.DeliveryAnnotations["last_enqueued_offset"] == "" {
		t.Errorf("delivery annotations %v", m.DeliveryAnnotations)
	}
}

// TestFilters tries forms that the Go SDK does not write.
func TestFilters(t *testing.T) {
	s := start(t, nil)
	publish(t, s, 0, "a", "b")
	session := dial(t, s, anonymously())
	const name, code = "apache.org:selector-filter:string", uint64(0x468C00000004)
	tests := []struct {
		filter amqp.LinkFilter
		want   string // first event; empty is a refusal
	}{
		{amqp.NewLinkFilter(name, code, "amqp.annotation.x-opt-sequence-number > '0'"), "b"},
		{amqp.NewLinkFilter(name, 0, "amqp.annotation.x-opt-sequence-number >= '0'"), "a"},
		{amqp.NewLinkFilter(name, code, "  amqp.annotation.x-opt-offset>'-1' "), "a"},
		{amqp.NewLinkFilter("other", 77, "unknown filters are not in place"), "a"},
		{amqp.NewLinkFilter(name, code, "amqp.annotation.x-opt-offset = '1'"), ""},
		{amqp.NewLinkFilter(name, code, "amqp.annotation.x-opt-sequence-number > '@latest'"), ""},
		{amqp.NewLinkFilter(name, code, int64(5)), ""},
	}
	for _, tt := range tests {
		r, err := session.NewReceiver(within(t), strings.ToLower(partition0), &amqp.ReceiverOptions{Filters: []amqp.LinkFilter{tt.filter}})
		if tt.want == "" {
			wantCondition(t, err, "com.microsoft:argument-error")
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		m, err := r.Receive(within(t), nil)
		if err != nil || string(m.GetData()) != tt.want {
			t.Errorf("%+v: %v, %v, want %q", tt.filter, m, err, tt.want)
		}
		if v := r.LinkSourceFilterValue(name); (v == nil) != (tt.want == "a" && fmt.Sprint(tt.filter) == fmt.Sprint(tests[3].filter)) {
			t.Errorf("%+v: the answer tells the filter %v", tt.filter, v)
		}
		if err := r.Close(within(t)); err != nil {
			t.Error(err)
		}
	}
}

func TestFiveReaders(t *testing.T) {
	s := start(t, nil)
	session := dial(t, s, anonymously())
	for range 5 {
		if _, err := session.NewReceiver(within(t), partition0, nil); err != nil {
			t.Fatal(err)
		}
	}
	_, err := session.NewReceiver(within(t), partition0, nil)
	wantCondition(t, err, "amqp:resource-limit-exceeded")
}

func TestOneCBSLink(t *testing.T) {
	s := start(t, nil)
	session := dial(t, s, anonymously())
	first, err := session.NewSender(within(t), "$cbs", nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = session.NewSender(within(t), "$cbs", nil)
	wantCondition(t, err, "amqp:not-allowed")
	if err := first.Close(within(t)); err != nil {
		t.Fatal(err)
	}
	if _, err = session.NewSender(within(t), "$cbs", nil); err != nil {
		t.Error(err)
	}
}

// TestFaults drives the Go SDK into every mishap that tests can order.
func TestFaults(t *testing.T) {
	s := start(t, nil)
	p, c := producer(t, s), consumer(t, s)
	opts := &azeventhubs.EventDataBatchOptions{PartitionID: to.Ptr("0")}
	pc, err := c.NewPartitionClient("0", &azeventhubs.PartitionClientOptions{StartPosition: azeventhubs.StartPosition{Earliest: to.Ptr(true)}})
	if err != nil {
		t.Fatal(err)
	}
	defer closeIt(t, pc.Close)
	next := func(want string) {
		t.Helper()
		events, err := pc.ReceiveEvents(within(t), 1, nil)
		if err != nil || string(events[0].Body) != want {
			t.Fatalf("%v, %v, want %q", events, err, want)
		}
	}
	s.Throttle(1)
	begin := time.Now()
	send(t, p, opts, "a") // the SDK tries again after a while
	if time.Since(begin) < 30*time.Millisecond || s.Stats().MessagesRejected != 1 {
		t.Errorf("not throttled: %s, %+v", time.Since(begin), s.Stats())
	}
	next("a")

	s.Drop(1)
	send(t, p, opts, "lost", "b")
	next("b")

	if n, err := s.Detach("logs", "$DEFAULT", 0, "amqp:link:detach-forced", "moved"); n != 1 || err != nil {
		t.Fatalf("%d links detached, %v", n, err)
	}
	send(t, p, opts, "c")
	next("c")

	s.Delay(300 * time.Millisecond)
	begin = time.Now()
	send(t, p, opts, "d")
	next("d")
	if took := time.Since(begin); took < 290*time.Millisecond || took > 5*time.Second {
		t.Errorf("delayed by %s, want 300 ms", took)
	}
	s.Delay(0)

	if n := s.Disconnect(); n != 2 {
		t.Errorf("%d connections cut, want 2", n)
	}
	send(t, p, opts, "e")
	next("e")

	if n, err := s.Steal("logs", "$Default", 0); n != 1 || err != nil {
		t.Fatalf("%d links stolen, %v", n, err)
	}
	_, err = pc.ReceiveEvents(within(t), 1, nil)
	var e *azeventhubs.Error
	if !errors.As(err, &e) || e.Code != azeventhubs.ErrorCodeOwnershipLost {
		t.Errorf("error %v, want ownership lost", err)
	}
}

func TestRecreate(t *testing.T) {
	s := start(t, nil)
	publish(t, s, 0, "a", "b")
	if err := s.Recreate("LOGS"); err != nil {
		t.Fatal(err)
	}
	publish(t, s, 0, "c")
	got := receive(t, consumer(t, s), "0", azeventhubs.StartPosition{Earliest: to.Ptr(true)}, 1)
	if got[0].SequenceNumber != 0 || string(got[0].Body) != "c" {
		t.Errorf("event %d %q, want 0 c", got[0].SequenceNumber, got[0].Body)
	}
}

func TestPublish(t *testing.T) {
	s := start(t, nil)
	at := time.UnixMilli(1).UTC()
	seq, err := s.Publish("Logs", emulator.ToPartition(1), []byte("body"), map[string]any{"s": "x", "i": 5, "t": at, "n": nil})
	if err != nil || seq != 0 {
		t.Fatal(seq, err)
	}
	got := receive(t, consumer(t, s), "1", azeventhubs.StartPosition{Earliest: to.Ptr(true)}, 1)[0]
	if diff := cmp.Diff(map[string]any{"s": "x", "i": int64(5), "t": at, "n": nil}, got.Properties); diff != "" {
		t.Error(diff)
	}
	if _, err := s.Publish("absent", emulator.InTurn(), nil, nil); err == nil {
		t.Error("published to a hub that does not exist")
	}
	if _, err := s.Publish("logs", emulator.ToPartition(4), nil, nil); err == nil {
		t.Error("published to a partition that does not exist")
	}
	if _, err := s.Publish("logs", emulator.InTurn(), nil, map[string]any{"x": struct{}{}}); err == nil {
		t.Error("published a property of no AMQP type")
	}
	if _, err := s.Publish("logs", emulator.InTurn(), make([]byte, 1<<20), nil); err == nil {
		t.Error("published an event above the limit")
	}
	s.Drop(1)
	if seq, err := s.Publish("logs", emulator.ByKey("k"), nil, nil); seq != -1 || err != nil {
		t.Errorf("dropped event: %d, %v, want -1", seq, err)
	}
}

func BenchmarkPublish(b *testing.B) {
	s, err := emulator.New(emulator.Config{Addr: "127.0.0.1:0", Hubs: []emulator.Hub{{Name: "logs", Partitions: 4}}})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	body, props := make([]byte, 800), map[string]any{"aeg-event-type": "Notification"}
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Publish("logs", emulator.InTurn(), body, props); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkReceive measures events/s from the log to the Go SDK.
func BenchmarkReceive(b *testing.B) {
	s := start(b, nil)
	p, err := consumer(b, s).NewPartitionClient("0", &azeventhubs.PartitionClientOptions{
		StartPosition: azeventhubs.StartPosition{Earliest: to.Ptr(true)}, Prefetch: 2000,
	})
	if err != nil {
		b.Fatal(err)
	}
	defer closeIt(b, p.Close)
	body := make([]byte, 800)
	n := 0
	for b.Loop() {
		for range 100 {
			if _, err := s.Publish("logs", emulator.ToPartition(0), body, nil); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := p.ReceiveEvents(context.Background(), 100, nil); err != nil {
			b.Fatal(err)
		}
		n += 100
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "events/s")
}
