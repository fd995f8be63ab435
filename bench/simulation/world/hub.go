package world

import (
	"fmt"
	"time"

	"github.com/millrace/millrace/bench/simulation/audit"
	"github.com/millrace/millrace/pipeline/announce"
)

// message is one event in a partition.
type message struct {
	body       []byte
	file       *blobFile
	generation int
	length     int64
	at         time.Duration
	done       bool // it was acknowledged
}

// partition is the log of one partition of the hub.
type partition struct {
	messages []message
	first    int64 // that is not expired
}

// hub is Event Grid and the event hub behind it.
type hub struct {
	w          *World
	partitions []partition
	saved      []int64 // checkpoints: the next message to read
	parser     *announce.Parser
	serial     int
	under      []func() // lets each event arrive, unless it has
}

func newHub(w *World) *hub {
	parser, err := announce.New([]announce.Account{{Name: account, Containers: []string{container}}})
	if err != nil {
		panic(err)
	}
	return &hub{w: w, partitions: make([]partition, w.plan.Partitions), saved: make([]int64, w.plan.Partitions), parser: parser}
}

// event sends word that a blob was written.
func (h *hub) event(f *blobFile) {
	w := h.w
	if w.hit(EventLost) {
		return
	}
	h.serial++
	m := message{file: f, generation: f.generation, length: int64(len(f.data)), body: h.text(f)}
	h.send(m)
	if w.hit(EventDoubled) {
		h.send(m)
	}
}

func (h *hub) send(m message) {
	w := h.w
	delay := w.delay(time.Second)
	switch {
	case w.hit(EventReordered):
		delay += between(w.rng, 5*time.Second, 3*time.Minute)
	case w.hit(EventLate):
		delay += between(w.rng, 3*time.Minute, 24*time.Hour)
	}
	to := w.rng.IntN(len(h.partitions))
	sent := false
	send := func() {
		if sent {
			return
		}
		sent = true
		m.at = w.now
		h.partitions[to].messages = append(h.partitions[to].messages, m)
		w.say("event", m.file.id.Path, int64(to), m.length)
		for _, p := range w.processes {
			p.woken(to)
		}
	}
	h.under = append(h.under, send)
	w.after(delay, send)
}

// flush lets everything arrive that is on its way.
func (h *hub) flush() {
	for _, send := range h.under {
		send()
	}
}

// read says whether a process has read all that is there.
func (h *hub) read(p *process) bool {
	for i := range h.partitions {
		if p.next[i] < int64(len(h.partitions[i].messages)) {
			return false
		}
	}
	return true
}

// text is the event in the schema of Event Grid.
func (h *hub) text(f *blobFile) []byte {
	return fmt.Appendf(nil, `[{"topic":"/subscriptions/11aa/resourceGroups/r/providers/Microsoft.Storage/storageAccounts/%[1]s",`+
		`"subject":"/blobServices/default/containers/%[2]s/blobs/%[3]s","eventType":"Microsoft.Storage.BlobCreated","id":"%[5]d","eventTime":%[6]q,`+
		`"data":{"api":"PutBlockList","contentLength":%[4]d,"blobType":"BlockBlob","url":"https://%[1]s.blob.core.windows.net/%[2]s/%[3]s",`+
		`"sequencer":"%048[5]x"},"dataVersion":"","metadataVersion":"1"}]`,
		account, container, f.id.Path, len(f.data), h.serial, h.w.wall().Format(time.RFC3339Nano))
}

// expire lets the oldest messages of a partition pass their retention.
func (h *hub) expire() {
	p := &h.partitions[h.w.rng.IntN(len(h.partitions))]
	if left := int64(len(p.messages)) - p.first; left > 0 {
		p.first += 1 + h.w.rng.Int64N(left)
		h.w.fault(HubExpired, "")
	}
}

// save sets a checkpoint of a process whose clock is at now. What it passes is not read
// again: that, too, must be durable.
func (h *hub) save(to int, next int64, now time.Time) {
	for at := h.saved[to]; at < next; at++ {
		if m := &h.partitions[to].messages[at]; !m.done && at >= h.partitions[to].first {
			h.acknowledged(to, at, m, now)
		}
	}
	h.saved[to] = next
}

// acknowledged enters an acknowledgement into the book, by a process whose clock is at
// now.
func (h *hub) acknowledged(to int, offset int64, m *message, now time.Time) {
	a := audit.Ack{Partition: to, Offset: offset, AtMS: h.w.wall().UnixMilli(), Blob: m.file.id.String()}
	a.DurableLength = h.w.blobs.durableLength(m.file)
	// What it announced does not count when the blob was said not to be there since, nor in
	// a blob that was replaced: where the new one is not longer, nobody can tell them apart.
	// Nor does it to a clock for which the blob's hour is still to come: the sweeper finds
	// the blob when it has.
	hour, _ := m.file.id.Hour()
	come := !hour.After(now.Add(h.w.plan.Core.MaxHourAhead))
	if come && m.generation == 0 && m.file.generation == 0 && m.file.missed <= m.at {
		a.Length = m.length - int64(len(footer))
	}
	h.w.book.Acks = append(h.w.book.Acks, a)
	h.partitions[to].messages[offset].done = true
	h.w.say("acknowledged", m.file.id.Path, int64(to), offset)
}
