// Judges the emulator with the official JavaScript SDK (@azure/event-hubs).
//
// Usage: node judge.js SDK CONNECTION_STRING CONNECTION_STRING_WITH_WRONG_KEY
//
// SDK is the path of the package's main module. The hub has four empty partitions
// and a consumer group "second". Each check prints "ok NAME"; the first one that
// fails ends the program.
"use strict";

const { isDeepStrictEqual, inspect } = require("node:util");
const { setTimeout: sleep } = require("node:timers/promises");

const [sdk, conn, wrong] = process.argv.slice(2);
const { EventHubConsumerClient, EventHubProducerClient, EventHubBufferedProducerClient,
  earliestEventPosition, latestEventPosition } = require(sdk);

const retryOptions = { maxRetries: 0, timeoutInMs: 10000 };
const began = Date.now();
const open = new Set();

function want(name, got, expected) {
  if (!isDeepStrictEqual(got, expected)) {
    throw new Error(`${name}: got ${inspect(got)}, want ${inspect(expected)}`);
  }
}

function kept(client) {
  open.add(client);
  return client;
}

const producer = (connection = conn, ...rest) =>
  kept(new EventHubProducerClient(connection, ...rest, { retryOptions }));
const consumer = (group = "$Default") => kept(new EventHubConsumerClient(group, conn, { retryOptions }));

async function shut(client) {
  open.delete(client);
  await client.close();
}

// refused waits for the error of what must not succeed.
async function refused(name, code, promise) {
  try {
    await promise;
  } catch (e) {
    if (e.code !== code) throw new Error(`${name}: refused with ${e.code} (${e.message}), want ${code}`);
    return;
  }
  throw new Error(`${name}: not refused`);
}

// Reader receives from one partition.
class Reader {
  constructor(partition, { group, position = earliestEventPosition, ...options } = {}) {
    this.events = [];
    this.errors = [];
    this.closed = undefined; // the reason, once the SDK has given the partition up
    this.client = consumer(group);
    this.subscription = this.client.subscribe(partition, {
      processEvents: async (events, context) => {
        this.events.push(...events);
        this.last = context.lastEnqueuedEventProperties;
      },
      processError: async (e) => void this.errors.push(e),
      processClose: async (reason) => void (this.closed = reason),
    }, { startPosition: position, maxBatchSize: 500, maxWaitTimeInSeconds: 0.1, ...options });
  }

  async wait(what, predicate) {
    for (const end = Date.now() + 20000; !predicate(); await sleep(5)) {
      if (Date.now() > end) {
        throw new Error(`${what}: nothing after 20 s; ${this.events.length} events, errors ${inspect(this.errors)}`);
      }
    }
  }

  async close() {
    await this.subscription.close();
    await shut(this.client);
  }
}

// read gives count events; more than that is an error.
async function read(name, partition, count, options) {
  const r = new Reader(partition, options);
  await r.wait(name, () => r.events.length >= count || r.errors.length > 0);
  await sleep(200);
  await r.close();
  want(`${name}: errors`, r.errors, []);
  want(`${name}: events`, r.events.length, count);
  return r.events;
}

async function properties() {
  const p = producer();
  const hub = await p.getEventHubProperties();
  want("name", hub.name, "logs");
  want("partitions", hub.partitionIds, ["0", "1", "2", "3"]);
  want("created", Math.abs(Date.now() - hub.createdOn) < 5 * 60 * 1000, true);
  want("replication", hub.isGeoReplicationEnabled ?? false, false);
  want("ids", await p.getPartitionIds(), hub.partitionIds);
  const part = await p.getPartitionProperties("3");
  want("empty", [part.isEmpty, part.lastEnqueuedSequenceNumber, part.lastEnqueuedOffset], [true, -1, "-1"]);
  await refused("properties of partition 9", "ArgumentOutOfRangeError", p.getPartitionProperties("9"));
  await shut(p);
}

