import com.azure.core.amqp.AmqpRetryOptions;
import com.azure.core.amqp.exception.AmqpErrorCondition;
import com.azure.core.amqp.exception.AmqpException;
import com.azure.core.amqp.models.AmqpAnnotatedMessage;
import com.azure.core.amqp.models.AmqpMessageId;
import com.azure.messaging.eventhubs.EventData;
import com.azure.messaging.eventhubs.EventDataBatch;
import com.azure.messaging.eventhubs.EventHubBufferedProducerClientBuilder;
import com.azure.messaging.eventhubs.EventHubClientBuilder;
import com.azure.messaging.eventhubs.EventHubConsumerAsyncClient;
import com.azure.messaging.eventhubs.EventHubProducerClient;
import com.azure.messaging.eventhubs.implementation.EventHubSharedKeyCredential;
import com.azure.messaging.eventhubs.models.CreateBatchOptions;
import com.azure.messaging.eventhubs.models.EventPosition;
import com.azure.messaging.eventhubs.models.LastEnqueuedEventProperties;
import com.azure.messaging.eventhubs.models.ReceiveOptions;
import com.azure.messaging.eventhubs.models.SendOptions;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import java.time.OffsetDateTime;
import java.time.ZoneOffset;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.Date;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.BooleanSupplier;
import reactor.core.Disposable;

/**
 * Judges the emulator with the official Java SDK (azure-messaging-eventhubs).
 *
 * <p>Usage: java Judge CONNECTION_STRING CONNECTION_STRING_WITH_WRONG_KEY
 *
 * <p>The hub has four empty partitions and a consumer group "second". Each check prints
 * "ok NAME"; the first one that fails ends the program.
 */
public final class Judge {
    private static final long BEGAN = System.nanoTime();
    private static String conn;
    private static String wrong;

    interface Action {
        void run() throws Exception;
    }

    private static void want(String name, Object got, Object expected) {
        if (!Objects.deepEquals(got, expected)) {
            throw new AssertionError(name + ": got " + show(got) + ", want " + show(expected));
        }
    }

    private static String show(Object o) {
        return o instanceof byte[] ? Arrays.toString((byte[]) o) : String.valueOf(o);
    }

    private static void until(String what, BooleanSupplier done) throws InterruptedException {
        for (long end = System.nanoTime() + 20_000_000_000L; !done.getAsBoolean(); Thread.sleep(5)) {
            if (System.nanoTime() > end) {
                throw new AssertionError(what + ": nothing after 20 s");
            }
        }
    }

    /** Waits for the error of what must not succeed. */
    private static void refused(String name, AmqpErrorCondition condition, Action action) throws Exception {
        try {
            action.run();
        } catch (AmqpException e) {
            want(name, e.getErrorCondition(), condition);
            return;
        }
        throw new AssertionError(name + ": not refused");
    }

    private static EventHubClientBuilder builder(String connection) {
        return new EventHubClientBuilder().connectionString(connection).consumerGroup("$Default").prefetchCount(500)
            .retryOptions(new AmqpRetryOptions().setMaxRetries(0).setTryTimeout(Duration.ofSeconds(10)));
    }

    private static EventHubProducerClient producer() {
        return builder(conn).buildProducerClient();
    }

    /** Receives from one partition. */
    private static final class Reader implements AutoCloseable {
        final List<EventData> events = Collections.synchronizedList(new ArrayList<>());
        final List<Throwable> errors = Collections.synchronizedList(new ArrayList<>());
        volatile LastEnqueuedEventProperties last;
        private final EventHubConsumerAsyncClient client;
        private final Disposable subscription;

        Reader(String partition, String group, EventPosition position, ReceiveOptions options) {
            client = builder(conn).consumerGroup(group).buildAsyncConsumerClient();
            subscription = client.receiveFromPartition(partition, position, options).subscribe(e -> {
                last = e.getLastEnqueuedEventProperties();
                events.add(e.getData());
            }, errors::add);
        }

