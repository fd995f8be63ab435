"""Judges the emulator with the official Python SDK (azure-eventhub).

Usage: judge.py CONNECTION_STRING CONNECTION_STRING_WITH_WRONG_KEY

The hub has four empty partitions. Each check prints "ok NAME"; the first one that
fails ends the program.
"""

import math
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone

from azure.eventhub import EventData, EventHubConsumerClient, EventHubProducerClient
from azure.eventhub._buffered_producer._partition_resolver import generate_hash_code
from azure.eventhub.exceptions import AuthenticationError, ConnectError, EventHubError

conn, wrong = sys.argv[1:]
START = time.monotonic()


def ok(name):
    print("ok", name, flush=True)
    print(f"   after {time.monotonic() - START:.1f} s", flush=True)


def want(name, got, expected):
    if got != expected:
        sys.exit(f"{name}: got {got!r}, want {expected!r}")


def consumer(group="$Default", connection=conn, **options):
    return EventHubConsumerClient.from_connection_string(connection, group, retry_total=0, **options)


def producer(connection=conn, **options):
    return EventHubProducerClient.from_connection_string(connection, retry_total=0, **options)


class Reader:
    """Receives from one partition on a thread of its own."""

    def __init__(self, partition, **options):
        self.events, self.errors, self.properties = [], [], None
        self.cond = threading.Condition()
        self.client = consumer(options.pop("group", "$Default"))
        self.options = dict(partition_id=partition, starting_position="-1")
        self.options.update(options)
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        self.client.receive(on_event=self.on_event, on_error=self.on_error, max_wait_time=0.2, **self.options)

    def on_event(self, context, event):
        if event is None:
            return
        with self.cond:
            self.events.append(event)
            if self.options.get("track_last_enqueued_event_properties"):
                self.properties = context.last_enqueued_event_properties
            self.cond.notify_all()

    def on_error(self, _, error):
        with self.cond:
            self.errors.append(error)
            self.cond.notify_all()

    def wait(self, predicate, what):
        with self.cond:
            if not self.cond.wait_for(predicate, timeout=20):
                sys.exit(f"{what}: nothing after 20 s; {len(self.events)} events, errors {self.errors!r}")

    def close(self):
        self.client.close()
        self.thread.join(10)


def read(name, partition, count, settle=0.3, **options):
    """Gives count events; more than that is an error."""
    r = Reader(partition, **options)
    r.wait(lambda: len(r.events) >= count or r.errors, name)
    time.sleep(settle)
    r.close()
    want(f"{name}: errors", r.errors, [])
    want(f"{name}: events", len(r.events), count)
    return r.events


def together(check, arguments):
    """Runs the checks at once; a partition lets five receivers of a group in."""
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(check, *a) for a in arguments]:
            done.result()


def properties():
    with producer() as p:
        hub = p.get_eventhub_properties()
        want("name", hub["eventhub_name"], "logs")
        want("partitions", hub["partition_ids"], ["0", "1", "2", "3"])
        want("created", abs(datetime.now(timezone.utc) - hub["created_at"]) < timedelta(minutes=5), True)
        part = p.get_partition_properties("3")
        want("empty", part["is_empty"], True)
        want("last", part["last_enqueued_sequence_number"], -1)
        try:
            p.get_partition_properties("9")
            sys.exit("properties of a partition that does not exist")
        except EventHubError:
            pass
    ok("properties")


