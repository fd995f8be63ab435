package traffic

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Envelopes of the two schemas, with the members in the order of the published
// samples. What they have in common is in eventData.
type gridEvent struct {
	Topic           string    `json:"topic"`
	Subject         string    `json:"subject"`
	EventType       string    `json:"eventType"`
	EventTime       string    `json:"eventTime"`
	ID              string    `json:"id"`
	Data            eventData `json:"data"`
	DataVersion     string    `json:"dataVersion"`
	MetadataVersion string    `json:"metadataVersion"`
}

type cloudEvent struct {
	Source      string    `json:"source"`
	Subject     string    `json:"subject"`
	Type        string    `json:"type"`
	Time        string    `json:"time"`
	ID          string    `json:"id"`
	Data        eventData `json:"data"`
	SpecVersion string    `json:"specversion"`
}

type eventData struct {
	API                string            `json:"api,omitempty"`
	ClientRequestID    string            `json:"clientRequestId,omitempty"`
	RequestID          string            `json:"requestId,omitempty"`
	ETag               string            `json:"eTag,omitempty"`
	ContentType        string            `json:"contentType,omitempty"`
	ContentLength      *int64            `json:"contentLength,omitempty"`
	BlobType           string            `json:"blobType,omitempty"`
	AccessTier         string            `json:"accessTier,omitempty"`
	PreviousTier       string            `json:"previousTier,omitempty"`
	URL                string            `json:"url,omitempty"`
	Sequencer          string            `json:"sequencer,omitempty"`
	ValidationCode     string            `json:"validationCode,omitempty"`
	StorageDiagnostics map[string]string `json:"storageDiagnostics,omitempty"`
}

// notice is what there is to tell about a blob.
type notice struct {
	key       uint64 // Place of its random choices.
	account   string
	name      BlobName
	eventType string
	data      eventData
	at        time.Time
	cloud     bool
}

const (
	blobCreated  = "Microsoft.Storage.BlobCreated"
	contentType  = "application/octet-stream"
	storageGroup = "rg-flowlogs"
)

func subjectOf(name BlobName) string {
	if name == (BlobName{}) {
		return ""
	}
	return "/blobServices/default/containers/" + name.Container + "/blobs/" + name.Path
}

// sequencerOf is 32 hex digits which grow with n.
func sequencerOf(key, n uint64) string { return hex(key&0xFFFF, n, 32) }

// body renders a notice as Event Grid delivers it: an array with one event.
func (n *notice) body() []byte {
	when := n.at.UTC().Format(timeLayout)
	topic := fmt.Sprintf("/subscriptions/%s/resourceGroups/%s/providers/Microsoft.Storage/storageAccounts/%s",
		guid(textPlace(n.account)), storageGroup, n.account)
	request := guid(n.key + 1)
	id := request[:24] + hex(0, mix(n.key+2), 12)
	d := n.storageData(request)
	var event any = []gridEvent{{
		Topic: topic, Subject: subjectOf(n.name), EventType: n.eventType, EventTime: when, ID: id,
		Data: d, DataVersion: "", MetadataVersion: "1",
	}}
	if n.cloud {
		event = []cloudEvent{{
			Source: topic, Subject: subjectOf(n.name), Type: n.eventType, Time: when, ID: id,
			Data: d, SpecVersion: "1.0",
		}}
	}
	body, err := json.Marshal(event)
	if err != nil {
		panic(fmt.Sprintf("BUG: render event: %v", err)) // Texts and numbers only.
	}
	return body
}

// storageData completes what the storage service says of a request.
func (n *notice) storageData(request string) eventData {
	d := n.data
	if d.API == "" { // Not from the storage service.
		return d
	}
	d.StorageDiagnostics = map[string]string{"batchId": guid(n.key + 3)}
	d.RequestID = request[:30] + "000000"
	if mix(n.key+4)%4 != 0 { // Absent when the writer sent none.
		d.ClientRequestID = guid(n.key + 5)
	}
	if d.ETag != "" && (n.cloud || mix(n.key+6)%2 == 0) { // Newer samples quote it.
		d.ETag = `"` + d.ETag + `"`
	}
	return d
}

// createdNotice tells of one append.
func createdNotice(cfg *Config, key uint64, name BlobName, etag string, length int64, sequence uint64, at time.Time) *notice {
	return &notice{
		key:       key,
		account:   name.Account,
		name:      name,
		eventType: blobCreated,
		data:      blobData(name.Account, name, "PutBlockList", etag, length, sequencerOf(cfg.Seed, sequence)),
		at:        at,
		cloud:     chance(mix(key+7), cfg.CloudEventsShare),
	}
}

func blobData(account string, name BlobName, api, etag string, length int64, sequencer string) eventData {
	return eventData{
		API:           api,
		ETag:          etag,
		ContentType:   contentType,
		ContentLength: &length,
		BlobType:      "BlockBlob",
		URL:           "https://" + account + ".blob.core.windows.net/" + name.Container + "/" + name.Path,
		Sequencer:     sequencer,
	}
}

// noiseNotice is an event that concerns nobody: every kind that a shared hub
// brings along.
func noiseNotice(cfg *Config, key uint64, name BlobName, sequence uint64, at time.Time) *notice {
	n := createdNotice(cfg, key, name, "0x8D"+strings.ToUpper(hex(0, mix(key), 12)), 14, sequence, at)
	switch mix(key+8) % 6 {
	case 0: // An empty file was just opened.
		n.data.API = "CreateFile"
		n.data.URL = strings.Replace(n.data.URL, ".blob.", ".dfs.", 1)
		*n.data.ContentLength = 0
	case 1: // Retention removes the blob of a year ago.
		n.eventType, n.data.API = "Microsoft.Storage.BlobDeleted", "DeleteBlob"
		n.lastYear()
		n.data.ETag, n.data.ContentLength = "", nil
	case 2:
		n.eventType, n.data.API = "Microsoft.Storage.BlobTierChanged", "SetBlobTier"
		n.lastYear()
		n.data.AccessTier, n.data.PreviousTier = "Cool", "Hot"
	case 3:
		n.eventType = "Microsoft.EventGrid.SubscriptionValidationEvent"
		n.data = eventData{ValidationCode: guid(key)}
		n.name = BlobName{}
	case 4: // Another account's flow log.
		n.account = "other" + hex(0, key, 8)
		n.data = blobData(n.account, n.name, "PutBlockList", n.data.ETag, 5000, n.data.Sequencer)
	default: // Another log of the same account.
		n.name.Container = "insights-logs-auditevent"
		n.data = blobData(n.account, n.name, "PutBlockList", n.data.ETag, 5000, n.data.Sequencer)
	}
	return n
}

func (n *notice) lastYear() {
	if i := strings.Index(n.name.Path, "/y=20"); i >= 0 {
		old := n.at.AddDate(-1, 0, 0).Format("/y=2006")
		n.name.Path = n.name.Path[:i] + old + n.name.Path[i+len(old):]
	}
	n.data.URL = "https://" + n.account + ".blob.core.windows.net/" + n.name.Container + "/" + n.name.Path
}