        @Override
        public void close() {
            subscription.dispose();
            client.close();
        }
    }

    /** Gives count events; more than that is an error. */
    private static List<EventData> read(String name, String partition, int count, EventPosition position) throws Exception {
        try (Reader r = new Reader(partition, "$Default", position, new ReceiveOptions())) {
            until(name, () -> r.events.size() >= count || !r.errors.isEmpty());
            Thread.sleep(200);
            want(name + ": errors", r.errors, List.of());
            want(name + ": events", r.events.size(), count);
            return new ArrayList<>(r.events);
        }
    }

    private static List<EventData> all(String name, String partition, long count) throws Exception {
        return read(name, partition, (int) count, EventPosition.earliest());
    }

    private static String text(List<EventData> events) {
        StringBuilder b = new StringBuilder();
        events.forEach(e -> b.append(e.getBodyAsString()));
        return b.toString();
    }

    private static void properties() throws Exception {
        try (EventHubProducerClient p = producer()) {
            var hub = p.getEventHubProperties();
            want("name", hub.getName(), "logs");
            want("created", Duration.between(hub.getCreatedAt(), Instant.now()).abs().toMinutes() < 5, true);
            List<String> ids = new ArrayList<>();
            hub.getPartitionIds().forEach(ids::add);
            want("partitions", ids, List.of("0", "1", "2", "3"));
            var part = p.getPartitionProperties("3");
            want("empty", part.isEmpty(), true);
            want("first and last", List.of(part.getBeginningSequenceNumber(), part.getLastEnqueuedSequenceNumber()), List.of(0L, -1L));
            try { // The SDK makes this exception of the status 400.
                p.getPartitionProperties("9");
                throw new AssertionError("properties of partition 9");
            } catch (IllegalArgumentException e) {
                want("partition 9", e.getMessage().contains("between 0 and 3"), true);
            }
        }
    }

    private static void positions() throws Exception {
        try (EventHubProducerClient p = producer()) {
            want("max size", p.createBatch().getMaxSizeInBytes(), 1048576);
            for (String text : List.of("a", "b", "c", "d")) {
                EventData e = new EventData(text).setMessageId("id-" + text).setContentType("text/plain").setCorrelationId("c");
                e.getProperties().put("letter", text);
                e.getProperties().put("n", 7L);
                EventDataBatch batch = p.createBatch(new CreateBatchOptions().setPartitionId("0"));
                want("room", batch.tryAdd(e), true);
                p.send(batch);
                Thread.sleep(5);
            }
        }
        List<EventData> events = all("earliest", "0", 4);
        want("bodies", text(events), "abcd");
        for (int i = 0; i < 4; i++) {
            want("sequence", events.get(i).getSequenceNumber(), (long) i);
        }
        EventData b = events.get(1);
        want("properties", b.getProperties(), Map.of("letter", "b", "n", 7L));
        want("message id", List.of(b.getMessageId(), b.getContentType(), b.getCorrelationId()), List.of("id-b", "text/plain", "c"));
        want("partition key", b.getPartitionKey(), null);
        Map<EventPosition, String> cases = new LinkedHashMap<>();
        cases.put(EventPosition.fromOffset(b.getOffset()), "cd");
        cases.put(EventPosition.fromSequenceNumber(1), "cd");
        cases.put(EventPosition.fromSequenceNumber(1, true), "bcd");
        cases.put(EventPosition.fromEnqueuedTime(b.getEnqueuedTime()), "cd");
        together(cases, (position, letters) ->
            want(position.toString(), text(read(position.toString(), "0", letters.length(), position)), letters));
    }

    interface Check<K, V> {
        void run(K key, V value) throws Exception;
    }

    /** Runs the checks at once; a partition lets five receivers of a group in. */
    private static <K, V> void together(Map<K, V> arguments, Check<K, V> check) {
        List<CompletableFuture<Void>> running = new ArrayList<>();
        arguments.forEach((k, v) -> running.add(CompletableFuture.runAsync(() -> {
            try {
                check.run(k, v);
            } catch (Exception e) {
                throw new AssertionError(e);
            }
        })));
        running.forEach(CompletableFuture::join);
    }