def send_and_positions():
    with producer() as p:
        for text in "abcd":
            batch = p.create_batch(partition_id="0")
            event = EventData(text)
            event.properties = {"letter": text, "n": 7}
            event.message_id, event.content_type = "id-" + text, "text/plain"
            batch.add(event)
            p.send_batch(batch)
            time.sleep(0.005)
        want("max size", p.create_batch().max_size_in_bytes, 1048576)
    events = read("earliest", "0", 4)
    want("bodies", [e.body_as_str() for e in events], list("abcd"))
    want("sequence", [e.sequence_number for e in events], [0, 1, 2, 3])
    want("properties", [e.properties for e in events][1], {b"letter": b"b", b"n": 7})
    want("message id", events[1].message_id, "id-b")
    want("content type", events[1].content_type, "text/plain")
    b = events[1]

    def check(position, inclusive):
        text = "bcd" if inclusive else "cd"
        got = read(str(position), "0", len(text), starting_position=position, starting_position_inclusive=inclusive)
        want(f"{position}, inclusive {inclusive}", "".join(e.body_as_str() for e in got), text)

    together(check, [(p, i) for p in (b.offset, b.sequence_number, b.enqueued_time) for i in (False, True)])
    ok("positions")


def latest():
    r = Reader("1", starting_position="@latest", track_last_enqueued_event_properties=True, group="second")
    deadline = time.time() + 20
    with producer() as p:
        while not r.events and time.time() < deadline:
            p.send_event(EventData("later"), partition_id="1")
            time.sleep(0.2)
        r.wait(lambda: r.events, "latest")
        last = p.get_partition_properties("1")
    r.close()
    want("latest", r.events[0].body_as_str(), "later")
    want("runtime metric", r.properties["sequence_number"] <= last["last_enqueued_sequence_number"], True)
    want("runtime offset", isinstance(r.properties["offset"], str), True)
    ok("latest")


def keys():
    with producer() as p:
        before = [p.get_partition_properties(str(i))["last_enqueued_sequence_number"] for i in range(4)]
        for i in range(20):
            p.send_event(EventData(f"key-{i}"), partition_key=f"key-{i}")
        after = [p.get_partition_properties(str(i))["last_enqueued_sequence_number"] for i in range(4)]
    counts = [0, 0, 0, 0]
    for i in range(20):
        counts[int(abs(math.fmod(generate_hash_code(f"key-{i}"), 4)))] += 1
    want("partitions of keys", [a - b for a, b in zip(after, before)], counts)

    def check(i):
        events = [e for e in read("keys", str(i), after[i] + 1) if e.partition_key]
        want("keys", [e.partition_key.decode() for e in events], [e.body_as_str() for e in events])

    together(check, [(i,) for i in range(4)])
    ok("keys")


def large():
    with producer() as p:
        batch = p.create_batch(partition_id="2")
        already = p.get_partition_properties("2")["last_enqueued_sequence_number"] + 1
        sent = 0
        while True:
            try:
                batch.add(EventData(f"{sent:05d}" * 200))
            except ValueError:
                break
            sent += 1
        p.send_batch(batch)
        p.send_event(EventData("x" * 900_000), partition_id="2")
    events = read("large", "2", already + sent + 1)[already:]
    want("order", [e.body_as_str()[:5] for e in events[:-1]], [f"{i:05d}" for i in range(sent)])
    want("size", len(events[-1].body_as_str()), 900_000)
    ok("large")


def owner_level():
    first = Reader("0", owner_level=1)
    first.wait(lambda: first.events, "owner level 1")
    second = Reader("0", owner_level=2)
    second.wait(lambda: second.events, "owner level 2")
    first.wait(lambda: any("amqp:link:stolen" in str(e) for e in first.errors), "link lost to owner level 2")
    third = Reader("0", owner_level=1)
    third.wait(lambda: third.errors, "owner level 1 refused")
    want("refused", [], third.events)
    for r in (first, second, third):
        r.close()
    ok("owner level")


def refusals():
    with producer(wrong) as p:
        try:
            p.send_event(EventData("x"))
            sys.exit("a wrong key was accepted")
        except AuthenticationError:
            pass
    with producer(eventhub_name="absent", connection=conn.replace(";EntityPath=logs", "")) as p:
        try:
            p.send_event(EventData("x"))
            sys.exit("an absent hub was accepted")
        except ConnectError:
            pass
    ok("refusals")


for check in (properties, send_and_positions, latest, keys, large, owner_level, refusals):
    check()