async function positions() {
  const p = producer();
  for (const text of ["a", "b", "c", "d"]) {
    const batch = await p.createBatch({ partitionId: "0" });
    want("room", batch.tryAdd({ body: text, properties: { letter: text, n: 7 }, messageId: "id-" + text, contentType: "text/plain" }), true);
    await p.sendBatch(batch);
    await sleep(5);
  }
  want("max size", (await p.createBatch()).maxSizeInBytes, 1048576);
  await shut(p);
  const events = await read("earliest", "0", 4);
  want("bodies", events.map((e) => e.body), ["a", "b", "c", "d"]);
  want("sequence", events.map((e) => e.sequenceNumber), [0, 1, 2, 3]);
  want("properties", events[1].properties, { letter: "b", n: 7 });
  want("message id", [events[1].messageId, events[1].contentType], ["id-b", "text/plain"]);
  want("partition key", events[1].partitionKey ?? null, null);
  const b = events[1];
  const fields = { offset: b.offset, sequenceNumber: b.sequenceNumber, enqueuedOn: b.enqueuedTimeUtc };
  await Promise.all(Object.entries(fields).map(async ([field, value]) => {
    const inclusive = field !== "enqueuedOn"; // the SDK knows no inclusive time
    for (const isInclusive of inclusive ? [false, true] : [false]) {
      const letters = isInclusive ? "bcd" : "cd";
      const got = await read(field, "0", letters.length, { position: { [field]: value, isInclusive } });
      want(`${field}, inclusive ${isInclusive}`, got.map((e) => e.body).join(""), letters);
    }
  }));
}

async function latest() {
  const p = producer();
  const r = new Reader("1", { group: "second", position: latestEventPosition, trackLastEnqueuedEventProperties: true });
  for (const end = Date.now() + 20000; r.events.length === 0 && Date.now() < end; await sleep(100)) {
    await p.sendBatch([{ body: "later" }], { partitionId: "1" });
  }
  await r.wait("latest", () => r.events.length > 0);
  const last = await p.getPartitionProperties("1");
  await r.close();
  want("latest", r.events[0].body, "later");
  want("runtime metric", r.last.sequenceNumber <= last.lastEnqueuedSequenceNumber, true);
  want("runtime types", [typeof r.last.offset, r.last.enqueuedOn instanceof Date], ["string", true]);
  await shut(p);
}

// bodies: whatever AMQP can say comes back as it was sent.
async function bodies() {
  const p = producer();
  const before = (await p.getPartitionProperties("3")).lastEnqueuedSequenceNumber + 1;
  const when = new Date(1732320000123);
  const sent = [
    { body: "text äöü €" },
    { body: { nested: { list: [1, "two", null] } } },
    { body: [1, 2, 3] },
    { body: 42.5 },
    { body: null },
    { body: Buffer.from([0, 1, 254, 255]) },
    { body: "bare", properties: { s: "ä", i: -5, big: 2 ** 40, f: 1.5, yes: true, no: false, when, nothing: null } },
  ];
  await p.sendBatch(sent, { partitionId: "3" });
  // Annotated messages: the body is an AMQP value, a sequence, or data.
  const annotated = [
    { body: { map: "value" }, bodyType: "value" },
    { body: 7, bodyType: "value" },
    { body: [["a", 1], ["b", 2]], bodyType: "sequence" },
    {
      body: Buffer.from("data"), bodyType: "data", header: { durable: true, priority: 7, timeToLive: 60000 },
      footer: { "x-end": "f" }, messageAnnotations: { "x-mine": "m" }, applicationProperties: { p: 1 },
      properties: { messageId: 9, correlationId: "c", subject: "s", to: "t", replyTo: "r", groupId: "g", contentType: "text/plain",
        contentEncoding: "gzip", creationTime: when.getTime(), absoluteExpiryTime: when.getTime() + 60000, groupSequence: 5, replyToGroupId: "rg" },
    },
  ];
  for (const message of annotated) await p.sendBatch([message], { partitionId: "3" });
  await shut(p);
  const events = (await read("bodies", "3", before + sent.length + annotated.length)).slice(before);
  sent.forEach((e, i) => want(`body ${i}`, events[i].body, e.body));
  // A date comes back as one; the SDK shows it as milliseconds.
  want("properties", events[6].properties, { ...sent[6].properties, when: when.getTime() });
  annotated.forEach((m, i) => {
    const got = events[sent.length + i].getRawAmqpMessage();
    // The SDK leaves a sequence in the section that it came in.
    want(`body of annotated ${i}`, [got.bodyType, got.body?.content ?? got.body], [m.bodyType, m.body]);
  });
  const got = events.at(-1).getRawAmqpMessage();
  const full = annotated[3];
  for (const name of ["durable", "priority", "timeToLive"]) want(`header ${name}`, got.header[name], full.header[name]);
  for (const [name, value] of Object.entries(full.properties)) want(`property ${name}`, got.properties[name], value);
  want("footer", got.footer, full.footer);
  want("annotation", got.messageAnnotations["x-mine"], "m");
  want("application properties", got.applicationProperties, full.applicationProperties);
}

