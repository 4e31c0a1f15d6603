import { describe, expect, test } from "vitest";
import type { ChatLine, LiveEvent } from "../src/live/messages";
import { EMPTY, type Input, type LiveState, reduce } from "../src/live/reducer";
import { refusal, stock, tick, welcome } from "./samples";

function after(...inputs: Input[]): LiveState {
  return inputs.reduce(reduce, EMPTY);
}

function line(id: string, text = "hi", user = "u-1"): ChatLine {
  return { id, user, name: user, role: "viewer", text };
}

function said(seq: number, text = "hello"): LiveEvent {
  return { k: "commentary", seq, at: 1, text };
}

describe("state values", () => {
  const newer = { "stock:7": stock({ version: 3, left: 4 }) };

  test("the newest version wins, whatever the order of arrival", () => {
    const older = { "stock:7": stock({ version: 2, left: 6 }) };
    const inOrder = after(welcome(), tick({ state: older }), tick({ state: newer }));
    const reversed = after(welcome(), tick({ state: newer }), tick({ state: older }));
    expect(inOrder.values).toEqual(reversed.values);
    expect(reversed.values.stocks[7]?.left).toBe(4);
  });

  test("a later epoch wins over a higher version", () => {
    const rebuilt = { "stock:7": stock({ epoch: 2, version: 1, left: 9 }) };
    const state = after(welcome({ state: newer }), tick({ state: rebuilt }));
    expect(state.values.stocks[7]?.left).toBe(9);
  });

  test("a snapshot drops vanished keys and never takes a value back", () => {
    const first = welcome({ state: { ...newer, "stock:8": stock({ sale: 8 }) } });
    const second = welcome({ state: { "stock:7": stock({ version: 1, left: 10 }) } });
    const { stocks } = after(first, second).values;
    expect(Object.keys(stocks)).toEqual(["7"]);
    expect(stocks[7]?.left).toBe(4);
  });

  test("keys of a later protocol are ignored", () => {
    const state = { poll: { epoch: 1, version: 1, total: 1 } };
    expect(after(welcome({ state })).values).toEqual(EMPTY.values);
  });

  test("a tick without news keeps the very same values", () => {
    const before = after(welcome({ state: newer }));
    expect(reduce(before, tick({ state: newer })).values).toBe(before.values);
  });
});

describe("host events", () => {
  test("are applied once and in order", () => {
    const state = after(welcome(), tick({ epoch: 100, events: [said(6), said(7)] }));
    const again = reduce(state, tick({ epoch: 100, events: [said(7), said(8)] }));
    expect(again.host.map((entry) => entry.seq)).toEqual([6, 7, 8]);
    expect(again.seq).toBe(8);
    expect(again.hole).toBe(false);
  });

  test("a hole is flagged and nothing behind it is shown", () => {
    const state = after(welcome(), tick({ epoch: 100, events: [said(7)] }));
    expect(state.hole).toBe(true);
    expect(state.host).toEqual([]);
    expect(state.seq).toBe(5);
  });

  test("events of another epoch are a hole", () => {
    expect(after(welcome(), tick({ epoch: 101, events: [said(1)] })).hole).toBe(true);
  });

  test("a recovered welcome brings what was missed, without a gap mark", () => {
    const back = welcome({ recovered: true, seq: 7, events: [said(6), said(7)] });
    const state = after(welcome(), back);
    expect(state.host.map((entry) => entry.k)).toEqual(["commentary", "commentary"]);
    expect(state.seq).toBe(7);
  });

  test("a fresh snapshot after a pause marks the gap", () => {
    const state = after(welcome(), welcome({ seq: 9 }));
    expect(state.host).toEqual([{ k: "gap", seq: 9 }]);
    expect(state.seq).toBe(9);
  });

  test("a fresh snapshot with nothing missed marks none", () => {
    expect(after(welcome(), welcome()).host).toEqual([]);
  });

  test("a recovered welcome that lacks events is treated as a gap", () => {
    const state = after(welcome(), welcome({ recovered: true, seq: 8, events: [said(8)] }));
    expect(state.host).toEqual([{ k: "gap", seq: 8 }]);
    expect(state.hole).toBe(false);
    expect(state.seq).toBe(8);
  });

  test("lines of a banned viewer disappear", () => {
    const chat = [line("a-1"), line("a-2", "buy fake", "u-9")];
    const gone: LiveEvent = { k: "user_removed", seq: 6, at: 1, user: "u-9" };
    const state = after(welcome({ chat }), tick({ epoch: 100, events: [gone] }));
    expect(state.chat.map((entry) => entry.key)).toEqual(["a-1"]);
  });

  test("a removed line disappears, the writer's others stay", () => {
    const chat = [line("a-1"), line("a-2", "buy fake"), line("a-3")];
    const gone: LiveEvent = { k: "line_removed", seq: 6, at: 1, line: "a-2" };
    const state = after(welcome({ chat }), tick({ epoch: 100, events: [gone] }));
    expect(state.chat.map((entry) => entry.key)).toEqual(["a-1", "a-3"]);
  });

  test("of a later protocol count, so that no hole is seen behind them", () => {
    const unknown = { k: "poll_opened", seq: 6, at: 1 } as unknown as LiveEvent;
    const state = after(welcome(), tick({ epoch: 100, events: [unknown, said(7)] }));
    expect(state).toMatchObject({ seq: 7, hole: false });
  });
});

