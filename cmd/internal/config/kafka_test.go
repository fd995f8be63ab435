package config_test

import (
	"strings"
	"testing"
	"time"

	"github.com/millrace/millrace/cmd/internal/config"
)

func TestSampleWithKafkaIsValid(t *testing.T) {
	c, err := config.Load("../../../deploy/millrace-kafka.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(c.KafkaSources) != 2 || c.KafkaSources[1].SASL.User != "$ConnectionString" || c.Kafka.Topics["flows"] != "millrace-flows" || !c.HasClickHouse() {
		t.Errorf("the sample reads as %+v, %+v", c.KafkaSources, c.Kafka)
	}
}

const kafkaAlone = `
state: s
start: now
accounts:
  - {name: logs, endpoint: "https://logs.blob.core.windows.net", containers: [logs], key: {env: K}}
kafka:
  brokers: ["k:9092"]
`

func TestKafkaAloneHasDefaults(t *testing.T) {
	c, err := config.Parse([]byte(kafkaAlone + "kafka_sources:\n  - {brokers: [\"k:9092\"], topic: events}\n"))
	if err != nil {
		t.Fatal(err)
	}
	k, s := c.Kafka, c.KafkaSources[0]
	if c.HasClickHouse() || k.Delivery != config.ExactlyOnce || k.Format != "json" || k.TransactionTimeout != 2*time.Minute || k.Topics["flows"] != "millrace-flows" {
		t.Errorf("kafka reads as %+v", k)
	}
	if s.Group != "millrace" || s.Start != "earliest" {
		t.Errorf("the source reads as %+v", s)
	}
}

func TestFaultsOfKafkaNameTheirKeys(t *testing.T) {
	_, err := config.Parse([]byte(kafkaAlone + `
  delivery: twice
  format: xml
  topics: {flow: t}
  sasl: {mechanism: plain, user: u, password: {env: P}}
kafka_sources:
  - {topic: "", start: yesterday, group: g}
`))
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		`kafka.delivery: "twice"`, `kafka: format: "xml"`, "kafka.topics.flow: the pipeline has no table", "kafka: sasl: plain without TLS",
		"kafka_sources[0]: brokers: missing", "kafka_sources[0]: topic: missing", `kafka_sources[0]: start: "yesterday"`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q:\n%v", want, err)
		}
	}
	if _, err := config.Parse([]byte(kafkaAlone + "  compresion: zstd\n")); err == nil || !strings.Contains(err.Error(), "compresion") {
		t.Errorf("an unknown key: %v", err)
	}
	if _, err := config.Parse([]byte(strings.Split(kafkaAlone, "kafka:")[0])); err == nil || !strings.Contains(err.Error(), "clickhouse.url") {
		t.Errorf("no target at all: %v", err)
	}
}