    private static void latest() throws Exception {
        try (EventHubProducerClient p = producer();
            Reader r = new Reader("1", "second", EventPosition.latest(), new ReceiveOptions().setTrackLastEnqueuedEventProperties(true))) {
            until("latest", () -> {
                p.send(List.of(new EventData("later")), new SendOptions().setPartitionId("1"));
                return !r.events.isEmpty();
            });
            long last = p.getPartitionProperties("1").getLastEnqueuedSequenceNumber();
            want("latest", r.events.get(0).getBodyAsString(), "later");
            want("runtime metric", r.last.getSequenceNumber() <= last, true);
            want("runtime time", Duration.between(r.last.getRetrievalTime(), Instant.now()).toMinutes(), 0L);
        }
    }

    /** Whatever the SDK can say comes back as it was sent. */
    private static void bodies() throws Exception {
        byte[] bytes = {0, 1, (byte) 254, (byte) 255};
        UUID uuid = UUID.randomUUID();
        Map<String, Object> sent = new HashMap<>();
        sent.put("s", "ä");
        sent.put("b", (byte) -1);
        sent.put("h", (short) -2);
        sent.put("i", -5);
        sent.put("l", 1L << 40);
        sent.put("f", 1.5f);
        sent.put("d", 2.5);
        sent.put("yes", true);
        sent.put("c", 'x');
        sent.put("when", new Date(1732320000123L));
        sent.put("uuid", uuid);
        OffsetDateTime when = OffsetDateTime.ofInstant(Instant.ofEpochMilli(1732320000123L), ZoneOffset.UTC);
        long before;
        try (EventHubProducerClient p = producer()) {
            before = p.getPartitionProperties("3").getLastEnqueuedSequenceNumber() + 1;
            EventData full = new EventData("full");
            full.getProperties().putAll(sent);
            AmqpAnnotatedMessage raw = full.getRawAmqpMessage();
            raw.getHeader().setDurable(true).setPriority((short) 7).setTimeToLive(Duration.ofMinutes(1));
            raw.getMessageAnnotations().put("x-mine", "m");
            raw.getProperties().setMessageId(new AmqpMessageId("mid")).setSubject("s").setGroupId("g").setReplyToGroupId("rg")
                .setGroupSequence(5L).setContentEncoding("gzip").setContentType("text/plain").setCreationTime(when).setUserId(bytes);
            p.send(List.of(new EventData("text äöü €"), new EventData(bytes), new EventData(new byte[0]), full),
                new SendOptions().setPartitionId("3"));
        }
        List<EventData> events = all("bodies", "3", before + 4).subList((int) before, (int) before + 4);
        want("text", events.get(0).getBodyAsString(), "text äöü €");
        want("bytes", events.get(1).getBody(), bytes);
        want("nothing", events.get(2).getBody(), new byte[0]);
        want("properties", events.get(3).getProperties(), sent);
        AmqpAnnotatedMessage raw = events.get(3).getRawAmqpMessage();
        want("header", Arrays.asList(raw.getHeader().isDurable(), raw.getHeader().getPriority(), raw.getHeader().getTimeToLive()),
            Arrays.asList(true, (short) 7, Duration.ofMinutes(1)));
        want("annotation", raw.getMessageAnnotations().get("x-mine"), "m");
        var m = raw.getProperties();
        want("message", Arrays.asList(m.getMessageId().toString(), m.getSubject(), m.getGroupId(), m.getReplyToGroupId(), m.getGroupSequence(),
            m.getContentEncoding(), m.getContentType(), m.getCreationTime().toInstant()),
            Arrays.asList("mid", "s", "g", "rg", 5L, "gzip", "text/plain", when.toInstant()));
        want("user", m.getUserId(), bytes);
    }