describe("chat", () => {
  const signedIn: Input = {
    t: "accepted",
    ref: 1,
    hello: { user: "u-1", name: "小林", role: "viewer", expires_at: 0 },
  };
  const sent: Input = { t: "chat_sent", ref: 2, text: "冲!" };
  const taken: Input = { t: "accepted", ref: 2, chat: { id: "h-1", text: "冲!" } };
  const copy = tick({ chat: [line("h-1", "冲!")] });

  test("an own line is sending, sent when the server took it, shown when the room got it", () => {
    const sending = after(welcome(), signedIn, sent);
    expect(sending.chat).toMatchObject([{ own: "sending", line: { name: "小林", text: "冲!" } }]);
    const accepted = reduce(sending, taken);
    expect(accepted.chat).toMatchObject([{ key: "h-1", own: "sent" }]);
    expect(reduce(accepted, tick({ chat: [line("a-1")] })).chat[0]?.own).toBe("sent");
    expect(reduce(accepted, copy).chat).toMatchObject([{ key: "h-1", own: "shown" }]);
  });

  test("an own line that the room got before the reply is shown at once", () => {
    const state = after(welcome(), signedIn, sent, copy, taken);
    expect(state.chat).toMatchObject([{ key: "h-1", own: "shown" }]);
  });

  test("an own line that a tick left out is folded, until a later tick brings it", () => {
    const crowd = tick({ chat: [line("a-1")], folded: 3 });
    const folded = after(welcome(), signedIn, sent, taken, crowd);
    expect(folded.chat).toMatchObject([{ own: "folded" }, { own: null }]);
    expect(reduce(folded, copy).chat[0]?.own).toBe("shown");
  });

  test("a tick that folds others and brings the own line shows it", () => {
    const both = tick({ chat: [line("h-1", "冲!")], folded: 3 });
    expect(after(welcome(), signedIn, sent, taken, both).chat).toMatchObject([{ own: "shown" }]);
  });

  test("a snapshot that has an own line shows it", () => {
    const again = welcome({ chat: [line("h-1", "冲!")] });
    expect(after(welcome(), signedIn, sent, taken, again).chat).toMatchObject([{ own: "shown" }]);
  });

  test("a snapshot after a pause drops lines it lacks: they may have been removed", () => {
    const before = welcome({ chat: [line("a-1"), line("a-2", "buy fake")] });
    const unsent: Input[] = [{ t: "chat_sent", ref: 3, text: "还有吗" }, { t: "cut_off" }];
    const back = welcome({ seq: 9, chat: [line("a-1"), line("a-3")] });
    const state = after(before, signedIn, sent, taken, ...unsent, back);
    expect(state.chat.map((entry) => entry.key)).toEqual(["a-1", "a-3", "own:3"]);
  });

  test("a recovered welcome keeps the lines before it: it brings what was removed", () => {
    const before = welcome({ chat: [line("a-1"), line("a-2", "buy fake"), line("a-3")] });
    const gone: LiveEvent = { k: "line_removed", seq: 6, at: 1, line: "a-2" };
    const back = welcome({ recovered: true, seq: 6, events: [gone], chat: [line("a-4")] });
    expect(after(before, back).chat.map((entry) => entry.key)).toEqual(["a-1", "a-3", "a-4"]);
  });

  test("a refused line says why", () => {
    const muted = refusal("muted", { ref: 2 });
    const [entry] = after(welcome(), signedIn, sent, muted).chat;
    expect(entry?.own).toEqual({ refusal: muted });
  });

  test("a line without an answer is told unsent when the connection ends", () => {
    expect(after(welcome(), signedIn, sent, { t: "cut_off" }).chat).toMatchObject([
      { own: "unsent" },
    ]);
  });

  test("folded lines are counted", () => {
    expect(after(welcome(), tick({ folded: 3 }), tick({ folded: 4 })).folded).toBe(7);
  });

  test("the list is bounded", () => {
    const lines = Array.from({ length: 500 }, (_, i) => line(`x-${i}`));
    const state = after(welcome(), tick({ chat: lines }));
    expect(state.chat).toHaveLength(200);
    expect(state.chat.at(-1)?.key).toBe("x-499");
  });
});

test("inputs are never changed in place", () => {
  const before = after(welcome({ chat: [line("a-1")] }));
  const copy = structuredClone(before);
  reduce(before, tick({ chat: [line("a-2")], folded: 1, epoch: 100, events: [said(6)] }));
  expect(before).toEqual(copy);
});

describe("a refused sign-in", () => {
  const hello = { user: "u-1", name: "", role: "viewer", expires_at: 0 };
  const me: Input = { t: "accepted", ref: 1, hello };
  const turned = (name: string) =>
    after(welcome(), me, { t: "hello_refused", refusal: refusal(name) }).me;

  test.each(["token_expired", "banned"])("as %s ends it", (name) => {
    expect(turned(name)).toBeNull();
  });

  test.each(["rate_limited", "internal", "other_user"])("as %s leaves it", (name) => {
    expect(turned(name)).toEqual(hello);
  });
});
