package servers

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/millrace/millrace/deploy/local/process"
)

// KafkaOptions says which Kafka broker to start and where.
type KafkaOptions struct {
	// Jar is the path of kafka_2.13-*.jar; the other jars of Kafka lie beside it.
	Jar string
	// Java is the program that runs it; default that of JAVA_HOME, else "java" in
	// PATH.
	Java string
	// Dir holds data and configuration; a second start on it finds the data.
	Dir string
	// Port is the preferred port of the plain listener; 0 takes any free one.
	Port int
	// Proxy adds a listener whose clients are told this address instead of its own: that
	// of a proxy in front of it. Optional.
	Proxy string
	// Secure adds a listener with TLS and SASL. Optional.
	Secure *KafkaSecurity
	// LogFile takes what the program prints.
	LogFile string
}

// KafkaSecurity is a listener that asks for a password, and for a certificate
// when ClientCA is set.
type KafkaSecurity struct {
	// KeyFile holds the server's private key (PKCS 8) and certificate, PEM.
	KeyFile string
	// ClientCA is the authority whose certificates clients must show. Optional.
	ClientCA string
	// User and Password are good for PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512.
	User, Password string
	// Port is the preferred one.
	Port int
}

// Kafka is a running broker: one node that is its own controller.
type Kafka struct {
	*process.Process
	// Addr is like "127.0.0.1:9092"; SecureAddr that of the listener with a password,
	// ProxiedAddr that of the one behind a proxy.
	Addr, SecureAddr, ProxiedAddr string
	Port                          int
	// PortMoved says that a preferred port was busy.
	PortMoved bool
}

