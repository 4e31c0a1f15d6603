import { readFileSync } from "node:fs";
import { decode as unpack } from "@msgpack/msgpack";
import { describe, expect, test } from "vitest";
import { jsonCodec, msgpackCodec } from "../src/live/codec";
import type { Command, Time } from "../src/live/messages";

interface Vector {
  name: string;
  from: "client" | "server";
  value: Command;
  msgpack: string;
  json: string;
}

const file = new URL("../../tests/vectors/messages.json", import.meta.url);
const vectors = (JSON.parse(readFileSync(file, "utf8")) as { vectors: Vector[] }).vectors;
const fromClient = vectors.filter((vector) => vector.from === "client");
const fromServer = vectors.filter((vector) => vector.from === "server");

function bytes(hex: string): ArrayBuffer {
  return Uint8Array.from(Buffer.from(hex, "hex")).buffer;
}

describe.each(fromClient)("command $name", ({ value, msgpack, json }) => {
  const encoded = Buffer.from(msgpackCodec.encode(value) as Uint8Array);

  test("means the recorded value in both codecs", () => {
    expect(unpack(encoded)).toEqual(unpack(Buffer.from(msgpack, "hex")));
    expect(JSON.parse(jsonCodec.encode(value) as string)).toEqual(JSON.parse(json));
  });

  // JavaScript does not tell 0.0 from 0: whole floats take the shorter integer form.
  test.skipIf(Number.isInteger((value as Time).sent_at))("has the recorded bytes", () => {
    expect(encoded.toString("hex")).toBe(msgpack);
    expect(jsonCodec.encode(value)).toBe(json);
  });
});

describe.each(fromServer)("message $name", ({ value, msgpack, json }) => {
  test("is decoded the same from both codecs", () => {
    expect(msgpackCodec.decode(bytes(msgpack))).toEqual(jsonCodec.decode(json));
  });

  test("has the recorded value", () => {
    expect(value).toMatchObject(msgpackCodec.decode(bytes(msgpack)) as object);
  });
});

test("there are vectors of both directions", () => {
  expect(fromClient.length).toBeGreaterThanOrEqual(6);
  expect(fromServer.length).toBeGreaterThanOrEqual(6);
});

test("a message of a later protocol is skipped, not an error", () => {
  expect(jsonCodec.decode('{"t":"poll","question":"?"}')).toBeNull();
});

test.each(["[]", "3", "null"])("%s is no message", (text) => {
  expect(() => jsonCodec.decode(text)).toThrow(TypeError);
});

test("a frame of the other kind is refused", () => {
  expect(() => msgpackCodec.decode("{}")).toThrow(TypeError);
  expect(() => jsonCodec.decode(bytes("80"))).toThrow(TypeError);
});

test("absent optional fields of a command are left out", () => {
  const like: Command = { t: "like", taps: 3 };
  expect(jsonCodec.encode(like)).toBe('{"t":"like","taps":3}');
});