async function keys() {
  const p = producer();
  const lasts = () => Promise.all([0, 1, 2, 3].map(async (i) => (await p.getPartitionProperties(`${i}`)).lastEnqueuedSequenceNumber));
  const before = await lasts();
  const names = Array.from({ length: 20 }, (_, i) => `key-${i}`);
  for (const key of names) await p.sendBatch([{ body: key }], { partitionKey: key });
  for (const key of names) {
    const batch = await p.createBatch({ partitionKey: key });
    batch.tryAdd({ body: key });
    await p.sendBatch(batch);
  }
  const after = await lasts();
  await shut(p);
  // The buffered producer chooses the partition itself and sends no key: it must
  // agree on the partition.
  const buffered = kept(new EventHubBufferedProducerClient(conn, { retryOptions, onSendEventsErrorHandler: ({ error }) => { throw error; } }));
  for (const key of names) await buffered.enqueueEvent({ body: key }, { partitionKey: key });
  await shut(buffered); // it sends what it holds first
  const home = {};
  await Promise.all([0, 1, 2, 3].map(async (i) => {
    const events = await read("keys", `${i}`, after[i] + 1 + (after[i] - before[i]) / 2);
    for (const e of events.slice(before[i] + 1)) {
      want("key", e.partitionKey ?? null, e.sequenceNumber <= after[i] ? e.body : null);
      (home[e.body] ??= []).push(i);
    }
  }));
  for (const key of names) want(`partitions of ${key}`, home[key], Array(3).fill(home[key]?.[0]));
}

async function large() {
  const p = producer();
  const already = (await p.getPartitionProperties("2")).lastEnqueuedSequenceNumber + 1;
  const batch = await p.createBatch({ partitionId: "2" });
  while (batch.tryAdd({ body: String(batch.count).padStart(5, "0").repeat(200) }));
  await p.sendBatch(batch);
  await p.sendBatch([{ body: Buffer.alloc(900000, "x") }], { partitionId: "2" });
  await refused("an event above the limit", "MessageTooLargeError", p.sendBatch([{ body: Buffer.alloc(1100000) }], { partitionId: "2" }));
  await shut(p);
  const events = (await read("large", "2", already + batch.count + 1)).slice(already);
  want("order", events.slice(0, -1).map((e) => Number(e.body.slice(0, 5))), Array.from({ length: batch.count }, (_, i) => i));
  want("size", events.at(-1).body.length, 900000);
}

async function ownerLevel() {
  const first = new Reader("0", { ownerLevel: 1 });
  await first.wait("owner level 1", () => first.events.length > 0);
  const second = new Reader("0", { ownerLevel: 2 });
  await second.wait("owner level 2", () => second.events.length > 0);
  await first.wait("partition lost to owner level 2", () => first.closed);
  want("reason", first.closed, "OwnershipLost");
  const third = new Reader("0", { ownerLevel: 1 });
  await third.wait("owner level 1 refused", () => third.errors.length > 0 || third.closed);
  want("events of the refused", third.events.length, 0);
  want("error of the refused", third.errors.map((e) => e.code), ["ReceiverDisconnectedError"]);
  await Promise.all([first, second, third].map((r) => r.close()));
}

async function refusals() {
  let p = producer(wrong);
  await refused("a wrong key", "UnauthorizedError", p.sendBatch([{ body: "x" }]));
  await refused("a wrong key for management", "UnauthorizedError", p.getEventHubProperties());
  await shut(p);
  p = producer(conn.replace(";EntityPath=logs", ""), "absent");
  await refused("an absent hub", "MessagingEntityNotFoundError", p.sendBatch([{ body: "x" }]));
  await shut(p);
  p = producer();
  await refused("an absent partition", "ArgumentOutOfRangeError", p.sendBatch([{ body: "x" }], { partitionId: "4" }));
  await shut(p);
}

// cleanClose: no connection is left. (The SDK leaves timers behind, so the program
// does not end by itself before they do.)
async function cleanClose() {
  want("open clients", open.size, 0);
  const sockets = () => process.getActiveResourcesInfo().filter((name) => name.startsWith("TCP"));
  for (const end = Date.now() + 2000; sockets().length > 0 && Date.now() < end; await sleep(5));
  want("open sockets", sockets(), []);
}

async function main() {
  const checks = { properties, positions, latest, bodies, keys, large, "owner level": ownerLevel, refusals, "clean close": cleanClose };
  for (const [name, check] of Object.entries(checks)) {
    await check();
    console.log(`ok ${name}\n   after ${((Date.now() - began) / 1000).toFixed(1)} s`);
  }
}

main().then(() => process.exit(0)).catch((e) => {
  console.error(e.stack ?? e);
  process.exit(1);
});
