import { expect, test } from "vitest";
import { ServerClock } from "../src/live/clock";

function manual() {
  const local = { now: 1_000 };
  return { local, clock: new ServerClock(() => local.now) };
}

test("the sample with the least round trip wins", () => {
  const { local, clock } = manual();
  local.now = 2_000;
  clock.sample(1_000, 51_400); // took 1,000 ms: off by up to 500
  local.now = 2_100;
  clock.sample(2_090, 52_095); // took 10 ms: local 2,095 is server 52,095
  local.now = 3_000;
  clock.sample(2_500, 52_600);
  expect(clock.now()).toBe(53_000);
});

test("a frame's own time serves until a round trip is known", () => {
  const { local, clock } = manual();
  expect(clock.synced).toBe(false);
  clock.seed(10_000);
  local.now = 1_250;
  expect(clock.now()).toBe(10_250);
  clock.sample(1_200, 10_500);
  expect(clock.now()).toBe(10_525);
});

test("old samples make room: the local clock drifts", () => {
  const { local, clock } = manual();
  clock.sample(999, 5_000);
  local.now = 1_000 + 6 * 60_000;
  clock.sample(local.now - 200, 365_500);
  expect(clock.now()).toBe(365_600);
});

test("a reply from before the local clock was set is dropped", () => {
  const { clock } = manual();
  clock.sample(5_000, 1);
  expect(clock.synced).toBe(false);
});

test("a sample that contradicts the others means the local clock slept", () => {
  const { local, clock } = manual();
  clock.sample(999, 5_000);
  local.now = 2_000; // an hour went by on the server, one second here
  clock.sample(1_900, 3_606_000);
  expect(clock.now()).toBe(3_606_050);
});