    private static void keys() throws Exception {
        List<String> names = new ArrayList<>();
        for (int i = 0; i < 20; i++) {
            names.add("key-" + i);
        }
        Map<Integer, Long> before;
        Map<Integer, Long> after;
        try (EventHubProducerClient p = producer()) {
            before = lasts(p);
            for (String key : names) {
                p.send(List.of(new EventData(key)), new SendOptions().setPartitionKey(key));
                EventDataBatch batch = p.createBatch(new CreateBatchOptions().setPartitionKey(key));
                batch.tryAdd(new EventData(key));
                p.send(batch);
            }
            after = lasts(p);
        }
        // The buffered producer chooses the partition itself: it must agree. Its flush
        // returns before the events are sent, and closing it then would lose them.
        List<Throwable> failures = Collections.synchronizedList(new ArrayList<>());
        AtomicInteger done = new AtomicInteger();
        try (var buffered = new EventHubBufferedProducerClientBuilder().connectionString(conn).maxWaitTime(Duration.ofMillis(100))
            .onSendBatchFailed(f -> failures.add(f.getThrowable()))
            .onSendBatchSucceeded(s -> s.getEvents().forEach(e -> done.incrementAndGet())).buildClient()) {
            for (String key : names) {
                buffered.enqueueEvent(new EventData(key), new SendOptions().setPartitionKey(key));
            }
            until("buffered events", () -> done.get() == names.size() || !failures.isEmpty());
            want("failures of the buffered producer", failures, List.of());
        }
        Map<String, List<Integer>> home = Collections.synchronizedMap(new HashMap<>());
        together(after, (id, last) -> {
            long sent = last - before.get(id);
            List<EventData> events = all("keys", "" + id, last + 1 + sent / 2);
            for (EventData e : events.subList((int) (before.get(id) + 1), events.size())) {
                want("key", e.getPartitionKey(), e.getBodyAsString());
                home.computeIfAbsent(e.getBodyAsString(), k -> Collections.synchronizedList(new ArrayList<>())).add(id);
            }
        });
        for (String key : names) {
            want("partitions of " + key, home.get(key), Collections.nCopies(3, home.get(key).get(0)));
        }
    }

    private static Map<Integer, Long> lasts(EventHubProducerClient p) {
        Map<Integer, Long> m = new HashMap<>();
        for (int i = 0; i < 4; i++) {
            m.put(i, p.getPartitionProperties("" + i).getLastEnqueuedSequenceNumber());
        }
        return m;
    }

    private static void large() throws Exception {
        long already;
        EventDataBatch batch;
        try (EventHubProducerClient p = producer()) {
            already = p.getPartitionProperties("2").getLastEnqueuedSequenceNumber() + 1;
            batch = p.createBatch(new CreateBatchOptions().setPartitionId("2"));
            while (batch.tryAdd(new EventData(String.format("%05d", batch.getCount()).repeat(200)))) {
                continue;
            }
            p.send(batch);
            p.send(List.of(new EventData("x".repeat(900_000))), new SendOptions().setPartitionId("2"));
            refused("an event above the limit", AmqpErrorCondition.LINK_PAYLOAD_SIZE_EXCEEDED,
                () -> p.send(List.of(new EventData(new byte[1_100_000])), new SendOptions().setPartitionId("2")));
        }
        int sent = batch.getCount();
        List<EventData> events = all("large", "2", already + sent + 1).subList((int) already, (int) already + sent + 1);
        for (int i = 0; i < sent; i++) {
            want("order", events.get(i).getBodyAsString(), String.format("%05d", i).repeat(200));
        }
        want("size", events.get(sent).getBody().length, 900_000);
    }