// StartKafka starts a broker and returns when it has started: 6 s the first time
// on a folder, 5 s later. Topics are not made by themselves.
//
// Errors: the program's own message; ctx's cause.
func StartKafka(ctx context.Context, o KafkaOptions) (*Kafka, error) {
	if o.Jar == "" || o.Dir == "" {
		return nil, errors.New("start kafka: Jar and Dir must be set")
	}
	if o.Java == "" {
		o.Java = "java"
		if home := os.Getenv("JAVA_HOME"); home != "" {
			o.Java = filepath.Join(home, "bin", "java")
		}
	}
	var k *Kafka
	err := retryPorts(ctx, func(ctx context.Context) (err error) {
		k, err = startKafka(ctx, o)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("start kafka: %w", err)
	}
	return k, nil
}

func startKafka(ctx context.Context, o KafkaOptions) (*Kafka, error) {
	preferred := []int{o.Port, 0, 0, 0} // clients, controller, behind the proxy, with a password
	if o.Secure != nil {
		preferred[3] = o.Secure.Port
	}
	ports, err := reserve(preferred...)
	if err != nil {
		return nil, err
	}
	defer bound(ports)
	k := &Kafka{Port: ports[0].Number, Addr: fmt.Sprintf("127.0.0.1:%d", ports[0].Number)}
	if o.Proxy != "" {
		k.ProxiedAddr = fmt.Sprintf("127.0.0.1:%d", ports[2].Number)
	}
	if o.Secure != nil {
		k.SecureAddr = fmt.Sprintf("127.0.0.1:%d", ports[3].Number)
	}
	for _, p := range ports {
		k.PortMoved = k.PortMoved || p.Moved
	}
	if err := o.prepare(ctx, ports); err != nil {
		return nil, err
	}
	ready := newLineSignal(func(line []byte) bool { return bytes.Contains(line, []byte("Kafka Server started")) })
	release(ports)
	// The heap is small and the compiler quick: a test's broker lives for seconds.
	k.Process, err = process.Start(process.Config{
		Name: "kafka", Path: o.Java,
		Args:    append(o.java("-Xmx384m", "-Xms128m"), "kafka.Kafka", o.file("server.properties")),
		Dir:     o.Dir,
		LogFile: o.LogFile,
		Stdout:  ready,
	})
	if err != nil {
		return nil, err
	}
	select {
	case <-ready.seen:
		return k, nil
	case <-k.Done():
		return nil, exitCause(k.Process, ports)
	case <-ctx.Done():
		k.Kill()
		return nil, context.Cause(ctx)
	}
}

func (o KafkaOptions) file(name string) string { return filepath.Join(o.Dir, name) }

// java gives the arguments before the main class.
func (o KafkaOptions) java(memory ...string) []string {
	return append(memory, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
		"-Dlog4j2.configurationFile="+o.file("log4j2.properties"), "-cp", filepath.Join(filepath.Dir(o.Jar), "*"))
}

// prepare writes the configuration, and formats the folder of a new broker.
func (o KafkaOptions) prepare(ctx context.Context, ports []*process.Port) error {
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return err
	}
	for name, text := range map[string]string{"server.properties": o.properties(ports), "log4j2.properties": kafkaLogging} {
		if err := os.WriteFile(o.file(name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	if _, err := os.Stat(filepath.Join(o.file("data"), "meta.properties")); err == nil {
		return nil
	}
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		return err
	}
	args := append(o.java("-Xmx128m"), "kafka.tools.StorageTool", "format", "--config", o.file("server.properties"),
		"--cluster-id="+base64.RawURLEncoding.EncodeToString(id[:])) // it may begin with a dash
	if s := o.Secure; s != nil {
		for _, mechanism := range []string{"SCRAM-SHA-256", "SCRAM-SHA-512"} {
			args = append(args, "--add-scram", fmt.Sprintf("%s=[name=%s,password=%s]", mechanism, s.User, s.Password))
		}
	}
	out, err := exec.CommandContext(ctx, o.Java, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("format storage: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// properties make one node that keeps every internal topic once.
func (o KafkaOptions) properties(ports []*process.Port) string {
	listeners := fmt.Sprintf("PLAINTEXT://127.0.0.1:%d", ports[0].Number)
	advertised := listeners
	if o.Proxy != "" {
		listeners += fmt.Sprintf(",PROXIED://127.0.0.1:%d", ports[2].Number)
		advertised += ",PROXIED://" + o.Proxy
	}
	lines := []string{
		"process.roles=broker,controller",
		"node.id=1",
		fmt.Sprintf("controller.quorum.voters=1@127.0.0.1:%d", ports[1].Number),
		"controller.listener.names=CONTROLLER",
		"log.dirs=" + o.file("data"),
		"auto.create.topics.enable=false",
		"num.partitions=1",
		"offsets.topic.replication.factor=1", "offsets.topic.num.partitions=4",
		"transaction.state.log.replication.factor=1", "transaction.state.log.min.isr=1", "transaction.state.log.num.partitions=4",
		"share.coordinator.state.topic.replication.factor=1", "share.coordinator.state.topic.min.isr=1",
		"group.initial.rebalance.delay.ms=0",
		"listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL",
	}
	if s := o.Secure; s != nil {
		secure := fmt.Sprintf(",SECURE://127.0.0.1:%d", ports[3].Number)
		listeners += secure
		advertised += secure
		lines = append(lines,
			"sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
			fmt.Sprintf(`listener.name.secure.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_%s="%s";`, s.User, s.Password),
			`listener.name.secure.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;`,
			`listener.name.secure.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;`,
			"ssl.keystore.type=PEM", "ssl.keystore.location="+s.KeyFile)
		if s.ClientCA != "" {
			lines = append(lines, "ssl.client.auth=required", "ssl.truststore.type=PEM", "ssl.truststore.location="+s.ClientCA)
		}
	}
	lines = append(lines, "listeners="+listeners+fmt.Sprintf(",CONTROLLER://127.0.0.1:%d", ports[1].Number), "advertised.listeners="+advertised)
	return strings.Join(lines, "\n") + "\n"
}

const kafkaLogging = `appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d %p %m (%c)%n
rootLogger.level=WARN
rootLogger.appenderRef.out.ref=out
logger.started.name=kafka.server.KafkaRaftServer
logger.started.level=INFO
`