    private static void ownerLevel() throws Exception {
        EventPosition from = EventPosition.earliest();
        try (Reader first = new Reader("0", "$Default", from, new ReceiveOptions().setOwnerLevel(1L))) {
            until("owner level 1", () -> !first.events.isEmpty());
            try (Reader second = new Reader("0", "$Default", from, new ReceiveOptions().setOwnerLevel(2L))) {
                until("owner level 2", () -> !second.events.isEmpty());
                until("link lost to owner level 2", () -> !first.errors.isEmpty());
                stolen(first);
                try (Reader third = new Reader("0", "$Default", from, new ReceiveOptions().setOwnerLevel(1L))) {
                    until("owner level 1 refused", () -> !third.errors.isEmpty());
                    stolen(third);
                    want("events of the refused", third.events, List.of());
                }
                want("errors of owner level 2", second.errors, List.of());
            }
        }
    }

    private static void stolen(Reader r) {
        for (Throwable e = r.errors.get(0); e != null; e = e.getCause()) {
            if (e instanceof AmqpException && ((AmqpException) e).getErrorCondition() == AmqpErrorCondition.LINK_STOLEN) {
                return;
            }
        }
        throw new AssertionError("not stolen", r.errors.get(0));
    }

    private static void refusals() throws Exception {
        try (EventHubProducerClient p = builder(wrong).buildProducerClient()) {
            refused("a wrong key", AmqpErrorCondition.UNAUTHORIZED_ACCESS, () -> p.send(List.of(new EventData("x"))));
            refused("a wrong key for management", AmqpErrorCondition.UNAUTHORIZED_ACCESS, p::getEventHubProperties);
        }
        try (EventHubProducerClient p = builder(conn.replace("EntityPath=logs", "EntityPath=absent")).buildProducerClient()) {
            refused("an absent hub", AmqpErrorCondition.NOT_FOUND, () -> p.send(List.of(new EventData("x"))));
        }
        try (EventHubProducerClient p = producer()) {
            refused("an absent partition", AmqpErrorCondition.ARGUMENT_OUT_OF_RANGE_ERROR,
                () -> p.send(List.of(new EventData("x")), new SendOptions().setPartitionId("4")));
        }
    }

    /** Tokens of ten seconds: the SDK must put new ones, or its links are ended. */
    private static void renewal() throws Exception {
        Map<String, String> parts = new HashMap<>();
        for (String part : conn.split(";")) {
            String[] pair = part.split("=", 2);
            parts.put(pair[0], pair[1]);
        }
        String host = parts.get("Endpoint").replace("sb://", "").replaceAll("[:/].*", "");
        var credential = new EventHubSharedKeyCredential(parts.get("SharedAccessKeyName"), parts.get("SharedAccessKey"), Duration.ofSeconds(10));
        try (EventHubProducerClient p = builder(conn).credential(host, "logs", credential).buildProducerClient()) {
            for (int i = 0; i < 24; i++) {
                p.send(List.of(new EventData("renewed")), new SendOptions().setPartitionId("" + i % 4));
                p.getEventHubProperties();
                Thread.sleep(500);
            }
        }
    }

    /** Each connection has a thread of its own, which ends when both sides have closed it. */
    private static void cleanClose() throws Exception {
        until("threads of connections", () -> Thread.getAllStackTraces().keySet().stream().noneMatch(t -> t.getName().startsWith("reactor-executor")));
    }

    public static void main(String[] args) throws Exception {
        conn = args[0];
        wrong = args[1];
        Map<String, Action> checks = new LinkedHashMap<>();
        checks.put("properties", Judge::properties);
        checks.put("positions", Judge::positions);
        checks.put("latest", Judge::latest);
        checks.put("bodies", Judge::bodies);
        checks.put("keys", Judge::keys);
        checks.put("large", Judge::large);
        checks.put("owner level", Judge::ownerLevel);
        checks.put("refusals", Judge::refusals);
        checks.put("renewal", Judge::renewal);
        checks.put("clean close", Judge::cleanClose);
        for (var check : checks.entrySet()) {
            try {
                check.getValue().run();
            } catch (Throwable e) {
                e.printStackTrace();
                System.exit(1);
            }
            System.out.printf("ok %s%n   after %.1f s%n", check.getKey(), (System.nanoTime() - BEGAN) / 1e9);
        }
        System.exit(0); // the SDK's other threads would live on for a minute
    }
}
